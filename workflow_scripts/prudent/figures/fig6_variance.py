"""Fig 6: how much the members disagree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prudent import tables
from prudent.analysis.wording import number
from prudent.figures.looks import BLACK, GREY, ORANGE, SKY
from prudent.figures.style import new_figure, styled
from prudent.rewards import rewardbench


def plot(scores: Path) -> Figure:
    """The variance over the members in each section."""
    return draw_variance(rewardbench.variance_rows(tables.read_table(scores, "scores")))


@styled
def draw_variance(rows: pd.DataFrame) -> Figure:
    """Fig 6: the members' variance over the rows of each section, both kinds.

    Args:
        rows: ``rewardbench.variance_rows``.
    """
    sections = list(dict.fromkeys(rows["section"]))
    kinds = {
        "accepted": ("accepted response", SKY),
        "difference": ("accepted minus rejected", ORANGE),
    }
    ensembles = rows["ensemble"].nunique()
    note = (
        "The variance is the sample variance (ddof 1) over the members, one value per row of the "
        "benchmark"
        + (f" and ensemble ({ensembles} ensembles)" if ensembles > 1 else "")
        + ". The solid line is the median, the dashed line the mean."
    )
    # Kinds are rows of panels, as in the paper; with many sections, the sections are rows.
    wide = len(sections) <= 5
    shape = (2, len(sections)) if wide else (len(sections), 2)
    size = (max(2.5 * shape[1] + 0.6, 5.5), max(2.1 * shape[0] + 0.9, 4.0))
    figure = new_figure(*size, "How much the members disagree", note)
    panels = figure.subplots(*shape, squeeze=False, sharex="row" if wide else "col")
    panels = panels if wide else panels.T
    for (kind, (label, colour)), line in zip(kinds.items(), panels, strict=True):
        values = {s: rows.loc[rows["section"] == s, kind].dropna() for s in sections}
        together = pd.concat(values.values())
        limit = _clip_limit(together)
        edges = np.linspace(0, limit, 26)
        for index, (section, axes) in enumerate(zip(sections, line, strict=True)):
            _histogram(axes, values[section], edges, colour)
            if wide:
                if kind == "accepted":
                    axes.set_title(section, fontweight="bold")
                axes.set_xlabel("variance", fontsize=9)
                if index == 0:
                    axes.set_ylabel(f"{label}\nrows", linespacing=1.6)
            else:
                axes.set_title(section if kind == "accepted" else "", fontweight="bold")
                axes.set_ylabel("rows" if kind == "accepted" else "")
                if index == len(sections) - 1:
                    axes.set_xlabel(f"variance, {label}")
    return figure


def _clip_limit(values: pd.Series) -> float:
    """The upper end of the histograms: the maximum, unless outliers would squeeze the rest."""
    if not len(values) or values.max() <= 0:
        return 1.0
    most = float(values.quantile(0.99, interpolation="lower"))
    return float(values.max()) if values.max() <= 1.3 * most or most == 0 else most


def _histogram(axes: Axes, values: pd.Series, edges: np.ndarray, colour: str) -> None:
    if not len(values):
        text = "no variance:\none member"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)
        axes.set_yticks([])
        return
    bars, _, _ = axes.hist(
        values.clip(upper=edges[-1]), edges, color=colour, edgecolor="white", linewidth=0.4
    )
    axes.axvline(values.median(), color=BLACK, linewidth=1.4)
    axes.axvline(values.mean(), color=BLACK, linewidth=1.4, linestyle=(0, (3, 2)))
    beyond = int((values > edges[-1]).sum())
    lines = [f"median {number(values.median())}", f"mean {number(values.mean())}"]
    lines += [f"max {number(values.max())}", f"n = {len(values)}"]
    if beyond:
        lines.append(f"last bin: {beyond} beyond")
    # The text is at the right, above the bars.
    below = bars[len(bars) // 2 :].max() / (1 - 0.1 * len(lines))
    axes.set_ylim(0, max(1.12 * axes.get_ylim()[1], below))
    axes.text(
        1, 1, "\n".join(lines), transform=axes.transAxes, ha="right", va="top", fontsize=8
    ).set_bbox({"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1})
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
