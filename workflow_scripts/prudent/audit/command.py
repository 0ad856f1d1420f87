"""The command ``prudent audit``: from scores, or models, to a page and its numbers."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from prudent import tables
from prudent.audit.forms import read_labelled
from prudent.audit.measures import ALL, audit_table, by_part
from prudent.audit.page import render
from prudent.audit.scores import Scores, read_scores
from prudent.audit.sentences import summary
from prudent.errors import InputError

PAGE, NUMBERS, TABLE, SCORES = "audit.html", "audit.json", "audit.csv", "scores.parquet"


def audit(scores: Path, output: Path, seed: int = 0, models: Sequence[str] = ()) -> list[str]:
    """Audits a file of scores (``prudent.audit.scores``), and returns the summary's sentences.

    Writes ``audit.html``, ``audit.csv`` and ``audit.json`` to the folder ``output``. The CSV has
    the rows of ``prudent.audit.measures.audit_table``. The JSON has them, too (null for what is not
    known, "inf" for an infinite temperature), with the summary, the numbers of pairs and members,
    and the metadata of a result.

    Args:
        models: checkpoints of reward models or ensembles. With any, columns of scores in the file
            are not read; all members of all models score its responses, and these scores are
            written to ``scores.parquet``, whose audit gives the same numbers.

    Raises InputError where matplotlib is missing, the file is bad, a model cannot be loaded, or the
    folder cannot be written.
    """
    figures = _figures()
    settings = {"scores": Path(scores).name, "seed": seed}
    inputs = {"scores": scores}
    names: list[str] = []
    if models:
        given, names = _score(Path(scores), Path(output), models)
        settings |= {"models": list(models), "members": names}
        inputs |= {f"model_{k}": path for k, path in enumerate(models) if os.path.isdir(path)}
    else:
        given = read_scores(scores)
        _make(output)
    table = audit_table(given, seed)
    parts, members = by_part(table), given.margins.shape[1]
    metadata = tables.metadata(settings, **inputs)
    facts = [
        ("scores", f"{Path(scores).name}, SHA-256 {metadata['inputs']['scores']}"),
        ("pairs", f"{len(given.prompts)}, of {given.different_prompts} prompts"),
        ("members", ", ".join([str(members), *(f"{k}: {name}" for k, name in enumerate(names))])),
        ("seed", str(seed)),
        ("versions", ", ".join(f"{name} {of}" for name, of in metadata["versions"].items())),
    ]
    said = summary(parts[ALL, ALL], members, given.different_prompts)
    numbers = {"summary": said, "pairs": len(given.prompts), "members": members}
    tables.write_csv(table, output / TABLE, "audit")
    tables.write_json(numbers | {"table": _rows(table)} | metadata, output / NUMBERS)
    tables.write_text(render(given, parts, figures.drawings(given, parts), facts), output / PAGE)
    return said


def _score(file: Path, output: Path, models: Sequence[str]) -> tuple[Scores, list[str]]:
    """The scores that models give to a file's responses, also written, and the members' names."""
    place = output / SCORES
    if place.exists() and file.exists() and place.samefile(file):
        raise InputError(
            f"{file}: found the file to read at the place of the scores to write; expected another "
            "folder for --output"
        )
    labelled = read_labelled(file)
    from prudent.audit.models import look_for_models, score  # slow to import

    look_for_models(models)
    _make(output)
    scored, names = score(labelled, models)
    scored.write(place)
    return scored.pairs(), names


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
