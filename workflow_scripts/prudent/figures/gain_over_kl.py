"""The judge's score and the proxy reward of all methods' optimal policies over the KL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from prudent.analysis.statistics import t_interval
from prudent.analysis.wording import name_of
from prudent.figures.looks import INK, Look, looks
from prudent.figures.style import BANDS, new_figure, square_root_axis, styled
from prudent.tables import read_table

PARTS = {"gain": "gain in the judge's score", "proxy_gain": "gain in the method's own score"}


def plot(policies: Path) -> Figure:
    """All methods and KLs of the exact policies."""
    return draw_gain_over_kl(read_table(policies, "exact_policies"))


@styled
def draw_gain_over_kl(policies: pd.DataFrame) -> Figure:
    """One column per level: the mean gain over sqrt(KL), the judge's above, the method's own below.

    Args:
        policies: ``exact.evaluate.compare``.
    """
    methods, levels = (list(dict.fromkeys(policies[key])) for key in ("method", "level"))
    look = looks(methods)
    note = (
        "Optimal policies, which need no training. The KL is on a square root's scale, as in Gao "
        "et al. (arXiv 2210.10760): an optimum far from over-optimisation rises along a straight "
        "line. Lines are means over ensembles from the reference policy (0) through the KLs of "
        "exact.kl; bands or bars are 95% t intervals over ensembles. Many methods' marks stand "
        "beside their KL, so that none hides another. Where the method's own score rises "
        "and the judge's does not, the rewards are wrong. Scores of different methods have "
        "different scales."
    )
    figure = new_figure(max(7.5, 3 * len(levels) + 2.4), 6.8, "Optimal policies over the KL", note)
    beside = _beside(methods, np.unique(policies["kl_target"]))
    panels = figure.subplots(len(PARTS), len(levels), sharex=True, sharey="row", squeeze=False)
    for row, (column, label) in zip(panels, PARTS.items(), strict=True):
        for axes, level in zip(row, levels, strict=True):
            part = policies[policies["level"] == level]
            for method in dict.fromkeys(part["method"]):
                one = part[part["method"] == method]
                _line(axes, one, column, method, look[method], beside.get(method))
            axes.axhline(0, color=INK, linestyle=(0, (4, 2)), linewidth=1.2)
            square_root_axis(axes)
            # Room for the last bars.
            most = policies["kl_target"].max()
            axes.set_xlim(0, most * (1.2 if beside else 1.05) ** 2)
            axes.grid(True)
            if column == "gain":
                axes.set_title(f"{level} ({part['replicate'].nunique()})")
        row[0].set_ylabel(label)
    for axes in panels[-1]:
        axes.set_xlabel("KL to the reference policy, nats")
    keys = [
        Line2D([], [], color=look[m].colour, marker=look[m].marker, label=name_of(m))
        for m in methods
    ]
    figure.legend(handles=keys, loc="outside right upper")
    return figure


def _beside(methods: Sequence[str], kls: np.ndarray) -> dict[str, float]:
    """How far each method's marks are from their KL, in points; none where bands are readable."""
    if len(methods) <= BANDS:
        return {}
    roots = np.sqrt(np.r_[0, kls])
    least = 150 * np.diff(roots).min() / roots[-1]  # points between KLs
    steps = (np.arange(len(methods)) - (len(methods) - 1) / 2) * min(4.5, least / len(methods))
    return dict(zip(methods, steps, strict=True))


def _line(
    axes: Axes, part: pd.DataFrame, column: str, method: str, look: Look, beside: float | None
) -> None:
    """One method: the means over its ensembles with their intervals, starting at the reference."""
    found = [
        t_interval(values.dropna().to_numpy())
        for _, values in part.groupby("kl_target")[column]
        if values.notna().any()
    ]
    if not found:
        return
    known = part.dropna(subset=column)
    kls = np.r_[0, np.sort(known["kl_target"].unique())]
    mean, low, high = (np.r_[0, values] for values in zip(*found, strict=True))
    marks = {"color": look.colour, "marker": look.marker, "markersize": 5}
    gid = f"{column} {method}"
    if beside is None:
        axes.plot(kls, mean, linewidth=1.6, gid=gid, **marks)
        axes.fill_between(kls, low, high, color=look.colour, alpha=0.12, linewidth=0)
        return
    axes.plot(kls, mean, color=look.colour, linewidth=0.8, alpha=0.6, gid=gid)
    moved = ScaledTranslation(beside / 72, 0, axes.figure.dpi_scale_trans)
    lengths = np.nan_to_num([mean - low, high - mean])[:, 1:]
    axes.errorbar(
        kls[1:],
        mean[1:],
        lengths,
        linestyle="none",
        elinewidth=1.2,
        transform=axes.transData + moved,
        zorder=3,
        **marks,
    )
