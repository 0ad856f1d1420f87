"""Maps of where a method helps: colour is shown only where an interval excludes no effect."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from prudent.analysis.statistics import LEVEL
from prudent.analysis.wording import name_of, number
from prudent.figures.looks import BLUE, INK, ORANGE
from prudent.figures.style import new_figure, on_lines, styled
from prudent.tables import read_csv

NONE, EDGE = "white", "#C8C8C8"
CELL = ["pairs", "noise", "ensemble", "members", "kl_target"]


class Question(NamedTuple):
    """What a column of panels asks."""

    title: str
    effect: str
    """The column of the effect; its interval is in two others."""
    nothing: float
    """The effect's value where there is none."""
    good: int
    """The sign, of the effect less ``nothing``, that is better."""


QUESTIONS = (
    Question("More gain?", "difference", 0.0, 1),
    Question("Less variance?", "ratio", 1.0, 1),
    Question("Fewer policies worse than the reference?", "below_difference", 0.0, -1),
)


TITLES = {
    "variance_aware": "Where does weighting by the spread help?",
    "mean": "Where does averaging help?",
    "lower_confidence_bound": "Where does pessimism help?",
    "shrunk_mean": "Where does shrinking help?",
}
"""The question about a method, by its objective."""


def plot(table: Path, method: str, baseline: str, objective: str) -> Figure:
    """The map of one method."""
    title = TITLES.get(objective, f"Where does the method {name_of(method)} help?")
    return draw_map(read_csv(table, "regimes"), method, baseline, title)


def sides(table: pd.DataFrame, question: Question) -> np.ndarray:
    """1 where a row's method is better, -1 where it is worse, 0 where the interval includes no
    effect, and nan where there is no interval [rows]."""
    low, high = (table[f"{question.effect}_{end}"].to_numpy(float) for end in ("low", "high"))
    side = np.where(low > question.nothing, 1.0, np.where(high < question.nothing, -1.0, 0.0))
    return np.where(np.isfinite(low) & np.isfinite(high), question.good * side, np.nan)


def tiles(table: pd.DataFrame, method: str, baseline: str, question: Question) -> pd.DataFrame:
    """One row per cell: the cell, side (as ``sides``), and ``beyond``, whether the method has the
    same side against each of its controls."""
    rows = table[table["method"] == method]
    rows = rows.assign(side=sides(rows, question))
    found = rows.loc[rows["against"] == baseline, [*CELL, "side"]]
    controls = rows[rows["against"] != baseline]
    spans = controls.groupby(CELL)["side"].agg(["min", "max", "count", "size"]).reset_index()
    found = found.merge(spans, on=CELL, how="left")
    same = (found["min"] == found["side"]) & (found["max"] == found["side"])
    known = found["count"] == found["size"]
    return found[[*CELL, "side"]].assign(beyond=same & known & (found["side"] != 0))


@styled
def draw_map(table: pd.DataFrame, method: str, baseline: str, title: str) -> Figure:
    """One row of panels per ensemble, one column per question, and one tile per cell.

    Args:
        table: ``prudent.exact.regimes.regime_table``.
    """
    name = name_of(method)
    note = (
        f"Each tile compares optimal policies of {name} with those of {name_of(baseline)} at the "
        "same KL, over replicates whose pairs, labels and base reward model are drawn anew. Colour "
        f"is shown only where the {LEVEL:.0%} interval excludes no effect. A dot says that the "
        "method is also ahead (in blue tiles) or also behind (in orange ones) each of its "
        "controls. Hatched: too few disjoint ensembles for an interval. By chance alone, "
        f"{(1 - LEVEL) / 2:.1%} of the tiles would be of each colour."
    )
    ensembles = list(dict.fromkeys(table["ensemble"]))
    axes_of = _Axes(table)
    height = 0.2 * len(axes_of.rows) + 0.9
    figure = new_figure(10.6, height * len(ensembles) + 2.2, title, note)
    shape = len(ensembles), len(QUESTIONS)
    panels = figure.subplots(*shape, squeeze=False, sharex=True, sharey=True)
    for row, ensemble in zip(panels, ensembles, strict=True):
        for axes, question in zip(row, QUESTIONS, strict=True):
            found = tiles(table[table["ensemble"] == ensemble], method, baseline, question)
            _panel(axes, found, axes_of)
            blue, orange = ((found["side"] == side).sum() for side in (1, -1))
            count = found["side"].notna().sum()
            chance = number(count * (1 - LEVEL) / 2, 2)
            asked = [textwrap.fill(question.title, 24)] if axes in panels[0] else []
            counts = f"better {blue}, worse {orange} of {count}"
            # Lines of their own: what is beside each other must not meet.
            lines = [*asked, counts, f"(chance {chance} each)"]
            axes.set_title("\n".join(lines), fontsize=9)
        row[0].set_ylabel(f"{on_lines(ensemble)}:\nmembers, by KL")
    for axes in panels[-1]:
        thousands = ", k: thousands" if any("k" in text for text in axes_of.numbers) else ""
        axes.set_xlabel(f"pairs{thousands}, by label noise")
    figure.legend(handles=list(_keys(method, baseline)), loc="outside right upper")
    return figure


class _Axes:
    """The places of tiles: pairs within noises across, members within KLs up."""

    def __init__(self, table: pd.DataFrame) -> None:
        noises, pairs, kls, members = (
            sorted(table[key].unique()) for key in ("noise", "pairs", "kl_target", "members")
        )
        self.columns = [(noise, count) for noise in noises for count in pairs]
        self.rows = [(kl, count) for kl in kls for count in members]
        self.pairs, self.members, self.noises, self.kls = pairs, members, noises, kls
        short = [f"{count / 1000:.2g}k" if count >= 1000 else f"{count}" for count in pairs]
        self.numbers = short if len(set(short)) == len(pairs) else [f"{count}" for count in pairs]

    def across(self, column: int) -> float:
        """A column's left edge; a gap sets noises apart."""
        return column + 0.4 * (column // len(self.pairs))

    def up(self, row: int) -> float:
        """A row's lower edge; a gap sets KLs apart."""
        return row + 0.4 * (row // len(self.members))


def _panel(axes: Axes, found: pd.DataFrame, of: _Axes) -> None:
    rows = found.to_dict("records")
    given = {(row["noise"], row["pairs"], row["kl_target"], row["members"]): row for row in rows}
    nothing = {"side": np.nan, "beyond": False}
    for (across, column), (up, line) in itertools.product(
        enumerate(of.columns), enumerate(of.rows)
    ):
        row = given.get((*column, *line), nothing)
        x, y = of.across(across), of.up(up)
        side = row["side"]
        look = {"facecolor": {1.0: BLUE, -1.0: ORANGE}.get(side, NONE), "edgecolor": EDGE}
        if np.isnan(side):
            look["hatch"] = "////"
        axes.add_patch(Rectangle((x + 0.05, y + 0.05), 0.9, 0.9, linewidth=0.5, **look))
        if row["beyond"]:
            axes.plot(x + 0.5, y + 0.5, "o", color="white", markersize=3.5, markeredgewidth=0)
    axes.set_xlim(-0.1, of.across(len(of.columns) - 1) + 1.1)
    axes.set_ylim(-0.1, of.up(len(of.rows) - 1) + 1.1)
    wide, tall = len(of.pairs), len(of.members)
    axes.set_xticks(
        [of.across(n) + 0.5 for n in range(len(of.columns))],
        [
            of.numbers[n % wide] + (f"\nnoise × {noise:g}" if n % wide == wide // 2 else "")
            for n, (noise, _) in enumerate(of.columns)
        ],
        fontsize=7.5,
    )
    axes.set_yticks(
        [of.up(n) + 0.5 for n in range(len(of.rows))],
        [
            (f"KL {kl:g}   " if n % tall == tall // 2 else "") + f"{members}"
            for n, (kl, members) in enumerate(of.rows)
        ],
        fontsize=8,
    )
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _keys(method: str, baseline: str) -> Iterator[Patch]:
    yield Patch(facecolor=BLUE, edgecolor=EDGE, label=f"better than\n{name_of(baseline)}")
    yield Patch(facecolor=ORANGE, edgecolor=EDGE, label=f"worse than\n{name_of(baseline)}")
    yield Patch(facecolor=NONE, edgecolor=INK, label="interval includes\nno effect")
    yield Patch(facecolor=NONE, edgecolor=EDGE, hatch="////", label="no interval")
