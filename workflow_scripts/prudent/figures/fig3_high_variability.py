"""Figure 3: returns of policies where the estimates' variances differ much."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from prudent.analysis.theory_checks import SIMULATIONS
from prudent.figures.simulated_returns import plot_simulation

TITLE = "Figure 3. Returns where variances differ much"


def plot(curves: Path) -> Figure:
    """The simulation with variances of 3 to 100."""
    return plot_simulation(curves, SIMULATIONS[0], TITLE)
