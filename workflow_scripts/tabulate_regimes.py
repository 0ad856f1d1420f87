"""What each method is worth in each cell of the grid, against the baseline and its controls."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from prudent.exact.regimes import regime_table
from prudent.tables import read_table, write_csv
from prudent.workflow import entry


@dataclass
class Args:
    policies: list[Path]  # tables of optimal policies
    table: Path  # written
    baseline: str  # method that the others are held against
    controls: dict[str, list[str]]  # of each method, by name
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    policies = pd.concat([read_table(path, "regime_policies") for path in args.policies])
    table = regime_table(policies, args.baseline, args.controls)
    write_csv(table, args.table, "regimes")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
