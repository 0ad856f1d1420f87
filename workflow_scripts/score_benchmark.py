"""Score both sides of every benchmark row with the base model and all members."""

from dataclasses import dataclass
from pathlib import Path

from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.loading import draws_of, load_rewards
from prudent.rewards.scoring import score_pairs
from prudent.tables import read_table, write_parquet
from prudent.workflow import entry


@dataclass
class Args:
    benchmark: Path  # table of pairs
    base: Path  # checkpoint of the base reward model
    ensemble: Path  # folder of the draws' checkpoints
    scores: Path  # table, written
    batch_tokens: int  # tokens of a batch, padding included
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    models = [RewardEnsemble.load(args.base), *map(load_rewards, draws_of(args.ensemble))]
    table = score_pairs(read_table(args.benchmark, "benchmark"), models, args.batch_tokens)
    write_parquet(table, args.scores, "scores")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
