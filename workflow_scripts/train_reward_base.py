"""Train a base reward model on one split of the preference pairs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prudent import entry
from prudent.reward_training import RewardSettings, train_reward_model
from prudent.tables import metadata, read_table, write_csv, write_json


@dataclass
class Args:
    preferences: Path
    checkpoint: Path
    loss: Path
    settings: dict[str, Any]
    split: str
    seed: int
    backbone: Path | None = None
    threads: int = 1


def main(args: Args) -> None:
    settings = RewardSettings(**args.settings)
    losses = train_reward_model(
        read_table(args.preferences, "preferences"),
        args.split,
        args.backbone or settings.checkpoint,
        settings,
        args.seed,
        args.checkpoint,
    )
    inputs = {"preferences": args.preferences}
    if args.backbone:
        inputs["backbone"] = args.backbone
    sheet = metadata({**args.settings, "split": args.split, "seed": args.seed}, **inputs)
    write_json(sheet, args.checkpoint / "metadata.json")
    write_csv(losses, args.loss)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
