"""The file of an audit: labelled responses, and the scores of one or more members for each.

A row is a pair, or a prompt with lists of responses (``prudent.audit.forms``). The scores of pairs
have one of two forms: the columns ``chosen_0``, ``chosen_1``, ... and ``rejected_0``,
``rejected_1``, ..., one for each member; or ``score_chosen`` and ``score_rejected`` with a number,
or a list with a number for each member. Lists of responses have lists of scores, as long, in
``chosen_0``, ``rejected_0`` and so on.

What may explain the spread stands in ``feature_norm``, the norm of the difference of two responses'
features, and ``untrained_spread``, the spread before training: a number for each pair, in a list
where there are lists of responses. The pairs of a row are those of its first chosen response with
each rejected one, then those of the second.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prudent import tables
from prudent.audit.forms import Labelled, read_labelled
from prudent.data.preferences import prompt_key
from prudent.data.rewardbench import SECTION_OF
from prudent.data.rows import BadRow, Message, shown
from prudent.data.settings import SIDES, ending
from prudent.errors import InputError, quoted
from prudent.rewards.rewardbench import ROW, rewards_by_row

NORM, UNTRAINED = "feature_norm", "untrained_spread"
LARGEST = 1e100  # of a score: sums of squares of larger ones are no longer finite
EXPECTED = (
    "chosen_0, rejected_0 and so on for each member, or score_chosen and score_rejected with a "
    "number or a list of numbers; or a model that scores the pairs (--model)"
)
"""The columns of scores."""


@dataclass(frozen=True)
class Choice:
    """A prompt with lists of responses, and the scores of K members."""

    pair: int  # the first of its pairs in ``Scores``
    chosen: np.ndarray  # [c, K]
    rejected: np.ndarray  # [r, K]
    tie: tuple[str, int] | None = None  # "ref" or "tied", and a number (``forms.Row.tie``)


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
    numbers: list[int] | None = None  # of the rows of the file, from 1 [n]
    choices: list[Choice] | None = None  # where a prompt has lists of responses
    norm: np.ndarray | None = None  # norms of the differences of features [n]
    untrained: np.ndarray | None = None  # spreads before training [n]

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


@dataclass(frozen=True)
class Scored:
    """The rows of a file with their scores."""

    labelled: Labelled
    chosen: list[np.ndarray]  # [c, K] of each row
    rejected: list[np.ndarray]  # [r, K] of each row
    known: dict[str, list[np.ndarray]] = field(default_factory=dict)
    """What is known of each pair beside its scores, by column [c r] of each row."""

    def pairs(self) -> Scores:
        """All pairs; subsets that are all RewardBench's get its sections if there are none."""
        given, names = self.labelled, self.labelled.names
        texts, numbers, place, choices = [], [], [], []
        for index, row in enumerate(given.rows):
            first, count = len(texts), len(row.chosen) * len(row.rejected)
            texts += [(row.prompt, one, other) for one in row.chosen for other in row.rejected]
            numbers += [row.number] * count
            place += [index] * count
            choices.append(Choice(first, self.chosen[index], self.rejected[index], row.tie))
        prompts, chosen, rejected = map(list, zip(*texts, strict=True))
        subset, section = (
            [getattr(given.rows[index], name) for index in place] if name in names else None
            for name in ("subset", "section")
        )
        if section is None and subset is not None and set(subset) <= SECTION_OF.keys():
            section = [SECTION_OF[name] for name in subset]
        sides = zip(self.chosen, self.rejected, strict=True)
        expanded = [(np.repeat(a, len(b), axis=0), np.tile(b, (len(a), 1))) for a, b in sides]
        scores = (np.concatenate(side) for side in zip(*expanded, strict=True))
        known = {name: np.concatenate(values) for name, values in self.known.items()}
        return Scores(
            *(prompts, chosen, rejected, *scores, subset, section, numbers),
            choices=choices if given.lists else None,
            norm=known.get(NORM),
            untrained=known.get(UNTRAINED),
        )

    def write(self, path: Path) -> None:
        """Writes a parquet file that ``read_scores`` reads."""
        given = self.labelled
        columns: dict[str, list[Any]] = {"prompt": [row.prompt for row in given.rows]}
        columns |= {side: [getattr(row, side) for row in given.rows] for side in SIDES}
        for name in given.names:
            columns[name] = [getattr(row, name) for row in given.rows]
        if "id" in columns:  # a column has one type
            columns["id"] = list(map(str, columns["id"]))
        for side in SIDES:
            scores = getattr(self, side)
            for k in range(scores[0].shape[1]):
                columns[f"{side}_{k}"] = [values[:, k].tolist() for values in scores]
        columns |= {name: [list(of) for of in values] for name, values in self.known.items()}
        if not given.lists:  # each list has one item
            plain = {"prompt", *given.names}
            columns = {
                name: values if name in plain else [value for (value,) in values]
                for name, values in columns.items()
            }
        tables.write_parquet(pd.DataFrame(columns), path)


def read_scores(path: str | Path) -> Scores:
    """The pairs and scores of a parquet, csv, jsonl or json file.

    Without a column ``section``, subsets that are all RewardBench's get its sections. Raises
    InputError as ``prudent.audit.forms.read_labelled``, and where a column of scores is missing,
    the two sides or two rows have other numbers of members, a score is not a finite number, or a
    list of scores is not as long as that of the responses.
    """
    path = Path(path)
    sides: list[list[str]] = []

    def more(found: Sequence[str], path: Path) -> list[str]:
        sides.extend(_score_columns(found, path))
        return [*sides[0], *sides[1], *(name for name in (NORM, UNTRAINED) if name in found)]

    labelled = read_labelled(path, more)
    if labelled.lists and sides[0][0].startswith("score_"):
        raise InputError(
            f"{path}: found the column {quoted(sides[0][0])} beside lists of responses, expected "
            "chosen_0, rejected_0 and so on, each with a list of numbers as long"
        )
    scores: list[list[list[list[float]]]] = []
    known: dict[str, list[np.ndarray]] = {
        name: [] for name in (NORM, UNTRAINED) if name in labelled.values
    }
    csv = ending(path) == ".csv"
    for index, row in enumerate(labelled.rows):
        cells = {name: values[index] for name, values in labelled.values.items()}
        if csv:
            cells = {name: _from_text(cell) for name, cell in cells.items()}
        try:
            if labelled.lists:
                of = (row.chosen, row.rejected)
                scores.append(
                    [_of_responses(cells, *one) for one in zip(sides, SIDES, of, strict=True)]
                )
            else:
                members = _members(cells, sides)
                scores.append([[side] for side in members])
                first = [side[0] for side in scores[0]]
                _check_members(first, members, sides, labelled.rows[0].number)
            count = len(row.chosen) * len(row.rejected)
            for name, values in known.items():
                values.append(_of_pairs(cells[name], name, count, labelled.lists))
        except BadRow as bad:
            raise InputError(f"{path}: row {row.number}, {bad}") from None
    chosen, rejected = (
        [np.array(side, dtype=np.float64) for side in of] for of in zip(*scores, strict=True)
    )
    return Scored(labelled, chosen, rejected, known).pairs()


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
    texts = (benchmark[name].tolist() for name in ("prompt", *SIDES, "subset", "section"))
    prompts, *responses, subset, section = texts
    return Scores(prompts, *responses, chosen, rejected, subset, section)


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


def _members(cells: Mapping[str, Any], sides: list[list[str]]) -> list[list[float]]:
    """The members' scores of both responses."""
    members = []
    for names in sides:
        values = [cells[name] for name in names]
        if len(names) == 1 and names[0].startswith("score_") and isinstance(values[0], list):
            values, names = values[0], names * len(values[0])
        members.append([_score(value, name) for value, name in zip(values, names, strict=True)])
    return members


def _of_responses(
    cells: Mapping[str, Any], names: Sequence[str], side: str, responses: Sequence[str]
) -> list[list[float]]:
    """The members' scores of each of a row's responses on one side [c][K]."""
    where = f"one for each response in {quoted(side)}"
    of_members = [_numbers(cells[name], name, len(responses), where) for name in names]
    return [list(scores) for scores in zip(*of_members, strict=True)]


def _of_pairs(cell: Any, column: str, pairs: int, lists: bool) -> np.ndarray:
    """What is known of a row's pairs, numbers of at least 0 [pairs]."""
    cells = cell if lists else [cell]
    values = np.array(_numbers(cells, column, pairs, "one for each pair of its responses"))
    if (values < 0).any():
        raise BadRow("negative", column, shown(float(values.min())), "a number of at least 0")
    return values


def _numbers(cell: Any, column: str, count: int, where: str) -> list[float]:
    """A list of so many numbers."""
    if not isinstance(cell, list):
        expected = f"a list of {count} number(s), {where}"
        raise BadRow("not_a_list", column, shown(cell), expected)
    if len(cell) != count:
        raise BadRow("other_length", column, f"a list of {len(cell)}", f"{count}, {where}")
    return [_score(value, column) for value in cell]


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
