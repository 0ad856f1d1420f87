"""Risk and return: the gain of each method's optimal policies against their spread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from prudent.analysis.wording import name_of, number
from prudent.figures.looks import GREY, INK, Look, looks
from prudent.figures.style import new_figure, styled
from prudent.tables import read_csv

TITLE = "Risk and return of optimal policies, at the same KL"


def plot(exact: Path, baseline: str) -> Figure:
    """All methods, levels and KLs of the table of exact policies."""
    return draw_risk_return(read_csv(exact, "exact_summary"), baseline)


@styled
def draw_risk_return(summary: pd.DataFrame, baseline: str) -> Figure:
    """One row per KL, one column per level, and one mark per method.

    Args:
        summary: ``exact.summary.summary_table`` with the column control.
        baseline: the method whose lines cross each panel.
    """
    methods = list(dict.fromkeys(summary["method"]))
    levels, kls = (list(dict.fromkeys(summary[key])) for key in ("level", "kl_target"))
    look = looks(methods)
    note = (
        "Each mark is a method: the mean over ensembles of its policies' gain in the judge's score "
        "over the reference policy (dashed, 0), and the standard deviation of the gain. Up and to "
        "the left is better. Bars are 95% intervals over ensembles. Lines cross at "
        f"{name_of(baseline)}; hollow marks are controls. A mark on the grey is a single "
        "policy, whose spread is not known. Independent members are one member of each replicate; "
        "their policies share members, so that bars there are too short."
    )
    figure = new_figure(3 * len(levels) + 2.4, 3.1 * len(kls) + 1.3, TITLE, note)
    panels = figure.subplots(len(kls), len(levels), sharey="row", squeeze=False)
    for row, kl in zip(panels, kls, strict=True):
        for axes, level in zip(row, levels, strict=True):
            part = summary[(summary["level"] == level) & (summary["kl_target"] == kl)]
            _panel(axes, part, look, baseline)
            count = int(part["replicates"].max())
            axes.set_title(f"{level} ({count}), KL {number(kl)}")
            axes.set_xlabel("sd of the gain over ensembles")
        row[0].set_ylabel("mean gain in the judge's score")
    figure.legend(
        handles=[_key(method, look[method], _is_control(summary, method)) for method in methods],
        loc="outside right upper",
    )
    return figure


def _is_control(summary: pd.DataFrame, method: str) -> bool:
    return bool((summary.loc[summary["method"] == method, "control"] == "yes").any())


def _key(method: str, look: Look, control: bool) -> Line2D:
    face = "white" if control else look.colour
    style = {"color": look.colour, "markerfacecolor": face, "linestyle": "none", "markersize": 7}
    return Line2D([], [], marker=look.marker, label=name_of(method), **style)


def _panel(axes: Axes, part: pd.DataFrame, look: dict[str, Look], baseline: str) -> None:
    axes.axhline(0, color=INK, linestyle=(0, (4, 2)), linewidth=1.2)
    singles = []
    for row in part.to_dict("records"):
        name, mean, sd = row["method"], row["gain"], row["sd"]
        if not np.isfinite(mean):
            continue
        colour = look[name].colour
        face = "white" if row["control"] == "yes" else colour
        if not np.isfinite(sd):
            singles.append((name, mean, colour, face))
            continue
        for x, y in (
            ([sd, sd], [row["gain_low"], row["gain_high"]]),
            ([row["sd_low"], row["sd_high"]], [mean, mean]),
        ):
            if np.isfinite([*x, *y]).all():
                axes.plot(x, y, color=colour, linewidth=1, alpha=0.6, zorder=2)
        axes.plot(
            [sd],
            [mean],
            marker=look[name].marker,
            color=colour,
            markerfacecolor=face,
            markersize=7,
            zorder=3,
            gid=f"method {name}",
        )
        if name == baseline:
            axes.axhline(mean, color=GREY, linewidth=0.8, zorder=1)
            axes.axvline(sd, color=GREY, linewidth=0.8, zorder=1)
    _singles(axes, singles, look)
    axes.grid(True)


def _singles(axes: Axes, singles: list, look: dict[str, Look]) -> None:
    """Marks without a spread, beside each other on grey, left of a spread of 0."""
    right = axes.get_xlim()[1]
    ticks = MaxNLocator(4).tick_values(0, right)
    axes.set_xticks(ticks[(ticks >= 0) & (ticks <= right)])
    wide = 0.08 * right
    axes.set_xlim(-wide * len(singles), right)
    if singles:
        axes.axvspan(-wide * len(singles), 0, color=GREY, alpha=0.2, linewidth=0, zorder=0)
    for place, (name, mean, colour, face) in enumerate(reversed(singles)):
        axes.plot(
            [-wide * (place + 0.5)],
            [mean],
            marker=look[name].marker,
            color=colour,
            markerfacecolor=face,
            markersize=7,
            gid=f"single {name}",
        )
