"""Labels that come with two responses and say which of them is better."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from prudent.data.rows import BadRow, Pair, Tie, shown, to_pair
from prudent.data.settings import RESPONSES, SIDES, LabelSettings, Source
from prudent.data.sources import LABEL, Rows, read_source
from prudent.errors import InputError, quoted
from prudent.settings import listed

# Whether the first response is better; None for a tie. Two signs are a clear win.
VERDICTS = {"A>B": True, "A>>B": True, "B>A": False, "B>>A": False, "A=B": None}
NUMBERS = {0: {0: True, 1: False}, 1: {1: True, 0: False, 2: False}}


def read_pairs(source: Source, required: Sequence[str], optional: Sequence[str], seed: int) -> Rows:
    """Reads two responses of each row, their label if there is one, and the named columns.

    ``InputError`` as in ``read_source``, and where the labels do not have the configured form.
    """
    sides = SIDES if source.label is None else (*RESPONSES, LABEL)
    rows = read_source(source, [*sides, *required], optional, seed)
    if source.label is not None:
        _check_form(rows, source.label)
    return rows


def to_labelled_pair(row: Mapping[str, Any], label: LabelSettings | None) -> Pair:
    """The pair of a row, the better response first.

    ``Tie`` where the label prefers neither; ``BadRow`` where the label or the pair is unusable.
    """
    if label is None:
        return to_pair(row)
    better = first_is_better(row[LABEL], label)
    if better is None:
        raise Tie("tie", label.column, shown(row[LABEL]), "a preference")
    prompt, first, second = to_pair(row, RESPONSES)
    return (prompt, first, second) if better else (prompt, second, first)


def first_is_better(value: Any, label: LabelSettings) -> bool | None:
    """Whether the first response is better by the label; None for a tie."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        raise BadRow("missing", label.column, "no value", "a label")
    found = _verdict(value) if label.first == "A>B" else _number(value)
    if label.first in ("negative", "positive"):
        if found is None:
            raise BadRow("unknown_label", label.column, shown(value), "a number")
        return None if found == 0 else (found > 0) == (label.first == "positive")
    known = VERDICTS if label.first == "A>B" else NUMBERS[label.first]
    if found not in known:
        expected = f"one of {listed(known)}"
        raise BadRow("unknown_label", label.column, shown(value), expected)
    return known[found]


def _verdict(value: Any) -> str | None:
    """A verdict without blanks, and without the brackets that judges are asked to write."""
    return re.sub(r"[\s\[\]]", "", value) if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    """A label as a number, also from csv text, or None. Booleans do not count as numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number


def _check_form(rows: Rows, label: LabelSettings) -> None:
    """``InputError`` where the labels as a whole do not have the configured form.

    Each single row would pass, but pairs would come out reversed or be dropped as ties.
    """
    numbers = sorted({_number(value) for value in rows.columns[LABEL]} - {None})
    signs = {math.copysign(1, number) for number in numbers if number}
    if label.first == 1 and {0, 2} <= set(numbers):
        found, expected = "both 0 and 2", "1 with 0, or 1 with 2"
    elif label.first in ("negative", "positive") and len(numbers) > 1 and len(signs) < 2:
        found = f"numbers from {numbers[0]:g} to {numbers[-1]:g}"
        expected = f"negative and positive ones, since `label.first` is {label.first}"
    else:
        return
    raise InputError(
        f"{rows.origin}: column {quoted(label.column)}: found {found}, expected {expected}"
    )
