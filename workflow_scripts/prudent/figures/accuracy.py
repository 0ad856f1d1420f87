"""Fig 9: accuracy on the benchmark."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from prudent.analysis.wording import number
from prudent.figures.looks import BLACK, BLUE, INK, SKY
from prudent.figures.style import new_figure, styled


@styled
def draw_accuracy(table: pd.DataFrame) -> Figure:
    """Fig 9: accuracy per section of every head, of the ensemble's mean, and of the base model.

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
        "Share of pairs with the chosen response strictly above the rejected one. Bars on the bars:"
        " 95% (normal, over pairs)."
        + (f" Ties, which count as wrong: {number(ties, 2)} of the mean's pairs." if ties else "")
        + (f" Mean over {ensembles} ensembles." if ensembles > 1 else "")
    )
    figure = new_figure(
        max(6, 1.35 * len(sections) + 1.5), 4.4, "Accuracy on the benchmark's sections", note
    )
    axes = figure.add_subplot()
    for model, shift, colour in (("base", -0.2, "#B0B0B0"), ("mean", 0.2, SKY)):
        rows = parts[model].groupby("section")[["accuracy", "se"]].mean().reindex(sections)
        places = np.arange(len(sections)) + shift
        axes.bar(
            places,
            rows["accuracy"],
            0.38,
            yerr=1.96 * rows["se"],
            color=colour,
            label=model,
            error_kw={"ecolor": INK, "linewidth": 1, "capsize": 2},
        )
        for x, value in zip(places, rows["accuracy"], strict=True):
            if np.isfinite(value):
                text = f"{100 * value:.0f}"
                axes.text(x, 0.015, text, ha="center", va="bottom", fontsize=9, color=BLACK)
    for index, section in enumerate(sections):
        values = parts["head"].loc[parts["head"]["section"] == section, "accuracy"]
        offsets = np.linspace(-0.14, 0.14, len(values)) if len(values) > 1 else np.zeros(1)
        (dots,) = axes.plot(
            index + 0.2 + offsets[: len(values)],
            values,
            "o",
            color=BLUE,
            markersize=4,
            markeredgecolor="white",
            markeredgewidth=0.4,
            zorder=4,
        )
        dots.set_gid(f"heads {section}")
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
        Line2D([], [], marker="s", linestyle="none", markersize=9, color="#B0B0B0"),
        Line2D([], [], marker="s", linestyle="none", markersize=9, color=SKY),
        Line2D([], [], marker="o", linestyle="none", markersize=5, color=BLUE),
    ]
    labels = ["base model", "mean of the heads", f"each of {heads_count} heads"]
    axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=3)
    return figure
