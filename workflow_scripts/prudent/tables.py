"""Files between the stages: schemas, atomic writing, and the metadata beside each result."""

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

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prudent.errors import InputError, cut, disk_is_full, quoted
from prudent.paths import folder_files

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
RESPONSES = [
    ("method", pa.string()),
    ("seed", pa.int64()),
    ("prompt", pa.string()),
    ("response", pa.string()),
]

SCHEMAS: dict[str, pa.Schema] = {
    "texts": pa.schema([("text", pa.string()), ("source", pa.string()), ("split", pa.string())]),
    "prompts": pa.schema(
        [
            ("prompt", pa.string()),
            ("source", pa.string()),
            ("split", pa.string()),
            ("tokens", pa.int64()),
        ]
    ),
    "preferences": pa.schema(
        [
            ("id", pa.string()),
            ("prompt", MESSAGES),
            ("chosen", pa.string()),
            ("rejected", pa.string()),
            ("source", pa.string()),
            ("split", pa.string()),
            ("probability", pa.float64()),
        ]
    ),
    "benchmark": pa.schema(
        [
            ("prompt", MESSAGES),
            ("chosen", pa.string()),
            ("rejected", pa.string()),
            ("subset", pa.string()),
            ("section", pa.string()),
            ("id", pa.string()),
        ]
    ),
    # Policies' responses to the test prompts; the reference policy is method "reference", seed 0.
    "responses": pa.schema(RESPONSES),
    # What a judge says of them; other columns are the judge's own.
    "judgements": pa.schema([*RESPONSES, ("score", pa.float64())]),
    # What every head says of them.
    "rewards": pa.schema(
        [
            ("method", pa.string()),
            ("seed", pa.int64()),
            ("prompt", pa.string()),
            ("ensemble", pa.int64()),
            ("head", pa.int64()),
            ("reward", pa.float64()),
        ]
    ),
    "scores": pa.schema(
        [
            ("id", pa.string()),
            ("subset", pa.string()),
            ("section", pa.string()),
            ("side", pa.string()),
            ("ensemble", pa.int64()),
            ("head", pa.int64()),
            ("reward", pa.float64()),
        ]
    ),
}

# Tables in CSV: their columns, whether a cell may be empty, and whether an interval may be open.
TEXT, NUMBER, MAYBE, BOUND = "text", "number", "number or nothing", "number, inf or nothing"
CSV_SCHEMAS: dict[str, dict[str, str]] = {
    "training_log": {
        **dict.fromkeys(("step", "kl", "kl_k3", "proxy_reward", "ensemble_reward"), NUMBER),
        "sigma": MAYBE,
        **dict.fromkeys(("kl_coefficient", "score", "entropy", "clip_fraction"), NUMBER),
        **dict.fromkeys(("policy_loss", "value_loss", "learning_rate", "tokens"), NUMBER),
        "seconds": NUMBER,
    },
    "losses": {"step": NUMBER, "loss": NUMBER, "split": TEXT},
    "head_losses": {
        **dict.fromkeys(("ensemble", "head", "step", "loss", "accuracy"), NUMBER),
        "split": TEXT,
    },
    "member_losses": {
        **dict.fromkeys(("member", "step", "loss", "accuracy"), NUMBER),
        "split": TEXT,
    },
    "policies": {
        "method": TEXT,
        **dict.fromkeys(("seed", "ensemble", "head", "trial", "score"), NUMBER),
        "score_se": MAYBE,
        "kl": MAYBE,
    },
    "summary": {
        "method": TEXT,
        **dict.fromkeys(("policies", "heads", "score", "worse", "worse_low", "worse_high"), NUMBER),
        **dict.fromkeys(("score_low", "score_high", "score_variance", "noise_variance"), MAYBE),
        **dict.fromkeys(("kl", "kl_sd", "reference_score", "reference_se"), MAYBE),
    },
    "tests": {
        **dict.fromkeys(("method", "baseline", "quantity"), TEXT),
        **dict.fromkeys(("pairs", "heads"), NUMBER),
        **dict.fromkeys(("estimate", "low", "high", "p"), BOUND),
    },
    # Of each ensemble of rewards; what is no ensemble's own has the ensemble "".
    "diagnosis": {
        **dict.fromkeys(("ensemble", "quantity"), TEXT),
        **dict.fromkeys(("value", "low", "high", "noise", "noise_low", "noise_high"), BOUND),
        **dict.fromkeys(("untrained", "promised_low", "promised_high"), BOUND),
    },
    "kinds": {
        "ensemble": TEXT,
        **dict.fromkeys(
            ("accuracy_member", "accuracy_mean", "within_member", "within_mean"), MAYBE
        ),
        **dict.fromkeys(("sigma_ratio", "sigma_ratio_noise", "leave_one_out"), BOUND),
        **dict.fromkeys(("leave_one_out_untrained", "leave_one_out_noise"), MAYBE),
        **dict.fromkeys(("leave_one_out_beyond", "error_correlation"), MAYBE),
        **dict.fromkeys(("ece_mean", "ece_mean_noise"), MAYBE),
    },
    "frequency": {
        "ensemble": TEXT,
        **dict.fromkeys(("bin", "count_low", "count_high", "n", "pairs"), NUMBER),
        **dict.fromkeys(("accuracy_member", "accuracy_member_low", "accuracy_member_high"), MAYBE),
        **dict.fromkeys(("accuracy_mean", "accuracy_mean_low", "accuracy_mean_high"), MAYBE),
        **dict.fromkeys(("error_member", "error_member_low", "error_member_high"), MAYBE),
        **dict.fromkeys(("error_mean", "error_mean_low", "error_mean_high"), MAYBE),
        **dict.fromkeys(("sigma", "sigma_low", "sigma_high"), MAYBE),
    },
    "accuracy": {
        **dict.fromkeys(("subset", "section", "level", "model"), TEXT),
        **dict.fromkeys(("ensemble", "head", "accuracy", "se", "ties", "rows"), NUMBER),
    },
    "variance": {
        **dict.fromkeys(("section", "subset", "side"), TEXT),
        **dict.fromkeys(("ensemble", "rows"), NUMBER),
        **dict.fromkeys(("mean", "median", "max", "q10", "q25", "q75", "q90"), MAYBE),
    },
}

PACKAGES = ("torch", "transformers", "trl", "datasets", "pandas", "pyarrow", "snakemake")


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary sibling of ``path`` to write a file or folder to, renamed if all went well.

    Raises InputError where the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):  # of a killed process
        remove(leftover)
    try:
        yield temporary
        _apply_umask(temporary)
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


def write_parquet(frame: pd.DataFrame, path: str | Path, schema: str | None = None) -> None:
    """Writes a table; with the name of a schema, exactly its columns in its types."""
    form = SCHEMAS[schema] if schema else None
    table = pa.Table.from_pandas(
        frame[form.names] if form else frame, schema=form, preserve_index=False
    )
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_csv(frame: pd.DataFrame, path: str | Path) -> None:
    """Writes a table as CSV."""
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False)


def write_json(value: Any, path: str | Path) -> None:
    """Writes a value as indented JSON with sorted keys."""
    write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", path)


def write_text(text: str, path: str | Path) -> None:
    """Writes a text."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def csv_rows(path: str | Path, hint: str = "") -> Iterator[list[str]]:
    """The rows of a csv file, first the one of column names.

    ``InputError`` with the line of a row that has other cells than there are names, which pandas
    would fill up or shift, and for two columns of one name; ``csv.Error`` where it is not csv.
    """
    with open(path, encoding="utf-8-sig", newline="") as stream, _large_cells():
        reader = csv.reader(stream, strict=True)
        names = next(reader, None)
        if names is None:
            raise InputError(f"{path}: the file is empty, expected a line of column names")
        once(names, path)
        yield names
        line = reader.line_num
        for cells in reader:
            start, line = line + 1, reader.line_num
            if not cells:
                continue
            if len(cells) != len(names):
                raise InputError(
                    f"{path}: line {start}: found {len(cells)} cell(s), expected {len(names)} as "
                    f"in the line of column names{hint}"
                )
            yield cells


def once(names: Sequence[str], path: str | Path) -> None:
    """``InputError`` where two columns of a file have one name."""
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InputError(f"{path}: found two columns {quoted(name)}, expected each name once")


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
    try:
        for _ in csv_rows(path):
            pass
        frame = pd.read_csv(
            path,
            dtype=dict.fromkeys(texts, str),
            keep_default_na=False,
            na_values={name: ["", "nan"] for name in form if name not in texts},
            encoding="utf-8",
        )
    except InputError:
        raise
    except (OSError, ValueError, csv.Error) as error:  # pandas' own are ValueErrors
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable csv file: {first}") from error
    missing = [name for name in form if name not in frame]
    if missing:
        raise InputError(
            f"{path}: the column(s) {', '.join(missing)} are missing; found the columns "
            f"{', '.join(map(str, frame.columns))}"
        )
    for name, kind in form.items():
        if kind != TEXT:
            _check_numbers(frame[name], path, kind)
    return frame


def _check_numbers(column: pd.Series, path: str | Path, kind: str) -> None:
    numbers = pd.to_numeric(column, errors="coerce")
    bad = numbers.isna() & (column.notna() | (kind == NUMBER))
    if kind != BOUND:
        bad |= numbers.isin([np.inf, -np.inf])
    if column.dtype == bool or bad.any():
        row = int(bad.argmax())
        found = cut(str(column.iloc[row])) if len(column) else "true or false"
        raise InputError(
            f"{path}: row {row + 1}, column {quoted(column.name)}: found {found}, expected a {kind}"
        )


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
