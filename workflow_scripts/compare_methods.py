"""Compare the methods: scores of all policies, tests, and a page that says what they show."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prudent import tables
from prudent.analysis.policies import (
    comparison_table,
    policy_table,
    read_judgement,
    read_judgements,
    read_logs,
    summary_table,
    with_comparisons,
)
from prudent.figures import page
from prudent.seeding import derive_seed
from prudent.workflow import entry


@dataclass
class Args:
    reference: Path
    judgements: list[Path]
    training_logs: list[Path]
    diagnosis: Path
    accuracy: Path
    variance: Path
    policies: Path
    summary: Path
    tests: Path
    page: Path
    methods: list[str]
    seeds: list[int]
    baseline: str
    ensembles: int
    heads: int
    bootstrap: int
    seed: int


def main(args: Args) -> None:
    reference = read_judgement(args.reference)
    judged = read_judgements(args.judgements, args.methods, args.seeds)
    logs = read_logs(args.training_logs, args.methods, args.seeds)
    policies = policy_table(judged, logs, reference, args.ensembles, args.heads)
    scores = {
        method: np.stack([judged[method, seed]["score"] for seed in args.seeds])
        for method in args.methods
    }
    summary = summary_table(policies, scores, reference["score"])
    tests = comparison_table(
        policies, args.baseline, args.bootstrap, derive_seed(args.seed, "bootstrap")
    )
    tables.write_csv(policies, args.policies)
    tables.write_csv(with_comparisons(summary, tests), args.summary)
    tables.write_csv(tests, args.tests)
    named = {"diagnosis": args.diagnosis, "accuracy": args.accuracy, "variance": args.variance}
    others = (tables.read_csv(path, schema) for schema, path in named.items())
    tables.write_text(page.render(policies, summary, tests, *others), args.page)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
