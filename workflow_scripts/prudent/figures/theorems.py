"""Theorems 2.2, 3.3 and 3.6, each beside what is true."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from prudent.analysis.statistics import LEVEL
from prudent.analysis.theory_checks import AWARE, UNAWARE
from prudent.figures.looks import BLACK, BLUE, GREEN, ORANGE, VERMILLION
from prudent.figures.style import new_figure, styled
from prudent.tables import read_table

TITLE = "The theorems, and what is true"
BOUNDS = {
    "true": (BLACK, "-"),
    "printed": (VERMILLION, (0, (5, 2))),
    "proof's": (GREEN, (0, (2, 1))),
}
OPTIMA = {"true": BLACK, "printed": VERMILLION, "PPO": ORANGE}
POLICIES = {UNAWARE: (VERMILLION, "o"), AWARE: (BLUE, "s")}


def plot(curves: Path) -> Figure:
    """The three theorems."""
    return draw_theorems(read_table(curves, "theory_curves"))


@styled
def draw_theorems(curves: pd.DataFrame) -> Figure:
    """Four panels: Theorem 2.2 for few and for many responses, Theorem 3.3, and Theorem 3.6.

    Args:
        curves: of ``prudent.analysis.theory_checks.study``.
    """
    note = (
        "Theorem 2.2: the probability that all estimates lie in the ellipsoid of radius beta. The "
        "printed bound has its fraction upside down; the proof's is no bound where its line is "
        "above the truth. Theorem 3.3: the probability of a policy that is no better than the "
        "reference, over the size of the true rewards, with 1,000 responses and variances of 3 to "
        "100. Theorem 3.6: optima on the bandit of Figure 2, with the value of the objective. Dots "
        f"are simulations with {LEVEL:.0%} intervals."
    )
    figure = new_figure(10.2, 7.6, TITLE, note)
    ((few, many), (risk, optimum)) = figure.subplots(2, 2)
    norm = curves[curves["figure"] == "theorem2.2"]
    for axes, (panel, rows) in zip((many, few), norm.groupby("panel"), strict=True):
        _bound(axes, rows)
        axes.set_title(f"Theorem 2.2, {panel}")
    _risk(risk, curves[curves["figure"] == "theorem3.3"])
    _optima(optimum, curves[curves["figure"] == "theorem3.6"])
    return figure


def _bound(axes: Axes, rows: pd.DataFrame) -> None:
    for name, (colour, dashes) in BOUNDS.items():
        line = rows[rows["series"] == name]
        style = {"color": colour, "linestyle": dashes, "linewidth": 1.8, "gid": f"bound {name}"}
        axes.plot(line["x"], line["y"], label=name, **style)
    _simulated(axes, rows[rows["series"] == "simulated"], BLACK, "o", "simulated")
    axes.set_xlabel("beta² / number of responses")
    axes.set_ylabel("probability")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylim(-0.03, 1.03)
    axes.legend(loc="center right", bbox_to_anchor=(1, 0.58))


def _risk(axes: Axes, rows: pd.DataFrame) -> None:
    for name, (colour, marker) in POLICIES.items():
        line = rows[(rows["series"] == name) & (rows["panel"] == "below")]
        axes.plot(line["x"], line["y"], color=colour, linewidth=1.8, label=name, gid=f"risk {name}")
        dots = rows[(rows["series"] == name) & (rows["panel"] == "simulated")]
        _simulated(axes, dots, colour, marker)
    axes.set_xscale("log")
    ticks = (0.003, 0.01, 0.03, 0.1, 0.3, 1)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("sd of the true rewards")
    axes.set_ylabel("P(no better than the reference)")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylim(bottom=-0.01)
    axes.set_title("Theorem 3.3, 1,000 responses")
    axes.legend(loc="upper right")


def _optima(axes: Axes, rows: pd.DataFrame) -> None:
    for place, (name, colour) in enumerate(OPTIMA.items()):
        bars = rows[rows["panel"] == name]
        (value,) = bars["series"].unique()
        x = bars["x"] + 0.26 * (place - 1)
        axes.bar(x, bars["y"], 0.24, color=colour, label=f"{name}: {value}", gid=f"optimum {name}")
    axes.set_xticks(range(3), [f"arm {arm}" for arm in (1, 2, 3)])
    axes.set_ylabel("probability")
    axes.set_title("Theorem 3.6, the bandit")
    axes.legend(title="optimum: objective", loc="upper right")


def _simulated(axes: Axes, rows: pd.DataFrame, colour: str, marker: str, label: str = "") -> None:
    # Wilson's interval of a share of 1 may end below it by rounding.
    bars = [(rows["y"] - rows["low"]).clip(0), (rows["high"] - rows["y"]).clip(0)]
    style = {"fmt": marker, "color": colour, "markersize": 4, "capsize": 2, "elinewidth": 1}
    axes.errorbar(rows["x"], rows["y"], bars, label=label or None, zorder=4, **style)
