"""How methods will be judged, stated before any policy is trained."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prudent.analysis.preregistration import preregistration
from prudent.policies.target_kl import KL_TOLERANCE
from prudent.tables import write_json
from prudent.workflow import entry

logger = logging.getLogger(__name__)


@dataclass
class Args:
    stated: Path  # written
    methods: dict[str, dict[str, Any]]  # controls, missing, trained of each
    baseline: str  # method that the others are compared with
    kl: float  # of the optimal policies
    margin: float  # the least ratio of variances that matters
    permutations: int  # of the tests, where all are too many
    seed: int  # of the study


def main(args: Args) -> None:
    stated = preregistration(
        args.methods,
        args.baseline,
        args.kl,
        KL_TOLERANCE,
        args.margin,
        args.permutations,
        args.seed,
    )
    write_json(stated.model_dump(), args.stated)
    for sentence in stated.rule:
        logger.info("%s", sentence)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
