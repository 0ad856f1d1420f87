"""Train all draws of one reward ensemble."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from prudent.precision import decided
from prudent.rewards.features import check_features
from prudent.rewards.loading import draws_of, train_function
from prudent.rewards.material import Material
from prudent.rewards.settings import KINDS, RewardSettings
from prudent.tables import file_digest, metadata, read_table, write_csv, write_json, write_text
from prudent.workflow import entry


@dataclass
class Args:
    ensemble: Path  # folder of the draws' checkpoints, written
    loss: Path  # table, written
    kind: str  # of prudent.rewards.settings.KINDS, such as heads
    settings: dict[str, Any]  # of the kind, from section `ensembles` of the configuration
    reward: RewardSettings  # section `reward` of the configuration
    size: int  # members of an ensemble
    draws: int  # ensembles
    seed: int  # of the study
    preferences: Path  # table of pairs
    first: int = 0  # number of the first draw
    stored_labels: bool = False  # whether no draw has labels of its own
    digest: Path | None = None  # where to write the folder's
    backbone: Path | None = None  # checkpoint that reward models start from, if it is local
    base: Path | None = None  # checkpoint of the base reward model
    features: Path | None = None  # of the pairs, by the base reward model
    members: list[Path] = field(default_factory=list)  # folders of all draws' reward models
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    settings, reward = KINDS[args.kind](**args.settings), args.reward
    said = {"kind": args.kind, "count": args.size, "seed": args.seed, **args.settings}
    if args.kind in TRAINED:
        reward = decided(reward)
        said["bfloat16"] = reward.bfloat16
    if args.features:
        check_features(args.features, args.base)
    material = Material(
        preferences=read_table(args.preferences, "preferences"),
        backbone=args.backbone or reward.checkpoint,
        reward=reward,
        base=args.base,
        features=args.features,
        stored_labels=args.stored_labels,
    )
    given = {name: getattr(args, name) for name in INPUTS if getattr(args, name)}
    sheet = metadata(said, **given)
    train = train_function(args.kind)
    models = [model for folder in args.members for model in draws_of(folder)]
    each = len(models) // args.draws
    losses = []
    for place in range(args.draws):
        draw = args.first + place
        members = tuple(models[place * each : (place + 1) * each])
        path = args.ensemble / str(draw)
        of_draw = replace(material, members=members)
        losses.append(train(of_draw, settings, args.size, args.seed, draw, path))
        write_json(sheet, path / "metadata.json")
    write_csv(pd.concat(losses, ignore_index=True), args.loss, "head_losses")
    if args.digest is not None:
        write_text(file_digest(args.ensemble) + "\n", args.digest)


TRAINED = ("adapters", "dropout")  # as the base model is; heads and members are elsewhere
INPUTS = ("base", "features", "preferences", "backbone")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
