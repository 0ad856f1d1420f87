"""Compare the methods: the scores of all policies, a summary of each method, and tests."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from prudent import tables
from prudent.analysis.components import component_table
from prudent.analysis.policies import (
    comparison_table,
    policy_table,
    read_judgement,
    read_judgements,
    summary_table,
    target_table,
    variance_elasticity,
    with_comparisons,
)
from prudent.analysis.statistics import evaluation_noise
from prudent.policies.target_kl import read_calibration
from prudent.seeding import derive_seed
from prudent.workflow import entry


@dataclass
class Args:
    reference: Path  # judged responses of the reference policy
    frontier: Path  # optimal policies of the methods
    judgements: list[Path]  # the judged responses, a file for each method
    policies: Path  # table, written
    summary: Path  # table, written
    tests: Path  # table, written
    components: Path  # table of where the variance comes from, written
    methods: list[str]  # in the order of the tables
    seeds: list[int]  # of the policies
    units: dict[str, str]  # of each method, member or ensemble
    controls: list[str]  # methods that no claim is made for
    betas: dict[str, float | None]  # coefficient of each method, where it is given
    baseline: str  # method that the others are compared with
    ensembles: int  # number of them
    heads: int  # of an ensemble
    permutations: int  # of the permutation test, where all are too many
    seed: int  # of the study
    calibrations: list[Path] = field(default_factory=list)  # of the methods without one, in order


def main(args: Args) -> None:
    reference = read_judgement(args.reference)
    judged = read_judgements(args.judgements, args.methods, args.seeds)
    policies = policy_table(judged, reference, args.ensembles, args.heads, args.units)
    searched = [method for method in args.methods if args.betas[method] is None]
    found = map(read_calibration, args.calibrations)
    targets = target_table(policies, args.betas, dict(zip(searched, found, strict=True)))
    policies = policies.merge(targets, on="method", how="left")
    scores = {
        method: np.stack([judged[method, seed]["score"] for seed in args.seeds])
        for method in args.methods
    }
    summary = summary_table(policies, scores, reference["score"])
    summary = summary.merge(targets, on="method", how="left")
    summary["control"] = np.where(summary["method"].isin(args.controls), "yes", "no")
    frontier = tables.read_table(args.frontier, "exact_frontier")
    kl = policies.loc[policies["method"] == args.baseline, "kl"].mean()
    tests = comparison_table(
        policies,
        args.baseline,
        args.permutations,
        derive_seed(args.seed, "permutations"),
        variance_elasticity(frontier, args.baseline, kl),
    )
    noise = {
        method: (evaluation_noise(values), (values.shape[0] - 1) * (values.shape[1] - 1))
        for method, values in scores.items()
    }
    components = component_table(policies, noise)
    tables.write_csv(components, args.components, "components")
    tables.write_csv(policies, args.policies, "policies")
    tables.write_csv(with_comparisons(summary, tests), args.summary, "summary")
    tables.write_csv(tests, args.tests, "tests")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
