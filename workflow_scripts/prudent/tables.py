"""Files between the stages: atomic writing, reading, and the metadata beside each result."""

from __future__ import annotations

import contextlib
import csv
import glob
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prudent.errors import InputError, disk_is_full, quoted
from prudent.paths import folder_files
from prudent.schemas import CSV_SCHEMAS, MESSAGES, ROWS, SCHEMAS, TEXT, check_csv, check_rows

# What comes into a folder after it was written: Snakemake's stamp, and the settings and digests.
ADDED = (".snakemake_timestamp", "metadata.json")

PACKAGES = ("torch", "transformers", "trl", "datasets", "pandas", "pyarrow", "snakemake")


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary sibling of ``path`` to write a file or folder to, renamed if all went well.

    Raises InputError where the disk is full, and where what stands at ``path`` is not what was
    written there before (see ``_check_replaced``).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):  # of a killed process
        remove(leftover)
    try:
        yield temporary
        _apply_umask(temporary)
        _check_replaced(path, temporary)
        if path.is_dir():
            remove(path)
        os.replace(temporary, path)
    except Exception as error:
        if not disk_is_full(error):
            raise
        raise InputError(
            f"{path}: no space left to write it: {error}; make some, and run the same command again"
        ) from error
    finally:
        remove(temporary)


def _check_replaced(path: Path, new: Path) -> None:
    """``InputError`` where ``new`` would delete what it does not write itself.

    A file replaces a file, and a folder one that holds nothing but what the new one has, too:
    another may be somebody's home.
    """
    if not os.path.lexists(path):
        return
    if path.is_dir() != new.is_dir():
        found, expected = ("a folder", "a file") if path.is_dir() else ("a file", "a folder")
        raise InputError(f"{path}: found {found}, expected {expected} to replace, or nothing")
    if path.is_dir():
        ours = {*ADDED, *(entry.name for entry in new.iterdir())}
        others = sorted(entry.name for entry in path.iterdir() if entry.name not in ours)
        if others:
            raise InputError(
                f"{path}: found a folder with {', '.join(map(quoted, others[:5]))} in it, which "
                "are not written here and would be deleted; expected another place, or an "
                "earlier result"
            )


def _apply_umask(path: Path) -> None:
    """Gives files the mode that others' have: safetensors makes them for the owner's eyes alone."""
    umask = os.umask(0)
    os.umask(umask)
    for file in (path, *path.rglob("*")):
        if file.is_file() and not file.is_symlink():
            file.chmod(0o666 & ~umask)


def remove(path: Path) -> None:
    """Deletes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_parquet(
    frame: pd.DataFrame, path: str | Path, schema: str | None = None, others: bool = False
) -> None:
    """Writes a table; with the name of a schema, exactly its columns in its types.

    ``InputError`` where its rows are not what the schema asks for. With ``others`` it keeps columns
    that the schema does not name.
    """
    form = SCHEMAS[schema] if schema else None
    if form is not None:
        typed = pa.Table.from_pandas(frame[form.names], schema=form, preserve_index=False)
        _check_nulls(typed, path)
        check_rows(frame, schema, path)
    table = typed if form and not others else pa.Table.from_pandas(frame, preserve_index=False)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_csv(frame: pd.DataFrame, path: str | Path, schema: str | None = None) -> None:
    """Writes a table as CSV; ``InputError`` where it is not what the schema asks for."""
    if schema is not None:
        check_csv(frame, schema, path)
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False)


def write_json(value: Any, path: str | Path) -> None:
    """Writes a value as indented JSON with sorted keys."""
    write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", path)


def write_text(text: str, path: str | Path) -> None:
    """Writes a text."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def csv_rows(path: str | Path, hint: str = "", delimiter: str = ",") -> Iterator[list[str]]:
    """The rows of a csv file, first the one of column names.

    ``InputError`` with the line of a row that is not csv or has other cells than there are names,
    which pandas would fill up or shift, and for two columns of one name.
    """
    with open(path, encoding="utf-8-sig", newline="") as stream, _large_cells():
        rows = _numbered_rows(csv.reader(stream, strict=True, delimiter=delimiter), path)
        _, names = next(rows, (0, None))
        if names is None:
            raise InputError(f"{path}: the file is empty, expected a line of column names")
        once(names, path)
        yield names
        for line, cells in rows:
            if cells and len(cells) != len(names):
                raise InputError(
                    f"{path}: line {line}: found {len(cells)} cell(s), expected {len(names)} as "
                    f"in the line of column names{hint}"
                )
            if cells:
                yield cells


def _numbered_rows(reader: Any, path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a csv reader, each with the line that it begins on."""
    line = 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        hint = ""
        if "end of data" in str(error) or "expected after" in str(error):
            hint = (
                "; expected a text with quotes in it to stand between double quotes, with each of "
                'its own written twice (""), not after a backslash'
            )
        raise InputError(f"{path}: not a readable csv file: line {line}: {error}{hint}") from error


def once(names: Sequence[str], path: str | Path) -> None:
    """``InputError`` where two columns of a file have one name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{path}: found two columns {quoted(name)}, expected each name once")
        seen.add(name)


@contextlib.contextmanager
def _large_cells() -> Iterator[None]:
    """Lifts the csv module's limit on the length of a cell."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def read_csv(path: str | Path, schema: str) -> pd.DataFrame:
    """Reads a CSV table of one of ours, names as the texts that they are.

    ``InputError`` where it is not one: cut off, edited by hand, or of another kind.
    """
    form = CSV_SCHEMAS[schema]
    texts = [name for name, kind in form.items() if kind == TEXT]
    numbers = form.keys() - set(texts) | ROWS[schema].ranges.keys()
    try:
        for _ in csv_rows(path):
            pass
        frame = pd.read_csv(
            path,
            dtype=dict.fromkeys(texts, str),
            keep_default_na=False,
            na_values={name: ["", "nan"] for name in numbers},
            encoding="utf-8",
        )
    except InputError:
        raise
    except (OSError, ValueError) as error:  # pandas' own are ValueErrors
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable csv file: {first}") from error
    check_csv(frame, schema, path)
    return frame


def read_table(path: str | Path, schema: str, others: bool = False) -> pd.DataFrame:
    """Reads a parquet table of one of our schemas; ``InputError`` where it is not one.

    With ``others`` it keeps columns that the schema does not name.
    """
    try:
        table = pq.read_table(path)
        names = table.column_names  # decoded here, and perhaps not UTF-8
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable parquet file: {error}") from error
    expected = SCHEMAS[schema]
    missing = [name for name in expected.names if name not in names]
    if missing:
        raise InputError(
            f"{path}: the column(s) {', '.join(missing)} are missing; expected the columns "
            f"{', '.join(expected.names)}, found {', '.join(names)}"
        )
    try:
        typed = table.select(expected.names).cast(expected)
        typed.validate(full=True)
        _check_nulls(typed, path)
        frame = typed.to_pandas()
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: a column has the wrong type: {error}") from error
    for column in expected.names:
        if expected.field(column).type == MESSAGES:
            frame[column] = [list(messages) for messages in frame[column]]
    if others:
        for name in names:
            if name not in expected.names:
                frame[name] = table[name].to_pandas()
    check_rows(frame, schema, path)
    return frame


def _check_nulls(table: pa.Table, path: str | Path) -> None:
    """``InputError`` for a row that lacks a value; a number may be unknown."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.type == pa.float64():
            continue
        missing = column.is_null().to_numpy()
        if column.type == MESSAGES and not missing.any():
            parts = pc.list_flatten(column)
            parents = pc.list_parent_indices(column).to_numpy()
            for field in ("role", "content"):
                bad = pc.struct_field(parts, field).is_null().to_numpy()
                missing[parents[bad]] = True
        if missing.any():
            raise InputError(
                f"{path}: row {int(missing.argmax()) + 1}, column {quoted(name)}: found no value, "
                "expected one in every row"
            )


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files that are not hidden.

    Snakemake puts a hidden file of its own into folders that are results.
    """
    path = Path(path)
    digest = hashlib.sha256()
    for file in folder_files(path) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def metadata(settings: dict[str, Any], **inputs: str | Path) -> dict[str, Any]:
    """What lies beside a result: effective settings, versions, and digests of its inputs."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "settings": settings,
        "versions": versions,
        "inputs": {name: file_digest(path) for name, path in inputs.items()},
    }
