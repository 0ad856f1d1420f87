"""The command ``prudent audit``: from a file of scores to a page, and its numbers as JSON."""

from __future__ import annotations

import importlib
import math
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from prudent import tables
from prudent.audit.measures import ALL, audit_table, by_part
from prudent.audit.page import render
from prudent.audit.scores import read_scores
from prudent.audit.sentences import summary
from prudent.errors import InputError

PAGE, NUMBERS = "audit.html", "audit.json"


def audit(scores: Path, output: Path, seed: int = 0) -> list[str]:
    """Audits a file of scores (``prudent.audit.scores``), and returns the summary's sentences.

    Writes ``audit.html`` and ``audit.json`` to the folder ``output``. The JSON has the summary, the
    numbers of pairs and members, the rows of ``prudent.audit.measures.audit_table`` (null for what
    is not known, "inf" for an infinite temperature), and the metadata of a result.

    Raises InputError where matplotlib is missing, the file is bad, or the folder cannot be written.
    """
    figures = _figures()
    given = read_scores(scores)
    _make(output)
    table = audit_table(given, seed)
    parts, members = by_part(table), given.margins.shape[1]
    metadata = tables.metadata({"scores": Path(scores).name, "seed": seed}, scores=scores)
    facts = [
        ("scores", f"{Path(scores).name}, SHA-256 {metadata['inputs']['scores']}"),
        ("pairs", f"{len(given.prompts)}, of {given.different_prompts} prompts"),
        ("members", str(members)),
        ("seed", str(seed)),
        ("versions", ", ".join(f"{name} {of}" for name, of in metadata["versions"].items())),
    ]
    said = summary(parts[ALL, ALL], members, given.different_prompts)
    numbers = {"summary": said, "pairs": len(given.prompts), "members": members}
    tables.write_json(numbers | {"table": _rows(table)} | metadata, output / NUMBERS)
    tables.write_text(render(given, parts, figures.drawings(given, parts), facts), output / PAGE)
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
