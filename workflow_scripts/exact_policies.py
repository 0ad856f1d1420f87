"""The optimal policies of all methods, for many ensembles, and what they say of the methods."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prudent.exact.evaluate import best_of_n, check_sizes, compare, levels_of, methods_of
from prudent.exact.scores import fresh_heads, load_scores
from prudent.exact.summary import summary_table
from prudent.rewards.features import check_features, load_features
from prudent.rewards.last_layer import LastLayer
from prudent.rewards.settings import HeadSettings
from prudent.tables import read_table, write_csv, write_parquet
from prudent.workflow import entry, objectives


@dataclass
class Args:
    samples: Path  # table of responses
    scores: Path  # what the judge and the rewards say of them
    policies: Path  # table, written
    summary: Path  # table, written
    best: Path  # table of best-of-n policies, written
    methods: dict[str, dict[str, Any]]  # objective, parameters, spread, unit, control of each
    kl: list[float]  # at which the methods are compared
    ensembles: int  # of fresh heads
    size: int  # members of the ensemble
    baseline: str  # method that the others are compared with
    seed: int  # of the study
    heads: HeadSettings | None = None  # where fresh heads are to be made
    base: Path | None = None  # base reward model, of fresh heads or a last layer
    features: Path | None = None  # of the pairs, by the base reward model
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    table = read_table(args.samples, "exact_samples")
    per_prompt = len(table) // table["prompt"].nunique()
    scores = load_scores(args.scores, len(table))
    truth = scores.judge.reshape(-1, per_prompt)
    given, last_layer = scores.draws, None
    if args.features is not None:
        check_features(args.features, args.base)
        pairs = load_features(args.features, scores.features.shape[1])
        last_layer = LastLayer(pairs.differences("train"))
        if args.heads:
            given = list(
                fresh_heads(
                    *(args.base, pairs, scores.features),
                    *(args.heads, args.size, args.seed, args.ensembles),
                )
            )
    levels = levels_of(given, scores.anew, per_prompt)
    policies = compare(
        methods_of(args.methods, objectives.load),
        levels,
        truth,
        args.kl,
        args.seed,
        last_layer,
    )
    check_sizes(policies, args.baseline, per_prompt)
    summary = summary_table(policies, args.baseline)
    controls = [name for name, said in args.methods.items() if said["control"]]
    summary.insert(3, "control", np.where(summary["method"].isin(controls), "yes", "no"))
    write_parquet(policies, args.policies, "exact_policies")
    write_csv(summary, args.summary, "exact_summary")
    write_csv(best_of_n(levels, truth), args.best, "best_of")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
