"""Reading a source: a world's rows, a file, or a dataset, with the number of each row.

A source is a dictionary with exactly one of ``world`` (a table of the embedded world, with the
number of ``rows``), ``path`` (a parquet, jsonl, json or csv file), ``dataset`` (a hub id, or a
folder that `datasets` wrote or can read) or, for preferences, ``sampled`` (that many pairs of
responses of the reference policy). Common keys: ``columns`` (our name: theirs), ``rows`` (read only
so many, drawn at random), ``name``. Paths are used as they are.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from prudent.data.rows import shown
from prudent.errors import InputError

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Source:
    """What was read of one source: columns under our names, and each row's number in its file."""

    name: str
    origin: str
    available: int
    numbers: list[int]
    columns: dict[str, list[Any]]

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Pairs of a row's number, from 1, and its values."""
        for index, number in enumerate(self.numbers):
            yield number, {name: values[index] for name, values in self.columns.items()}


def read_source(
    spec: Mapping[str, Any],
    required: Sequence[str],
    optional: Sequence[str],
    seed: int,
) -> Source:
    """Reads the named columns of one source, all rows or a random ``rows`` of them.

    Rows keep their order. ``optional`` columns are read where they exist. ``seed`` is that of the
    stream that draws the subset, or the embedded world's rows. ``InputError`` for a file, dataset
    or column that is not there.
    """
    kinds = [kind for kind in ("world", "path", "dataset") if kind in spec]
    if len(kinds) != 1:
        raise InputError(
            f"source {dict(spec)}: found {' and '.join(kinds) or 'no kind'}, expected exactly one "
            "of world, path, dataset"
        )
    mapping = dict(spec.get("columns") or {})
    allowed = [*required, *optional]
    unknown = [ours for ours in mapping if ours not in allowed]
    if unknown:
        raise InputError(
            f"source {dict(spec)}: columns maps our name to theirs: found {unknown[0]!r}, "
            f"expected one of {', '.join(allowed)}"
        )
    theirs = {ours: mapping.get(ours, ours) for ours in allowed}
    wanted = list(theirs.values())
    if kinds == ["world"]:
        raw = _read_world(spec, seed)
    else:
        raw = (_read_path if kinds == ["path"] else _read_dataset)(
            spec, wanted, lambda count: _subset(count, spec.get("rows"), seed)
        )
    missing = [
        their
        for our, their in theirs.items()
        if their not in raw.found and (our in required or our in mapping)
    ]
    if missing:
        raise InputError(
            f"{raw.origin}: the column(s) {', '.join(missing)} are missing; found the columns "
            f"{', '.join(raw.found)} (`columns: {{{next(iter(required))}: THEIRS}}` maps ours to "
            "another name)"
        )
    columns = {our: raw.columns[their] for our, their in theirs.items() if their in raw.columns}
    name = spec.get("name") or raw.name
    return Source(name, raw.origin, raw.available, raw.numbers, columns)


@dataclasses.dataclass
class _Raw:
    """A source before its columns are named as ours; ``found`` are all columns that it has."""

    name: str
    origin: str
    found: list[str]
    available: int
    numbers: list[int]
    columns: dict[str, list[Any]]


_Choose = Callable[[int], list[int]]


def _subset(count: int, limit: int | None, seed: int) -> list[int]:
    """Positions of the rows to read. Random ones: files are often sorted by label or origin."""
    if limit is None or limit >= count:
        return list(range(count))
    return sorted(np.random.default_rng(seed).choice(count, limit, replace=False).tolist())


def _read_world(spec: Mapping[str, Any], seed: int) -> _Raw:
    from prudent.world.benchmark import benchmark
    from prudent.world.reviews import reviews

    writers = {"reviews": reviews, "benchmark": benchmark}
    if spec["world"] not in writers:
        raise InputError(
            f"source {dict(spec)}: found world {spec['world']!r}, expected one of "
            f"{', '.join(writers)}"
        )
    made = writers[spec["world"]](spec["rows"], np.random.default_rng(seed))
    columns = made.to_dict("list") if isinstance(made, pd.DataFrame) else {"text": list(made)}
    name = f"world {spec['world']}"
    count = len(made)
    return _Raw(name, name, list(columns), count, list(range(1, count + 1)), columns)


def _read_path(spec: Mapping[str, Any], wanted: list[str], choose: _Choose) -> _Raw:
    path = Path(spec["path"])
    readers = {
        ".parquet": _parquet,
        ".jsonl": _jsonl,
        ".json": _json,
        ".csv": _csv,
    }
    if path.suffix not in readers:
        raise InputError(
            f"{path}: found the ending {path.suffix!r}, expected one of {', '.join(readers)}"
        )
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    try:
        found, available, numbers, columns = readers[path.suffix](path, wanted, choose)
    except (OSError, UnicodeDecodeError, pa.ArrowException, pd.errors.ParserError) as error:
        raise InputError(f"{path}: not a readable {path.suffix[1:]} file: {error}") from error
    return _Raw(path.stem, str(path), found, available, numbers, columns)


_Columns = tuple[list[str], int, list[int], dict[str, list[Any]]]


def _parquet(path: Path, wanted: list[str], choose: _Choose) -> _Columns:
    found = pq.read_schema(path).names
    table = pq.read_table(path, columns=[name for name in found if name in wanted])
    # A table without columns has lost its number of rows.
    count = pq.read_metadata(path).num_rows
    chosen = choose(count)
    columns = table.take(chosen).to_pydict() if table.num_columns else {}
    return found, count, [index + 1 for index in chosen], columns


def _csv(path: Path, wanted: list[str], choose: _Choose) -> _Columns:
    try:
        # Cells stay as written: "NA" and "None" are texts, and an empty cell is an empty text.
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except pd.errors.EmptyDataError as error:
        raise InputError(f"{path}: the file is empty, expected a line of column names") from error
    chosen = choose(len(frame))
    columns = {name: frame[name].iloc[chosen].tolist() for name in frame if name in wanted}
    return list(frame.columns), len(frame), [index + 1 for index in chosen], columns


def _json(path: Path, wanted: list[str], choose: _Choose) -> _Columns:
    text = path.read_text(encoding="utf-8")
    if not text.lstrip().startswith("["):
        return _jsonl(path, wanted, choose)  # `datasets` writes lines into .json files
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    return _records(path, list(enumerate(records, 1)), wanted, choose)


def _jsonl(path: Path, wanted: list[str], choose: _Choose) -> _Columns:
    records = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                records.append((number, json.loads(line)))
            except json.JSONDecodeError as error:
                raise InputError(f"{path}: row {number}: not valid JSON: {error}") from error
    return _records(path, records, wanted, choose)


def _records(
    path: Path, records: list[tuple[int, Any]], wanted: list[str], choose: _Choose
) -> _Columns:
    found: dict[str, None] = {}
    for number, record in records:
        if not isinstance(record, dict):
            raise InputError(
                f"{path}: row {number}: found {shown(record)}, expected an object of fields"
            )
        found.update(dict.fromkeys(record))
    chosen = [records[index] for index in choose(len(records))]
    columns = {name: [record.get(name) for _, record in chosen] for name in found if name in wanted}
    return list(found), len(records), [number for number, _ in chosen], columns


def _read_dataset(spec: Mapping[str, Any], wanted: list[str], choose: _Choose) -> _Raw:
    details = {
        key: spec[key] for key in ("config", "revision", "split") if spec.get(key) is not None
    }
    origin = ", ".join(
        [f"dataset {spec['dataset']}", *(f"{key} {value}" for key, value in details.items())]
    )
    try:
        loaded = _load_dataset(spec)
    # `datasets` and the hub's client raise errors of many classes, all about this one source.
    except Exception as error:
        raise InputError(
            f"{origin}: could not be loaded: {type(error).__name__}: {error}"
        ) from error
    if isinstance(loaded, dict):
        split = spec.get("split") or (next(iter(loaded)) if len(loaded) == 1 else None)
        if split not in loaded:
            raise InputError(
                f"{origin}: found the splits {', '.join(loaded)}, expected `split:` to name one"
            )
        loaded = loaded[split]
    found = loaded.column_names
    chosen = choose(len(loaded))
    columns: dict[str, list[Any]] = {}
    part = loaded.select_columns([name for name in found if name in wanted])
    if part.column_names:
        part = part if len(chosen) == len(part) else part.select(chosen)
        columns = part.with_format("arrow")[:].to_pydict()
    name = str(spec["dataset"]).rstrip("/")
    name = Path(name).name if Path(name).is_dir() else name
    return _Raw(name, origin, found, len(loaded), [index + 1 for index in chosen], columns)


def _load_dataset(spec: Mapping[str, Any]) -> Any:
    """A Dataset, or a dictionary of them by split; code from the hub is never run."""
    import datasets

    identity = str(spec["dataset"])
    folder = Path(identity)
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        return datasets.load_from_disk(identity)
    return datasets.load_dataset(
        identity, name=spec.get("config"), revision=spec.get("revision"), split=spec.get("split")
    )
