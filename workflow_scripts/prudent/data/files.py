"""Readers of parquet, csv, json and jsonl files that know the number of every row.

pandas and `datasets` do not say where a csv's row has an extra cell, and accept duplicate JSON
keys; both lose text silently. Python's own csv and json modules, used strictly, report them.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prudent.data.settings import ENDINGS, ending
from prudent.errors import InputError, quoted
from prudent.tables import csv_rows, once

Choose = Callable[[int], list[int]]
"""Maps a number of rows to the positions of those to read, in order."""

BATCH = 64
"""Rows of a parquet file that are read at once: texts of up to 32 MB stay below 2 GiB."""

JSON_FORMS = 'a list of objects, an object a line, or one object {"data": [...]}'
"""What a .json file may hold."""


@dataclass
class Columns:
    """Some columns of a file: all its names, its number of rows, and the rows that were read."""

    found: list[str]
    available: int
    numbers: list[int]
    """The numbers of the rows that were read, from 1."""
    values: dict[str, list[Any]]


def read_file(
    path: Path, wanted: Sequence[str], choose: Choose, kind: str = "", delimiter: str = ","
) -> Columns:
    """The wanted columns of a file; ``InputError`` names the line or row where it is malformed.

    ``kind`` is the ending for a file whose name does not have it.
    """
    readers = {
        ".parquet": _parquet,
        ".jsonl": _jsonl,
        ".json": _json,
        ".csv": partial(_csv, delimiter=delimiter),
    }
    kind = kind or ending(path)
    if kind not in readers:
        raise InputError(
            f"{path}: found the ending {quoted(path.suffix)}, expected one of {', '.join(ENDINGS)}"
        )
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    try:
        return readers[kind](path, wanted, choose)
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable {kind[1:]} file: {error}") from error


def _parquet(path: Path, wanted: Sequence[str], choose: Choose) -> Columns:
    with pq.ParquetFile(path) as file:
        found, count = file.schema_arrow.names, file.metadata.num_rows
        once(found, path)
        chosen = choose(count)
        values: dict[str, list[Any]] = {name: [] for name in found if name in wanted}
        start = place = 0
        for batch in _batches(file, list(values)):
            end = bisect_left(chosen, start + len(batch))
            for name, column in values.items():
                cells = batch.column(name)
                column += [cells[index - start].as_py() for index in chosen[place:end]]
            start, place = start + len(batch), end
            if place == len(chosen):
                break
    if values and place < len(chosen):
        raise pa.ArrowInvalid(f"found {start} rows, expected {count} as its metadata says")
    return Columns(found, count, [index + 1 for index in chosen], values)


def _batches(file: pq.ParquetFile, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Pieces of a parquet file's columns, none if there are no names.

    Arrow reads nested texts only if they form one array, of less than 2 GiB and with one
    dictionary; each row group has its own. It also rejects rows of `string_view`.
    """
    for group in range(file.num_row_groups if names else 0):
        yield from file.iter_batches(BATCH, row_groups=[group], columns=names)


def _csv(path: Path, wanted: Sequence[str], choose: Choose, delimiter: str) -> Columns:
    hint = "; a text with commas, quotes or line breaks in it stands between double quotes"
    header, *rows = csv_rows(path, hint, delimiter)
    chosen = choose(len(rows))
    # Cells are kept as written: "NA" and "None" are texts, and an empty cell is an empty text.
    values = {
        name: [rows[index][place] for index in chosen]
        for place, name in enumerate(header)
        if name in wanted
    }
    return Columns(header, len(rows), [index + 1 for index in chosen], values)


def _json(path: Path, wanted: Sequence[str], choose: Choose) -> Columns:
    text = path.read_text(encoding="utf-8-sig").strip()
    first, *more = text.split("\n", 1)
    one_line = not first.startswith("[") and first.rstrip().endswith("}")
    if not text or (one_line and more):  # `datasets` writes lines into .json files
        return _jsonl(path, wanted, choose)
    records = _parsed(text, f"{path}: row 1" if one_line else str(path), JSON_FORMS)
    if isinstance(records, dict) and isinstance(records.get("data"), list):
        records = records["data"]
    elif not isinstance(records, list):
        records = [records]
    return _records(path, list(enumerate(records, 1)), wanted, choose)


def _jsonl(path: Path, wanted: Sequence[str], choose: Choose) -> Columns:
    with path.open(encoding="utf-8-sig") as lines:
        records = [
            (number, _parsed(line, f"{path}: row {number}", "an object a line"))
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]
    return _records(path, records, wanted, choose)


def _parsed(text: str, where: str, expected: str) -> Any:
    """A JSON value; ``InputError`` where it is invalid, or has a key twice."""

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        if len(record) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            twice = next(name for name, count in counts.items() if count > 1)
            raise InputError(
                f"{where}: found the key {quoted(twice)} twice, expected each key once"
            )
        return record

    try:
        return json.loads(text, object_pairs_hook=fields)
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{where}: not valid JSON: nested too deeply") from None
    except ValueError as error:  # also a number of thousands of digits
        raise InputError(f"{where}: not valid JSON: {error}; expected {expected}") from error


def _records(
    path: Path, records: list[tuple[int, Any]], wanted: Sequence[str], choose: Choose
) -> Columns:
    if not records:
        raise InputError(f"{path}: the file has no rows, expected some")
    found: dict[str, None] = {}
    for number, record in records:
        if not isinstance(record, dict):
            raise InputError(
                f"{path}: row {number}: found {type(record).__name__}, expected an object of fields"
            )
        found.update(dict.fromkeys(record))
    chosen = [records[index] for index in choose(len(records))]
    values = {name: [record.get(name) for _, record in chosen] for name in found if name in wanted}
    return Columns(list(found), len(records), [number for number, _ in chosen], values)
