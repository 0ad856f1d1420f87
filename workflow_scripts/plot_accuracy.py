"""Plot the accuracy of the base model, the heads and their mean (Fig 9)."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from prudent.figures.accuracy import draw_accuracy
from prudent.figures.style import save
from prudent.workflow import entry


@dataclass
class Args:
    accuracy: Path
    png: Path
    pdf: Path


def main(args: Args) -> None:
    save(draw_accuracy(pd.read_csv(args.accuracy)), args.png, args.pdf)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
