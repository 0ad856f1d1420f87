"""The optimal policies of all methods by every ensemble of one number of pairs and one noise."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prudent.exact.evaluate import methods_of
from prudent.exact.pools import pairs_of, rewards_of_pool
from prudent.exact.regimes import cell_policies, teams_of_pool, teams_on_base
from prudent.exact.scores import load_scores
from prudent.rewards.loading import draws_of
from prudent.rewards.settings import RewardSettings
from prudent.tables import read_table, write_parquet
from prudent.workflow import entry, objectives


@dataclass
class Args:
    samples: Path  # table of responses
    scores: Path  # what the judge says of them
    preferences: Path  # table of pairs
    models: list[Path]  # folders of the replicates' base reward models
    policies: Path  # table, written
    pairs: int | None  # each model is trained on; all that there are if None
    noise: float  # of the labels, as a multiple of the labeller's
    ensembles: dict[str, dict[str, Any]]  # kind and settings of each
    members: list[int]  # sizes of ensembles
    reward: RewardSettings  # section `reward` of the configuration
    methods: dict[str, dict[str, Any]]  # objective, parameters, spread, unit, control of each
    kl: list[float]  # at which the methods are compared
    seed: int  # of the study
    backbone: Path | None = None  # checkpoint that reward models start from, if it is local
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    table = read_table(args.samples, "exact_samples")
    per_prompt = len(table) // table["prompt"].nunique()
    truth = load_scores(args.scores, len(table)).judge.reshape(-1, per_prompt)
    preferences = read_table(args.preferences, "preferences")
    pairs = pairs_of(preferences, args.pairs)
    models = {int(path.name): path for folder in args.models for path in draws_of(folder)}
    pool, on_base = rewards_of_pool(
        models,
        preferences,
        table,
        pairs,
        args.noise,
        {name: said for name, said in args.ensembles.items() if said["kind"] != "members"},
        max(args.members),
        args.reward,
        args.backbone or args.reward.checkpoint,
        args.seed,
    )
    teams = {}
    for name in args.ensembles:
        for members in args.members:
            teams[name, members] = (
                teams_on_base(on_base[name], members)
                if name in on_base
                else teams_of_pool(pool, members, per_prompt, args.seed)
            )
    methods = methods_of(args.methods, objectives.load)
    policies = cell_policies(methods, teams, truth, args.kl, args.seed)
    policies.insert(0, "pairs", pairs)
    policies.insert(1, "noise", args.noise)
    write_parquet(policies, args.policies, "regime_policies")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
