"""The theory of arXiv 2410.23726: what it prints beside what it is, and curves for its figures."""

from dataclasses import dataclass
from pathlib import Path

from prudent.analysis.theory_checks import study
from prudent.tables import write_csv, write_parquet
from prudent.workflow import entry


@dataclass
class Args:
    table: Path  # written: what is printed beside what it is
    curves: Path  # written: what the figures draw
    seed: int  # of the simulations


def main(args: Args) -> None:
    table, curves = study(args.seed)
    write_csv(table, args.table, "claims")
    write_parquet(curves, args.curves, "theory_curves")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
