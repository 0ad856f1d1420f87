"""Fig 10: how far the policies move from the reference over training."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prudent.analysis.policies import at_one_target, kl_mismatch, missed
from prudent.analysis.statistics import variance
from prudent.analysis.wording import MINUS, name_of, number
from prudent.figures import curves
from prudent.figures.looks import GREY, INK, looks
from prudent.figures.style import new_figure, off_target, styled
from prudent.policies.target_kl import KL_TOLERANCE
from prudent.tables import read_csv


def plot(
    training_logs: Sequence[Path], policies: Path, methods: Sequence[str], seeds: Sequence[int]
) -> Figure:
    """The KL to the reference in every policy's training log, and that of the final policies."""
    logs = curves.read(training_logs, methods, seeds)
    return draw_kl(logs, read_csv(policies, "policies"), methods)


@styled
def draw_kl(logs: pd.DataFrame, policies: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Fig 10: KL to the reference policy over training.

    Args:
        logs: method, seed, step, kl; one row per policy and step.
        policies: method, kl, kl_target, target; one row per policy.
    """
    ends = {
        method: policies.loc[policies["method"] == method, "kl"].to_numpy(float)
        for method in methods
    }
    means = {method: float(values.mean()) for method, values in ends.items()}
    targets = policies.groupby("method")["kl_target"].first()
    note = (
        f"{curves.legend(logs, methods)} The right panel has the final policies' KLs, exact for "
        "each token, on the test prompts, on a scale of its own. A dot is one policy, a mark the "
        "mean, and its bar and the numbers \N{PLUS-MINUS SIGN} 1 standard deviation over policies."
    )
    if targets.notna().any():
        note += f" Dashed: the target KL; grey: \N{PLUS-MINUS SIGN} {KL_TOLERANCE:.0%} of it."
    width = 9 + 0.2 * len(methods)
    figure = new_figure(width, curves.height(methods), "How far the policies move", note)
    columns = (4.6, 0.45 + 0.22 * len(methods))
    axes, final = figure.subplots(1, 2, width_ratios=columns)
    curves.draw_curves(axes, logs, methods, {"kl": "-"})
    axes.set_ylabel("KL to the reference (nats per response)")
    if targets.notna().all() and targets.nunique() == 1:
        _target(axes, targets.iloc[0], *axes.get_xlim())
    _final(final, ends, targets, methods)
    off = missed(policies)
    labels = {
        method: f"  {_mean_and_sd(ends[method])}{off_target(method, off)}" for method in methods
    }
    edge = final.get_xlim()[1]
    curves.label(final, [(edge, means[method]) for method in methods], methods, labels)
    if len(methods) > 1:
        one = policies["kl_target"].iloc[0] if at_one_target(policies) else None
        axes.set_title(textwrap.fill(_match(means, one), 55), color=INK)
    return figure


def _final(
    axes: Axes,
    ends: Mapping[str, np.ndarray],
    targets: Mapping[str, float],
    methods: Sequence[str],
) -> None:
    """A column for each method: its final policies' KLs, their mean and spread, and the target."""
    look = looks(methods)
    for column, method in enumerate(methods):
        kls, (colour, marker, ink) = ends[method], look[method]
        if np.isfinite(targets[method]):
            _target(axes, targets[method], column - 0.5, column + 0.5)
        beside = {"color": colour, "markersize": 3.5, "markeredgewidth": 0, "alpha": 0.7}
        if len(kls) > 1:
            place = np.full(len(kls), column - 0.2)
            axes.plot(place, kls, "o", gid=f"final {method}", zorder=3, **beside)
        error = np.sqrt(variance(kls))
        axes.errorbar(
            column + (0.15 if len(kls) > 1 else 0),
            kls.mean(),
            error if np.isfinite(error) else None,
            marker=marker,
            markersize=6,
            markeredgecolor="white",
            markeredgewidth=0.6,
            color=ink,
            linewidth=1.5,
            zorder=4,
        )
    axes.set_xlim(-0.6, len(methods) - 0.4)
    axes.set_xticks([])
    axes.grid(axis="y")
    axes.margins(y=0.1)
    axes.set_xlabel("final\npolicies" if len(methods) < 4 else "final policies")


def _target(axes: Axes, target: float, left: float, right: float) -> None:
    """The target KL as a dashed line, with the range that counts as reached."""
    low, high = (target * (1 + side * KL_TOLERANCE) for side in (-1, 1))
    axes.fill_between([left, right], low, high, color=GREY, alpha=0.25, linewidth=0, zorder=0)
    axes.plot(
        [left, right],
        [target, target],
        color=INK,
        linewidth=1.2,
        linestyle=(0, (4, 2)),
        zorder=3.5,
        gid="target",
    )


def _match(means: dict[str, float], target: float | None) -> str:
    """One line that says whether the methods' final KLs are close enough to be compared."""
    low, high = min(means, key=means.get), max(means, key=means.get)
    gap = kl_mismatch(means[low], means[high])
    if not np.isfinite(gap):
        return "Final KLs are not all positive: the methods cannot be matched by KL"
    limit = f"{KL_TOLERANCE:.0%}"
    if target is not None:
        return f"Final KLs are all within {limit} of {number(target)}, as asked: matched"
    apart = f"{100 * gap:.0f}% apart"
    if gap <= KL_TOLERANCE:
        most = "" if len(means) == 2 else "at most "
        return f"Final KLs are {most}{apart}: matched (within {limit})"
    if len(means) == 2:
        return f"Final KLs are {apart}: NOT matched (more than {limit})"
    names = f"{name_of(low)} and {name_of(high)}"
    return f"Final KLs are up to {apart} ({names}): NOT matched (more than {limit})"


def _mean_and_sd(values: np.ndarray) -> str:
    """Mean and standard deviation with the same number of decimals."""
    mean, sd = float(values.mean()), np.sqrt(variance(values))
    if not np.isfinite(sd):
        return number(mean)
    largest = max(abs(mean), sd)
    decimals = max(0, 2 - int(np.floor(np.log10(largest)))) if largest > 0 else 0
    return f"{mean:.{decimals}f} \N{PLUS-MINUS SIGN} {sd:.{decimals}f}".replace("-", MINUS)
