"""Figure 4: returns of policies where the estimates' variances are much alike."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from prudent.analysis.theory_checks import SIMULATIONS
from prudent.figures.simulated_returns import plot_simulation

TITLE = "Figure 4. Returns where variances are alike"


def plot(curves: Path) -> Figure:
    """The simulation with variances of 70 to 100."""
    return plot_simulation(curves, SIMULATIONS[1], TITLE)
