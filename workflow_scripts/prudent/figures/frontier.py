"""Score against KL: the trained policies and the optima of their objectives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prudent.analysis.policies import missed, read_judgement
from prudent.analysis.wording import name_of
from prudent.exact.summary import LEAST_SIZE
from prudent.figures.looks import GREY, INK, Look, looks
from prudent.figures.style import new_figure, off_target, square_root_axis, styled
from prudent.tables import read_csv, read_table

COLUMNS = 4


def plot(frontier: Path, policies: Path, reference: Path, methods: Sequence[str]) -> Figure:
    """The trained policies of the methods, and their optima."""
    scores = read_judgement(reference)["score"]
    return draw_frontier(
        read_table(frontier, "exact_frontier"),
        read_csv(policies, "policies"),
        float(scores.mean()),
        methods,
    )


@styled
def draw_frontier(
    frontier: pd.DataFrame, policies: pd.DataFrame, reference: float, methods: Sequence[str]
) -> Figure:
    """One panel per method: the gain in the judge's score against the KL, on a square-root scale.

    Args:
        frontier: ``exact.evaluate.frontiers``.
        policies: ``analysis.policies.policy_table``.
        reference: the reference policy's mean score.
    """
    look = looks(methods)
    note = (
        "Each line is one head's optimal policies, found without training on the prompts of the "
        "exact policies; the thick one is their mean. It is dotted where a policy is worth fewer "
        f"than {LEAST_SIZE:g} responses for one prompt in a hundred, and known poorly. Each mark "
        "is the policy that PPO trained against that head: the mean score of its responses to the "
        "test prompts over the reference policy's (dashed, 0), at its KL on them. What "
        "lies between a mark and its line is what optimisation loses, or finds elsewhere."
    )
    columns = min(COLUMNS, len(methods))
    rows = -(-len(methods) // columns)
    figure = new_figure(
        max(8.6, 3.4 * columns + 0.6), 3.2 * rows + 1.4, "Trained policies and their optima", note
    )
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(methods) :]:
        axes.set_visible(False)
    for axes, method in zip(panels.flat, methods, strict=False):
        _panel(
            axes,
            frontier[frontier["method"] == method],
            policies[policies["method"] == method],
            reference,
            look[method],
        )
        known = "" if (frontier["method"] == method).any() else ": no exact optimum"
        axes.set_title(name_of(method) + known + off_target(method, missed(policies), ", "))
    for axes in panels[-1]:
        axes.set_xlabel("KL to the reference policy, nats")
    for axes in panels[:, 0]:
        axes.set_ylabel("gain in the judge's score")
    keys = [
        Line2D([], [], color=INK, linewidth=0.8, label="optimum, one head"),
        Line2D([], [], color=INK, linewidth=2.2, label="mean over heads"),
        Line2D([], [], color=INK, marker="o", linestyle="none", markersize=5, label="PPO"),
    ]
    figure.legend(handles=keys, loc="outside right upper")
    return figure


def _panel(
    axes: Axes, frontier: pd.DataFrame, policies: pd.DataFrame, reference: float, look: Look
) -> None:
    axes.axhline(0, color=INK, linestyle=(0, (4, 2)), linewidth=1.2)
    square_root_axis(axes)
    for _, line in frontier.groupby(["draw", "head"], sort=False):
        _curve(axes, line, color=look.colour, linewidth=0.8, alpha=0.55)
    if len(frontier):
        mean = frontier.groupby("kl_target", as_index=False)[["gain", "effective_size"]].mean()
        _curve(axes, mean, color=look.ink, linewidth=2.2, gid="mean")
    axes.plot(
        policies["kl"],
        policies["score"] - reference,
        color=look.colour,
        marker=look.marker,
        markeredgecolor=INK,
        markeredgewidth=0.6,
        markersize=5,
        linestyle="none",
        zorder=3,
        gid="trained",
    )
    axes.set_xlim(left=0)
    axes.grid(True, color=GREY, alpha=0.25)


def _curve(axes: Axes, line: pd.DataFrame, **style) -> None:
    """Gains over KLs, starting at the reference at 0; dotted from the first poorly known policy."""
    line = line.sort_values("kl_target")
    kl, gain = np.r_[0, line["kl_target"]], np.r_[0, line["gain"]]
    poor = np.flatnonzero(np.r_[False, line["effective_size"] < LEAST_SIZE])
    end = int(poor[0]) if len(poor) else len(kl)
    axes.plot(kl[:end], gain[:end], **style)
    if end < len(kl):
        style.pop("gid", None)
        axes.plot(kl[max(end - 1, 0) :], gain[max(end - 1, 0) :], linestyle=":", **style)
