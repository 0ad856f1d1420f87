"""Train a base reward model on one split of the preference pairs, with all GPUs of the job."""

from dataclasses import dataclass
from pathlib import Path

from prudent.precision import decided
from prudent.resuming import TrainingCheckpoints
from prudent.rewards.training import RewardSettings, check_processes, train_reward_model
from prudent.tables import file_digest, metadata, read_table, write_csv, write_json, write_text
from prudent.training import is_first
from prudent.workflow import entry
from prudent.workflow.launch import launch, processes


@dataclass
class Args:
    preferences: Path  # table of pairs
    checkpoint: Path  # written
    digest: Path  # where to write the checkpoint's
    loss: Path  # table, written
    settings: RewardSettings  # section `reward` of the configuration
    split: str  # of the pairs to train on
    checkpoints: Path  # folder to go on from after an interruption
    seed: int  # of the study
    backbone: Path | None = None  # checkpoint to start from, if it is local
    code: str = ""  # digest of the code; another one starts afresh
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    count = processes()
    if count > 1:
        check_processes(args.settings, count)
        launch("train_reward_base", args, count)
        return
    settings = decided(args.settings)
    inputs = {"preferences": args.preferences}
    if args.backbone:
        inputs["backbone"] = args.backbone
    sheet = metadata({**dict(settings), "split": args.split, "seed": args.seed}, **inputs)
    with TrainingCheckpoints(args.checkpoints, {"code": args.code, **sheet}) as checkpoints:
        losses = train_reward_model(
            read_table(args.preferences, "preferences"),
            args.split,
            args.backbone or settings.checkpoint,
            settings,
            args.seed,
            args.checkpoint,
            checkpoints,
        )
        if is_first():
            write_json(sheet, args.checkpoint / "metadata.json")
            write_csv(losses, args.loss, "losses")
            write_text(file_digest(args.checkpoint) + "\n", args.digest)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
