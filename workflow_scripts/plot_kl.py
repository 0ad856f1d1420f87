"""Plot the policies' KL to the reference over training (Fig 10)."""

from dataclasses import dataclass
from pathlib import Path

from prudent.analysis.policies import long_table, read_logs
from prudent.figures.curves import draw_kl
from prudent.figures.style import save
from prudent.workflow import entry


@dataclass
class Args:
    training_logs: list[Path]
    png: Path
    pdf: Path
    methods: list[str]
    seeds: list[int]


def main(args: Args) -> None:
    logs = read_logs(args.training_logs, args.methods, args.seeds)
    figure = draw_kl(long_table(logs), args.methods)
    save(figure, args.png, args.pdf)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
