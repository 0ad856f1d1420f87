"""Accuracy and calibration on labelled pairs, and their values under perfect calibration.

A margin is the reward of the chosen less that of the rejected response; sigmoid(margin) is the
Bradley-Terry probability of the label. n pairs, K members, C clusters of pairs (their prompts).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from prudent.rewards.resampling import Measured, draws, interval, noise_range, once, ratio

RESAMPLES = 1000  # of the clusters
REPETITIONS = 200  # of the labels of a calibrated predictor
BINS = 10
COLDEST = 2**20  # times the mean margin: if all are right, colder is always better
CHUNK = 2**22  # draws of clusters at once

ACCURACY_BASE = "accuracy on unseen pairs: base model"
ACCURACY_ONE = "accuracy on unseen pairs: one member"
ACCURACY_MEAN = "accuracy on unseen pairs: ensemble mean"
ECE_ONE = "expected calibration error: one member"
ECE_MEAN = "expected calibration error: ensemble mean"
ECE_SCALED = "expected calibration error: ensemble mean, after one temperature"
BRIER_ONE = "Brier score: one member"
BRIER_MEAN = "Brier score: ensemble mean"


def confidence(margins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probability of the likelier response, in [1/2, 1], and whether the label agrees: 1, 0, or
    1/2 where the margin is 0."""
    return expit(np.abs(margins)), (np.sign(margins) + 1) / 2


def equal_mass(values: np.ndarray, bins: int) -> np.ndarray:
    """The bin [n] of each value [n], by rank; bin sizes differ by at most one."""
    places = np.empty(len(values), dtype=int)
    places[np.argsort(values, kind="stable")] = np.arange(len(values)) * bins // len(values)
    return places


def calibrated(
    margins: np.ndarray, repetitions: int, rng: np.random.Generator, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray]:
    """Calibration errors and Brier scores [repetitions] of margins [n] by sampling alone, with each
    label drawn with the probability that the margins give it."""
    sure, _ = confidence(margins)
    member = np.eye(bins)[equal_mass(sure, bins)]
    right = rng.random((repetitions, len(sure))) < sure
    errors = np.abs((right - sure) @ member).sum(1) / len(sure)
    return errors, ((right - sure) ** 2).mean(1)


def temperature(margins: np.ndarray) -> float:
    """The T > 0 that minimises the log loss of sigmoid(margin / T) (Guo et al. 2017); infinite
    where the margins [n] point the wrong way on average, so that no T beats a coin flip."""
    margins = np.asarray(margins, dtype=float)
    size = np.abs(margins).mean()

    def slope(cold: float) -> float:  # of the loss, which is convex, in size / T
        return -float((margins / size * expit(-margins / size * cold)).mean())

    if size == 0 or slope(0.0) >= 0:
        return float("inf")
    high = 1.0
    while slope(high) < 0 and high < COLDEST:
        high *= 2
    return float(size / (high if slope(high) < 0 else brentq(slope, 0.0, high, rtol=1e-10)))


def _errors(margins: np.ndarray, clusters: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Calibration errors [B] of margins [n] in resamples of clusters, in the bins of all pairs."""
    sure, right = confidence(margins)
    sums = np.zeros((times.shape[1], BINS))
    np.add.at(sums, (clusters, equal_mass(sure, BINS)), right - sure)
    size = np.bincount(clusters, minlength=times.shape[1])
    return np.abs(times @ sums).sum(1) / (times @ size)


def _mean(values: np.ndarray, clusters: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Means [B] of values [n] in resamples of clusters."""
    count = times.shape[1]
    sums, sizes = (
        np.bincount(clusters, of, minlength=count) for of in (values, np.ones(len(values)))
    )
    return ratio(sums, sizes, times)


def _unbiased(drawn: np.ndarray) -> np.ndarray:
    """Resamples centred on the estimate ``drawn[0]``, and at least 0. Resampling adds noise, which
    makes the calibration errors of resamples larger than the sample's."""
    return np.append(drawn[0], np.maximum(drawn[1:] - drawn[1:].mean() + drawn[0], 0))


def base_accuracy(
    margins: np.ndarray,
    rng: np.random.Generator,
    prompts: np.ndarray | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, Measured]:
    """Share of pairs that the base model gets right, from its margins [n]; ties count as wrong."""
    drawn = _resampled(margins[:, None], prompts, rng, resamples)
    return {ACCURACY_BASE: Measured(*interval(drawn[ACCURACY_MEAN]))}


def _resampled(
    margins: np.ndarray, prompts: np.ndarray | None, rng: np.random.Generator, resamples: int
) -> dict[str, np.ndarray]:
    """Each quantity in each resample of the prompts."""
    clusters = np.arange(len(margins))
    if prompts is not None:
        clusters = np.unique(np.asarray(prompts), return_inverse=True)[1]
    count = int(clusters.max()) + 1
    mean = margins.mean(1)
    parts: list[dict[str, np.ndarray]] = []
    size = max(1, CHUNK // count)
    for start in range(0, resamples, size):
        times = draws(count, min(size, resamples - start), rng)[1 if start else 0 :]
        parts.append(_of_draws(margins, mean, clusters, times))
    if not parts:
        return _of_draws(margins, mean, clusters, once(count))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _of_draws(
    margins: np.ndarray, mean: np.ndarray, clusters: np.ndarray, times: np.ndarray
) -> dict[str, np.ndarray]:
    one = [_errors(margins[:, k], clusters, times) for k in range(margins.shape[1])]
    return {
        ACCURACY_ONE: _mean((margins > 0).mean(1), clusters, times),
        ACCURACY_MEAN: _mean(1.0 * (mean > 0), clusters, times),
        ECE_ONE: np.mean(one, axis=0),
        ECE_MEAN: _errors(mean, clusters, times),
        BRIER_ONE: _mean((expit(-margins) ** 2).mean(1), clusters, times),
        BRIER_MEAN: _mean(expit(-mean) ** 2, clusters, times),
    }


def pair_measures(
    margins: np.ndarray,
    rng: np.random.Generator,
    prompts: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    repetitions: int = REPETITIONS,
) -> dict[str, Measured]:
    """Accuracy and calibration of one member (their average) and of their mean, margins [n, K].

    Intervals are 95% percentile bootstraps over ``prompts`` [n] (over single pairs if not given).
    Those of calibration errors use fixed bins and subtract the bootstrap's bias. Noise is the value
    that a perfectly calibrated predictor with the same confidences has by sampling alone, with its
    95% range. Ties count as wrong. The temperature is fitted on every other cluster of pairs; the
    error after it is measured on the remaining ones.
    """
    own = rng.spawn(1)[0]  # so that later additions do not change other numbers
    drawn = _resampled(margins, prompts, rng, resamples)
    one = [calibrated(column, repetitions, rng) for column in margins.T]
    mean = calibrated(margins.mean(1), repetitions, rng)
    noise = {
        ECE_ONE: np.mean([errors for errors, _ in one], axis=0),
        BRIER_ONE: np.mean([scores for _, scores in one], axis=0),
        ECE_MEAN: mean[0],
        BRIER_MEAN: mean[1],
    }
    found = {}
    for name, values in drawn.items():
        if name in (ECE_ONE, ECE_MEAN) and len(values) > 1:
            values = _unbiased(values)
        found[name] = Measured(*interval(values), *noise_range(noise.get(name, [])))
    return found | _scaled(margins.mean(1), own, prompts, resamples, repetitions)


def _scaled(
    margins: np.ndarray,
    rng: np.random.Generator,
    prompts: np.ndarray | None,
    resamples: int,
    repetitions: int,
) -> dict[str, Measured]:
    """The calibration error of margins [n] after one temperature; empty for a single cluster."""
    clusters = np.arange(len(margins)) if prompts is None else np.asarray(prompts)
    fitted = np.unique(clusters, return_inverse=True)[1] % 2 == 0
    if fitted.all():
        return {}
    warm = margins[~fitted] / temperature(margins[fitted])
    drawn = _resampled(warm[:, None], clusters[~fitted], rng, resamples)[ECE_MEAN]
    errors, _ = calibrated(warm, repetitions, rng)
    values = _unbiased(drawn) if len(drawn) > 1 else drawn
    return {ECE_SCALED: Measured(*interval(values), *noise_range(errors))}
