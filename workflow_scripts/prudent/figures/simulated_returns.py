"""Returns of the policies of the paper's simulations, at several true rewards (Figures 3 and 4)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prudent.analysis.theory_checks import AWARE, SHOWN, UNAWARE, Simulation
from prudent.figures.looks import BLUE, GREY, VERMILLION, darker
from prudent.figures.style import new_figure, styled
from prudent.tables import read_table

COLOURS = {UNAWARE: VERMILLION, AWARE: BLUE}


def plot_simulation(curves: Path, simulation: Simulation, title: str) -> Figure:
    """The figure of one of the paper's simulations."""
    return draw_returns(read_table(curves, "theory_curves"), simulation, title)


@styled
def draw_returns(curves: pd.DataFrame, simulation: Simulation, title: str) -> Figure:
    """One panel per standard deviation of the true rewards: histograms of both policies' returns.

    Args:
        curves: of ``prudent.analysis.theory_checks.study``.
    """
    low, high = simulation.variances
    unaware, aware = simulation.sds
    note = (
        f"Each draw estimates 1,000 rewards with errors of variance {low:g} to {high:g} and gives "
        "one policy of each kind. The paper prints standard deviations of "
        f"{unaware:g} (unaware) and {aware:g} (aware), and means of {simulation.means[0]:g} and "
        f"{simulation.means[1]:g}. It gives neither the true rewards nor how far policies may go. "
        "Here the unaware policy has the printed mean and standard deviation (dashed: mean ± sd), "
        "and all else follows."
    )
    figure = new_figure(10.8, 3.9, title, note)
    panels = figure.subplots(1, len(SHOWN), squeeze=False)[0]
    for axes, scale in zip(panels, SHOWN, strict=True):
        part = curves[(curves["figure"] == simulation.figure) & (curves["panel"] == f"{scale:g}")]
        _panel(axes, part, simulation)
        axes.set_title(f"true rewards of sd {scale:g}")
        axes.set_xlabel("true return")
    panels[0].set_ylabel("density")
    return figure


def _panel(axes: Axes, part: pd.DataFrame, simulation: Simulation) -> None:
    returns = {name: part.loc[part["series"] == name, "y"].to_numpy() for name in COLOURS}
    edges = np.histogram_bin_edges(np.concatenate(list(returns.values())), 40)
    for end in (-1, 0, 1):
        place = simulation.means[0] + end * simulation.sds[0]
        # Up to the words.
        style = {"color": GREY, "linestyle": (0, (4, 2)), "linewidth": 1 if end else 1.4}
        axes.axvline(place, ymax=0.8, **style)
    for line, (name, values) in enumerate(returns.items()):
        style = {"density": True, "color": COLOURS[name]}
        axes.hist(values, edges, histtype="stepfilled", alpha=0.25, **style)
        axes.hist(values, edges, histtype="step", linewidth=1.5, gid=f"returns {name}", **style)
        said = f"{name}: {values.mean():.3f} ± {values.std(ddof=1):.3f}"
        ink = darker(COLOURS[name])
        axes.text(
            *(0.0, 0.98 - 0.075 * line, said),
            **{"transform": axes.transAxes, "color": ink, "va": "top", "fontsize": 8.5},
        )
    axes.set_ylim(top=1.3 * axes.get_ylim()[1])
    axes.locator_params(axis="x", nbins=5)
