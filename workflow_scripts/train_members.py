"""Train some independent reward models of an ensemble, one after the other."""

from dataclasses import dataclass
from pathlib import Path

from prudent.precision import decided
from prudent.rewards.kinds.members import train_member
from prudent.rewards.material import Material
from prudent.rewards.settings import MemberSettings, RewardSettings
from prudent.tables import atomic_path, metadata, read_table, write_json
from prudent.workflow import entry


@dataclass
class Args:
    preferences: Path  # table of pairs
    checkpoints: Path  # folder of theirs, written
    settings: MemberSettings  # of the kind members or warm
    reward: RewardSettings  # section `reward` of the configuration
    members: list[int]  # their numbers
    seed: int  # of the study
    backbone: Path | None = None  # checkpoint to start from, if it is local
    base: Path | None = None  # checkpoint of the base reward model, where members start from it
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    reward = decided(args.reward)
    material = Material(
        preferences=read_table(args.preferences, "preferences"),
        backbone=args.backbone or reward.checkpoint,
        reward=reward,
        base=args.base,
    )
    inputs = {"preferences": args.preferences}
    inputs |= {name: path for name in STARTS if (path := getattr(args, name))}
    said = {**dict(reward), **dict(args.settings), "seed": args.seed}
    with atomic_path(args.checkpoints) as folder:
        for member in args.members:
            path = folder / str(member)
            train_member(material, args.settings, args.seed, member, path)
            write_json(metadata(said | {"member": member}, **inputs), path / "metadata.json")


STARTS = ("backbone", "base")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
