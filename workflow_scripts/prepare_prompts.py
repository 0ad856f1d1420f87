"""Writes the prompts of the policies: the first few tokens of texts, with their data card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prudent.data.build import build_prompts, save
from prudent.workflow import entry


@dataclass
class Args:
    reference: Path
    prompts: Path
    card: Path
    settings: dict[str, Any]
    bad_rows: str
    seed: int


def main(args: Args) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.reference)
    frame, card = build_prompts(args.settings, tokenizer, args.bad_rows, args.seed)
    save(frame, card, "prompts", args.prompts, args.card)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
