"""The benchmark: pairs in sections and subsets that reward models are measured on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd

from prudent.data.given_labels import read_pairs, to_labelled_pair
from prudent.data.rewardbench import SECTION_OF
from prudent.data.rows import BadRow, check_unicode, not_text, shown
from prudent.data.settings import BenchmarkSettings, LabelSettings
from prudent.data.table import Card, Table, count, parse
from prudent.errors import InputError, quoted
from prudent.seeding import derive_seed

# Names that tables use for totals, or that readers of tables treat as missing values.
NOT_NAMES = {"all", "", "na", "n/a", "nan", "null", "none", "<na>", "#n/a"}


def build_benchmark(
    settings: BenchmarkSettings, bad_rows: str, seed: int
) -> tuple[pd.DataFrame, Card]:
    """The benchmark's pairs; a row without a section gets RewardBench's section of its subset.

    Duplicates are kept: the set is scored as it is, and ``id`` with ``subset`` has to identify a
    row. Returns a table of the schema ``benchmark`` and its data card.
    """
    table = Table(["prompt", "chosen", "rejected", "subset", "section", "id"])
    for part, source in enumerate(settings.sources):
        stream = derive_seed(seed, "benchmark", "rows", part)
        rows = read_pairs(source, ["subset", "id"], ["prompt", "section"], stream)
        pairs, _, dropped = parse(rows, partial(_row, label=source.label), bad_rows)
        table.add(rows, [(part, index) for index in range(len(pairs))], pairs, dropped)
    frame = table.frame()
    origins = f"the sources: {', '.join(card['origin'] for card in table.cards)}"
    repeated = frame[frame.duplicated(["subset", "id"])]
    if len(repeated):
        row = repeated.iloc[0]
        raise InputError(
            f"benchmark: found the id {quoted(row['id'])} more than once in the subset "
            f"{quoted(row['subset'])} ({len(repeated)} such row(s)), expected ids to be unique in "
            f"a subset; {origins}"
        )
    sections = frame.groupby("subset", sort=False)["section"].unique()
    for subset, names in sections.items():
        if len(names) > 1:
            raise InputError(
                f"benchmark: found the subset {quoted(subset)} in the sections "
                f"{' and '.join(map(repr, names))}, expected each subset in one section; {origins}"
            )
    return frame, table.card(sections=count(frame["section"]), subsets=count(frame["subset"]))


def _row(row: Mapping[str, Any], label: LabelSettings | None) -> tuple[Any, ...]:
    prompt, chosen, rejected = to_labelled_pair(row, label)
    subset, section = _name(row["subset"], "subset"), row.get("section")
    if not isinstance(row["id"], str | int) or isinstance(row["id"], bool):
        raise not_text(row["id"], "id", "a text or an integer")
    if section is None and subset not in SECTION_OF:
        expected = "one of RewardBench's, or a column section"
        raise BadRow("unknown_subset", "subset", shown(subset), expected)
    section = SECTION_OF[subset] if section is None else _name(section, "section")
    if SECTION_OF.get(subset, section) != section:
        raise BadRow(
            "other_section",
            "section",
            shown(section),
            f"{quoted(SECTION_OF[subset])}, which is RewardBench's for the subset {quoted(subset)}",
        )
    identity = str(row["id"])
    check_unicode(identity, "id")
    return prompt, chosen, rejected, subset, section, identity


def _name(value: Any, column: str) -> str:
    """A subset's or section's name, checked against ``NOT_NAMES``."""
    if not isinstance(value, str):
        raise not_text(value, column, "a text")
    check_unicode(value, column)
    if value.strip().lower() in NOT_NAMES or value != value.strip() or not value.isprintable():
        raise BadRow(
            "not_a_name",
            column,
            shown(value),
            "a name on one line, without blanks around it, that means neither nothing nor all",
        )
    return value
