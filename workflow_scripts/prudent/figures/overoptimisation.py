"""The judge's score and the proxy reward during training, over the KL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prudent.analysis.policies import missed
from prudent.analysis.wording import name_of
from prudent.figures import curves
from prudent.figures.looks import GREY, INK, Look, looks
from prudent.figures.style import new_figure, off_target, square_root_axis, styled
from prudent.tables import read_csv

COLUMNS = 4
WINDOW = 5
"""Steps that are averaged, because a step's KL and scores are from one batch."""
LINES = {"judge_score": "-", "proxy_reward": (0, (4, 2))}


def plot(
    training_logs: Sequence[Path], policies: Path, methods: Sequence[str], seeds: Sequence[int]
) -> Figure:
    """Every policy's training log."""
    off = missed(read_csv(policies, "policies"))
    return draw_overoptimisation(curves.read(training_logs, methods, seeds), methods, off)


@styled
def draw_overoptimisation(
    logs: pd.DataFrame, methods: Sequence[str], off: Sequence[str] = ()
) -> Figure:
    """One panel per method: gains since the first batch over sqrt(KL).

    Args:
        logs: method, seed, step, kl, proxy_reward, judge_score; one row per policy and step.
        off: the methods that missed their target KL.
    """
    look = looks(methods)
    note = (
        "Each policy's batches along training, five steps averaged, over their KL on a square "
        "root's scale (Gao et al., arXiv 2210.10760). Solid: the judge's score; dashed: the "
        "policy's own member. Both are gains since the first steps, each divided by the largest "
        "mean gain of any method, so that their shapes can be compared. Thick lines are means over "
        "policies, thin ones single policies, and bands \N{PLUS-MINUS SIGN} 1 standard deviation. "
        "Over-optimisation is a dashed line that rises where the solid one falls."
    )
    gains = _gains(logs)
    columns = min(COLUMNS, len(methods))
    rows = -(-len(methods) // columns)
    title = "Proxy and judge along training"
    figure = new_figure(max(8.6, 3.4 * columns + 0.6), 3.2 * rows + 1.6, title, note)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(methods) :]:
        axes.set_visible(False)
    for axes, method in zip(panels.flat, methods, strict=False):
        _panel(axes, gains[gains["method"] == method], method, look[method])
        axes.set_title(name_of(method) + off_target(method, off, ", "))
    for axes in panels[-1]:
        axes.set_xlabel("KL to the reference policy, nats")
    for axes in panels[:, 0]:
        axes.set_ylabel("gain, as a share of the largest")
    keys = [
        Line2D([], [], color=INK, linewidth=2.2, linestyle=style, label=label)
        for style, label in zip(LINES.values(), ("judge's score", "own member"), strict=True)
    ]
    figure.legend(handles=keys, loc="outside right upper")
    return figure


def _gains(logs: pd.DataFrame) -> pd.DataFrame:
    """Rolling means of each policy's KL and scores; scores are scaled and start at 0."""
    columns = ["kl", *LINES]
    logs = logs.sort_values(["method", "seed", "step"], kind="stable").reset_index(drop=True)
    rolled = logs.groupby(["method", "seed"], sort=False)[columns]
    smooth = rolled.rolling(WINDOW, min_periods=1).mean().reset_index(drop=True)
    found = logs[["method", "seed", "step"]].join(smooth)
    found["kl"] = found["kl"].clip(lower=0)
    for column in LINES:
        start = found.groupby(["method", "seed"])[column].transform("first")
        found[column] -= start
        largest = found.groupby(["method", "step"])[column].mean().max()
        found[column] /= largest if largest > 0 else 1
    return found


def _panel(axes: Axes, gains: pd.DataFrame, method: str, look: Look) -> None:
    axes.axhline(0, color=INK, linewidth=0.8)
    square_root_axis(axes)
    by_step = gains.groupby("step")
    kl = by_step["kl"].mean()
    for column, style in LINES.items():
        for _, one in gains.groupby("seed"):
            axes.plot(
                one["kl"],
                one[column],
                color=look.colour,
                linewidth=0.5,
                alpha=0.3,
                linestyle=style,
                rasterized=len(gains) > 10_000,
            )
        mean, sd = by_step[column].mean(), by_step[column].std()
        axes.plot(
            kl,
            mean,
            color=look.ink,
            linewidth=2.2,
            linestyle=style,
            zorder=3,
            gid=f"{column} {method}",
        )
        axes.fill_between(kl, mean - sd, mean + sd, color=look.colour, alpha=0.12, linewidth=0)
    axes.set_xlim(left=0)
    axes.grid(True, color=GREY, alpha=0.25)
