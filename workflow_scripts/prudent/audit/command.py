"""The command ``prudent audit``: from scores, or models, to a page and its numbers."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Mapping, Sequence
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

    Writes ``audit.html``, ``audit.csv`` and ``audit.json`` to the folder ``output``, as
    ``write_audit`` does.

    Args:
        models: checkpoints of reward models or ensembles. With any, columns of scores in the file
            are not read; all members of all models score its responses, and these scores are
            written to ``scores.parquet``, whose audit gives the same numbers.

    Raises InputError where matplotlib is missing, the file is bad, a model cannot be loaded, or the
    folder cannot be written.
    """
    _figures()  # what is missing is said before any work
    inputs, facts = {"scores": scores}, {}
    names: list[str] = []
    if models:
        given, names = _score(Path(scores), Path(output), models)
        inputs |= {f"model_{k}": path for k, path in enumerate(models) if os.path.isdir(path)}
        facts["models"] = ", ".join(models)
    else:
        given = read_scores(scores)
        _make(output)
    places = [output / name for name in (PAGE, TABLE, NUMBERS)]
    return write_audit(given, *places, inputs, seed, names, **facts)


def write_audit(
    scores: Scores,
    page: Path,
    table: Path,
    numbers: Path,
    inputs: Mapping[str, str | Path],
    seed: int,
    members: Sequence[str] = (),
    **facts: str,
) -> list[str]:
    """Writes an audit, and returns the summary's sentences.

    The table is CSV, with the rows of ``prudent.audit.measures.audit_table``. The numbers are JSON:
    these rows (null for what is not known, "inf" for an infinite temperature), the summary, the
    numbers of pairs and members, and the metadata of a result.

    Args:
        inputs: the files that the scores are from; the page and the metadata name them.
        members: their names, if they have some.
        facts: others that the page and the metadata name.

    Raises InputError where matplotlib is missing.
    """
    figures = _figures()
    found = audit_table(scores, seed)
    parts, count = by_part(found), scores.margins.shape[1]
    names = {name: Path(path).name for name, path in inputs.items()}
    settings = {**facts, **names, "seed": seed} | ({"members": list(members)} if members else {})
    metadata = tables.metadata(settings, **inputs)
    digests, versions = metadata["inputs"], metadata["versions"]
    shown = [
        *facts.items(),
        *((name, f"{file}, SHA-256 {digests[name]}") for name, file in names.items()),
        ("pairs", f"{len(scores.prompts)}, of {scores.different_prompts} prompts"),
        ("members", ", ".join([str(count), *(f"{k}: {name}" for k, name in enumerate(members))])),
        ("seed", str(seed)),
        ("versions", ", ".join(f"{name} {of}" for name, of in versions.items())),
    ]
    said = summary(parts[ALL, ALL], count, scores.different_prompts)
    told = {"summary": said, "pairs": len(scores.prompts), "members": count}
    tables.write_csv(found, table, "audit")
    tables.write_json(told | {"table": _rows(found)} | metadata, numbers)
    tables.write_text(render(scores, parts, figures.drawings(scores, parts), shown), page)
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
