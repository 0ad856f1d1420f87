"""The figures of an audit, each from the rows of its table (``prudent.audit.measures``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from prudent.audit import measures
from prudent.audit.measures import ALL
from prudent.audit.scores import Scores
from prudent.errors import cut
from prudent.figures.looks import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, VERMILLION
from prudent.figures.page_tables import between, decimals
from prudent.figures.style import new_figure, styled, svg_text
from prudent.rewards.calibration import BINS

Parts = Mapping[tuple[str, str], Mapping[str, Any]]
"""The table's rows, as ``measures.by_part`` gives them."""

ROWS = 60  # of the figure of accuracy; more parts are left out
POINTS = 400  # of a curve
LEAST = 0.05  # of the pairs kept: a smaller share is too few pairs to tell errors apart
DASHED = (0, (4, 2))
INTERVALS = "Bars are 95% bootstrap intervals over prompts."


def figures(scores: Scores, parts: Parts) -> dict[str, Figure]:
    """The figures by name, in their order; those of the spread for two members or more."""
    found = {"accuracy": draw_accuracy(parts), "reliability": draw_reliability(parts)}
    if scores.margins.shape[1] > 1:
        found["risk-coverage"] = draw_risk_coverage(scores, parts)
        found["spread"] = draw_spread(parts)
        found["members"] = draw_members(parts)
    return found


def drawings(scores: Scores, parts: Parts) -> dict[str, str]:
    """The text of each figure's SVG file, by name."""
    return {name: svg_text(figure) for name, figure in figures(scores, parts).items()}


@styled
def draw_accuracy(parts: Parts) -> Figure:
    """Accuracy by section and subset, with the rule that the longer response wins."""
    shown = list(parts)
    if len(shown) > ROWS:
        shown = [part for part in shown if part[1] == ALL][:ROWS]
    left = len(parts) - len(shown)
    note = (
        f"Each row is a part of the pairs, with their number. {INTERVALS} The dashed line is a "
        "coin flip. Where the intervals of scores and length overlap, look at their difference in "
        "the table: both are of the same pairs."
        + (f" {left} parts are in the table alone." if left else "")
    )
    title = "Accuracy, beside always preferring the longer response"
    figure = new_figure(8.6, 2.2 + 0.27 * len(shown), title, note)
    axes = figure.subplots()
    axes.axvline(0.5, color=INK, linestyle=DASHED, linewidth=1)
    labels = []
    for place, part in enumerate(shown):
        of = parts[part]
        for quantity, shift, marker, colour in (
            (measures.ACCURACY_MEAN, -0.13, "o", BLUE),
            (measures.LONGER, 0.13, "s", ORANGE),
        ):
            _across(axes, of[quantity], place + shift, marker, colour)
        labels.append(f"{_part_name(part)} ({of[measures.ACCURACY_MEAN].n})")
    axes.set_yticks(range(len(shown)), labels)
    for label, (_, subset) in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_fontweight("bold" if subset == ALL else "normal")
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    _percent_axis(axes.xaxis, axes.set_xlabel, "pairs with the chosen response ahead")
    axes.grid(True, axis="x")
    axes.plot([], [], "o-", color=BLUE, label="scores")
    axes.plot([], [], "s-", color=ORANGE, label="longer response")
    figure.legend(loc="outside right upper")
    return figure


@styled
def draw_reliability(parts: Parts) -> Figure:
    """How often the likelier response is the chosen one, by the confidence in it."""
    of = parts[ALL, ALL]
    names = [measures.RELIABILITY.format(bin_, BINS) for bin_ in range(1, BINS + 1)]
    rows = [of[name] for name in names if name in of]
    note = (
        "Each mark is a tenth of the pairs that the temperature was not fitted on: their mean "
        "confidence sigmoid(|margin| / temperature), and how often the response with the higher "
        "score is the chosen one. Bars are Wilson's 95% intervals, in which each prompt counts "
        "once. On the dashed line confidence is right; below it the scores are too sure."
    )
    figure = new_figure(6.4, 5.2, "Calibration: is confidence right as often as it says?", note)
    axes = figure.subplots()
    axes.plot([0.5, 1], [0.5, 1], color=INK, linestyle=DASHED, linewidth=1)
    for row in rows:
        axes.plot([row.noise, row.noise], [row.low, row.high], color=BLUE, linewidth=1.4)
        axes.plot([row.noise], [row.value], "o", color=BLUE, markersize=6, gid=row.quantity)
    if not rows:
        _empty(axes, "a single prompt: there is none to fit the temperature on")
    axes.set_xlim(0.485, 1.015)
    _percent_axis(axes.xaxis, axes.set_xlabel, "confidence in the response with the higher score")
    _percent_axis(axes.yaxis, axes.set_ylabel, "pairs in which it is the chosen one")
    axes.grid(True)
    return figure


CURVES = {
    measures.LARGE_MARGIN: (BLUE, "-"),
    measures.LOW_SPREAD: (VERMILLION, "-"),
    measures.LARGE_RATIO: (GREEN, (0, (6, 1.5))),
    measures.RANDOM: (GREY, DASHED),
}


@styled
def draw_risk_coverage(scores: Scores, parts: Parts) -> Figure:
    """The error rate among the pairs that are kept, by the share that is kept."""
    of, margins = parts[ALL, ALL], scores.margins
    wrong = 1.0 * (margins.mean(1) <= 0)
    keys = measures.orders(margins.mean(1), scores.spread) | {measures.RANDOM: np.zeros(len(wrong))}
    note = (
        "Pairs are kept in the order named; the lower its curve, the better the order finds the "
        "errors. The area under a curve, with its 95% bootstrap interval over prompts, is its mean "
        "height over all shares. |margin| needs no ensemble: a spread is worth its cost if it "
        f"does better, alone or together with |margin|. Shares below {LEAST:.0%} are not drawn."
    )
    title = "Does the spread find the errors? Errors among the pairs kept"
    figure = new_figure(9.6, 5.0, title, note)
    axes = figure.subplots()
    share = np.arange(1, len(wrong) + 1) / len(wrong)
    drawn = np.flatnonzero(share >= LEAST)
    drawn = drawn[np.unique(np.linspace(0, len(drawn) - 1, POINTS).astype(int))]
    for name, (colour, line) in CURVES.items():
        area = of[measures.AREA.format(name)]
        label = f"{name}\narea {decimals(area.value)} ({between(area.low, area.high, decimals)})"
        curve = measures.risk_coverage(keys[name], wrong)
        style = {"color": colour, "linestyle": line, "linewidth": 2, "gid": name}
        axes.plot(share[drawn], curve[drawn], label=label, **style)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(1.08 * axes.get_ylim()[1], 0.01))
    _percent_axis(axes.xaxis, axes.set_xlabel, "pairs kept")
    _percent_axis(axes.yaxis, axes.set_ylabel, "errors among them")
    axes.grid(True)
    figure.legend(loc="outside right upper", labelspacing=1)
    return figure


@styled
def draw_spread(parts: Parts) -> Figure:
    """Accuracy by fifth of the spread, with what a shuffled spread gives."""
    of = parts[ALL, ALL]
    rows = [of[measures.BY_SPREAD.format(fifth)] for fifth in range(1, measures.FIFTHS + 1)]
    note = (
        f"{INTERVALS} Bands are the 95% range if the spreads were shuffled over the pairs: what a "
        "spread gives that knows nothing. A spread that knows of errors falls from above the bands "
        "to below them."
    )
    figure = new_figure(6.8, 4.8, "Accuracy by the disagreement of the members", note)
    axes = figure.subplots()
    for place, row in enumerate(rows, start=1):
        wide = [place - 0.38, place + 0.38]
        label = "shuffled spread" if place == 1 else None
        axes.fill_between(
            wide, row.noise_low, row.noise_high, color=GREY, alpha=0.3, linewidth=0, label=label
        )
        axes.plot([place, place], [row.low, row.high], color=PURPLE, linewidth=1.4)
        axes.plot([place], [row.value], "o", color=PURPLE, markersize=7, gid=row.quantity)
    axes.plot([], [], "o-", color=PURPLE, label="spread")
    places = range(1, len(rows) + 1)
    names = {1: "lowest", len(rows): "highest"}
    axes.set_xticks(places, [f"{names.get(p, p)}\n({rows[p - 1].n})" for p in places])
    axes.set_xlabel("fifth of the spread (pairs)")
    _percent_axis(axes.yaxis, axes.set_ylabel, "accuracy of the members' mean")
    axes.grid(True, axis="y")
    figure.legend(loc="outside right upper")
    return figure


@styled
def draw_members(parts: Parts) -> Figure:
    """Accuracy of the mean of some of the members."""
    of = parts[ALL, ALL]
    before, after = measures.TEAM.split("{}")
    curve = {
        int(name[len(before) : -len(after)]): row
        for name, row in of.items()
        if name.startswith(before) and name.endswith(after)
    }
    note = (
        f"Mean over at most {measures.SUBSETS} random subsets of so many members, each divided by "
        f"its own root mean square. {INTERVALS} They are of the same pairs, so the curve is known "
        "better than each of its marks."
    )
    figure = new_figure(6.4, 4.6, "What more members are worth", note)
    axes = figure.subplots()
    axes.set_xscale("log")
    for size, row in curve.items():
        axes.plot([size, size], [row.low, row.high], color=BLUE, linewidth=1.4)
    heights = [row.value for row in curve.values()]
    axes.plot(list(curve), heights, "o-", color=BLUE, markersize=6, gid="members")
    axes.set_xticks(list(curve), [str(size) for size in curve])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("members in the mean")
    _percent_axis(axes.yaxis, axes.set_ylabel, "accuracy")
    axes.grid(True)
    return figure


def _part_name(part: tuple[str, str]) -> str:
    """A part's name for people, cut if it is long."""
    section, subset = part
    if subset != ALL:
        return cut(subset, 40)
    return "all pairs" if section == ALL else cut(section, 40)


def _across(axes: Axes, row: Any, height: float, marker: str, colour: str) -> None:
    """A mark with its interval, in the direction of x."""
    if np.isfinite(row.value):
        axes.plot([row.low, row.high], [height, height], color=colour, linewidth=1.4)
        axes.plot([row.value], [height], marker, color=colour, markersize=5, gid=row.quantity)


def _percent_axis(axis: Any, label: Callable[[str], Any], text: str) -> None:
    """Marks an axis of shares in percent."""
    # The margins of an axis may reach beyond what a share can be.
    shown = FuncFormatter(lambda share, _: f"{100 * share:.3g}%" if share < 1 + 1e-9 else "")
    axis.set_major_formatter(shown)
    label(text)


def _empty(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=INK)
