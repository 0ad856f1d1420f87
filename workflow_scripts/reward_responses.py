"""Keep what every member of the ensemble's draws says of the policies' responses."""

from dataclasses import dataclass
from pathlib import Path

from prudent.rewards.loading import draws_of, load_rewards
from prudent.rewards.scoring import reward_table
from prudent.tables import read_table, write_parquet
from prudent.workflow import entry


@dataclass
class Args:
    responses: Path  # table
    ensemble: Path  # folder of the draws' checkpoints
    rewards: Path  # table, written
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    responses = read_table(args.responses, "responses")
    ensembles = [load_rewards(path) for path in draws_of(args.ensemble)]
    write_parquet(reward_table(responses, ensembles), args.rewards, "rewards")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
