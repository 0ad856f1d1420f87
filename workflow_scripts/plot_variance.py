"""Plot how the heads' variance is distributed in each section of the benchmark (Fig 6)."""

from dataclasses import dataclass
from pathlib import Path

from prudent import tables
from prudent.figures.style import save
from prudent.figures.variance import draw_variance
from prudent.rewards import rewardbench
from prudent.workflow import entry


@dataclass
class Args:
    scores: Path
    png: Path
    pdf: Path


def main(args: Args) -> None:
    rows = rewardbench.variance_rows(tables.read_table(args.scores, "scores"))
    save(draw_variance(rows), args.png, args.pdf)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
