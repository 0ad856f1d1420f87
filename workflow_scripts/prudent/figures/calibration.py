"""The search for the coefficients that bring the methods' policies to a KL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from prudent.analysis.wording import name_of, number
from prudent.figures.looks import GREY, INK, Look, looks
from prudent.figures.style import new_figure, styled
from prudent.policies.target_kl import KL_TOLERANCE, Calibration, read_calibration
from prudent.tables import read_csv

COLUMNS = 4
TICKS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
"""Ticks of a decade; fewer are drawn where they would not fit."""


def plot(tables: Sequence[Path], calibrations: Sequence[Path], methods: Sequence[str]) -> Figure:
    """All pilots of the methods, and the chosen coefficients."""
    pilots = pd.concat([read_csv(path, "calibration") for path in tables], ignore_index=True)
    found = map(read_calibration, calibrations)
    return draw_calibration(pilots, dict(zip(methods, found, strict=True)))


@styled
def draw_calibration(pilots: pd.DataFrame, found: Mapping[str, Calibration]) -> Figure:
    """One panel per method: the KL against the coefficient, of each pilot and as estimated.

    Args:
        pilots: the tables of ``calibrate_beta``.
        found: the coefficient that each method's policies have.
    """
    methods = list(found)
    look = looks(methods)
    note = (
        "Each small mark is a pilot: a policy with a member and a random stream of its own that is "
        "not compared. A dash beside a number is their mean \N{PLUS-MINUS SIGN} 1 standard error; "
        "the numbers are the order of the search. The vertical line is the coefficient that was "
        "taken. The curve is the mean KL of the optimal policies of the members that are "
        f"compared. The band is the target \N{PLUS-MINUS SIGN} {KL_TOLERANCE:.0%}."
    )
    columns = min(COLUMNS, len(methods))
    rows = -(-len(methods) // columns)
    figure = new_figure(
        max(8.6, 3.4 * columns + 0.6), 3.2 * rows + 1.5, "The search for the coefficients", note
    )
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(methods) :]:
        axes.set_visible(False)
    for axes, method in zip(panels.flat, methods, strict=False):
        _panel(axes, pilots[pilots["method"] == method], found[method], look[method])
        reached = "" if found[method].reached else ": not reached"
        axes.set_title(f"{name_of(method)}, to {number(found[method].kl_target)}{reached}")
    for axes in panels[:, 0]:
        axes.set_ylabel("final KL to the reference, nats")
    keys = [
        Line2D([], [], color=INK, marker=".", linestyle="none", label="pilot"),
        Line2D([], [], color=INK, linewidth=2.2, label="taken"),
        Line2D([], [], color=INK, linewidth=0.8, label="optimum"),
    ]
    figure.legend(handles=keys, loc="outside right upper")
    return figure


def _panel(axes: Axes, pilots: pd.DataFrame, found: Calibration, look: Look) -> None:
    target = found.kl_target
    axes.axhspan(
        target * (1 - KL_TOLERANCE), target * (1 + KL_TOLERANCE), color=GREY, alpha=0.25, zorder=0
    )
    axes.axhline(target, color=INK, linestyle=(0, (4, 2)), linewidth=1.2)
    axes.axvline(found.beta, color=look.ink, linewidth=2.2, zorder=1, gid="taken")
    axes.plot(
        pilots["beta"], pilots["kl"], ".", color=look.colour, markersize=6, zorder=2, gid="pilots"
    )
    exact = pilots.groupby("beta")["exact_kl"].mean()
    axes.plot(exact.index, exact, color=INK, linewidth=0.8, zorder=1, gid="exact")
    estimates = pilots.drop_duplicates("evaluation").sort_values("evaluation")
    for row in estimates.itertuples():
        error = row.policies_kl_se if np.isfinite(row.policies_kl_se) else None
        axes.errorbar(
            row.beta,
            row.policies_kl,
            error,
            marker="_",
            markersize=13,
            color=look.ink,
            linewidth=1.2,
            zorder=3,
        )
        # Beside the mean, where the number hides no pilot.
        side = 1 if row.beta < estimates["beta"].max() else -1
        axes.annotate(
            f"{row.evaluation + 1:.0f}",
            (row.beta, row.policies_kl),
            (17 * side, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            color=look.ink,
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": look.ink},
            zorder=5,
        )
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("log")
        axis.set_major_locator(LogLocator(subs=TICKS))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    axes.margins(0.12)
    axes.set_xlabel("coefficient")
    axes.grid(True, which="both", color=GREY, alpha=0.25)
