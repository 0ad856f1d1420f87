"""Names and numbers for people, the same in sentences, tables and figures."""

from __future__ import annotations

import math

MINUS = "\N{MINUS SIGN}"


def name_of(method: str) -> str:
    """A method's name for people."""
    return method.replace("_", " ")


def number(value: float, digits: int = 3) -> str:
    """A number with ``digits`` significant digits; a dash for nan."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return f"{MINUS if value < 0 else ''}\N{INFINITY}"
    if value == 0:
        return "0"
    rounded = f"{value:.{digits - 1}e}"
    magnitude = int(rounded.split("e")[1])
    text = f"{value:.{max(digits - 1 - magnitude, 0)}f}" if -4 <= magnitude < 6 else rounded
    return text.replace("-", MINUS)


def p_value(p: float | None) -> str:
    """A p value with its sign, or a note that there is none."""
    if p is None or not math.isfinite(p):
        return "not computable"
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def plural(count: int) -> str:
    """The plural ending for a count."""
    return "" if count == 1 else "s"
