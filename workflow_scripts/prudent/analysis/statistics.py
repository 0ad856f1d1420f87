"""Estimates with intervals, and tests, where policies come in clusters.

The unit is a policy, and policies come in clusters: those trained on the same reward head share its
errors, so a head is one draw and its trials are not. Methods are paired: the same seed sees the
same head, prompts and sampling streams in each of them. Where there are too few policies for a
number, it is nan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95

EXACT_SWAPS = 12  # up to this many clusters all label swaps are enumerated


class Interval(NamedTuple):
    """An estimate with its 95% interval; nan where the data do not give one."""

    estimate: float
    low: float
    high: float


def mean_and_se(scores: Sequence[float]) -> tuple[float, float]:
    """The mean of per-prompt scores and its standard error over prompts."""
    values = np.asarray(scores, dtype=float)
    se = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(values.mean()), float(se)


def evaluation_noise(scores: np.ndarray) -> float:
    """The variance of a policy's mean score that is due to the finite set of prompts.

    The policies of a method answer the same prompts with the same streams, so prompts that are hard
    for all of them do not make the policies differ. What does is the residual of the two-way
    layout policy + prompt: its mean square over the number of prompts is the part of the variance
    between policies that more prompts would remove.

    Args:
        scores: [policies, prompts].
    """
    policies, prompts = scores.shape
    if policies < 2 or prompts < 2:
        return float("nan")
    residual = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    return float((residual**2).sum() / ((policies - 1) * (prompts - 1)) / prompts)


def t_interval(values: Sequence[float], clusters: Sequence[int] | None = None) -> Interval:
    """A mean with Student's t interval.

    With clusters the standard error is the cluster-robust one, sqrt(C / (C - 1) sum_c (sum_i in c
    of deviations)^2) / n with C - 1 degrees of freedom; it is the usual one where each cluster has
    one member. nan with fewer than two clusters.
    """
    values = np.asarray(values, dtype=float)
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(values.mean())
    _, index = np.unique(
        np.arange(len(values)) if clusters is None else np.asarray(clusters), return_inverse=True
    )
    sums = np.bincount(index, values - mean)
    count = len(sums)
    if count < 2:
        return Interval(mean, float("nan"), float("nan"))
    se = np.sqrt(count / (count - 1) * (sums**2).sum()) / len(values)
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1) * se)
    return Interval(mean, mean - half, mean + half)


def wilson_interval(successes: int, n: int) -> Interval:
    """A share with Wilson's score interval (Wilson 1927), which holds up at 0 and 1."""
    if n == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(LEVEL, method="wilson")
    return Interval(successes / n, float(interval.low), float(interval.high))


def variance(values: Sequence[float]) -> float:
    """The sample variance (ddof 1); nan for fewer than two values."""
    values = np.asarray(values, dtype=float)
    return float(values.var(ddof=1)) if len(values) > 1 else float("nan")


def variance_ratio(
    baseline: Sequence[float],
    method: Sequence[float],
    clusters: Sequence[int],
    resamples: int,
    rng: np.random.Generator,
) -> Interval:
    """The ratio of sample variances, baseline over method, with a bootstrap interval over heads.

    Whole clusters are resampled, the same ones in both arms, so that the pairing and the dependence
    of a head's trials are kept; percentiles of the log ratio. Resamples in which an arm has no
    variance (one head drawn every time) say nothing and are left out. With ten heads such an
    interval covers about 90% rather than 95%. nan with fewer than three clusters.

    Args:
        baseline, method: scores [policies], paired.
        clusters: the cluster of each pair [policies].
    """
    arms = np.array([baseline, method], dtype=float)
    spread = [variance(arm) for arm in arms]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.divide(*spread))
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(names) < 3 or resamples < 1:
        return Interval(ratio, float("nan"), float("nan"))
    # Sums per cluster, of scores centred first so that the variance does not cancel.
    arms = arms - arms.mean(axis=1, keepdims=True)
    size = np.bincount(index)
    total = np.stack([np.bincount(index, arm) for arm in arms])
    square = np.stack([np.bincount(index, arm**2) for arm in arms])
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    n = times @ size
    drawn = (times @ square.T - (times @ total.T) ** 2 / n[:, None]) / (n - 1)[:, None]
    varied = (times > 0).sum(axis=1) > 1
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(drawn[varied, 0]) - np.log(drawn[varied, 1])
    logs = logs[np.isfinite(logs)]
    if not len(logs):
        return Interval(ratio, float("nan"), float("nan"))
    low, high = np.exp(np.quantile(logs, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Interval(ratio, float(low), float(high))


def brown_forsythe(first: Sequence[float], second: Sequence[float]) -> float:
    """Brown and Forsythe's p for equal variances (Levene's test with medians).

    Unlike the F test it keeps its level with heavy tails; it takes the policies as independent, so
    with several trials a head it is too sure.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if min(len(first), len(second)) < 2:
        return float("nan")
    spread = np.concatenate([np.abs(part - np.median(part)) for part in (first, second)])
    if len(first) + len(second) <= 4 or np.ptp(spread) == 0:  # no variation to compare with
        return float("nan")
    return float(stats.levene(first, second, center="median").pvalue)


def permutation_test(
    baseline: Sequence[float],
    method: Sequence[float],
    clusters: Sequence[int],
    resamples: int,
    rng: np.random.Generator,
) -> float:
    """Two-sided p of the paired permutation test of equal variances.

    The methods' labels are swapped within heads, which keeps the pairing and the clusters. Each arm
    is first centred at its mean, so that a difference of means is not taken for one of variances.
    All swaps are enumerated up to 12 heads at least, and drawn at random where they are more than
    ``resamples``. nan with fewer than three clusters.
    """
    arms = np.array([baseline, method], dtype=float)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(names) < 3:
        return float("nan")
    arms = arms - arms.mean(axis=1, keepdims=True)

    def size(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
        """|log variance ratio| [...], where each cluster's arms are those of ``first`` [..., C]."""
        swapped = first.astype(bool)[..., index]
        variances = (
            np.where(swapped, arms[1 - arm], arms[arm]).var(axis=-1, ddof=1) for arm in (0, 1)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.abs(np.subtract(*map(np.log, variances)))

    own, other = np.zeros(len(names)), np.ones(len(names))
    if not np.isfinite(size(own, other, -1)):
        return float("nan")
    result = stats.permutation_test(
        (own, other),
        size,
        permutation_type="samples",
        vectorized=True,
        n_resamples=max(resamples, 2**EXACT_SWAPS),  # more than there are: each one once
        batch=10_000,
        alternative="greater",
        rng=rng,
    )
    return float(result.pvalue)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """McNemar's exact two-sided p: do paired yes/no outcomes have the same share of yes?

    Only the pairs that differ count; takes the pairs as independent. nan where no pair differs.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return float("nan")
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)
