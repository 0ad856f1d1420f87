"""Fig 11: the reward that the policies are trained on, over training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prudent.analysis.policies import final_mean, missed
from prudent.analysis.wording import number
from prudent.figures import curves
from prudent.figures.looks import INK
from prudent.figures.style import new_figure, off_target, styled
from prudent.tables import read_csv


def plot(
    training_logs: Sequence[Path], policies: Path, methods: Sequence[str], seeds: Sequence[int]
) -> Figure:
    """The rewards in every policy's training log."""
    off = missed(read_csv(policies, "policies"))
    return draw_reward(curves.read(training_logs, methods, seeds), methods, off)


@styled
def draw_reward(logs: pd.DataFrame, methods: Sequence[str], off: Sequence[str] = ()) -> Figure:
    """Fig 11: the optimised reward over training, and the ensemble's mean reward.

    Args:
        logs: method, seed, step, proxy_reward (the policy's own member), ensemble_reward.
        off: the methods that missed their target KL.
    """
    of_what = " reward from the policy's own member"
    note = (
        f"{curves.legend(logs, methods, of_what)} The dashed "
        "line is the mean of all members on the same responses. The numbers at the right are means "
        "over the last 10% of steps (at least 5)."
    )
    title = "What the policies gain in proxy reward"
    figure = new_figure(8.6, curves.height(methods, 2), title, note)
    axes = figure.add_subplot()
    labels = {}
    for method in methods:
        part = logs[logs["method"] == method]
        own, every = (
            np.mean([final_mean(log[column]) for _, log in part.groupby("seed")])
            for column in ("proxy_reward", "ensemble_reward")
        )
        labels[method] = f"\nown member {number(own)}, all {number(every)}"
        labels[method] += off_target(method, off)
    lines = {"proxy_reward": "-", "ensemble_reward": (0, (4, 2))}
    ends = curves.draw_curves(axes, logs, methods, lines)
    curves.label(axes, ends, methods, labels)
    axes.set_ylabel("proxy reward")
    handles = [
        Line2D([], [], color=INK, linewidth=2.2, linestyle=style) for style in lines.values()
    ]
    names = ["the policy's own member", "mean of all members"]
    axes.legend(handles, names, loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=2)
    return figure
