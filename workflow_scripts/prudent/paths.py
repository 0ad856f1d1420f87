"""Paths that hold on every machine, and the files of a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLACEHOLDER = "{data_root}"


def home(path: str) -> str:
    """A path with the home folder in place of a leading ``~``, as shells write it."""
    return os.path.expanduser(path) if path == "~" or path.startswith("~/") else path


def resolve(value: Any, data_root: str) -> Any:
    """A setting with ``{data_root}`` replaced in every text, and ``~`` where one begins with it."""

    def path(text: str) -> str:
        if PLACEHOLDER not in text:
            return home(text)
        return os.path.normpath(home(text.replace(PLACEHOLDER, data_root)))

    return _texts(value, path)


def portable(value: Any, data_root: str) -> Any:
    """A setting with ``{data_root}`` in place of the folder: what ``resolve`` undoes.

    A job's parameters are part of its key in the cache, where a path of one machine would hide the
    result from all others. What the files hold is in the key as well.
    """
    folder = os.path.normpath(data_root)

    def path(text: str) -> str:
        below = text.startswith(folder + os.sep)
        return PLACEHOLDER + text.removeprefix(folder) if below else text

    return _texts(value, path)


def folder_files(folder: str | Path) -> list[Path]:
    """All files below a folder that are not hidden, in order."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return sorted(
        path
        for path in files
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _texts(value: Any, change: Callable[[str], str]) -> Any:
    """The same value with every text changed."""
    if isinstance(value, dict):
        return {key: _texts(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_texts(item, change) for item in value]
    return change(value) if isinstance(value, str) else value
