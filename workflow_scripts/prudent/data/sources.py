"""Reads a source: numbered rows of the embedded world, a file, or a dataset."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prudent.data.files import Choose, Columns, read_file
from prudent.data.settings import SIDES, Source
from prudent.errors import InputError, quoted
from prudent.paths import home

LABEL = "label"
"""Our name of the column that a source's `label` names."""

# Names of columns that say which response is better.
_SAYS_WHICH = re.compile(r"label|better|safer|prefer|winner|verdict", re.IGNORECASE)


@dataclass
class Rows:
    """The content of one source: columns under our names, and each row's number in its file."""

    name: str
    origin: str
    available: int
    numbers: list[int]
    columns: dict[str, list[Any]]

    def numbered(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Pairs of a row's number, from 1, and its values."""
        for index, number in enumerate(self.numbers):
            yield number, {name: values[index] for name, values in self.columns.items()}


def read_source(
    source: Source, required: Sequence[str], optional: Sequence[str], seed: int
) -> Rows:
    """Reads the named columns of one source, all rows or a random ``source.rows`` of them.

    Rows keep their order. ``optional`` columns are read if they exist. ``seed`` is that of the
    stream that draws the subset, or the embedded world's rows. A path's ``~`` is the home folder.
    ``InputError`` for a missing file, dataset or column, and for responses named only by position
    next to a column that looks like their label.
    """
    theirs = {ours: source.columns.get(ours, ours) for ours in (*required, *optional)}
    if source.label is not None:
        theirs[LABEL] = source.label.column
    wanted = list(theirs.values())

    def choose(count: int) -> list[int]:
        # Random rows, because files are often sorted by label or origin.
        if source.rows is None or source.rows >= count:
            return list(range(count))
        draw = np.random.default_rng(seed).choice(count, source.rows, replace=False)
        return sorted(draw.tolist())

    if source.kind == "world":
        name = origin = f"world {source.world}"
        read = _read_world(source, seed)
    elif source.kind == "path":
        name, origin = Path(source.path).stem, source.path
        read = read_file(Path(home(source.path)), wanted, choose)
    else:
        name, origin = _dataset_name(source.dataset), _dataset_origin(source)
        read = _read_dataset(source, origin, wanted, choose)
    _check_columns(source, origin, theirs, required, read.found)
    columns = {our: read.values[their] for our, their in theirs.items() if their in read.values}
    # A file's name may contain bytes that are not text.
    name = (source.name or name).encode("utf-8", "replace").decode()
    return Rows(name, origin, read.available, read.numbers, columns)


def _check_columns(
    source: Source,
    origin: str,
    theirs: dict[str, str],
    required: Sequence[str],
    found: Sequence[str],
) -> None:
    """``InputError`` where a column is missing, or a label of two responses would not be read."""
    labels = [
        name
        for name in found
        if _SAYS_WHICH.search(name) and name not in theirs.values() and not source.relabel
    ]
    unread = labels[0] if "chosen" in required and labels else None
    hint = (
        f"`columns: {{first: ..., second: ...}}` with `label: {{column: {unread}, first: ...}}` "
        "reads two responses and which is better"
    )
    missing = [
        their
        for our, their in theirs.items()
        if their not in found and (our in required or our in source.columns)
    ]
    if missing:
        mapping = f"`columns: {{{required[0]}: THEIRS}}` maps ours to another name"
        raise InputError(
            f"{origin}: the column(s) {', '.join(missing)} are missing; found the columns "
            f"{', '.join(found)} ({mapping if unread is None else f'{mapping}; {hint}'})"
        )
    if unread is not None and _by_place(*(theirs[side] for side in SIDES)):
        chosen, rejected = (quoted(theirs[side]) for side in SIDES)
        raise InputError(
            f"{origin}: found {chosen} for chosen and {rejected} for rejected, and the column "
            f"{quoted(unread)}, which may say of each row which of the two is better; {hint}, and "
            "where the same one always is, rename the columns"
        )


def _by_place(one: str, other: str) -> bool:
    """Whether two columns are named only by position, like response_0 and response_1."""
    differences = [a + b for a, b in zip(one.lower(), other.lower(), strict=False) if a != b]
    return len(one) == len(other) and differences in (
        [first + second] for first, second in ("01", "10", "12", "21", "ab", "ba")
    )


def _read_world(source: Source, seed: int) -> Columns:
    from prudent.world.benchmark import benchmark
    from prudent.world.reviews import reviews

    rng = np.random.default_rng(seed)
    if source.world == "benchmark":
        values = benchmark(source.rows, rng, source.zipf).to_dict("list")
    else:
        values = {"text": reviews(source.rows, rng, source.zipf)}
    return Columns(list(values), source.rows, list(range(1, source.rows + 1)), values)


def _dataset_name(dataset: str) -> str:
    name = home(dataset).rstrip("/")
    return Path(name).name if Path(name).is_dir() else name


def _dataset_origin(source: Source) -> str:
    details = {key: getattr(source, key) for key in ("config", "revision", "split")}
    said = [f"{key} {value}" for key, value in details.items() if value is not None]
    return ", ".join([f"dataset {source.dataset}", *said])


def _read_dataset(source: Source, origin: str, wanted: Sequence[str], choose: Choose) -> Columns:
    try:
        loaded = _load_dataset(source)
    # `datasets` and the hub's client raise errors of many classes, all about this one source.
    except Exception as error:
        raise InputError(
            f"{origin}: could not be loaded: {type(error).__name__}: {error}"
        ) from error
    if isinstance(loaded, dict):
        split = source.split or (next(iter(loaded)) if len(loaded) == 1 else None)
        if split not in loaded:
            raise InputError(
                f"{origin}: found the splits {', '.join(loaded)}, expected `split:` to name one"
            )
        loaded = loaded[split]
    if callable(loaded):
        try:
            return loaded(wanted, choose)
        except InputError as error:
            raise InputError(f"{origin}: {error}") from error
    found = loaded.column_names
    chosen = choose(len(loaded))
    values: dict[str, list[Any]] = {}
    part = loaded.select_columns([name for name in found if name in wanted])
    if part.column_names:
        part = part if len(chosen) == len(part) else part.select(chosen)
        values = part.with_format("arrow")[:].to_pydict()
    return Columns(found, len(loaded), [index + 1 for index in chosen], values)


def _load_dataset(source: Source) -> Any:
    """A Dataset, or a dictionary of them by split; code from the hub is never run.

    For CSV and JSON, a dictionary of our strict readers by split: `datasets` loses text silently.
    """
    import datasets

    folder = Path(home(source.dataset))
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        return datasets.load_from_disk(str(folder))
    builder = datasets.load_dataset_builder(
        home(source.dataset), name=source.config, revision=source.revision
    )
    if builder.name in ("csv", "json"):
        return _file_readers(builder)
    builder.download_and_prepare()
    return builder.as_dataset(split=source.split)


def _file_readers(builder: Any) -> dict[str, Callable[[Sequence[str], Choose], Columns]]:
    """The readers, by split, of a dataset of CSV or JSON files, which are downloaded."""
    import datasets

    manager = datasets.DownloadManager(dataset_name=builder.dataset_name)
    options = {"kind": f".{builder.name}"}
    if builder.name == "csv":  # also for files with tabs between cells
        options["delimiter"] = builder.config.delimiter or builder.config.sep
    return {
        str(split): partial(
            _read_files,
            [Path(path) for path in manager.iter_files(manager.download_and_extract(list(files)))],
            options,
        )
        for split, files in builder.config.data_files.items()
    }


def _read_files(
    paths: Sequence[Path], options: dict[str, str], wanted: Sequence[str], choose: Choose
) -> Columns:
    """The rows of several files as one; ``InputError`` where their columns differ."""
    parts = [read_file(path, wanted, lambda n: list(range(n)), **options) for path in paths]
    first = parts[0]
    for path, part in zip(paths, parts, strict=True):
        if part.values.keys() != first.values.keys():
            raise InputError(
                f"{path}: found the columns {', '.join(part.found)}, expected "
                f"{', '.join(first.found)} as in {paths[0]}"
            )
    available = sum(part.available for part in parts)
    chosen = choose(available)
    values = {
        name: [value for part in parts for value in part.values[name]] for name in first.values
    }
    values = {name: [column[index] for index in chosen] for name, column in values.items()}
    return Columns(first.found, available, [index + 1 for index in chosen], values)
