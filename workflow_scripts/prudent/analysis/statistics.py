"""Estimates with intervals, and tests, for policies that come in clusters.

The unit is a policy. Policies come in clusters: those trained on the same reward head share its
errors, so a head is one independent draw, but its trials are not. Methods are paired: one seed has
the same head, prompts and sampling streams in each of them. A number that needs more policies is
nan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95

EXACT_SWAPS = 12  # up to this many clusters all label swaps are enumerated
GRID = 200  # distributions are compared at this many scores at most


class Interval(NamedTuple):
    """An estimate with its 95% interval; nan where the data do not give one."""

    estimate: float
    low: float
    high: float


class Dominance(NamedTuple):
    """How far a method's distribution is ahead of the baseline's, and behind it, each with its p.

    A shortfall that is not significant may still exist.
    """

    advantage: float
    advantage_p: float
    shortfall: float
    shortfall_p: float


def mean_and_se(scores: Sequence[float]) -> tuple[float, float]:
    """The mean of per-prompt scores and its standard error over prompts."""
    values = np.asarray(scores, dtype=float)
    se = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(values.mean()), float(se)


def evaluation_noise(scores: np.ndarray) -> float:
    """The variance of a policy's mean score that is due to the finite set of prompts.

    The policies of a method answer the same prompts with the same streams, so prompts that are hard
    for all of them do not make the policies differ. The residual of the two-way layout policy +
    prompt does: its mean square over the number of prompts is the part of the variance between
    policies that more prompts would remove.

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
    of deviations)^2) / n with C - 1 degrees of freedom; with one policy per cluster it is the usual
    one. nan with fewer than two clusters.
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


def share_interval(outcomes: Sequence[bool], clusters: Sequence[int] | None = None) -> Interval:
    """A share with Wilson's score interval (Wilson 1927), which holds up at 0 and 1.

    With clusters, each counts as one outcome, its own share: policies of one head are not
    independent, and treating them so would make the interval too short.
    """
    outcomes = np.asarray(outcomes, dtype=float)
    if not len(outcomes):
        return Interval(float("nan"), float("nan"), float("nan"))
    n = len(outcomes) if clusters is None else len(np.unique(np.asarray(clusters)))
    share, square = float(outcomes.mean()), float(stats.norm.ppf((1 + LEVEL) / 2)) ** 2
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = np.sqrt(square * (share * (1 - share) / n + square / (4 * n**2))) / (1 + square / n)
    return Interval(share, max(float(middle - half), 0.0), min(float(middle + half), 1.0))


def variance(values: Sequence[float]) -> float:
    """The sample variance (ddof 1); nan for fewer than two values."""
    values = np.asarray(values, dtype=float)
    return float(values.var(ddof=1)) if len(values) > 1 else float("nan")


def variance_ratio(
    baseline: Sequence[float], method: Sequence[float], clusters: Sequence[int] | None = None
) -> Interval:
    """The ratio of sample variances, baseline over method, with the jackknife-t interval.

    The jackknife takes the logarithm and leaves out each cluster in turn, in both arms, which keeps
    the pairing and the dependence of a head's trials. Student's t has one degree of freedom less
    than clusters (Miller, Biometrika 1974). nan with fewer than three clusters, or where leaving
    one out leaves an arm without variance.

    Args:
        baseline, method: scores [policies], paired.
        clusters: the cluster of each pair [policies]; if None, every pair is a cluster.
    """
    arms = np.array([baseline, method], dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.divide(*(variance(arm) for arm in arms)))
    _, index = np.unique(
        np.arange(arms.shape[1]) if clusters is None else np.asarray(clusters), return_inverse=True
    )
    size = np.bincount(index) if len(index) else np.zeros(0)
    count = len(size)
    if count < 3:
        return Interval(ratio, float("nan"), float("nan"))
    # Sums over all but one cluster. Scores are centred first, against cancellation in the variance.
    arms = arms - arms.mean(axis=1, keepdims=True)
    n = size.sum() - size
    total = np.stack([arm.sum() - np.bincount(index, arm) for arm in arms])
    square = np.stack([(arm**2).sum() - np.bincount(index, arm**2) for arm in arms])
    with np.errstate(divide="ignore", invalid="ignore"):
        left_out = np.subtract(*np.log((square - total**2 / n) / (n - 1)))
        half = jackknife_half_width(left_out)
    if not np.isfinite(half):
        return Interval(ratio, float("nan"), float("nan"))
    return Interval(ratio, float(ratio * np.exp(-half)), float(ratio * np.exp(half)))


def jackknife_half_width(left_out: np.ndarray) -> float:
    """Half of the jackknife-t interval, from a statistic [C] without each of C clusters in turn."""
    count = len(left_out)
    variation = (count - 1) / count * np.square(left_out - left_out.mean()).sum()
    return float(stats.t.ppf((1 + LEVEL) / 2, count - 1) * np.sqrt(variation))


def brown_forsythe(first: Sequence[float], second: Sequence[float]) -> float:
    """Brown and Forsythe's p for equal variances (Levene's test with medians).

    Unlike the F test it keeps its level with heavy tails. It treats policies as independent, so its
    p is too small with several trials per head.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if min(len(first), len(second)) < 2:
        return float("nan")
    spread = np.concatenate([np.abs(part - np.median(part)) for part in (first, second)])
    if len(first) + len(second) <= 4 or np.ptp(spread) == 0:  # nothing varies
        return float("nan")
    return float(stats.levene(first, second, center="median").pvalue)


def permutation_test(
    baseline: Sequence[float],
    method: Sequence[float],
    clusters: Sequence[int],
    resamples: int,
    rng: np.random.Generator,
) -> float:
    """Two-sided p of the paired permutation test of equal spread.

    Each arm's spread is the mean absolute deviation from its median, so neither a difference of the
    arms' levels nor one outlier looks like a difference of spread. The methods' labels are swapped
    within clusters, which keeps the pairing and the dependence of a head's trials. All swaps are
    enumerated for up to 12 clusters, or if there are at most ``resamples``; otherwise they are
    drawn at random. nan with fewer than three clusters, or without any spread.
    """
    arms = np.array([baseline, method], dtype=float)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(names) < 3:
        return float("nan")
    apart = np.abs(arms - np.median(arms, axis=1, keepdims=True))
    if not apart.any():
        return float("nan")
    differences = np.subtract(*(np.bincount(index, arm) for arm in apart))
    return float(sign_flip_test(differences, resamples, rng))


def sign_flip_test(differences: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Two-sided p [...] of the test that exchanges two methods within clusters.

    A swap changes the sign of a cluster's difference but not the sum of both methods, so testing
    the difference is as good as testing the ratio.

    Args:
        differences: [..., C], the difference of the methods' sums in each cluster.
    """
    signs, own = _swaps(differences.shape[-1], resamples, rng)
    found = np.abs(differences.sum(axis=-1, keepdims=True)) * (1 - 1e-12)  # equal up to rounding
    reached = np.abs(differences @ signs) >= found
    return (own + reached.sum(axis=-1)) / (own + signs.shape[1])


def _swaps(count: int, resamples: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Signs [C, R] of each cluster's difference, and 1 if the observed ones have to be added."""
    if 2**count <= max(resamples, 2**EXACT_SWAPS):
        return 1.0 - 2.0 * (np.arange(2**count) >> np.arange(count)[:, None] & 1), 0
    return rng.choice([-1.0, 1.0], size=(count, resamples)), 1


def dominance(
    baseline: Sequence[float],
    method: Sequence[float],
    clusters: Sequence[int],
    order: int,
    resamples: int,
    rng: np.random.Generator,
) -> Dominance:
    """Whether a method's scores dominate the baseline's stochastically, in first or second order.

    D(z) is the baseline's distribution function less the method's (order 1), or its integral up to
    z (order 2, for everyone who dislikes risk). The method dominates if D >= 0 for all z. The
    advantage is D's maximum over the scores, the shortfall that of -D. The advantage's p is for the
    null that the baseline dominates or both are equal, the shortfall's p for the same with the
    roles exchanged. Labels are swapped within clusters; this is the case of equality, the least
    favourable one (McFadden 1989; Barrett and Donald, Econometrica 2003). nan with fewer than three
    clusters.

    Args:
        baseline, method: scores [policies], paired.
    """
    arms = np.array([baseline, method], dtype=float)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(names) < 3:
        return Dominance(*[float("nan")] * 4)
    points = np.unique(arms)
    if len(points) > GRID:
        points = points[np.linspace(0, len(points) - 1, GRID).round().astype(int)]
    apart = points - arms[..., None]
    first, second = (apart >= 0) if order == 1 else np.maximum(apart, 0)
    each = np.zeros((len(names), len(points)))
    np.add.at(each, index, first.astype(float) - second)
    each /= arms.shape[1]
    signs, own = _swaps(len(names), resamples, rng)
    swapped = signs.T @ each
    result = []
    for ahead in (1, -1):
        found = float((ahead * each.sum(axis=0)).max())
        reached = (ahead * swapped).max(axis=1) >= found - 1e-12 * np.abs(each).sum(axis=0).max()
        result += [found, float((own + reached.sum()) / (own + signs.shape[1]))]
    return Dominance(*result)


def tail_mean(values: Sequence[float], share: float = 0.1) -> float:
    """The mean of the lowest share of the values, CVaR; the last of them may count in part. nan
    without values."""
    values = np.sort(np.asarray(values, dtype=float))
    if not len(values):
        return float("nan")
    weight = np.clip(share * len(values) - np.arange(len(values)), 0, 1)
    return float((weight * values).sum() / weight.sum())


def pitman_morgan(first: Sequence[float], second: Sequence[float]) -> float:
    """Pitman and Morgan's p for equal variances of pairs: is their sum correlated with their
    difference? Exact for normal scores; treats the pairs as independent."""
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    both = first + second, first - second
    if len(first) < 3 or min(map(np.ptp, both)) == 0:
        return float("nan")
    return float(stats.pearsonr(*both).pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p values (Holm 1979), which control the familywise error. nan stays nan."""
    found = np.asarray(p_values, dtype=float)
    known = np.flatnonzero(np.isfinite(found))
    order = known[np.argsort(found[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted = np.full(len(found), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * found[order]), 1)
    return adjusted


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """McNemar's exact two-sided p: do paired yes/no outcomes have the same share of yes?

    Only pairs that differ count; pairs are treated as independent. nan where no pair differs.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return float("nan")
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)
