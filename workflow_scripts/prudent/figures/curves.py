"""Figs 10 and 11: KL and proxy reward over training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from prudent.analysis.policies import KL_TOLERANCE, final_mean, kl_mismatch
from prudent.analysis.statistics import variance
from prudent.analysis.wording import MINUS, name_of, number
from prudent.figures.looks import INK, looks
from prudent.figures.style import BANDS, label_ends, new_figure, on_lines, styled


@styled
def draw_kl(logs: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Fig 10: KL to the reference policy over training.

    Args:
        logs: method, seed, step, kl; one row a policy and step.
    """
    ends = {}
    for method in methods:
        part = logs[logs["method"] == method]
        ends[method] = np.array([final_mean(log["kl"]) for _, log in part.groupby("seed")])
    means = {method: float(values.mean()) for method, values in ends.items()}
    seeds = logs.groupby("method")["seed"].nunique()
    note = (
        f"Thick: mean over policies ({_count(seeds)} a method); thin: each of them"
        f"{_band(methods)}. At the right: the end value, the mean of the last 10% of steps "
        "(at least 5), \N{PLUS-MINUS SIGN} 1 sd over policies."
    )
    figure = new_figure(8.6, _height(methods), "How far the policies have moved", note)
    axes = figure.add_subplot()
    labels = {m: f"  {_mean_and_sd(ends[m])}" for m in methods}
    _curves(axes, logs, methods, {"kl": "-"}, labels)
    axes.set_ylabel("KL to the reference (nats a response)")
    if len(methods) > 1:
        axes.set_title(_match(means), color=INK)
    return figure


def _match(means: dict[str, float]) -> str:
    """One line that says whether the methods' final KLs are near enough to be compared."""
    low, high = min(means, key=means.get), max(means, key=means.get)
    gap = kl_mismatch(means[low], means[high])
    if not np.isfinite(gap):
        return "End values are not all positive: the methods cannot be matched by KL"
    limit = f"{KL_TOLERANCE:.0%}"
    apart = f"{100 * gap:.0f}% apart"
    if gap <= KL_TOLERANCE:
        most = "" if len(means) == 2 else "at most "
        return f"End values are {most}{apart}: matched (within {limit})"
    if len(means) == 2:
        return f"End values are {apart}: NOT matched (more than {limit})"
    names = f"{name_of(low)} and {name_of(high)}"
    return f"End values are up to {apart} ({names}): NOT matched (more than {limit})"


@styled
def draw_reward(logs: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Fig 11: the reward that is optimised over training, and the ensemble's mean of it.

    Args:
        logs: method, seed, step, proxy_reward (the policy's own head), ensemble_reward.
    """
    seeds = logs.groupby("method")["seed"].nunique()
    note = (
        f"Solid: the policy's own head, mean over policies ({_count(seeds)} a method); thin: each "
        f"of them{_band(methods)}. Dashed: mean of all heads on the same responses. "
        "At the right: the means over the last 10% of steps (at least 5)."
    )
    figure = new_figure(8.6, _height(methods, 2), "What the policies think they gain", note)
    axes = figure.add_subplot()
    labels = {}
    for method in methods:
        part = logs[logs["method"] == method]
        own, every = (
            np.mean([final_mean(log[column]) for _, log in part.groupby("seed")])
            for column in ("proxy_reward", "ensemble_reward")
        )
        labels[method] = f"\nown head {number(own)}, all {number(every)}"
    lines = {"proxy_reward": "-", "ensemble_reward": (0, (4, 2))}
    _curves(axes, logs, methods, lines, labels)
    axes.set_ylabel("proxy reward")
    handles = [
        Line2D([], [], color=INK, linewidth=2.2, linestyle=style) for style in lines.values()
    ]
    axes.legend(handles, ["the policy's own head", "mean of all heads"], loc="upper left")
    return figure


def _height(methods: Sequence[str], lines: int = 1) -> float:
    """The height of a figure, in inches, that leaves room for the methods' labels."""
    return max(4.6, 2 + 0.25 * lines * len(methods))


def _band(methods: Sequence[str]) -> str:
    return "; band: \N{PLUS-MINUS SIGN} 1 sd over policies" if len(methods) <= BANDS else ""


def _count(seeds: pd.Series) -> str:
    low, high = seeds.min(), seeds.max()
    return f"{low}" if low == high else f"{low} to {high}"


def _mean_and_sd(values: np.ndarray) -> str:
    """Mean and standard deviation with the same number of decimals."""
    mean, sd = float(values.mean()), np.sqrt(variance(values))
    if not np.isfinite(sd):
        return number(mean)
    largest = max(abs(mean), sd)
    decimals = max(0, 2 - int(np.floor(np.log10(largest)))) if largest > 0 else 0
    return f"{mean:.{decimals}f} \N{PLUS-MINUS SIGN} {sd:.{decimals}f}".replace("-", MINUS)


def _curves(
    axes: Axes,
    logs: pd.DataFrame,
    methods: Sequence[str],
    lines: dict[str, object],
    labels: dict[str, str],
) -> None:
    """Each method's mean curve(s), with band, single policies, and a label at the end.

    The first of ``lines`` is the main one: it alone has the band and the single policies.
    """
    look = looks(methods)
    main = next(iter(lines))
    ends = {}
    for method in methods:
        part = logs[logs["method"] == method]
        wide = part.pivot(index="step", columns="seed", values=main).sort_index()
        mean, sd = wide.mean(axis=1), wide.std(axis=1, ddof=1)
        colour = look[method].colour
        faint = min(0.45, 2.5 / wide.shape[1] + 0.1) / np.sqrt(max(len(methods) / 2, 1))
        for seed in wide:
            (thin,) = axes.plot(wide.index, wide[seed], color=colour, linewidth=0.6, alpha=faint)
            thin.set_gid(f"{method} {seed}")
        if len(methods) <= BANDS:
            axes.fill_between(
                wide.index, mean - sd, mean + sd, color=colour, alpha=0.2, linewidth=0
            )
        for column, style in lines.items():
            curve = mean if column == main else part.groupby("step")[column].mean()
            axes.plot(curve.index, curve, color=colour, linewidth=2.2, linestyle=style, zorder=3)
        (end,) = axes.plot(
            mean.index[-1:],
            mean.iloc[-1:],
            color=colour,
            marker=look[method].marker,
            markersize=7,
            markeredgecolor="white",
            zorder=4,
            clip_on=False,
        )
        end.set_gid(f"end {method}")
        ends[method] = (mean.index[-1], float(mean.iloc[-1]))
    first, last = logs["step"].min(), logs["step"].max()
    axes.set_xlim(first, last if last > first else first + 1)
    low, high = axes.get_ylim()
    low = min(low, 0) if main == "kl" else low
    axes.set_ylim(low, high)
    label_ends(
        axes,
        [ends[method] for method in methods],
        [f"{on_lines(method)}{labels[method]}" for method in methods],
        [look[method].ink for method in methods],
        fontsize=9,
        fontweight="bold",
    )
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("PPO step")
