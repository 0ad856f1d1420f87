"""The accuracy of each kind of ensemble, and the quality of its sigma."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from prudent.figures.looks import BLACK, BLUE, GREY, INK, ORANGE
from prudent.figures.style import new_figure, on_lines, styled
from prudent.rewards import calibration, disagreement
from prudent.rewards.diagnosis import OF_ALL, beyond
from prudent.tables import read_csv

TITLE = "What each kind's sigma is worth"

# Each panel's title, its quantity for the mean or for all members, and for one member.
PANELS = (
    ("accuracy\non unseen pairs", calibration.ACCURACY_MEAN, calibration.ACCURACY_ONE),
    (
        "correlation with the\ntruth within prompts",
        disagreement.WITHIN_MEAN,
        disagreement.WITHIN_ONE,
    ),
    ("sigma: 90th over\n10th percentile", disagreement.RATIO, ""),
    ("sigma and the error,\nleave one out", disagreement.LEAVE_ONE_OUT, ""),
    ("the same beyond norm\nand initialisation", "beyond", ""),
    ("error correlation\nbetween members", disagreement.SHARED, ""),
    ("calibration error\nof the mean", calibration.ECE_MEAN, ""),
)
BEFORE = (disagreement.RATIO, disagreement.LEAVE_ONE_OUT)  # also shown for untrained members
FROM_ZERO = (disagreement.LEAVE_ONE_OUT, "beyond", disagreement.SHARED, calibration.ECE_MEAN)


def plot(diagnosis: Path) -> Figure:
    """Every ensemble of the diagnosis."""
    return draw_kinds(read_csv(diagnosis, "diagnosis"))


@styled
def draw_kinds(table: pd.DataFrame) -> Figure:
    """One row per ensemble, one panel per diagnostic, with intervals and the ranges of mere noise.

    Args:
        table: ``diagnosis.diagnosis_table``.
    """
    names = [name for name in dict.fromkeys(table["ensemble"]) if name != OF_ALL]
    note = (
        "Bars are 95% intervals over prompts. Grey is what noise alone gives, with its 95% range: "
        "members that differ by noise of constant sigma; for the calibration error, a predictor "
        "that is perfectly calibrated. Leave one out: sigma of the others against the error of the "
        "member left out. A dot on the grey: sigma knows no more than noise."
    )
    figure = new_figure(13.2, 2.35 + 0.5 * max(len(names), 2), TITLE, note)
    panels = figure.subplots(1, len(PANELS), sharey=True)
    found = {name: table[table["ensemble"] == name].set_index("quantity") for name in names}
    for axes, (title, quantity, member) in zip(panels, PANELS, strict=True):
        for row, name in enumerate(names):
            shown = beyond(found[name]) if quantity == "beyond" else quantity
            _mark(axes, row, found[name], shown, quantity)
            if member in found[name].index:
                value = found[name].loc[member, "value"]
                ring = {"markerfacecolor": "white", "markeredgecolor": BLUE, "zorder": 3}
                place = value, row + 0.22
                axes.plot(*place, "o", markersize=5.5, gid=f"member {quantity} {row}", **ring)
        axes.set_title(title, fontsize=9)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=9)
        axes.locator_params(axis="x", nbins=4)
        axes.spines["left"].set_visible(False)
        axes.use_sticky_edges = False  # the bands have them
        axes.margins(x=0.12)
        if quantity in FROM_ZERO:
            axes.axvline(0, color=INK, linewidth=0.8, zorder=0)
    panels[0].set_yticks(range(len(names)), [on_lines(name) for name in names], color=BLACK)
    panels[0].set_ylim(max(len(names), 1) - 0.5, -0.5)
    handles = [
        Line2D([], [], marker="o", linestyle="-", color=BLUE, markersize=6),
        Line2D([], [], marker="o", linestyle="none", color=BLUE, markerfacecolor="white"),
        Patch(color=GREY, alpha=0.45, linewidth=0),
        Line2D([], [], marker="x", linestyle="none", color=ORANGE, markeredgewidth=1.8),
    ]
    labels = ["ensemble, 95% interval", "one member", "noise alone", "before training"]
    figure.legend(handles, labels, loc="outside upper right", ncols=4)
    return figure


def _mark(axes: Axes, row: int, found: pd.DataFrame, shown: str, quantity: str) -> None:
    """One diagnostic of one ensemble."""
    if shown not in found.index or np.isnan(found.loc[shown, "value"]):
        text = "no spread" if shown in found.index else "not known"
        place = {"transform": axes.get_yaxis_transform(), "ha": "center", "va": "center"}
        axes.text(0.5, row, text, color=GREY, fontsize=8, **place)
        return
    values = found.loc[shown]
    if np.isfinite(values["noise"]):
        low, high = values[["noise_low", "noise_high"]].fillna(values["noise"])
        band = {"height": 0.62, "color": GREY, "alpha": 0.45, "linewidth": 0, "zorder": 1}
        axes.barh(row, high - low, left=low, **band)
        middle = {"color": GREY, "linewidth": 2, "zorder": 2, "gid": f"noise {quantity} {row}"}
        axes.plot([values["noise"]] * 2, [row - 0.31, row + 0.31], **middle)
    if np.isfinite(values["untrained"]) and quantity in BEFORE:
        cross = {"color": ORANGE, "markersize": 6, "markeredgewidth": 1.8, "zorder": 3}
        # Below the dot, which would hide it if training changed nothing.
        axes.plot(values["untrained"], row + 0.22, "x", gid=f"before {quantity} {row}", **cross)
    axes.plot([values["low"], values["high"]], [row, row], color=BLUE, linewidth=2, zorder=4)
    dot = {"color": BLUE, "markersize": 7, "zorder": 5, "gid": f"{quantity} {row}"}
    axes.plot(values["value"], row, "o", **dot)
