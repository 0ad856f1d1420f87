"""Texts as callers give them: lists, arrays or columns of tables, of Unicode text and no less."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prudent.errors import InputError, quoted


def as_list(values: Any, name: str) -> list[Any]:
    """The values as a list; ``InputError`` for one text, a dictionary, or what has no items."""
    if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
        raise InputError(f"{name}: found {type(values).__name__}, expected a list of texts")
    return list(values)


def check_text(value: Any, place: str, expected: str = "a text") -> None:
    """``InputError`` where a value is not text, or holds half a character (a lone surrogate)."""
    if not isinstance(value, str):
        raise InputError(f"{place}: found {type(value).__name__}, expected {expected}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{place}: found {quoted(value)}, expected Unicode text") from None


def text_list(values: Any, name: str) -> list[str]:
    """The values as a list of texts; ``InputError`` where one is not text."""
    texts = as_list(values, name)
    for number, value in enumerate(texts):
        check_text(value, f"{name}[{number}]")
    return [str(text) for text in texts]  # numpy's texts are a class of their own
