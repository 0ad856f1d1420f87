"""Figure 2: a bandit whose worst arm is known least, and what each policy makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from prudent.analysis.theory_checks import AWARE, UNAWARE
from prudent.figures.looks import BLACK, BLUE, GREY, INK, VERMILLION
from prudent.figures.style import new_figure, styled
from prudent.tables import read_table

TITLE = "Figure 2. A bandit of three arms"
STYLES = {UNAWARE: (VERMILLION, "o"), AWARE: (BLUE, "s")}


def plot(curves: Path) -> Figure:
    """The arms, the policies and their gains."""
    return draw_bandit(read_table(curves, "theory_curves"))


@styled
def draw_bandit(curves: pd.DataFrame) -> Figure:
    """Three panels: true rewards, probabilities of arms, and the distribution of the gain.

    Args:
        curves: of ``prudent.analysis.theory_checks.study``.
    """
    note = (
        "Left: true rewards, and ± 1 sd of their estimates. Middle: the mean of each policy over "
        "20,000 draws of the estimates, and its range from the 5th to the 95th percentile; dashed "
        "is the reference. Right: the share of draws whose gain over the reference is at most so "
        "large; the share at 0 is the probability of being no better than the reference (Theorem "
        "3.3), by its closed form. The paper's own arms are not in the text that we could read."
    )
    figure = new_figure(10.8, 4.0, TITLE, note)
    rewards, policies, gains = figure.subplots(1, 3)
    of = {name: part for name, part in curves[curves["figure"] == "fig2"].groupby("panel")}
    arms = of["arms"]
    bars = [arms["y"] - arms["low"], arms["high"] - arms["y"]]
    rewards.errorbar(arms["x"], arms["y"], bars, fmt="D", color=BLACK, capsize=4, gid="arms")
    rewards.set_ylabel("reward")
    rewards.set_title("True rewards ± sd of the estimates")
    for place, (name, (colour, marker)) in enumerate(STYLES.items()):
        rows = of["policies"][of["policies"]["series"] == name]
        bars = [rows["y"] - rows["low"], rows["high"] - rows["y"]]
        x = rows["x"] + (0.2 * place - 0.1)
        style = {"fmt": marker, "color": colour, "capsize": 3}
        policies.errorbar(x, rows["y"], bars, gid=f"policy {name}", **style)
        line = of["gains"][of["gains"]["series"] == name].sort_values("x")
        gains.plot(line["x"], line["y"], color=colour, linewidth=1.8, gid=f"gains {name}")
        (below,) = of["below"].loc[of["below"]["series"] == name, "x"]
        label = f"{name},\n{below:.1%} at 0"
        gains.plot([0], [below], marker, color=colour, label=label, zorder=4)
    reference = of["policies"][of["policies"]["series"] == "reference"]["y"].to_numpy()
    policies.plot(np.arange(3), reference, "--", color=GREY, linewidth=1.2)
    policies.set_ylabel("probability")
    policies.set_ylim(bottom=0)
    policies.set_title("Policies")
    gains.legend(loc="upper left", borderaxespad=0)
    gains.axvline(0, color=INK, linestyle=(0, (4, 2)), linewidth=1)
    gains.yaxis.set_major_formatter(PercentFormatter(1))
    gains.set_xlabel("gain in true reward over the reference")
    gains.set_ylabel("draws with this gain or less")
    gains.set_title("Gains")
    for axes in (rewards, policies):
        axes.set_xticks(range(3), [f"arm {arm}" for arm in (1, 2, 3)])
        axes.set_xlim(-0.5, 2.5)
        axes.grid(True, axis="y")
    return figure
