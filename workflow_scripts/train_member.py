"""Train one independent reward model of an ensemble."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prudent.precision import decided
from prudent.rewards.kinds.members import train_member
from prudent.rewards.material import Material
from prudent.rewards.settings import MemberSettings, RewardSettings
from prudent.tables import metadata, read_table, write_json
from prudent.workflow import entry


@dataclass
class Args:
    preferences: Path  # table of pairs
    checkpoint: Path  # written
    settings: dict[str, Any]  # of the kind members or warm
    reward: dict[str, Any]  # section `reward` of the configuration
    member: int  # its number
    seed: int  # of the study
    backbone: Path | None = None  # checkpoint to start from, if it is local
    base: Path | None = None  # checkpoint of the base reward model, where members start from it
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    reward = decided(RewardSettings(**args.reward))
    known = {key: args.settings[key] for key in MemberSettings.model_fields}
    material = Material(
        preferences=read_table(args.preferences, "preferences"),
        backbone=args.backbone or reward.checkpoint,
        reward=reward,
        base=args.base,
    )
    train_member(material, MemberSettings(**known), args.seed, args.member, args.checkpoint)
    inputs = {"preferences": args.preferences}
    inputs |= {name: path for name in STARTS if (path := getattr(args, name))}
    said = {**args.reward, "bfloat16": reward.bfloat16, **known}
    said |= {"member": args.member, "seed": args.seed}
    write_json(metadata(said, **inputs), args.checkpoint / "metadata.json")


STARTS = ("backbone", "base")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
