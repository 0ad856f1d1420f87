"""Fig 7: the policies' scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import gaussian_kde

from prudent.analysis import statistics
from prudent.analysis.policies import missed, read_judgement
from prudent.analysis.wording import number
from prudent.figures.looks import BLACK, GREY, INK, Look, looks
from prudent.figures.style import new_figure, off_target, on_lines, styled
from prudent.tables import read_csv


def plot(policies: Path, reference: Path, methods: Sequence[str]) -> Figure:
    """The scores of the policies and of the reference policy."""
    scores = read_judgement(reference)["score"]
    return draw_scores(read_csv(policies, "policies"), scores, methods)


@styled
def draw_scores(
    policies: pd.DataFrame, reference: Sequence[float], methods: Sequence[str]
) -> Figure:
    """Fig 7: the distribution of the policies' judge scores per method, and the reference's.

    Args:
        policies: ``analysis.policies.policy_table``.
        reference: the reference policy's scores, one per prompt.
    """
    look = looks(methods)
    mean, se = statistics.mean_and_se(reference)
    note = (
        f"Each mark is a policy: its mean score over {len(reference)} test prompts. The diamond "
        "and its bar are the mean and its 95% t interval over members. The curve is the "
        "density (8 policies or more). The dashed line and the grey band are the reference policy "
        "and \N{PLUS-MINUS SIGN} 1 standard error over prompts."
    )
    figure = new_figure(8.6, 1.9 + 0.95 * len(methods), "How good the policies are", note)
    axes = figure.add_subplot()
    values = {m: policies.loc[policies["method"] == m, "score"].to_numpy(float) for m in methods}
    everything = np.concatenate([*values.values(), [mean]])
    span = float(np.ptp(everything)) or 1.0
    axes.set_xlim(everything.min() - 0.18 * span, everything.max() + 0.18 * span)
    axes.set_ylim(len(methods) - 0.4, -0.62)
    if np.isfinite(se):
        axes.axvspan(mean - se, mean + se, color=GREY, alpha=0.25, linewidth=0, zorder=0)
    axes.axvline(mean, color=INK, linestyle=(0, (4, 2)), linewidth=1.2, zorder=1)
    place = ((mean, 1), (0, 2), axes.get_xaxis_transform(), "offset points")
    text = f"reference {number(mean)}"
    axes.annotate(text, *place, ha="center", va="bottom", color=INK, fontsize=9)
    for row, method in enumerate(methods):
        part = policies[policies["method"] == method]
        _policies_row(axes, row, values[method], look[method], span)
        clusters = part.groupby(["ensemble", "head"]).ngroup()
        _, low, high = statistics.t_interval(part["score"], clusters)
        middle = values[method].mean()
        if np.isfinite(low):
            axes.plot([low, high], [row, row], color=BLACK, linewidth=2, zorder=4)
        axes.plot([middle], [row], "D", color=BLACK, markersize=6, zorder=5, gid=f"mean {method}")
        worse, n = int((values[method] < mean).sum()), len(part)
        text = (
            f"mean {number(middle)}\nvariance {number(statistics.variance(values[method]))}\n"
            f"{worse} of {n} below reference"
        )
        axes.text(1.01, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5)
    off = missed(policies)
    names = [on_lines(method) + off_target(method, off) for method in methods]
    axes.set_yticks(range(len(methods)), names)
    for tick, method in zip(axes.get_yticklabels(), methods, strict=True):
        tick.set(color=look[method].ink, fontweight="bold")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel("judge's score")
    return figure


def _policies_row(axes: Axes, row: int, values: np.ndarray, look: Look, span: float) -> None:
    """One method: the density above its line, a mark for every policy below it."""
    if len(values) >= 8 and np.ptp(values) > 0:
        left, right = axes.get_xlim()
        grid = np.linspace(left, right, 300)
        density = gaussian_kde(values)(grid)
        grid, density = (part[density > 0.005 * density.max()] for part in (grid, density))
        top = row - 0.08 - 0.42 * density / density.max()
        axes.fill_between(grid, row - 0.08, top, color=look.colour, alpha=0.3, linewidth=0)
        axes.plot(grid, top, color=look.colour, linewidth=1)
    # Marks that would overlap are stacked.
    order = np.argsort(values, kind="stable")
    levels, ends = np.zeros(len(values)), []
    for index in order:
        level = next((k for k, end in enumerate(ends) if values[index] > end), len(ends))
        ends[level : level + 1] = [values[index] + 0.016 * span]
        levels[index] = level
    step = min(0.085, 0.26 / max(levels.max(initial=0), 1))
    axes.plot(
        values,
        row + 0.12 + step * levels,
        linestyle="none",
        marker=look.marker,
        markersize=5,
        color=look.colour,
        markeredgecolor="white",
        markeredgewidth=0.4,
        zorder=3,
        gid=f"policies {row}",
    )
