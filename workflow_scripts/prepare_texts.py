"""Writes the texts that the reference policy is trained on, with their data card."""

from dataclasses import dataclass
from pathlib import Path

from prudent.data.settings import TextSettings
from prudent.data.table import save
from prudent.data.texts import build_texts
from prudent.workflow import entry


@dataclass
class Args:
    texts: Path  # table, written
    card: Path  # data card, written
    settings: TextSettings  # section `texts` of the configuration
    bad_rows: str  # refuse or drop
    seed: int  # of the study


def main(args: Args) -> None:
    frame, card = build_texts(args.settings, args.bad_rows, args.seed)
    save(frame, card, "texts", args.texts, args.card)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
