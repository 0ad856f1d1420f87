"""Writes the benchmark's pairs, with their data card."""

from dataclasses import dataclass
from pathlib import Path

from prudent.data.benchmark import build_benchmark
from prudent.data.settings import BenchmarkSettings
from prudent.data.table import save
from prudent.workflow import entry


@dataclass
class Args:
    benchmark: Path  # table, written
    card: Path  # data card, written
    settings: BenchmarkSettings  # section `benchmark` of the configuration
    bad_rows: str  # refuse or drop
    seed: int  # of the study


def main(args: Args) -> None:
    frame, card = build_benchmark(args.settings, args.bad_rows, args.seed)
    save(frame, card, "benchmark", args.benchmark, args.card)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
