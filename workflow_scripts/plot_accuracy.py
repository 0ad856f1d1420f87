"""Plot the accuracy of the base model, the heads and their mean (Fig 9)."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from prudent import entry, figures


@dataclass
class Args:
    accuracy: Path
    png: Path
    pdf: Path


def main(args: Args) -> None:
    figures.save(figures.accuracy(pd.read_csv(args.accuracy)), args.png, args.pdf)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
