"""Score both sides of every benchmark row with the base model and all heads."""

from dataclasses import dataclass
from pathlib import Path

from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.scoring import score_pairs
from prudent.tables import read_table, write_parquet
from prudent.workflow import entry


@dataclass
class Args:
    benchmark: Path
    base: Path
    ensembles: list[Path]
    scores: Path
    batch_tokens: int
    threads: int = 1


def main(args: Args) -> None:
    models = [RewardEnsemble.load(path) for path in (args.base, *args.ensembles)]
    table = score_pairs(read_table(args.benchmark, "benchmark"), models, args.batch_tokens)
    write_parquet(table, args.scores, "scores")


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
