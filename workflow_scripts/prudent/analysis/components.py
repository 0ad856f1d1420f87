"""The sources of the variance of trained policies: ensembles, members, trials, evaluation.

An analysis of variance of the balanced nested design: draws of the ensemble, its members, trials
with a member, and the finite number of test prompts, each answered once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from prudent.analysis.statistics import LEVEL, Interval

COLUMNS = ["method", "component", "units", "variance", "low", "high", "share"]


class MeanSquare(NamedTuple):
    """A mean square with its degrees of freedom."""

    value: float
    df: int


def balanced(policies: pd.DataFrame) -> pd.DataFrame:
    """The largest balanced design among a method's policies, from the first seed on.

    Seeds run through the ensembles first, then the members, then the trials.
    """
    ordered = policies.sort_values("seed")
    ensembles = ordered["ensemble"].nunique()
    cells = len(ordered[["ensemble", "head"]].drop_duplicates())
    whole = cells if len(ordered) >= cells and cells % ensembles == 0 else ensembles
    return ordered.head(len(ordered) // whole * whole)


def component_table(policies: pd.DataFrame, noise: dict[str, tuple[float, int]]) -> pd.DataFrame:
    """The components of each method's variance: one row per component.

    A level with one unit within each unit above it cannot be separated from the level above, and
    counts there. Estimates are from the analysis of variance, 0 where they would be negative; for
    balanced designs REML gives the same if all are positive. Intervals are those of Ting et al.
    (J. Stat. Comput. Simul. 1990), clipped to [0, infinity].

    Args:
        policies: method, unit, seed, ensemble, head, trial, score.
        noise: for each method, the variance of a policy's mean score that is due to the prompts
            (``statistics.evaluation_noise``), and its degrees of freedom.

    Returns:
        method, component (ensemble, member, trial, evaluation), units, variance, low, high, share
        of the sum of all components.
    """
    rows = []
    for method, part in policies.groupby("method", sort=False):
        part = balanced(part)
        whole = part["unit"].iloc[0] == "ensemble"
        keys = ["ensemble"] if whole else ["ensemble", "head"]
        levels = {"ensemble": keys[:1]} if whole else {"ensemble": keys[:1], "member": keys}
        squares = mean_squares(part, levels)
        squares["evaluation"] = (MeanSquare(*noise[str(method)]), 1)
        found = []
        names = list(squares)
        for name, below in zip(names, [*names[1:], None], strict=True):
            square, size = squares[name]
            under = squares[below][0] if below else None
            found.append((name, square.df, difference_of_squares(square, under, size)))
        total = sum(max(interval.estimate, 0) for *_, interval in found)
        for name, df, interval in found:
            estimate, low, high = (max(value, 0.0) for value in interval)
            share = estimate / total if total > 0 else np.nan
            units = df + 1
            rows.append((method, name, units, estimate, low, high, share))
    return pd.DataFrame(rows, columns=COLUMNS)


def mean_squares(
    policies: pd.DataFrame, levels: dict[str, list[str]]
) -> dict[str, tuple[MeanSquare, int]]:
    """The mean square of each level with degrees of freedom, and the policies per unit of it.

    The last level is that of the trials, each of which is a policy.

    Args:
        policies: a balanced design.
        levels: the columns that name the units of each level, from the top.
    """
    scores = policies["score"].to_numpy(dtype=float)
    above = np.full(len(scores), scores.mean())
    count, found = 1, {}
    for name, columns in levels.items():
        units = policies.groupby(columns)["score"]
        means = units.transform("mean").to_numpy()
        df = units.ngroups - count
        if df > 0:
            value = float(((means - above) ** 2).sum() / df)
            found[name] = MeanSquare(value, df), len(scores) // units.ngroups
        above, count = means, units.ngroups
    df = len(scores) - count
    if df > 0:
        found["trial"] = MeanSquare(float(((scores - above) ** 2).sum() / df), df), 1
    return found


def difference_of_squares(first: MeanSquare, second: MeanSquare | None, size: int) -> Interval:
    """(first - second) / size with its 95% interval; the chi-square interval if second is None.

    The modified large-sample interval of Ting, Burdick, Graybill, Jeyaratnam and Lu (1990).
    """
    tail = (1 - LEVEL) / 2
    # n over the upper and lower quantiles of chi-square.
    n1 = first.df
    small1, large1 = n1 / stats.chi2.isf(tail, n1), n1 / stats.chi2.ppf(tail, n1)
    if second is None:
        bounds = first.value * small1, first.value * large1
        return Interval(first.value / size, *(float(bound) / size for bound in bounds))
    n2 = second.df
    small2, large2 = n2 / stats.chi2.isf(tail, n2), n2 / stats.chi2.ppf(tail, n2)
    a, b = first.value, second.value
    upper, lower = stats.f.isf(tail, n1, n2), stats.f.ppf(tail, n1, n2)
    g1, h1, g2, h2 = 1 - small1, large1 - 1, 1 - small2, large2 - 1
    g12 = ((upper - 1) ** 2 - g1**2 * upper**2 - h2**2) / upper
    h12 = ((1 - lower) ** 2 - h1**2 * lower**2 - g2**2) / lower
    down = g1**2 * a**2 + h2**2 * b**2 + g12 * a * b
    up = h1**2 * a**2 + g2**2 * b**2 + h12 * a * b
    middle = a - b
    bounds = middle - np.sqrt(max(down, 0)), middle + np.sqrt(max(up, 0))
    return Interval(middle / size, *(float(bound) / size for bound in bounds))
