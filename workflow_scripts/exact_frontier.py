"""The optimal policies of the trained methods over the KL, of the draws and members of theirs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prudent.exact.evaluate import frontiers, methods_of
from prudent.exact.scores import load_scores
from prudent.rewards.last_layer import LastLayer
from prudent.tables import read_table, write_parquet
from prudent.workflow import entry, objectives


@dataclass
class Args:
    samples: Path  # table of responses
    scores: Path  # what the judge and the rewards say of them
    frontier: Path  # table, written
    methods: dict[str, dict[str, Any]]  # objective, parameters, spread, unit of each
    pairs: list[list[int]]  # draw and member of each of a method's policies
    seed: int  # of the study
    base: Path | None = None  # base reward model, of a last layer
    features: Path | None = None  # of the pairs, by the base reward model
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    table = read_table(args.samples, "exact_samples")
    per_prompt = len(table) // table["prompt"].nunique()
    scores = load_scores(args.scores, len(table))
    last_layer = None
    if args.features is not None:
        last_layer = LastLayer.load(args.base, args.features)
    found = frontiers(
        methods_of(args.methods, objectives.load),
        scores.draws,
        [(draw, head) for draw, head in args.pairs],
        scores.judge.reshape(-1, per_prompt),
        args.seed,
        last_layer,
    )
    write_parquet(found, args.frontier, "exact_frontier")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
