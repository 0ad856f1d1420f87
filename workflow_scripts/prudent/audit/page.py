"""The page of an audit: sentences, figures, a table of the parts, and a browser of samples.

One HTML file without scripts, links or pictures from outside, as the summary page of a scenario.
The template ``page.html`` has the layout, and escapes all texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prudent.analysis.wording import number, p_value, plural
from prudent.audit import measures
from prudent.audit.measures import ALL
from prudent.audit.scores import Scores
from prudent.audit.sentences import summary
from prudent.figures.inline import inline_svg
from prudent.figures.page import Shown
from prudent.figures.page_tables import NOTHING, Cell, Table, between, decimals, percent
from prudent.figures.samples import Group, Sample, both_ends, of_members
from prudent.figures.templates import template

SAMPLES = 30  # at each end of the order

CAPTIONS = {
    "accuracy": ("Accuracy", "By section and subset."),
    "reliability": ("Calibration", "After one temperature, fitted on other prompts."),
    "risk-coverage": ("Risk and coverage", "How well an order finds the errors."),
    "spread": ("Accuracy by spread", "The spread is the members' standard deviation of a margin."),
    "members": ("Learning curve", "The accuracy of the mean of some members."),
}

TABLE_NOTE = """
Right: pairs with the chosen response ahead; ties are wrong, but count half for length. Brackets and
small numbers are 95% bootstrap intervals over prompts. Matched lengths differ by at most a fifth of
the longer one, in characters. p is that of a coin flip, after Holm's adjustment over the subsets.
The calibration error is on half of the prompts, after a temperature fitted on the others; chance is
the 95% range of a calibrated model. Areas are under the risk-coverage curve, the mean error rate
over all shares of pairs kept: below 0 an order finds errors better than the other one.
"""


CHOICES_NOTE = """
Best of n: prompts for which a chosen response has the highest score of all; of a tie for it, the
share of chosen ones. The score of ties is 30% each for right responses above all wrong ones, where
several are right and where one is, and 20% each for a gap between right and wrong ones that is
larger than among the right ones, for the former and for both. Each subset counts alike in the mean.
"""

EXPLAINED_NOTE = """
Spread explained: the squared rank correlation of a pair's spread with the norm of the difference of
its two responses' features, and with the spread before training.
"""


def render(
    scores: Scores,
    parts: Mapping[tuple[str, str], Mapping[str, Any]],
    drawings: Mapping[str, str],
    facts: Sequence[tuple[str, str]],
) -> str:
    """The whole page as HTML.

    Args:
        parts: the audit's rows (``measures.by_part``).
        drawings: the text of each figure's SVG file, by the figure's name.
        facts: names and values of what the page comes from.
    """
    members = scores.margins.shape[1]
    figures = [
        Shown(name, *CAPTIONS[name], inline_svg(text, name, CAPTIONS[name][0]))
        for name, text in drawings.items()
    ]
    return template(Path(__file__).with_name("page.html")).render(
        sentences=summary(parts[ALL, ALL], members, scores.different_prompts),
        figures=figures,
        table=part_table(parts),
        table_note=" ".join(_note(parts).split()),
        browser=_browser(scores),
        facts=facts,
    )


def _note(parts: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """What the table's columns mean."""
    known = parts[ALL, ALL].keys()
    note = TABLE_NOTE
    if {measures.BEST_OF_N, measures.TIES} & known:
        note += CHOICES_NOTE
    if {measures.BY_NORM, measures.BY_UNTRAINED} & known:
        note += EXPLAINED_NOTE
    return note


def part_table(parts: Mapping[tuple[str, str], Mapping[str, Any]]) -> Table:
    """One row per section and subset; what is measured nowhere has no column."""
    ratio = measures.LESS.format(measures.LARGE_RATIO, measures.LARGE_MARGIN)
    columns = {
        Cell("right"): (measures.ACCURACY_MEAN, percent),
        Cell("right", "by the benchmark's weights"): (measures.ACCURACY_WEIGHTED, percent),
        Cell("right", "at matched length"): (measures.ACCURACY_MATCHED, percent),
        Cell("longer is right"): (measures.LONGER, percent),
        Cell("right", "less longer is right"): (measures.BEYOND_LONGER, percent),
        Cell("calibration error", "chance"): (measures.ECE, decimals),
        Cell("area, low spread", "less random order"): (
            measures.LESS.format(measures.LOW_SPREAD, measures.RANDOM),
            decimals,
        ),
        Cell("area, |margin| / spread", "less |margin| alone"): (ratio, decimals),
        Cell("effective members"): (measures.EFFECTIVE, number),
        Cell("best of n", "right"): (measures.BEST_OF_N, percent),
        Cell("ties", "RewardBench 2's score"): (measures.TIES, percent),
        Cell("mean of the subsets", "RewardBench 2's score"): (measures.BY_SUBSETS, percent),
        Cell("spread explained", "by the feature norm"): (measures.BY_NORM, percent),
        Cell("spread explained", "by the one before training"): (measures.BY_UNTRAINED, percent),
        Cell("spread explained", "by both"): (measures.BY_BOTH, percent),
    }
    known = {name for of in parts.values() for name in of}
    shown = {head: of for head, of in columns.items() if of[0] in known}
    tested = any(subset != ALL for _, subset in parts)
    rows = []
    for part, of in parts.items():
        accuracy = of[measures.ACCURACY_MEAN]
        cells = {Cell("part"): _part_cell(part), Cell("pairs"): Cell(str(accuracy.n))}
        for head, (name, text) in shown.items():
            cells[head] = _cell(of.get(name), text)
        if tested:
            p = accuracy.p
            shown_p = p_value(p).removeprefix("= ") if np.isfinite(p) else NOTHING
            cells[Cell("p", "coin flip, Holm")] = Cell(shown_p)
        rows.append(cells)
    return Table.of(rows)


def _part_cell(part: tuple[str, str]) -> Cell:
    section, subset = part
    if subset != ALL:
        return Cell(subset, "" if section == ALL else section)
    return Cell("all pairs" if section == ALL else section, mark="all")


def _cell(row: Any, text: Any) -> Cell:
    """A value with its interval, and below it what chance gives a calibrated model."""
    if row is None or np.isnan(row.value):
        return Cell(NOTHING)
    notes = [between(row.low, row.high, text)]
    if row.quantity == measures.ECE:
        notes.append(f"chance {between(row.noise_low, row.noise_high, text)}")
    if row.quantity == measures.ACCURACY_MATCHED:
        notes.append(f"{row.n} pair{plural(row.n)}")
    return Cell(text(row.value), "\n".join(note for note in notes if note))


def _browser(scores: Scores) -> list[Group]:
    """The pairs at both ends of the order by the spread, or of one member by |margin|."""
    single = scores.margins.shape[1] == 1
    by, key = ("|margin|", np.abs(scores.margins[:, 0])) if single else ("spread", scores.spread)
    return both_ends(key, by, "pairs", partial(_sample, scores), SAMPLES)


def _sample(scores: Scores, row: int) -> Sample:
    """The pair at a place (from 0) in the scores."""
    margins = scores.margins[row]
    mean = margins.mean()
    says = "right" if mean > 0 else "wrong" if mean < 0 else "tie"
    spread = f"spread {number(margins.std(ddof=1))}, mean " if len(margins) > 1 else ""
    names = (names[row] for names in (scores.section, scores.subset) if names is not None)
    line = row + 1 if scores.numbers is None else scores.numbers[row]
    where = ", ".join([f"row {line}", *dict.fromkeys(names)])
    texts = [(turn["role"], turn["content"]) for turn in scores.prompts[row]]
    texts += [("chosen", scores.chosen[row]), ("rejected", scores.rejected[row])]
    lines = {
        "chosen": scores.chosen_scores[row],
        "rejected": scores.rejected_scores[row],
        "margin": margins,
    }
    rows = [{Cell("score"): Cell(name)} | of_members(of) for name, of in lines.items()]
    return Sample.of(f"{spread}margin {number(mean)}: {says} ({where})", texts, rows)
