"""The verdicts: each method's variance ratio and difference of means, with the deciding limits."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from prudent.analysis.verdict import ANEW, GIVEN, TRAINED, Comparison, Verdicts, read_verdicts
from prudent.analysis.wording import name_of, number
from prudent.figures.looks import BLACK, GREEN, GREY, INK, VERMILLION
from prudent.figures.style import new_figure, on_lines, styled

COLOURS = {"reduces": GREEN, "does not": VERMILLION, "undecided": GREY}
WORDS = {
    "reduces": "reduces variance, beyond its controls",
    "does not": "does not",
    "undecided": "undecided",
}
MARKERS = {GIVEN: "o", ANEW: "s", TRAINED: "^"}
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


def plot(verdict: Path, margin: float) -> Figure:
    """All methods' comparisons."""
    return draw_verdicts(read_verdicts(verdict), margin)


@styled
def draw_verdicts(verdicts: Verdicts, margin: float) -> Figure:
    """One row per method and comparison; the ratio on the left, the means on the right."""
    rows = [(method, one) for method in verdicts.methods for one in method.comparisons]
    baseline = name_of(verdicts.baseline)
    note = (
        f"Left: the variance of {baseline}'s scores over that of the method's, all at the same KL; "
        "small hollow marks are the ratio to each of the method's controls. Right of the line at 1 "
        f"the method varies less; a ratio below the dashed line, {margin:g}, does not matter. "
        "Right: the method's mean less the baseline's. Bars are 95% intervals over draws of the "
        "rewards, whose number is in brackets."
    )
    title = "What may be said of each method, at the same KL"
    controls = max((len(one.controls) for _, one in rows), default=0)
    apart = 0.3 + 0.1 * controls  # inches between rows, with room for the controls' marks
    figure = new_figure(11.5, 2.1 + apart * max(len(rows), 3), title, note)
    ratio, mean = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    ratio.set_xscale("log")
    ratio.axvline(1, color=INK, linewidth=1)
    ratio.axvline(margin, color=INK, linewidth=1, linestyle=(0, (4, 2)))
    mean.axvline(0, color=INK, linewidth=1)
    labels, heights, place = [], [], 0.0
    for method in verdicts.methods:
        for number_of, one in enumerate(method.comparisons):
            who = on_lines(method.name) if number_of == 0 else ""
            labels.append(f"{who}{',  ' if who else ''}{one.policies} ({one.draws})")
            heights.append(place)
            _row(ratio, mean, one, place, f"{method.name} {one.policies}", apart)
            place += 1
        place += 0.5
    ratio.set_yticks(heights, labels)
    ratio.set_ylim(max(place - 0.5, 1) - 0.3, -0.7)
    for axes in (ratio, mean):
        axes.tick_params(axis="y", length=0)
        axes.grid(True, axis="x")
    _ticks(ratio)
    ratio.set_xlabel(f"variance ratio, {baseline} over method")
    mean.set_xlabel("difference of mean scores")
    mean.locator_params(axis="x", nbins=4)
    figure.legend(handles=_keys(rows), loc="outside right upper")
    return figure


def _row(ratio: Axes, mean: Axes, one: Comparison, place: float, who: str, apart: float) -> None:
    colour, marker = COLOURS[one.word], MARKERS[one.policies]
    shown = {"color": colour, "marker": marker, "markersize": 7}
    if one.ratio.estimate is not None:
        ratio.plot([one.ratio.estimate], [place], gid=f"ratio {who}", zorder=3, **shown)
    if None not in (one.ratio.low, one.ratio.high):
        ratio.plot([one.ratio.low, one.ratio.high], [place, place], color=colour, zorder=2)
    for step, control in enumerate(one.controls.values(), start=1):
        if control.estimate is None:
            continue
        low = place + (0.04 + 0.1 * step) / apart  # below the row's own mark
        hollow = {"color": INK, "markerfacecolor": "white", "markersize": 4, "zorder": 2}
        gid = f"control {step} {who}"
        ratio.plot([control.estimate], [low], marker=marker, gid=gid, **hollow)
        if None not in (control.low, control.high):
            ratio.plot([control.low, control.high], [low, low], color=INK, linewidth=0.7)
    if one.difference.estimate is not None:
        mean.plot([one.difference.estimate], [place], gid=f"mean {who}", zorder=3, **shown)
    if None not in (one.difference.low, one.difference.high):
        mean.plot([one.difference.low, one.difference.high], [place, place], color=colour)


def _ticks(axes: Axes) -> None:
    """Plain numbers as ticks within the shown range."""
    low, high = axes.get_xlim()
    axes.set_xticks([tick for tick in TICKS if low <= tick <= high])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 2).rstrip(".")))
    axes.set_xlim(low, high)


def _keys(rows) -> list[Line2D]:
    """The colours in use, and the marks of the compared policies."""
    words = [word for word in COLOURS if any(one.word == word for _, one in rows)]
    kinds = [kind for kind in MARKERS if any(one.policies == kind for _, one in rows)]
    style = {"linestyle": "none", "markersize": 7}
    return [
        *(Line2D([], [], color=COLOURS[w], marker="s", label=WORDS[w], **style) for w in words),
        *(
            Line2D([], [], color=BLACK, marker=MARKERS[k], label=k, fillstyle="none", **style)
            for k in kinds
        ),
    ]
