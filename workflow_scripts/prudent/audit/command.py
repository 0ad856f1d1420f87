"""The command ``prudent audit``: from a file of scores to a page, and its numbers as JSON."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from prudent import tables
from prudent.audit.measures import ALL, audit_table, by_part
from prudent.audit.page import render
from prudent.audit.scores import Scores, read_scores
from prudent.audit.sentences import summary
from prudent.errors import InputError

PAGE, NUMBERS = "audit.html", "audit.json"


def audit(scores: Path, output: Path, seed: int = 0) -> list[str]:
    """Audits a file of scores (``prudent.audit.scores``), and returns the summary's sentences.

    Writes ``audit.html`` and ``audit.json`` to the folder ``output``, as ``write_audit`` does.

    Raises InputError where matplotlib is missing, the file is bad, or the folder cannot be written.
    """
    _figures()  # what is missing is said before any work
    given = read_scores(scores)
    _make(output)
    return write_audit(given, output / PAGE, output / NUMBERS, {"scores": scores}, seed)


def write_audit(
    scores: Scores, page: Path, numbers: Path, inputs: Mapping[str, Path], seed: int, **facts: str
) -> list[str]:
    """Writes the page and the numbers of an audit, and returns the summary's sentences.

    The numbers are JSON: the summary, the numbers of pairs and members, the rows of
    ``prudent.audit.measures.audit_table`` (null for what is not known, "inf" for an infinite
    temperature), and the metadata of a result. ``inputs`` are the files that the scores are from;
    the page and the metadata name them, and other ``facts`` about them.

    Raises InputError where matplotlib is missing.
    """
    figures = _figures()
    table = audit_table(scores, seed)
    parts, members = by_part(table), scores.margins.shape[1]
    names = {name: Path(path).name for name, path in inputs.items()}
    metadata = tables.metadata({**facts, **names, "seed": seed}, **inputs)
    digests, versions = metadata["inputs"], metadata["versions"]
    shown = [
        *facts.items(),
        *((name, f"{file}, SHA-256 {digests[name]}") for name, file in names.items()),
        ("pairs", f"{len(scores.prompts)}, of {scores.different_prompts} prompts"),
        ("members", str(members)),
        ("seed", str(seed)),
        ("versions", ", ".join(f"{name} {of}" for name, of in versions.items())),
    ]
    said = summary(parts[ALL, ALL], members, scores.different_prompts)
    found = {"summary": said, "pairs": len(scores.prompts), "members": members}
    tables.write_json(found | {"table": _rows(table)} | metadata, numbers)
    tables.write_text(render(scores, parts, figures.drawings(scores, parts), shown), page)
    return said


def _figures() -> ModuleType:
    """The module that draws; the library itself does without matplotlib."""
    try:
        return importlib.import_module("prudent.audit.figures")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise InputError(
            "an audit draws figures with matplotlib, which is not installed; install the extra "
            "figures: pip install 'prudent[figures]', or '.[figures]' in a clone"
        ) from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: not a folder to write to: {error}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: not a folder to write to: permission denied")


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The table's rows in numbers that every reader of JSON knows."""

    def plain(value: Any) -> Any:
        if not isinstance(value, float) or math.isfinite(value):
            return value
        return None if math.isnan(value) else str(value)

    records = table.to_dict("records")
    return [{name: plain(value) for name, value in row.items()} for row in records]
