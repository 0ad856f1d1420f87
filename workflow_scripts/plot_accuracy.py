"""Plot the accuracy of the base model, the heads and their mean (Fig 9)."""

from dataclasses import dataclass
from pathlib import Path

from prudent.figures.accuracy import draw_accuracy
from prudent.figures.style import save
from prudent.tables import read_csv
from prudent.workflow import entry


@dataclass
class Args:
    accuracy: Path
    png: Path
    pdf: Path


def main(args: Args) -> None:
    save(draw_accuracy(read_csv(args.accuracy, "accuracy")), args.png, args.pdf)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
