"""The file of an audit: labelled pairs, and the scores of one or more members for both sides.

One row is a pair: ``prompt`` (a text or messages), ``chosen`` and ``rejected`` (texts), and if it
has them ``subset``, ``section`` and ``id``. The scores have one of two forms: the columns
``chosen_0``, ``chosen_1``, ... and ``rejected_0``, ``rejected_1``, ..., one for each member; or
``score_chosen`` and ``score_rejected`` with a number, or a list with a number for each member.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prudent.data.benchmark import NOT_NAMES
from prudent.data.files import Columns, read_file
from prudent.data.preferences import prompt_key
from prudent.data.rewardbench import SECTION_OF
from prudent.data.rows import BadRow, Message, check_unicode, not_text, shown, to_pair
from prudent.data.settings import SIDES, ending
from prudent.errors import InputError, quoted
from prudent.rewards.rewardbench import ROW, rewards_by_row

TEXTS = ("prompt", *SIDES)
OPTIONAL = ("subset", "section", "id")
LARGEST = 1e100  # of a score: sums of squares of larger ones are no longer finite
EXPECTED = (
    "chosen_0, rejected_0 and so on for each member, or score_chosen and score_rejected with a "
    "number or a list of numbers"
)
"""The columns of scores."""


@dataclass(frozen=True)
class Scores:
    """n labelled pairs and the scores of K members for both responses."""

    prompts: list[list[Message]]
    chosen: list[str]
    rejected: list[str]
    chosen_scores: np.ndarray  # [n, K] float64
    rejected_scores: np.ndarray  # [n, K] float64
    subset: list[str] | None = None
    section: list[str] | None = None

    @property
    def margins(self) -> np.ndarray:
        """The score of the chosen less that of the rejected response [n, K]."""
        return self.chosen_scores - self.rejected_scores

    @property
    def different_prompts(self) -> int:
        """The number of prompts, each counted once."""
        return len(set(map(prompt_key, self.prompts)))

    @property
    def spread(self) -> np.ndarray:
        """The standard deviation (ddof 1) of each pair's margin over two or more members [n]."""
        return self.margins.std(1, ddof=1)


def read_scores(path: str | Path) -> Scores:
    """The pairs and scores of a parquet, csv, jsonl or json file.

    Without a column ``section``, subsets that are all RewardBench's get its sections. Raises
    InputError where a column is missing, the two sides or two rows have other numbers of members, a
    score is not a finite number, a text is not what ``prudent.data.rows.to_pair`` asks for, an id
    stands twice in a subset, a subset lies in two sections, or there are no rows.
    """
    path = Path(path)
    found = read_file(path, (), _every).found
    missing = [name for name in TEXTS if name not in found]
    if missing:
        raise InputError(
            f"{path}: the column(s) {', '.join(map(quoted, missing))} are missing; expected "
            f"{', '.join(TEXTS)} and scores, found {', '.join(map(quoted, found))}"
        )
    sides = _score_columns(found, path)
    columns = read_file(path, [*TEXTS, *OPTIONAL, *sides[0], *sides[1]], _every)
    if not columns.numbers:
        raise InputError(f"{path}: the file has no rows, expected some")
    return _parsed(columns, sides, path)


def scores_of_draw(scores: pd.DataFrame, benchmark: pd.DataFrame, draw: int = 0) -> Scores:
    """The pairs of a benchmark with the rewards of the members of one draw.

    ``scores`` and ``benchmark`` have the schemas of these names; the base model is no member.
    Raises InputError where they are not of the same pairs, and for a draw without rewards.
    """
    sides = rewards_by_row(scores)
    pairs = pd.MultiIndex.from_frame(benchmark[ROW])
    if set(pairs) != set(sides[0].index):
        raise InputError(
            f"scores: found rewards of {len(sides[0])} pairs, expected those of the benchmark's "
            f"{len(pairs)}, known by section, subset and id"
        )
    found = sorted(set(scores["ensemble"]))
    if draw not in found:
        raise InputError(f"scores: found the draws {found}, expected {draw} among them")
    chosen, rejected = (side[draw].reindex(pairs).to_numpy(dtype=np.float64) for side in sides)
    texts = (benchmark[name].tolist() for name in (*TEXTS, "subset", "section"))
    prompts, *responses, subset, section = texts
    return Scores(prompts, *responses, chosen, rejected, subset, section)


def _every(rows: int) -> list[int]:
    return list(range(rows))


def _score_columns(found: Sequence[str], path: Path) -> list[list[str]]:
    """The names of the columns of scores, for each side; a column of lists is one name."""
    lists = [f"score_{side}" for side in SIDES]
    given = [name for name in lists if name in found]
    numbered = [
        sorted(int(m[1]) for name in found if (m := re.fullmatch(rf"{side}_(0|[1-9][0-9]*)", name)))
        for side in SIDES
    ]
    if not given and not any(numbered):
        says = ", ".join(map(quoted, found))
        raise InputError(f"{path}: found no members in the columns {says}, expected {EXPECTED}")
    if given and any(numbered):
        raise InputError(
            f"{path}: found the column {quoted(given[0])} and also columns of single members, "
            f"expected one form of scores: {EXPECTED}"
        )
    if len(given) == 1:
        other = next(name for name in lists if name not in given)
        raise InputError(f"{path}: found {quoted(given[0])} alone, expected {quoted(other)} too")
    if given:
        return [[name] for name in lists]
    members = range(1 + max(map(max, filter(None, numbered))))
    wanted = [[f"{side}_{k}" for k in members] for side in SIDES]
    for name in (name for names in zip(*wanted, strict=True) for name in names):
        if name not in found:
            raise InputError(
                f"{path}: found {len(numbered[0])} column(s) of scores for chosen and "
                f"{len(numbered[1])} for rejected, without {quoted(name)}; expected one on each "
                f"side for each of the members 0 to {members[-1]}"
            )
    return wanted


def _parsed(columns: Columns, sides: list[list[str]], path: Path) -> Scores:
    """The rows in one form; ``InputError`` with the number of the first bad one."""
    pairs, names, scores = [], [], []
    known: dict[Any, int] = {}
    sections: dict[str, str] = {}
    for index, number in enumerate(columns.numbers):
        row = {name: values[index] for name, values in columns.values.items()}
        try:
            pairs.append(to_pair({name: row[name] for name in TEXTS}))
            names.append(_names(row, number, known, sections))
            scores.append(_members(row, sides, ending(path) == ".csv"))
            _check_members(scores[0], scores[-1], sides, columns.numbers[0])
        except BadRow as bad:
            raise InputError(f"{path}: row {number}, {bad}") from None
    prompts, chosen, rejected = map(list, zip(*pairs, strict=True))
    subset, section = (
        list(of) if name in columns.values else None
        for name, of in zip(("subset", "section"), zip(*names, strict=True), strict=True)
    )
    if section is None and subset is not None and set(subset) <= SECTION_OF.keys():
        section = [SECTION_OF[name] for name in subset]
    table = np.array(scores, dtype=np.float64)
    return Scores(prompts, chosen, rejected, table[:, 0], table[:, 1], subset, section)


def _names(
    row: Mapping[str, Any], number: int, known: dict[Any, int], sections: dict[str, str]
) -> tuple[str, str]:
    """A row's subset and section, "" where there is none.

    ``known`` has the numbers of the rows by subset and id, ``sections`` the section of each subset;
    both are filled.
    """
    subset, section = (
        _name(row[name], name) if name in row else "" for name in ("subset", "section")
    )
    other = sections.setdefault(subset, section) if "subset" in row else section
    if other != section:
        where = f"{quoted(other)} as for the other rows of the subset {quoted(subset)}"
        raise BadRow("other_section", "section", shown(section), where)
    if "id" in row:
        identity = row["id"]
        if not isinstance(identity, str | int) or isinstance(identity, bool):
            raise not_text(identity, "id", "a text or an integer")
        first = known.setdefault((subset, str(identity)), number)
        if first != number:
            found = f"{shown(identity)}, which is that of row {first} too"
            raise BadRow("same_id", "id", found, "each id once in a subset")
    return subset, section


def _name(value: Any, column: str) -> str:
    """The name of a subset or section."""
    if not isinstance(value, str):
        raise not_text(value, column, "a text")
    check_unicode(value, column)
    if value.strip().lower() in NOT_NAMES:
        raise BadRow("not_a_name", column, shown(value), "a name other than that of the total")
    return value


def _members(row: Mapping[str, Any], sides: list[list[str]], csv: bool) -> list[list[float]]:
    """The members' scores of both responses."""
    members = []
    for names in sides:
        values = [_from_text(row[name]) if csv else row[name] for name in names]
        if len(names) == 1 and names[0].startswith("score_") and isinstance(values[0], list):
            values, names = values[0], names * len(values[0])
        members.append([_score(value, name) for value, name in zip(values, names, strict=True)])
    return members


def _from_text(cell: str) -> Any:
    """The number or the list in a cell of a csv file; the cell itself where it is neither."""
    try:
        return float(cell)
    except ValueError:
        try:
            return json.loads(cell) if cell.lstrip().startswith("[") else cell
        except (ValueError, RecursionError):
            return cell


def _score(value: Any, column: str) -> float:
    if value is None or value == "":
        raise BadRow("missing", column, "no value", "a finite number")
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise BadRow("not_a_number", column, shown(value), "a finite number")
    if not abs(value) <= LARGEST:  # nan is not, either
        expected = f"a finite number of at most {LARGEST:g} in size"
        raise BadRow("not_finite", column, shown(value), expected)
    return float(value)


def _check_members(
    first: list[list[float]], members: list[list[float]], sides: list[list[str]], number: int
) -> None:
    """``BadRow`` where a row has no member, or other numbers of them than the first one.

    Only lists can differ: columns have a value in each row.
    """
    chosen, rejected = map(len, members)
    if not chosen:
        raise BadRow("no_members", sides[0][0], "an empty list", "a score of at least one member")
    if rejected != chosen:
        expected = f"{chosen} as in {quoted(sides[0][0])}"
        raise BadRow("other_members", sides[1][0], f"{rejected} member(s)", expected)
    if chosen != len(first[0]):
        expected = f"{len(first[0])} as in row {number}"
        raise BadRow("other_members", sides[0][0], f"{chosen} member(s)", expected)
