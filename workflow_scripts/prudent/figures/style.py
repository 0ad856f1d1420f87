"""The style of figures, and elements that several of them draw.

No figure uses pyplot's global state, so they can be drawn from anywhere, also in parallel.
"""

from __future__ import annotations

import functools
import io
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation
from scipy.optimize import isotonic_regression

from prudent import tables
from prudent.analysis.wording import name_of
from prudent.figures.looks import BLACK, INK

BANDS = 4  # more methods' bands would hide each other

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
    "svg.hashsalt": "prudent",  # names within a file would be random otherwise
    "text.parse_math": False,  # texts from data may contain dollar signs
}

# The metadata of files, without what changes from run to run.
UNDATED = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "ModDate": None},
    "svg": {"Date": None},
}


def on_lines(method: str) -> str:
    """A method's name, on several lines if it is long."""
    return textwrap.fill(name_of(method), 22)


def square_root_axis(axes: Axes) -> None:
    """Puts KLs on a square-root scale, on which gains near the reference lie on a line."""
    axes.set_xscale("function", functions=(lambda kl: np.sqrt(np.maximum(kl, 0)), np.square))


def off_target(method: str, missed: Sequence[str], before: str = "\n") -> str:
    """The text after a method's name if its policies missed their target KL."""
    return f"{before}off its KL target" if method in missed else ""


def save(figure: Figure, *paths: str | Path) -> None:
    """Writes a figure as PNG (150 dpi), PDF or SVG, by each name's ending, reproducibly."""
    for path in map(Path, paths):
        with tables.atomic_path(path) as temporary:
            _write(figure, temporary, path.suffix.removeprefix("."))


def svg_text(figure: Figure) -> str:
    """The text of a figure's SVG file."""
    text = io.StringIO()
    _write(figure, text, "svg")
    return text.getvalue()


def _write(figure: Figure, target: Path | io.StringIO, form: str) -> None:
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a text in another script
        figure.savefig(target, format=form, metadata=UNDATED[form])


def is_heavy(points: int) -> bool:
    """Whether thin lines of this many points are drawn as pixels: an SVG would take megabytes."""
    return points > 100_000


def label_ends(
    axes: Axes,
    ends: Sequence[tuple[float, float]],
    texts: Sequence[str],
    inks: Sequence[str],
    markers: Sequence[str | None] | None = None,
    **font,
) -> None:
    """Writes each curve's label to the right of the axes, at the height of its end.

    A method's marker is next to its label, where no other marker hides it: curves often end at the
    same place. A line leads to it from the curve's end.
    """
    low, high = axes.get_ylim()
    inches = 0.72 * axes.figure.get_figheight()  # about the height of the axes
    line = 1.5 * font.get("fontsize", 9) / 72 / inches * (high - low)
    heights = [line * (1 + text.count("\n")) for text in texts]
    places = _spread([y for _, y in ends], heights, low + line / 2, high - line / 2)
    markers = markers or [None] * len(texts)
    first, second = (10, 13) if markers[0] is None else (17, 25)  # points from the axes
    there, behind = (
        axes.get_yaxis_transform() + ScaledTranslation(x / 72, 0, axes.figure.dpi_scale_trans)
        for x in (first, second)
    )
    for end, text, ink, place, marker in zip(ends, texts, inks, places, markers, strict=True):
        arrow = {"arrowstyle": "-", "color": ink, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(
            "", end, (1, place), textcoords=there, annotation_clip=False, arrowprops=arrow
        )
        if marker is not None:
            style = {"markersize": 8, "markeredgecolor": "white", "zorder": 4}
            (mark,) = axes.plot(
                1, place, marker, color=ink, transform=there, clip_on=False, **style
            )
            mark.set_gid(f"marker {text}")
        axes.text(1, place, text, transform=behind, va="center", color=ink, **font)


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draws with this module's style, without changing the user's settings."""

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
        # About 14 characters per inch at this size.
        note = "\n".join(textwrap.fill(line, int(14.5 * width)) for line in note.split("\n"))
        figure.supxlabel(note, x=0.012, ha="left", fontsize=8.5, color=INK)
    return figure


def _spread(
    values: Sequence[float], heights: Sequence[float], low: float, high: float
) -> np.ndarray:
    """Positions of labels of given heights, as close to their values as fits without overlap."""
    values, heights = np.asarray(values, dtype=float), np.asarray(heights, dtype=float)
    order = np.argsort(values, kind="stable")
    tall = heights[order]
    steps = np.concatenate([[0], np.cumsum((tall[1:] + tall[:-1]) / 2)])
    # Without the distances between neighbours, the positions only have to be in order.
    placed = isotonic_regression(values[order] - steps).x
    placed = np.clip(placed, low, max(high - steps[-1], low)) + steps
    result = np.empty_like(values)
    result[order] = placed
    return result
