"""Audit the members of the first draw on the benchmark, as ``prudent audit`` does with a file."""

from dataclasses import dataclass
from pathlib import Path

from prudent.audit.command import write_audit
from prudent.audit.scores import scores_of_draw
from prudent.tables import read_table
from prudent.workflow import entry


@dataclass
class Args:
    scores: Path  # table of every member's rewards
    benchmark: Path  # table of pairs
    page: Path  # written
    table: Path  # CSV, written
    numbers: Path  # JSON, written
    scenario: str  # its name
    ensemble: str  # name of the ensemble whose rewards these are
    seed: int  # of the study


def main(args: Args) -> None:
    scores, benchmark = (read_table(getattr(args, name), name) for name in ("scores", "benchmark"))
    found = scores_of_draw(scores, benchmark)
    places = args.page, args.table, args.numbers
    inputs = {"scores": args.scores, "benchmark": args.benchmark}
    facts = {"scenario": args.scenario, "ensemble": f"{args.ensemble}, its first draw"}
    print(*write_audit(found, *places, inputs, args.seed, **facts), sep="\n")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
