"""The optimal policies of all methods by each ensemble that is checked, one table for all."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prudent.exact.evaluate import compare, methods_of
from prudent.exact.scores import load_scores
from prudent.exact.summary import summary_table
from prudent.rewards.loading import draws_of, load_rewards
from prudent.rewards.scoring import score_responses
from prudent.tables import read_table, write_csv
from prudent.workflow import entry, objectives


@dataclass
class Args:
    samples: Path  # table of responses
    scores: Path  # what the judge says of them
    ensembles: list[Path]  # folders of the draws' checkpoints
    names: list[str]  # of the ensembles
    table: Path  # written
    methods: dict[str, dict[str, Any]]  # objective, parameters, spread, unit, control of each
    kl: list[float]  # at which the methods are compared
    baseline: str  # method that the others are compared with
    seed: int  # of the study
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    table = read_table(args.samples, "exact_samples")
    asked = table["prompt"].tolist(), table["response"].tolist()
    truth = load_scores(args.scores, len(table)).judge
    truth = truth.reshape(-1, len(table) // table["prompt"].nunique())
    methods, parts = methods_of(args.methods, objectives.load), []
    for name, folder in zip(args.names, args.ensembles, strict=True):
        models = [load_rewards(path) for path in draws_of(folder)]
        rewards = score_responses(models, *asked, progress=f"rewards of {name}")
        levels = {name: rewards}  # an ensemble's draws take the place of a level's
        parts.append(compare(methods, levels, truth, args.kl, args.seed))
    summary = summary_table(pd.concat(parts), args.baseline).rename(columns={"level": "ensemble"})
    controls = [name for name, said in args.methods.items() if said["control"]]
    summary.insert(3, "control", np.where(summary["method"].isin(controls), "yes", "no"))
    write_csv(summary, args.table, "exact_kinds")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
