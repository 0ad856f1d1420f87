"""Curves over training for figs 10 and 11: each method's mean, with its single policies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from prudent.analysis.policies import long_table, read_logs
from prudent.figures.looks import looks
from prudent.figures.style import BANDS, is_heavy, label_ends, on_lines


def read(training_logs: Sequence[Path], methods: Sequence[str], seeds: Sequence[int]):
    """All policies' training logs as one long table."""
    return long_table(read_logs(training_logs, methods, seeds))


def height(methods: Sequence[str], lines: int = 1) -> float:
    """The height of a figure, in inches, that leaves room for the methods' labels."""
    return max(4.6, 2 + 0.25 * lines * len(methods))


def legend(logs: pd.DataFrame, methods: Sequence[str], what: str = "") -> str:
    """The meaning of thick lines, thin lines and bands."""
    seeds = logs.groupby("method")["seed"].nunique()
    low, high = seeds.min(), seeds.max()
    count = f"{low}" if low == high else f"{low} to {high}"
    some = "policy" if high == 1 else "policies"
    text = f"A thick solid line is the mean{what} over a method's {count} {some}, a thin line one."
    if len(methods) <= BANDS and high > 1:
        text += " The band is \N{PLUS-MINUS SIGN} 1 standard deviation over policies."
    return text


def draw_curves(
    axes: Axes, logs: pd.DataFrame, methods: Sequence[str], lines: dict[str, object]
) -> list[tuple[float, float]]:
    """Each method's mean curve(s), with band and single policies; returns the curves' ends.

    The first of ``lines`` is the main one: only it has the band and the single policies.
    """
    look = looks(methods)
    main = next(iter(lines))
    heavy = is_heavy(len(logs))
    width = 2.2 if len(methods) <= BANDS else 1.4  # thick lines of many methods hide each other
    ends = []
    for method in methods:
        part = logs[logs["method"] == method]
        wide = part.pivot(index="step", columns="seed", values=main).sort_index()
        mean, sd = wide.mean(axis=1), wide.std(axis=1, ddof=1)
        colour = look[method].colour
        faint = min(0.4, 2.5 / wide.shape[1] + 0.1) / np.sqrt(max(len(methods) / 2, 1))
        for seed in wide:
            (thin,) = axes.plot(wide.index, wide[seed], color=colour, linewidth=0.6, alpha=faint)
            thin.set(gid=f"{method} {seed}", rasterized=heavy)
        if len(methods) <= BANDS:
            low, high = mean - sd, mean + sd
            axes.fill_between(wide.index, low, high, color=colour, alpha=0.15, linewidth=0)
        for column, style in lines.items():
            curve = mean if column == main else part.groupby("step")[column].mean()
            (line,) = axes.plot(
                curve.index, curve, color=colour, linewidth=width, linestyle=style, zorder=3
            )
            line.set_gid(f"mean {column} {method}")
        ends.append((mean.index[-1], float(mean.iloc[-1])))
    first, last = logs["step"].min(), logs["step"].max()
    axes.set_xlim(first, last if last > first else first + 1)
    bottom, top = axes.get_ylim()
    axes.set_ylim(min(bottom, 0) if main == "kl" else bottom, top)
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("PPO step")
    return ends


def label(
    axes: Axes,
    ends: Sequence[tuple[float, float]],
    methods: Sequence[str],
    labels: dict[str, str],
) -> None:
    """Each method's name, marker and numbers to the right of its end."""
    look = looks(methods)
    label_ends(
        axes,
        ends,
        [f"{on_lines(method)}{labels[method]}" for method in methods],
        [look[method].ink for method in methods],
        [look[method].marker for method in methods],
        fontsize=9,
        fontweight="bold",
    )
