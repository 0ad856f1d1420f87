"""Train the base reward models of some replicates of a regime: own pairs, labels and heads."""

import logging
from dataclasses import dataclass
from pathlib import Path

from prudent.exact.pools import draw_of_pool, pairs_of, stream_of
from prudent.precision import decided
from prudent.rewards.settings import RewardSettings
from prudent.rewards.training import train_reward_model
from prudent.tables import atomic_path, metadata, read_table, write_json
from prudent.workflow import entry

logger = logging.getLogger(__name__)


@dataclass
class Args:
    preferences: Path  # table of pairs
    models: Path  # folder of theirs, written
    pairs: int | None  # each is trained on; all that there are if None
    noise: float  # of the labels, as a multiple of the labeller's
    replicates: list[int]  # their numbers
    reward: RewardSettings  # section `reward` of the configuration
    seed: int  # of the study
    backbone: Path | None = None  # checkpoint to start from, if it is local
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    reward, preferences = decided(args.reward), read_table(args.preferences, "preferences")
    count = pairs_of(preferences, args.pairs)
    inputs = {"preferences": args.preferences}
    inputs |= {"backbone": args.backbone} if args.backbone else {}
    said = {**dict(reward), "pairs": count, "noise": args.noise, "seed": args.seed}
    with atomic_path(args.models) as folder:
        for done, number in enumerate(args.replicates):
            pairs = draw_of_pool(preferences, count, args.noise, args.seed, number)
            stream, path = stream_of(count, args.noise, args.seed, number), folder / str(number)
            train_reward_model(
                pairs, "train", args.backbone or reward.checkpoint, reward, stream, path
            )
            write_json(metadata(said | {"replicate": number}, **inputs), path / "metadata.json")
            logger.info("%d of %d reward models", done + 1, len(args.replicates))


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
