"""Plot the losses of the base reward model and of the heads (Fig 8)."""

from dataclasses import dataclass
from pathlib import Path

from prudent.figures.losses import draw_losses
from prudent.figures.style import save
from prudent.tables import read_csv
from prudent.workflow import entry


@dataclass
class Args:
    base: Path
    heads: Path
    png: Path
    pdf: Path
    stop_loss: float | None = None


def main(args: Args) -> None:
    figure = draw_losses(
        read_csv(args.base, "losses"), read_csv(args.heads, "head_losses"), args.stop_loss
    )
    save(figure, args.png, args.pdf)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
