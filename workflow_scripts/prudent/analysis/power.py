"""The effects that a study with a given number of draws can detect, before it is run.

Two methods, paired by draws, have normal scores. The test of spread is ``permutation_test``, and
that of means Student's t of the paired differences, both two-sided at 5%.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq

from prudent.analysis.statistics import sign_flip_test

SIZE, POWER = 0.05, 0.8
STUDIES, PERMUTATIONS = 2000, 999
CORRELATION = 0.5
"""The correlation of the two methods' scores of one draw."""
PAPER = (5.0, 2.375)
"""Ratios of variances, vanilla over variance aware, that arXiv 2410.23726 and 2507.15906 report."""
MOST_RATIO, MOST_DRAWS = 1000.0, 320


def least_p(draws: int) -> float:
    """The smallest p that the permutation test can give: only no swap and all swaps reach it."""
    return 2.0 ** (1 - draws)


def power_of_ratio(draws: int, ratio: float, correlation: float = CORRELATION) -> float:
    """The share of simulated studies in which the permutation test detects a ratio of variances.

    The simulation uses the same draws for every ratio.
    """
    rng = np.random.default_rng([draws, 7])
    shared, own = rng.normal(size=(STUDIES, draws)), rng.normal(size=(2, STUDIES, draws))
    arms = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
    arms[0] *= math.sqrt(ratio)
    apart = np.abs(arms - np.median(arms, axis=-1, keepdims=True))
    p = sign_flip_test(apart[0] - apart[1], PERMUTATIONS, rng)
    return float((p < SIZE).mean())


def detectable_ratio(draws: int, correlation: float = CORRELATION) -> float:
    """The ratio of variances that 80% of the studies detect; infinite where none is detected."""
    if draws < 3 or power_of_ratio(draws, MOST_RATIO, correlation) < POWER:
        return math.inf

    def short(log_ratio: float) -> float:
        return power_of_ratio(draws, math.exp(log_ratio), correlation) - POWER

    return math.exp(brentq(short, 0.0, math.log(MOST_RATIO), xtol=0.01))


def detectable_difference(draws: int) -> float:
    """The difference of means, in standard deviations of the paired differences, that 80% of the
    studies detect."""
    if draws < 2:
        return math.inf
    critical = stats.t.ppf(1 - SIZE / 2, draws - 1)

    def short(effect: float) -> float:
        shifted = stats.nct(draws - 1, effect * math.sqrt(draws))
        return float(shifted.sf(critical) + shifted.cdf(-critical)) - POWER

    high = 0.1
    while short(high) < 0:  # in steps: the distribution cannot be computed far beyond
        high *= 1.5
    return float(brentq(short, 0.0, high))


def draws_for_ratio(ratio: float, correlation: float = CORRELATION) -> float:
    """The fewest draws with which 80% of the studies detect a ratio of variances."""
    low, high = 2, 4
    while power_of_ratio(high, ratio, correlation) < POWER:
        low, high = high, 2 * high
        if high > MOST_DRAWS:
            return math.inf
    while high - low > 1:
        middle = (low + high) // 2
        enough = power_of_ratio(middle, ratio, correlation) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def power_table(draws: dict[str, int]) -> pd.DataFrame:
    """One row per comparison: comparison, draws, least_p, ratio, difference.

    Args:
        draws: the number of independent draws of each comparison, by its name.
    """
    rows = [
        {
            "comparison": name,
            "draws": count,
            "least_p": least_p(count),
            "ratio": detectable_ratio(count),
            "difference": detectable_difference(count),
        }
        for name, count in draws.items()
    ]
    return pd.DataFrame(rows)


def sentences(table: pd.DataFrame) -> list[str]:
    """The table in words, and the draws that the papers' effects take."""
    said = []
    for row in table.itertuples():
        text = f"{row.comparison}: {row.draws} draws. "
        if row.least_p >= SIZE:
            text += f"No difference in spread can be established: the least p is {row.least_p:.3g}."
        elif math.isinf(row.ratio):
            text += (
                f"No ratio of variances up to {MOST_RATIO:g} is seen with a power of {POWER:.0%}."
            )
        else:
            text += (
                f"A ratio of variances of {row.ratio:.2g} is seen with a power of {POWER:.0%}, and "
            )
            text += f"a difference of means of {row.difference:.2g} sd of the paired differences."
        said.append(text)
    for ratio in PAPER:
        said.append(f"The papers' ratio of {ratio:g} takes {draws_for_ratio(ratio):g} draws.")
    return said
