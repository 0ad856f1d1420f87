"""Writes the prompts of the policies: the first few tokens of texts, with their data card."""

from dataclasses import dataclass
from pathlib import Path

from prudent.checkpoints import load_tokenizer
from prudent.data.settings import PromptSettings
from prudent.data.table import save
from prudent.data.texts import build_prompts
from prudent.workflow import entry


@dataclass
class Args:
    reference: Path  # checkpoint whose tokenizer cuts the prompts
    prompts: Path  # table, written
    card: Path  # data card, written
    settings: PromptSettings  # section `prompts` of the configuration
    bad_rows: str  # refuse or drop
    seed: int  # of the study


def main(args: Args) -> None:
    tokenizer = load_tokenizer(args.reference)
    frame, card = build_prompts(args.settings, tokenizer, args.bad_rows, args.seed)
    save(frame, card, "prompts", args.prompts, args.card)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
