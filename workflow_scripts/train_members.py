"""Train some independent reward models of an ensemble, one after the other."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from prudent.precision import decided
from prudent.resuming import TrainingCheckpoints
from prudent.rewards.kinds.members import train_member
from prudent.rewards.material import Material
from prudent.rewards.settings import MemberSettings, RewardSettings
from prudent.tables import atomic_path, metadata, read_table, write_json
from prudent.workflow import entry

logger = logging.getLogger(__name__)


@dataclass
class Args:
    preferences: Path  # table of pairs
    checkpoints: Path  # folder of theirs, written
    settings: MemberSettings  # of the kind members or warm
    reward: RewardSettings  # section `reward` of the configuration
    members: list[int]  # their numbers
    resume: Path  # folder to go on from after an interruption
    seed: int  # of the study
    backbone: Path | None = None  # checkpoint to start from, if it is local
    base: Path | None = None  # checkpoint of the base reward model, where members start from it
    code: str = ""  # digest of the code; another one starts afresh
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
    sheet = metadata(said | {"members": args.members}, **inputs)
    with TrainingCheckpoints(args.resume, {"code": args.code, **sheet}) as checkpoints:
        done = checkpoints.folder / "done"
        for member in args.members:
            if (done / str(member)).exists():
                logger.info("member %d: trained before the interruption", member)
                continue
            with checkpoints.part(str(member)) as own:
                train_member(
                    *(material, args.settings, args.seed, member, done / str(member)),
                    checkpoints=own,
                )
        with atomic_path(args.checkpoints) as folder:
            for member in args.members:
                path = folder / str(member)
                # Not moved: what fails here may fail without them.
                shutil.copytree(done / str(member), path)
                own_sheet = sheet | {"settings": said | {"member": member}}
                write_json(own_sheet, path / "metadata.json")


STARTS = ("backbone", "base")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
