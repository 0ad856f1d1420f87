"""Tabulates the heads' accuracy and disagreement on the benchmark (Figs 6 and 9's numbers)."""

from dataclasses import dataclass
from pathlib import Path

from prudent import tables
from prudent.rewards import rewardbench
from prudent.workflow import entry


@dataclass
class Args:
    scores: Path  # rewards of the benchmark
    accuracy: Path  # table, written
    variance: Path  # table, written


def main(args: Args) -> None:
    scores = tables.read_table(args.scores, "scores")
    tables.write_csv(rewardbench.accuracy_table(scores), args.accuracy, "accuracy")
    tables.write_csv(rewardbench.variance_table(scores), args.variance, "variance")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
