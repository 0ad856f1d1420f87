"""How methods look, the same in every figure and on the page.

Colours are Okabe and Ito's, distinguishable with any colour vision. A method keeps its colour and
marker everywhere, also when other methods are added after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

ORANGE, SKY, GREEN, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#CC79A7"
BLUE, VERMILLION, BLACK = "#0072B2", "#D55E00", "#000000"
GREY, INK = "#8C8C8C", "#404040"

# The paper's two arms have fixed looks; other methods take the next free ones.
FIXED = {"vanilla": 0, "variance_aware": 1}
COLOURS = (VERMILLION, BLUE, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


class Look(NamedTuple):
    """A method's colour and marker, and its colour dark enough for text."""

    colour: str
    marker: str
    ink: str


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """The look of each method; there are 42 before one repeats."""
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
