"""Plot the policies' KL to the reference over training (Fig 10)."""

from dataclasses import dataclass
from pathlib import Path

from prudent import entry, figures, statistics


@dataclass
class Args:
    training_logs: list[Path]
    png: Path
    pdf: Path
    methods: list[str]
    seeds: list[int]


def main(args: Args) -> None:
    logs = statistics.read_logs(args.training_logs, args.methods, args.seeds)
    figure = figures.kl(statistics.long_table(logs), args.methods)
    figures.save(figure, args.png, args.pdf)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
