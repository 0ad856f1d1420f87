"""How methods and numbers look, the same in every figure and on the page.

Colours are Okabe and Ito's, told apart with any colour vision. A method keeps its colour and marker
everywhere, and when other methods are added after it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

ORANGE, SKY, GREEN, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#CC79A7"
BLUE, VERMILLION, BLACK = "#0072B2", "#D55E00", "#000000"
GREY, INK = "#8C8C8C", "#404040"
MINUS = "\N{MINUS SIGN}"

# The paper's two arms have looks of their own; other methods take the next free ones.
FIXED = {"vanilla": 0, "variance_aware": 1}
COLOURS = (VERMILLION, BLUE, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


class Look(NamedTuple):
    """A method's colour and marker, and its colour dark enough for text."""

    colour: str
    marker: str
    ink: str


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """The look of each method: 42 differ before one comes again."""
    places = dict(FIXED)
    for method in methods:
        places.setdefault(method, len(places))
    result = {}
    for method in methods:
        colour = COLOURS[places[method] % len(COLOURS)]
        result[method] = Look(colour, MARKERS[places[method] % len(MARKERS)], darker(colour))
    return result


def darker(colour: str) -> str:
    """A colour, dark enough for text on white."""
    return "#" + "".join(f"{int(0.75 * int(colour[i : i + 2], 16)):02X}" for i in (1, 3, 5))


def name_of(method: str) -> str:
    """A method's name for people."""
    return method.replace("_", " ")


def number(value: float, digits: int = 3) -> str:
    """A number with that many significant digits; a dash for nan."""
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
