"""Files of labelled responses, recognised by their columns, as rows of one form.

Three forms are read. Pairs have ``chosen`` and ``rejected``, and ``prompt`` unless both are whole
dialogues (``prudent.data.rows.to_pair``); RewardBench's file is one with ``subset`` and ``id``.
RewardBench 2's has lists of texts in ``chosen`` and ``rejected``. JudgeBench's has ``question``,
``response_A``, ``response_B`` and a ``label`` that says which of them is better.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prudent.data.benchmark import NOT_NAMES
from prudent.data.files import read_file
from prudent.data.given_labels import first_is_better
from prudent.data.rows import (
    BadRow,
    Message,
    Tie,
    check_unicode,
    not_text,
    shown,
    to_messages,
    to_pair,
)
from prudent.data.settings import SIDES, LabelSettings
from prudent.errors import InputError, quoted

JUDGED = ("question", "response_A", "response_B", "label")
JUDGE = LabelSettings(column="label", first="A>B")
COUNTS = ("num_correct", "num_incorrect", "total_completions")
TIES = "ties"  # the name of RewardBench 2's subset with several right responses, in lower case
TIE_ID = re.compile(r"(ref|tied):(0|[1-9][0-9]*)")

Texts = tuple[list[Message], list[str], list[str]]


@dataclass(frozen=True)
class Row:
    """A prompt with its chosen and its rejected responses: one of each, or lists."""

    number: int  # in the file, from 1
    prompt: list[Message]
    chosen: list[str]
    rejected: list[str]
    subset: str = ""
    section: str = ""
    id: str | int | None = None

    @property
    def tie(self) -> tuple[str, int] | None:
        """In the subset Ties, whether the prompt is a "ref" or a "tied" one, and its number."""
        match = TIE_ID.fullmatch(str(self.id)) if self.subset.lower() == TIES else None
        return (match[1], int(match[2])) if match else None


@dataclass(frozen=True)
class Labelled:
    """The rows of a file, and its values in other columns."""

    rows: list[Row]
    lists: bool
    """Whether it has RewardBench 2's form."""
    names: tuple[str, ...]
    """Those of subset, section and id that it has."""
    values: dict[str, list[Any]]
    """[n rows] for each of the other columns that were asked for."""


def read_labelled(
    path: str | Path,
    more: Callable[[Sequence[str], Path], Sequence[str]] = lambda found, path: (),
) -> Labelled:
    """The labelled responses of a parquet, csv, jsonl or json file, in any of the forms.

    ``more`` says which other columns to read, given all names and the path. Raises InputError where
    columns are missing, there are no rows, a text is not what ``prudent.data.rows.to_pair`` asks
    for, a label prefers neither response, a list is empty or its length is not what
    ``num_correct``, ``num_incorrect`` and ``total_completions`` say, an id stands twice in a subset
    or is none of RewardBench 2's in its subset Ties, or a subset lies in two sections.
    """
    path = Path(path)
    found = read_file(path, (), _every).found
    judged = set(JUDGED) <= set(found) and not set(SIDES) & set(found)
    missing = [name for name in SIDES if name not in found]
    if missing and not judged:
        raise InputError(
            f"{path}: the column(s) {', '.join(map(quoted, missing))} are missing; expected "
            f"prompt, chosen, rejected, or JudgeBench's {', '.join(JUDGED)}; found "
            f"{', '.join(map(quoted, found))}"
        )
    names = {"subset": "source", "id": "pair_id"} if judged else {"subset": "subset", "id": "id"}
    names |= {"section": "section"}
    others = list(more(found, path))
    texts = JUDGED if judged else ("prompt", *SIDES, *COUNTS)
    columns = read_file(path, [*texts, *names.values(), *others], _every)
    if not columns.numbers:
        raise InputError(f"{path}: the file has no rows, expected some")
    lists = not judged and _has_lists(columns.values)
    read = _judged if judged else _listed if lists else _pair
    known: dict[Any, int] = {}
    sections: dict[str, str] = {}
    rows = []
    for index, number in enumerate(columns.numbers):
        cells = {name: values[index] for name, values in columns.values.items()}
        try:
            row = Row(number, *read(cells), *_names(cells, names, number, known, sections))
            if lists and row.subset.lower() == TIES:
                _check_tie(row)
        except BadRow as bad:
            raise InputError(f"{path}: row {number}, {bad}") from None
        rows.append(row)
    there = tuple(name for name, column in names.items() if column in columns.values)
    values = {name: columns.values[name] for name in others}
    return Labelled(rows, lists, there, values)


def _every(rows: int) -> list[int]:
    return list(range(rows))


def _has_lists(values: Mapping[str, Sequence[Any]]) -> bool:
    """Whether the first row has a list of texts, or the file says how long the lists are."""
    first = [values[side][0] for side in SIDES]
    lists = (
        isinstance(value, list) and all(isinstance(item, str) for item in value) for value in first
    )
    return COUNTS[0] in values or any(lists)


def _pair(cells: Mapping[str, Any]) -> Texts:
    prompt, chosen, rejected = to_pair(cells)
    return prompt, [chosen], [rejected]


def _judged(cells: Mapping[str, Any]) -> Texts:
    """JudgeBench's two responses, the better one as chosen."""
    question, first, second, _ = JUDGED
    better = first_is_better(cells["label"], JUDGE)
    if better is None:
        raise Tie("tie", "label", shown(cells["label"]), "'A>B' or 'B>A'")
    to_messages(cells[question], question)  # which errors name by its column
    responses = (first, second) if better else (second, first)
    prompt, chosen, rejected = to_pair({**cells, "prompt": cells[question]}, responses)
    return prompt, [chosen], [rejected]


def _listed(cells: Mapping[str, Any]) -> Texts:
    """RewardBench 2's lists of responses."""
    if "prompt" not in cells:
        raise BadRow("no_prompt", "prompt", "no such column", "one, beside lists of responses")
    for side in SIDES:
        given = cells[side]
        if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
            raise not_text(given, side, "a list of texts")
        if not given:
            raise BadRow("no_response", side, "an empty list", "at least one response")
    chosen, rejected = (cells[side] for side in SIDES)
    sizes = (len(chosen), len(rejected), len(chosen) + len(rejected))
    for name, size, of in zip(COUNTS, sizes, (*SIDES, "both lists"), strict=True):
        if name in cells and cells[name] != size:
            raise BadRow("other_count", name, shown(cells[name]), f"{size}, as many as in {of}")
    pairs = [
        to_pair({"prompt": cells["prompt"], "chosen": better, "rejected": worse})
        for better in chosen
        for worse in rejected
    ]
    prompt, every = pairs[0][0], len(rejected)
    return prompt, [pair[1] for pair in pairs[::every]], [pair[2] for pair in pairs[:every]]


def _names(
    cells: Mapping[str, Any],
    names: Mapping[str, str],
    number: int,
    known: dict[Any, int],
    sections: dict[str, str],
) -> tuple[str, str, str | int | None]:
    """A row's subset and section, "" where there is none, and its id.

    ``names`` has their columns. ``known`` has the numbers of the rows by subset and id,
    ``sections`` the section of each subset; both are filled.
    """
    subset, section = (
        _name(cells[names[name]], names[name]) if names[name] in cells else ""
        for name in ("subset", "section")
    )
    other = sections.setdefault(subset, section) if names["subset"] in cells else section
    if other != section:
        where = f"{quoted(other)} as for the other rows of the subset {quoted(subset)}"
        raise BadRow("other_section", "section", shown(section), where)
    column = names["id"]
    if column not in cells:
        return subset, section, None
    identity = cells[column]
    if not isinstance(identity, str | int) or isinstance(identity, bool):
        raise not_text(identity, column, "a text or an integer")
    check_unicode(str(identity), column)
    first = known.setdefault((subset, str(identity)), number)
    if first != number:
        found = f"{shown(identity)}, which is that of row {first} too"
        raise BadRow("same_id", column, found, "each id once in a subset")
    return subset, section, identity


def _name(value: Any, column: str) -> str:
    """The name of a subset or section."""
    if not isinstance(value, str):
        raise not_text(value, column, "a text")
    check_unicode(value, column)
    if value.strip().lower() in NOT_NAMES:
        raise BadRow("not_a_name", column, shown(value), "a name other than that of the total")
    return value


def _check_tie(row: Row) -> None:
    """``BadRow`` where a row of RewardBench 2's subset Ties has another id, or nothing tied."""
    if row.tie is None:
        expected = "RewardBench 2's ids of the subset Ties, 'ref:0' or 'tied:0'"
        raise BadRow("not_a_tie", "id", shown(row.id), expected)
    if row.tie[0] == "tied" and len(row.chosen) < 2:
        expected = "at least two, since the row's id says that they are tied"
        raise BadRow("not_a_tie", "chosen", "one response", expected)
