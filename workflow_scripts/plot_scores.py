"""Plot the distribution of the policies' judge scores (Fig 7)."""

from dataclasses import dataclass
from pathlib import Path

from prudent.analysis.policies import read_judgement
from prudent.figures.scores import draw_scores
from prudent.figures.style import save
from prudent.tables import read_csv
from prudent.workflow import entry


@dataclass
class Args:
    policies: Path
    reference: Path
    png: Path
    pdf: Path
    methods: list[str]


def main(args: Args) -> None:
    reference = read_judgement(args.reference)["score"]
    figure = draw_scores(read_csv(args.policies, "policies"), reference, args.methods)
    save(figure, args.png, args.pdf)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
