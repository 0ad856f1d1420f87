"""What may be said of each method, by the rule that was stated before."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from prudent import tables
from prudent.analysis.preregistration import read_preregistration
from prudent.analysis.sentences import verdicts
from prudent.analysis.verdict import (
    ANEW,
    GIVEN,
    TRAINED,
    comparisons,
    of_optima,
    of_trained,
)
from prudent.seeding import derive_seed
from prudent.workflow import entry

logger = logging.getLogger(__name__)


@dataclass
class Args:
    stated: Path  # the rule
    exact: Path  # table of optimal policies
    verdict: Path  # written
    policies: Path | None = None  # table of trained policies
    summary: Path | None = None  # table of the methods that are trained
    tests: Path | None = None  # table
    logs: list[Path] = field(default_factory=list)  # of the trainings, as old as the policies


def main(args: Args) -> None:
    stated = read_preregistration(args.stated)
    optima = tables.read_table(args.exact, "exact_policies")
    seed = derive_seed(stated.seed, "permutations")
    found = []
    for level in (GIVEN, ANEW):
        if (scores := of_optima(optima, level, stated.kl)) is not None:
            found.append(comparisons(scores, level, stated, seed))
    if args.policies:
        policies = tables.read_csv(args.policies, "policies")
        reference = tables.read_csv(args.summary, "summary")["reference_score"].iloc[0]
        tests = tables.read_csv(args.tests, "tests")
        scores = of_trained(policies, reference, _elasticity(tests))
        found.append(comparisons(scores, TRAINED, stated, seed))
    made = min(path.stat().st_mtime for path in [args.exact, *args.logs])
    before = args.stated.stat().st_mtime <= made
    result = verdicts(stated, found, f"{'before' if before else 'after'} the policies")
    tables.write_json(result.model_dump(), args.verdict)
    for method in result.methods:
        logger.info("%s", method.sentence)


def _elasticity(tests: pd.DataFrame) -> float:
    """That of the baseline, the same in all rows."""
    known = tests.loc[tests["quantity"] == "elasticity", "estimate"]
    return float(known.iloc[0]) if len(known) else float("nan")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
