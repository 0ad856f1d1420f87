"""Plot the distribution of the policies' judge scores (Fig 7)."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from prudent.figures.scores import draw_scores
from prudent.figures.style import save
from prudent.workflow import entry


@dataclass
class Args:
    policies: Path
    reference: Path
    png: Path
    pdf: Path
    methods: list[str]


def main(args: Args) -> None:
    reference = pd.read_parquet(args.reference)["score"]
    figure = draw_scores(pd.read_csv(args.policies), reference, args.methods)
    save(figure, args.png, args.pdf)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
