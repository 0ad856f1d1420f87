"""Plot the heads' rewards of one response of the benchmark (Fig 1)."""

from dataclasses import dataclass
from pathlib import Path

from prudent import tables
from prudent.figures.heads import draw_heads
from prudent.figures.style import save
from prudent.rewards import rewardbench
from prudent.workflow import entry


@dataclass
class Args:
    scores: Path
    benchmark: Path
    png: Path
    pdf: Path


def main(args: Args) -> None:
    scores = tables.read_table(args.scores, "scores")
    row = rewardbench.typical_row(scores)
    rewards, _ = rewardbench.rewards_by_row(scores)
    benchmark = tables.read_table(args.benchmark, "benchmark").set_index(rewardbench.ROW)
    text = benchmark.loc[tuple(row.values())]
    prompt = " ".join(message["content"] for message in text["prompt"])
    where = (
        "The accepted response of the benchmark's row on which the heads disagree as much as they "
        f"typically do (median variance): {row['section']}, {row['subset']}, id {row['id']}. "
        "Line and band: mean \N{PLUS-MINUS SIGN} 1 sd over the heads."
    )
    members = rewards.loc[tuple(row.values()), 0]
    figure = draw_heads(members.to_numpy(), prompt, text["chosen"], where)
    save(figure, args.png, args.pdf)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
