"""Statistics of many bootstrap resamples at once: of ranks, quantiles and correlations.

A resample says how often each cluster is drawn. The clusters are prompts, because responses to one
prompt are not independent. The first "resample" has each cluster once, so that the same code gives
the estimate. B resamples, C clusters, n observations. Arrays over observations and resamples are
[n, B], so that whole rows are moved and added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
NAN = float("nan")


class Measured(NamedTuple):
    """A value with its 95% interval, the value of noise alone with its 95% range, and the value
    before training; nan where there is none."""

    value: float
    low: float = NAN
    high: float = NAN
    noise: float = NAN
    noise_low: float = NAN
    noise_high: float = NAN
    untrained: float = NAN


def once(clusters: int) -> np.ndarray:
    """Each cluster once [1, C]; with these draws a statistic is that of the sample."""
    return np.ones((1, clusters))


def draws(clusters: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """The sample itself, and ``resamples`` bootstrap resamples of it [1 + resamples, C]."""
    times = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)
    return np.concatenate([once(clusters), times])


def interval(drawn: np.ndarray) -> tuple[float, float, float]:
    """The estimate ``drawn[0]``, and the 2.5th and 97.5th percentile of the resamples' [B]."""
    resampled = drawn[1:][np.isfinite(drawn[1:])]
    if not len(resampled) or not np.isfinite(drawn[0]):
        return float(drawn[0]), NAN, NAN
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(drawn[0]), float(low), float(high)


def noise_range(simulated: np.ndarray) -> tuple[float, float, float]:
    """Mean, 2.5th and 97.5th percentile of simulated values; nan without any."""
    simulated = np.asarray(simulated, dtype=float)
    simulated = simulated[np.isfinite(simulated)]
    if not len(simulated):
        return NAN, NAN, NAN
    low, high = np.quantile(simulated, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(simulated.mean()), float(low), float(high)


def _running_sums(values: np.ndarray, block: int = 32) -> np.ndarray:
    """``np.cumsum(values, axis=0)`` of [n, B], in blocks of rows, which is quicker."""
    count, resamples = values.shape
    padded = np.zeros((-(-count // block) * block, resamples))
    padded[:count] = values
    blocks = padded.reshape(-1, block, resamples)
    for row in range(1, block):
        blocks[:, row] += blocks[:, row - 1]
    blocks[1:] += np.cumsum(blocks[:-1, -1], axis=0)[:, None]
    return padded[:count]


def ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mid-ranks [n, B] of values [n], each repeated ``weights`` [n, B] times.

    Equal values get the mean of their ranks, as in ``scipy.stats.rankdata``, less 1/2. One sort
    serves all resamples.
    """
    order = np.argsort(values, kind="stable")
    ordered = weights[order]
    upto = _running_sums(ordered)
    new = np.append(True, np.diff(values[order]) > 0)
    result = np.empty(weights.shape)
    if new.all():
        result[order] = upto - ordered / 2
        return result
    group = np.cumsum(new) - 1
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(values)) - 1
    upto = np.concatenate([np.zeros((1, weights.shape[1])), upto])
    result[order] = ((upto[first] + upto[last + 1]) / 2)[group]
    return result


def correlations(variables: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Pearson's correlations [B, m, m] of m variables [n, B] with weights [n, B], or Spearman's if
    the variables are ranks. nan where a variable does not vary."""
    total = weights.sum(0)
    centred = [x - np.einsum("nb,nb->b", x, weights) / total for x in variables]
    covariance = np.empty((len(total), len(centred), len(centred)))
    for row, first in enumerate(centred):
        weighted = first * weights
        for column in range(row + 1):
            product = np.einsum("nb,nb->b", weighted, centred[column])
            covariance[:, row, column] = covariance[:, column, row] = product
    return to_correlation(covariance)


def to_correlation(covariance: np.ndarray) -> np.ndarray:
    """Correlations [..., m, m] of covariances; nan where a variable does not vary."""
    variance = np.diagonal(covariance, axis1=-2, axis2=-1)
    sd = np.sqrt(np.where(variance > 0, variance, np.nan))
    return covariance / (sd[..., :, None] * sd[..., None, :])


def partial(correlation: np.ndarray) -> np.ndarray:
    """The correlation [B] of the first two of m variables given the others, from [B, m, m].

    It is the correlation of their residuals after regression on the others, and nan where the
    others explain one of the two completely.
    """
    own, cross = correlation[:, :2, :2], correlation[:, :2, 2:]
    unknown = ~np.isfinite(correlation).all((1, 2))
    others = np.where(unknown[:, None, None], 0, correlation[:, 2:, 2:])
    explained = cross @ np.linalg.pinv(others, rcond=1e-9, hermitian=True) @ cross.swapaxes(1, 2)
    left = own - explained
    left[unknown | (np.diagonal(left, axis1=1, axis2=2) < 1e-9).any(1)] = np.nan
    return to_correlation(left)[:, 0, 1]


def quantiles(values: np.ndarray, weights: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Quantiles [B, levels] of values [n], each repeated ``weights`` [n, B] times: the least value
    with at least that share of all values at or below it."""
    order = np.argsort(values, kind="stable")
    upto = _running_sums(weights[order])
    places = [(upto >= level * upto[-1] - 1e-9).argmax(0) for level in levels]
    return values[order][np.stack(places, axis=1)]


def ratio(numerator: np.ndarray, denominator: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Ratios of sums over clusters [B, ...], numerator and denominator [C, ...]; nan for x / 0."""
    shape = (len(times), *numerator.shape[1:])
    above, below = (
        (times @ np.reshape(part, (len(part), -1))).reshape(shape)
        for part in (numerator, np.broadcast_to(denominator, numerator.shape))
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)
