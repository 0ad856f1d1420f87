"""Fig 9: accuracy on the benchmark."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from prudent.analysis.wording import number
from prudent.figures.looks import BLACK, BLUE, INK, SKY
from prudent.figures.style import new_figure, styled
from prudent.tables import read_csv

COLOURS = {"base": "#B0B0B0", "mean": SKY, "head": BLUE}
PLACES = {"base": -0.29, "mean": 0.02, "head": 0.3}  # of a section's columns and dots


def plot(accuracy: Path) -> Figure:
    """The accuracy of the base model, the members and their mean."""
    return draw_accuracy(read_csv(accuracy, "accuracy"))


@styled
def draw_accuracy(table: pd.DataFrame) -> Figure:
    """Fig 9: accuracy per section of every member, of the ensemble's mean, and of the base model.

    Args:
        table: ``rewardbench.accuracy_table``.
    """
    table = table[table["level"].isin(["section", "overall"])]
    sections = [s for s in dict.fromkeys(table["section"]) if s != "all"] + ["all"]
    ensembles = table.loc[table["model"] == "mean", "ensemble"].nunique()
    heads_count = len(table[(table["section"] == "all") & (table["model"] == "head")])
    parts = {model: table[table["model"] == model] for model in ("base", "mean", "head")}
    ties = parts["mean"].loc[parts["mean"]["section"] == "all", "ties"].mean()
    note = (
        "Accuracy is the share of pairs in which the chosen response gets strictly more than the "
        "rejected one. The thin bars are 95% intervals (normal, over pairs)."
        + (f" Ties count as wrong: {number(ties, 2)} of the mean's pairs." if ties else "")
        + (f" The columns are means over {ensembles} ensembles." if ensembles > 1 else "")
    )
    figure = new_figure(
        max(6, 1.45 * len(sections) + 1.5), 4.4, "Accuracy on the benchmark's sections", note
    )
    axes = figure.add_subplot()
    for model, shift in PLACES.items():
        if model == "head":
            _dots(axes, parts[model], sections, shift)
        else:
            _columns(axes, parts[model], sections, model, shift)
    axes.axhline(0.5, color=INK, linestyle=(0, (4, 2)), linewidth=1)
    axes.annotate(
        "chance", (1, 0.5), (4, 0), axes.get_yaxis_transform(), "offset points", va="center"
    )
    rows = table.groupby("section")["rows"].max()
    axes.set_xticks(
        range(len(sections)),
        [
            f"{textwrap.fill('overall' if s == 'all' else s.replace('_', ' '), 14)}\n"
            f"{rows[s]} pairs"
            for s in sections
        ],
    )
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="y")
    axes.set_ylabel("accuracy")
    handles = [
        Line2D([], [], marker=marker, linestyle="none", markersize=size, color=COLOURS[model])
        for model, marker, size in (("base", "s", 9), ("mean", "s", 9), ("head", "o", 5))
    ]
    labels = ["base model", "mean of the members", f"each of {heads_count} members"]
    axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=3)
    return figure


def _columns(
    axes: Axes, part: pd.DataFrame, sections: Sequence[str], model: str, shift: float
) -> None:
    """One column per section with its interval, and its height in percent at its foot."""
    rows = part.groupby("section")[["accuracy", "se"]].mean().reindex(sections)
    places = np.arange(len(sections)) + shift
    bars = {"ecolor": INK, "linewidth": 1, "capsize": 2}
    axes.bar(
        places,
        rows["accuracy"],
        0.29,
        yerr=1.96 * rows["se"],
        color=COLOURS[model],
        label=model,
        error_kw=bars,
    )
    for x, value in zip(places, rows["accuracy"], strict=True):
        if np.isfinite(value):
            text = f"{100 * value:.0f}"
            axes.text(x, 0.015, text, ha="center", va="bottom", fontsize=9, color=BLACK)


def _dots(axes: Axes, part: pd.DataFrame, sections: Sequence[str], shift: float) -> None:
    """Every member's accuracy, next to the columns so that no dot hides an interval."""
    for index, section in enumerate(sections):
        values = part.loc[part["section"] == section, "accuracy"]
        offsets = np.linspace(-0.1, 0.1, len(values)) if len(values) > 1 else np.zeros(len(values))
        axes.plot(
            index + shift + offsets,
            values,
            "o",
            color=COLOURS["head"],
            markersize=4.5,
            markeredgecolor="white",
            markeredgewidth=0.4,
            zorder=4,
            clip_on=False,
            gid=f"heads {section}",
        )
