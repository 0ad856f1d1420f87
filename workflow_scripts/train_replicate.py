"""Train one replicate's reward ensemble: pairs, labels, base model and members drawn anew."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prudent.precision import decided
from prudent.rewards.replicates import train_replicate
from prudent.rewards.settings import RewardSettings
from prudent.tables import metadata, read_table, write_csv, write_json
from prudent.workflow import entry


@dataclass
class Args:
    preferences: Path  # table of pairs
    checkpoint: Path  # of the ensemble, written
    loss: Path  # table, written
    kind: str  # of prudent.rewards.settings.KINDS, such as heads
    settings: dict[str, Any]  # of the kind, from section `ensembles` of the configuration
    reward: RewardSettings  # section `reward` of the configuration
    size: int  # members of the ensemble
    models: int  # independent reward models that it is made of
    replicate: int  # its number
    seed: int  # of the study
    backbone: Path | None = None  # checkpoint that reward models start from, if it is local
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    reward = decided(args.reward)
    losses = train_replicate(
        read_table(args.preferences, "preferences"),
        args.kind,
        args.settings,
        reward,
        args.backbone or reward.checkpoint,
        args.size,
        args.models,
        args.seed,
        args.replicate,
        args.checkpoint,
    )
    inputs = {"preferences": args.preferences}
    inputs |= {"backbone": args.backbone} if args.backbone else {}
    said = {"kind": args.kind, "count": args.size, "replicate": args.replicate, "seed": args.seed}
    sheet = metadata({**said, "reward": dict(reward), **args.settings}, **inputs)
    write_json(sheet, args.checkpoint / "metadata.json")
    write_csv(losses, args.loss, "head_losses")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
