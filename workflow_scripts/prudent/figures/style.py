"""How figures look, and what several of them draw.

No figure uses pyplot's global state, so they can be drawn from anywhere, also side by side.
"""

from __future__ import annotations

import functools
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from prudent import tables
from prudent.analysis.wording import name_of
from prudent.figures.looks import BLACK, INK

BANDS = 4  # bands of more methods than this would hide each other

STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "savefig.dpi": 150,
    "pdf.fonttype": 42,
    "text.parse_math": False,  # texts from data may hold dollar signs
}


def on_lines(method: str) -> str:
    """A method's name, on several lines where it is long."""
    return textwrap.fill(name_of(method), 22)


def save(figure: Figure, png: str | Path, pdf: str | Path) -> None:
    """Writes a figure as PNG (150 dpi) and PDF, the same bytes each time."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a text in another script
        for path, form, metadata in (
            (png, "png", {"Software": None}),
            (pdf, "pdf", {"CreationDate": None, "ModDate": None}),
        ):
            with tables.atomic_path(path) as temporary:
                figure.savefig(temporary, format=form, metadata=metadata)


def label_ends(
    axes: Axes, ends: Sequence[tuple[float, float]], texts: Sequence[str], inks: Sequence, **font
) -> None:
    """Writes each curve's label to the right of the axes, at the height of its end."""
    low, high = axes.get_ylim()
    inches = 0.72 * axes.figure.get_figheight()  # about what the axes have of the height
    line = 1.5 * font.get("fontsize", 9) / 72 / inches * (high - low)
    heights = [line * (1 + text.count("\n")) for text in texts]
    places = _spread([y for _, y in ends], heights, low + line / 2, high - line / 2)
    for end, text, ink, place in zip(ends, texts, inks, places, strict=True):
        axes.annotate(
            text,
            end,
            (1.045, place),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            color=ink,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": ink, "linewidth": 0.8, "relpos": (0, 0.5)},
            **font,
        )


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draws with this module's style and leaves the user's own settings alone."""

    @functools.wraps(draw)
    def wrapper(*args, **settings) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **settings)

    return wrapper


def new_figure(width: float, height: float, title: str, note: str = "") -> Figure:
    """A figure with a title at the top left and a note at the bottom left."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold", color=BLACK)
    if note:
        # About 14 characters an inch at this size.
        note = "\n".join(textwrap.fill(line, int(14.5 * width)) for line in note.split("\n"))
        figure.supxlabel(note, x=0.012, ha="left", fontsize=8.5, color=INK)
    return figure


def _spread(
    values: Sequence[float], heights: Sequence[float], low: float, high: float
) -> np.ndarray:
    """Places for labels of given heights, as near to their values as they can be side by side."""
    values, heights = np.asarray(values, dtype=float), np.asarray(heights, dtype=float)
    order = np.argsort(values, kind="stable")
    tall = heights[order]
    steps = np.concatenate([[0], np.cumsum((tall[1:] + tall[:-1]) / 2)])
    # With the distances between neighbours taken off, the places only have to be in order.
    placed = isotonic_regression(values[order] - steps).x
    placed = np.clip(placed, low, max(high - steps[-1], low)) + steps
    result = np.empty_like(values)
    result[order] = placed
    return result
