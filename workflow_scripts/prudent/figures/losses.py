"""Fig 8: training the reward model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prudent.analysis.wording import number
from prudent.figures.looks import BLUE, GREY, INK, ORANGE, darker
from prudent.figures.style import label_ends, new_figure, styled


@styled
def draw_losses(
    base: pd.DataFrame, members: pd.DataFrame, stop_loss: float | None = None
) -> Figure:
    """Fig 8: the loss while the base reward model and the heads are trained.

    Args:
        base: step, loss, split (train/validation).
        members: the same with ensemble and head.
        stop_loss: the training loss at which the base model's training stops.
    """
    lines = members.groupby(["ensemble", "head"]).ngroups
    note = (
        "Loss in nats a pair. Thin: every logged step (left), every head (right). "
        "Thick: running mean (left), mean over heads (right). Dotted: a coin's loss, ln 2."
    )
    figure = new_figure(9, 4, "Training the reward model", note)
    left, right = figure.subplots(1, 2)
    colours = {"train": BLUE, "validation": ORANGE}
    ends: dict[Axes, list] = {left: [], right: []}
    for split, colour in colours.items():
        curve = base[base["split"] == split].sort_values("step").dropna(subset="loss")
        if len(curve):
            window = max(1, len(curve) // 25)
            mean = curve["loss"].rolling(window, center=True, min_periods=1).mean()
            left.plot(curve["step"], curve["loss"], color=colour, linewidth=0.7, alpha=0.5)
            ends[left].append(_curve(left, curve["step"], mean, colour, split))
        table = members[members["split"] == split].dropna(subset="loss")
        wide = table.pivot(index="step", columns=["ensemble", "head"], values="loss").sort_index()
        for column in wide:
            right.plot(wide.index, wide[column], color=colour, linewidth=0.7, alpha=0.5)
        if len(wide):
            ends[right].append(_curve(right, wide.index, wide.mean(axis=1), colour, split))
    if stop_loss is not None:
        left.axhline(stop_loss, color=INK, linewidth=1, linestyle=(0, (4, 2)))
        left.annotate(
            f"stops at {number(stop_loss, 2)}",
            (0, stop_loss),
            (3, 2),
            left.get_yaxis_transform(),
            "offset points",
            fontsize=8.5,
            color=INK,
        )
    for axes in (left, right):
        axes.axhline(np.log(2), color=GREY, linewidth=1, linestyle=":")
        axes.grid(axis="y")
        axes.set_xlabel("step")
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, max([1, *(end[0] for end, *_ in ends[axes])]))
    for axes, curves in ends.items():
        if curves:
            label_ends(axes, *zip(*curves, strict=True), fontsize=9)
    left.set_title("base reward model")
    right.set_title(f"{lines} head{'s' if lines > 1 else ''} on its frozen features")
    left.set_ylabel("Bradley-Terry loss")
    return figure


def _curve(
    axes: Axes, steps: Sequence[float], loss: pd.Series, colour: str, label: str
) -> tuple[tuple[float, float], str, str]:
    """A thick curve; returns its end, its label and the colour of that."""
    marker = "o" if len(loss) <= 12 else None
    axes.plot(steps, loss, color=colour, linewidth=2.2, marker=marker, markersize=4, label=label)
    return (float(np.asarray(steps)[-1]), float(loss.iloc[-1])), label, darker(colour)
