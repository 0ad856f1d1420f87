"""Figure 5: what is left of Figures 3 and 4 where both policies go as far from the reference."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prudent.analysis.statistics import LEVEL
from prudent.analysis.theory_checks import LENGTH, PRINTED, SAME_KL, SCALES, SIMULATIONS
from prudent.figures.looks import GREEN, GREY, INK, ORANGE, PURPLE
from prudent.figures.style import new_figure, styled
from prudent.tables import read_table

TITLE = "Figure 5. The same with steps of the same length, and at the same KL"
STYLES = {PRINTED: (ORANGE, "o"), LENGTH: (GREEN, "s"), SAME_KL: (PURPLE, "^")}
"""The colour and the marker of each rule of how far policies go."""
QUESTIONS = {
    "sd": ("Less spread?", "sd, unaware / aware"),
    "mean": ("More gain?", "mean gain, aware / unaware"),
}


def plot(curves: Path) -> Figure:
    """Both simulations, by each rule of how far policies go."""
    return draw_matched(read_table(curves, "theory_curves"))


@styled
def draw_matched(curves: pd.DataFrame) -> Figure:
    """One row per simulation and one column per question, over the sd of the true rewards.

    Args:
        curves: of ``prudent.analysis.theory_checks.study``.
    """
    note = (
        "As printed, the aware policy takes a shorter step away from the reference policy. The "
        "other two rules give both policies a step of the same length, or the same KL. Above 1 the "
        f"aware policy is better. Bars are {LEVEL:.0%} intervals over draws of the errors, for one "
        "draw of the true rewards. Grey lines are the ratios that the paper prints. There is no "
        "mark where the unaware policy's gain is not told from 0."
    )
    figure = new_figure(9.6, 6.0, TITLE, note)
    panels = figure.subplots(len(SIMULATIONS), len(QUESTIONS), squeeze=False, sharex=True)
    for row, simulation in zip(panels, SIMULATIONS, strict=True):
        of_figure = curves[curves["figure"] == simulation.figure]
        low, high = simulation.variances
        for axes, (panel, (title, label)) in zip(row, QUESTIONS.items(), strict=True):
            _panel(axes, of_figure[of_figure["panel"] == panel])
            axes.set_title(f"{title} Variances of {low:g} to {high:g}")
            axes.set_ylabel(label)
        row[0].axhline(simulation.sds[0] / simulation.sds[1], color=GREY, linewidth=1, zorder=1)
        for axes in row:
            axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    for axes in panels[-1]:
        axes.set_xlabel("sd of the true rewards")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    return figure


def _panel(axes: Axes, part: pd.DataFrame) -> None:
    axes.axhline(1, color=INK, linestyle=(0, (4, 2)), linewidth=1, zorder=1)
    for place, (rule, (colour, marker)) in enumerate(STYLES.items()):
        rows = part[part["series"] == rule].dropna()
        # Side by side, so that no bar hides another.
        x = rows["x"] * 1.06 ** (place - 1)
        bars = [rows["y"] - rows["low"], rows["high"] - rows["y"]]
        style = {"color": colour, "marker": marker, "linewidth": 1.2, "elinewidth": 1}
        axes.errorbar(x, rows["y"], bars, label=rule, gid=f"rule {rule}", **style)
    axes.set_xscale("log")
    axes.set_xticks(SCALES, [f"{scale:g}" for scale in SCALES])
    axes.minorticks_off()
    axes.grid(True, axis="y")
