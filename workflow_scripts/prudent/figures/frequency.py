"""Accuracy, error and sigma by the frequency, in training, of a response's rarest judgement."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from prudent.figures.looks import BLUE, INK, ORANGE, SKY
from prudent.figures.style import new_figure, on_lines, styled
from prudent.tables import read_csv

ONE, MEAN, SIGMA = "one member", "ensemble mean", "sigma"
# Each quantity's panel, its name in the legend, and its shift.
QUANTITIES = {
    "accuracy_member": ("accuracy", ONE, -0.08),
    "accuracy_mean": ("accuracy", MEAN, 0.08),
    "error_member": ("error", ONE, -0.12),
    "error_mean": ("error", MEAN, 0.0),
    "sigma": ("error", SIGMA, 0.12),
}
LOOKS = {ONE: (SKY, "o", (0, (3, 2))), MEAN: (BLUE, "o", "-"), SIGMA: (ORANGE, "D", "-")}


def plot(frequency: Path) -> Figure:
    """Every ensemble of the table by frequency."""
    return draw_frequency(read_csv(frequency, "frequency"))


@styled
def draw_frequency(table: pd.DataFrame) -> Figure:
    """Each ensemble's accuracy in one panel, errors and sigma in another, over bins of counts.

    Args:
        table: ``frequency.frequency_table`` of each ensemble; all have the same bins.
    """
    names = list(dict.fromkeys(table["ensemble"]))
    note = (
        "Bins of about as many responses each, by how often a response's rarest judgement word "
        "stands in the training pairs' responses; the axis names each bin's smallest count. "
        "Accuracy is that of pairs of responses to one prompt, in the bin of the rarer one. Errors "
        "are root mean squares of the residuals of the line on the true reward. Bars: 95% interval "
        "over prompts. A sigma that knew the error would rise and fall with it."
    )
    several = len(names) > 1
    size = (max(1.85 * len(names) + 1.2, 8.6), 6.6) if several else (8.6, 4.4)
    figure = new_figure(*size, "Rare and frequent judgements", note)
    shape = (2, len(names)) if several else (1, 2)
    panels = figure.subplots(*shape, squeeze=False, sharey="row" if several else False)
    panels = panels if several else panels.T  # [accuracy or errors, ensemble]
    for index, name in enumerate(names):
        part = table[table["ensemble"] == name].sort_values("bin")
        for axes, kind in zip(panels[:, index], ("accuracy", "error"), strict=True):
            for quantity, (panel, label, shift) in QUANTITIES.items():
                if panel == kind:
                    _line(axes, part, quantity, label, shift)
            axes.set_xticks(part["bin"], [f"{count:g}" for count in part["count_low"]], fontsize=8)
            axes.set_xlim(-0.5, max(len(part), 1) - 0.5)
            axes.grid(axis="y")
            if kind == "accuracy":
                axes.set_title(on_lines(name), fontweight="bold")
            if not several or kind == "error":
                axes.set_xlabel("count of the\nrarest judgement", fontsize=9)
    for axes in panels[0]:
        axes.axhline(0.5, color=INK, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes in panels[1]:
        axes.set_ylim(bottom=0)
    if len(names):
        panels[0, 0].set_ylabel("accuracy (dotted: coin)")
        panels[1, 0].set_ylabel("rms error, mean sigma")
        handles, labels = panels[1, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=3)
    return figure


def _line(axes: Axes, part: pd.DataFrame, quantity: str, label: str, shift: float) -> None:
    """One quantity over the bins with its intervals, shifted beside the others."""
    colour, marker, line = LOOKS[label]
    places = part["bin"].to_numpy() + shift
    axes.vlines(places, part[f"{quantity}_low"], part[f"{quantity}_high"], colour, linewidth=1.5)
    look = {"marker": marker, "color": colour, "linestyle": line, "linewidth": 1.2}
    edge = {"markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.5}
    gid = f"{quantity} {part['ensemble'].iloc[0]}"
    axes.plot(places, part[quantity].to_numpy(float), label=label, gid=gid, **look, **edge)
