"""Fig 8: training the reward model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prudent.analysis.wording import number
from prudent.figures.looks import BLUE, GREY, INK, ORANGE, darker
from prudent.figures.style import is_heavy, label_ends, new_figure, styled
from prudent.tables import read_csv


def plot(base: Path, heads: Path, stop_loss: float | None) -> Figure:
    """The losses of the base reward model and of the ensemble's members."""
    return draw_losses(read_csv(base, "losses"), read_csv(heads, "head_losses"), stop_loss)


COLOURS = {"train": BLUE, "validation": ORANGE}
FEW = 4  # of so few steps, all decide about the axis
LEAST_SPAN = 0.1  # less would show noise as large


@styled
def draw_losses(
    base: pd.DataFrame, members: pd.DataFrame, stop_loss: float | None = None
) -> Figure:
    """Fig 8: the loss while the base reward model and the members are trained.

    Args:
        base: step, loss, split (train/validation).
        members: the same with ensemble and head.
        stop_loss: the training loss at which the base model's training stops.
    """
    count = members.groupby(["ensemble", "head"]).ngroups
    note = (
        "The loss is in nats per pair. Left: a thin line has every logged step, a thick one the "
        "running mean. Right: a thin line is a member's running mean, a thick one the mean of all "
        "members'. The dotted line is the loss of a coin, ln 2. The axes need not begin at 0, nor "
        "show the first steps."
    )
    figure = new_figure(9, 4.2, "Training the reward model", note)
    left, right = figure.subplots(1, 2)
    single = base.assign(ensemble=0, head=0)
    shown = {left: _curves(left, single, smooth=False), right: _curves(right, members, smooth=True)}
    if stop_loss is not None:
        left.axhline(stop_loss, color=INK, linewidth=1, linestyle=(0, (4, 2)))
        left.annotate(
            f"training stops at {number(stop_loss, 2)}",
            (0, stop_loss),
            (3, 2),
            left.get_yaxis_transform(),
            "offset points",
            fontsize=8.5,
            color=INK,
        )
    for axes, drawn in shown.items():
        axes.axhline(np.log(2), color=GREY, linewidth=1, linestyle=":")
        axes.grid(axis="y")
        axes.set_xlabel("step")
        axes.set_xlim(0, max([1, *(wide.index.max() for wide in drawn)]))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        levels = [np.log(2), *([stop_loss] if axes is left and stop_loss is not None else [])]
        axes.set_ylim(_range(drawn, levels))
        _say_what_is_above(axes, drawn)
        _label(axes, drawn)
    left.set_title("base reward model")
    right.set_title(f"the ensemble's {count} member{'s' if count > 1 else ''}")
    left.set_ylabel("Bradley-Terry loss")
    return figure


def _curves(axes: Axes, table: pd.DataFrame, smooth: bool) -> list[pd.DataFrame]:
    """Draws the curves of both splits; returns the thin ones, [steps, models], named by split."""
    drawn = []
    for split, colour in COLOURS.items():
        part = table[table["split"] == split].dropna(subset="loss")
        if part.empty:
            continue
        wide = part.pivot(index="step", columns=["ensemble", "head"], values="loss").sort_index()
        running = wide.rolling(max(1, len(wide) // 25), center=True, min_periods=1).mean()
        thin, mean = running if smooth else wide, running.mean(axis=1)
        for column in thin:
            (line,) = axes.plot(thin.index, thin[column], color=colour, linewidth=0.7, alpha=0.5)
            line.set(gid=f"thin {split} {column}", rasterized=is_heavy(thin.size))
        marker = "o" if len(mean) <= 12 else None
        style = {"linewidth": 2.2, "marker": marker, "markersize": 4, "zorder": 3}
        axes.plot(mean.index, mean, color=colour, label=split, **style)
        thin.attrs = {"split": split, "end": (float(mean.index[-1]), float(mean.iloc[-1]))}
        drawn.append(thin)
    return drawn


def _range(drawn: Sequence[pd.DataFrame], lines: Sequence[float]) -> tuple[float, float]:
    """The ends of the loss's axis, which has all losses and the levels ``lines``.

    Fresh heads may begin far above the losses of training. In that case the later half of the
    steps decides, with room above it for the end of the fall.
    """
    low, high = min(lines), max(lines)
    first = high
    for wide in drawn:
        later = wide[wide.index >= wide.index.max() / 2] if len(wide) > FEW else wide
        low = min(low, float(wide.min(axis=None)))
        high = max(high, float(later.max(axis=None)))
        first = max(first, float(wide.max(axis=None)))
    span = max(high - low, LEAST_SPAN)
    top = first if first <= high + 0.6 * span else high + 0.35 * span
    return max(low - 0.06 * span, 0), max(top + 0.06 * span, low + span)


def _say_what_is_above(axes: Axes, drawn: Sequence[pd.DataFrame]) -> None:
    """Says, at the upper end of the axes, what they leave out."""
    most = max((float(wide.max(axis=None)) for wide in drawn), default=0)
    if most > axes.get_ylim()[1]:
        text = f"\N{UPWARDS ARROW} the first steps reach {number(most, 2)}"
        axes.annotate(
            text,
            (1, 1),
            (-4, -4),
            "axes fraction",
            "offset points",
            ha="right",
            va="top",
            fontsize=8.5,
            color=INK,
        )


def _label(axes: Axes, drawn: Sequence[pd.DataFrame]) -> None:
    """Names each split where its curve ends."""
    if drawn:
        splits = [wide.attrs["split"] for wide in drawn]
        ends = [wide.attrs["end"] for wide in drawn]
        label_ends(axes, ends, splits, [darker(COLOURS[split]) for split in splits], fontsize=9)
