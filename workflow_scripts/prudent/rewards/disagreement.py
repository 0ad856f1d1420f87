"""What an ensemble's rewards and their disagreement know of the true reward.

P prompts, R responses of each, K members, B resamples of the prompts (``resampling``). The scale
and offset of rewards are free, so a member's error is the residual of its least-squares line on the
truth. A member's own error is part of the spread over all members, so large errors make large
spreads even if sigma knows nothing. Sigma is therefore compared with the error of a member that it
leaves out, and with the error of the mean, which is independent of the spread in normal noise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from prudent.rewards.resampling import (
    Measured,
    correlations,
    draws,
    interval,
    noise_range,
    once,
    partial,
    quantiles,
    ranks,
    ratio,
    to_correlation,
)

RESAMPLES = 1000  # of the prompts
REPETITIONS = 100  # of the simulated noise
CHUNK = 2**17  # observations of resamples at once: more would not fit the processor's cache

WITHIN_ONE = "within-prompt correlation with the truth: one member"
WITHIN_LOWEST = "within-prompt correlation with the truth: lowest member"
WITHIN_MEAN = "within-prompt correlation with the truth: ensemble mean"
MEDIAN = "sigma: median"
RATIO = "sigma: 90th over 10th percentile"
LEAVE_ONE_OUT = "leave-one-out sigma and the error of the member left out: rank correlation"
GIVEN_NORM = f"{LEAVE_ONE_OUT}, given the feature norm"
GIVEN_BEFORE = f"{LEAVE_ONE_OUT}, given sigma before training"
GIVEN_BOTH = f"{LEAVE_ONE_OUT}, given both"
MEAN_ERROR = "sigma and the error of the ensemble mean: rank correlation"
MEAN_REWARD = "sigma and |mean reward|: rank correlation"
BY_NORM = "share of sigma's ranks explained by the feature norm"
BY_BEFORE = "share of sigma's ranks explained by sigma before training"
SHARED = "error correlation between members"
OWN_STD = "a member's own std and its error: rank correlation"

# The quantities for which the value under constant sigma is informative.
OF_NOISE = (
    *(RATIO, LEAVE_ONE_OUT, GIVEN_NORM, GIVEN_BEFORE, GIVEN_BOTH),
    *(MEAN_ERROR, MEAN_REWARD, BY_NORM, BY_BEFORE),
)


class Sample(NamedTuple):
    """An ensemble's rewards of responses whose true reward is known."""

    rewards: np.ndarray  # [P, R, K]
    truth: np.ndarray  # [P, R]
    norm: np.ndarray | None = None  # squared norm of the features [P, R]
    before: np.ndarray | None = None  # rewards of the untrained members [P, R, K]
    std: np.ndarray | None = None  # the members' own, if they have one [P, R, K]


def true_errors(rewards: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Errors [n, K] of rewards [n, K]: residuals of their least-squares lines on truth [n]."""
    centred = truth - truth.mean()
    deviation = rewards - rewards.mean(0)
    square = (centred**2).sum()
    slope = centred @ deviation / square if square > 0 else np.zeros(rewards.shape[1])
    return deviation - centred[:, None] * slope


def prompt_correlations(rewards: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pearson's correlation [P, K] of rewards [P, R, K] with truth [P, R] within each prompt; nan
    where either does not vary."""
    rewards = rewards - rewards.mean(1, keepdims=True)
    truth = (truth - truth.mean(1, keepdims=True))[:, :, None]
    scale = np.sqrt((rewards**2).sum(1) * (truth**2).sum(1))
    known = scale > 1e-12
    return np.where(known, (rewards * truth).sum(1) / np.where(known, scale, 1), np.nan)


def _within(rewards: np.ndarray, truth: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The mean within-prompt correlation [B, K] of each member."""
    found = prompt_correlations(rewards, truth)
    known = np.isfinite(found)
    return ratio(np.where(known, found, 0), known, times)


def without_each(rewards: np.ndarray) -> np.ndarray:
    """For each member, sigma [n, K] of the K - 1 others, from rewards [n, K]; needs K > 2."""
    members = rewards.shape[1]
    others = [np.delete(rewards, k, axis=1).std(1, ddof=1) for k in range(members)]
    return np.stack(others, axis=1)


def constant_sigma(rewards: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Members [P, R, K] that differ from their mean only by noise of a constant sd.

    Each member has the mean's reward, its own offset, and normal noise of its own constant sd. That
    is Grubbs' (1948) estimate s_k: the deviation of member k from the mean has the variance
    s_k^2 (1 - 2 / K) + sum_j s_j^2 / K^2. Responses to one prompt share as much of a member's noise
    as of its deviations, because shared noise widens the noise range.
    """
    members = rewards.shape[2]
    mean = rewards.mean(2, keepdims=True)
    deviation = rewards - mean
    offset, variance = deviation.mean((0, 1)), deviation.var((0, 1))
    total = variance.sum() * members / (members - 1)
    if members > 2:
        variance = (variance - total / members**2) / (1 - 2 / members)
    else:
        variance = np.full(members, total / members)
    share = prompt_share(deviation - offset)
    noise = math.sqrt(1 - share) * rng.standard_normal(rewards.shape)
    noise += math.sqrt(share) * rng.standard_normal((len(rewards), 1, members))
    return mean + offset + noise * np.sqrt(np.maximum(variance, 0))


def prompt_share(values: np.ndarray) -> float:
    """The share of the variance of values [P, R, K] that responses to one prompt have in common:
    the intraclass correlation of a one-way analysis of variance, over all members together."""
    responses = values.shape[1]
    if responses < 2 or len(values) < 2:
        return 0.0
    within = values.var(1, ddof=1).mean()
    between = values.mean(1).var(0, ddof=1).mean() - within / responses
    total = within + max(between, 0)
    return float(max(between, 0) / total) if total > 0 else 0.0


def measures(sample: Sample, times: np.ndarray) -> dict[str, np.ndarray]:
    """Every statistic of an ensemble in each resample [B] of the prompts, ``times`` [B, P].

    Statistics of the spread are nan for one member, leave-one-out statistics also for two. Those
    that need the norm or the rewards before training are left out if these are not given.
    """
    size = max(1, CHUNK // sample.truth.size)
    parts = [_measures(sample, times[at : at + size]) for at in range(0, len(times), size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _measures(sample: Sample, times: np.ndarray) -> dict[str, np.ndarray]:
    rewards, truth = sample.rewards, sample.truth
    members, unknown = rewards.shape[2], np.full(len(times), np.nan)
    within = _within(rewards, truth, times)
    alone = _within(rewards, truth, once(len(truth)))[0]
    lowest = 0 if np.isnan(alone).all() else int(np.nanargmin(alone))
    found = {
        WITHIN_ONE: within.mean(1),
        WITHIN_LOWEST: within[:, lowest],
        WITHIN_MEAN: _within(rewards.mean(2, keepdims=True), truth, times)[:, 0],
    }
    given = {
        GIVEN_NORM: sample.norm is not None,
        GIVEN_BEFORE: sample.before is not None,
        GIVEN_BOTH: sample.norm is not None and sample.before is not None,
    }
    explained = {BY_NORM: given[GIVEN_NORM], BY_BEFORE: given[GIVEN_BEFORE]}
    names = [MEDIAN, RATIO, LEAVE_ONE_OUT, *(name for name, known in given.items() if known)]
    names += [MEAN_ERROR, MEAN_REWARD, *(name for name, known in explained.items() if known)]
    found |= dict.fromkeys([*names, SHARED], unknown)
    if members < 2:
        return found

    weights = np.repeat(times.T, truth.shape[1], axis=0)
    flat, true = rewards.reshape(-1, members), truth.reshape(-1)
    errors, sigma, mean = true_errors(flat, true), flat.std(1, ddof=1), flat.mean(1)
    low, median, high = quantiles(sigma, weights, [0.1, 0.5, 0.9]).T
    with np.errstate(divide="ignore", invalid="ignore"):
        found |= {MEDIAN: median, RATIO: high / low}
    others = {MEAN_ERROR: np.abs(true_errors(mean[:, None], true)[:, 0]), MEAN_REWARD: abs(mean)}
    if sample.norm is not None:
        others[BY_NORM] = sample.norm.reshape(-1)
    if sample.before is not None:
        before = sample.before.reshape(len(flat), -1)
        others[BY_BEFORE] = before.std(1, ddof=1)
    ranked = {name: ranks(values, weights) for name, values in others.items()}
    table = correlations([ranks(sigma, weights), *ranked.values()], weights)
    for index, name in enumerate(ranked, start=1):
        share = name in (BY_NORM, BY_BEFORE)
        found[name] = table[:, 0, index] ** 2 if share else table[:, 0, index]
    found[SHARED] = _shared(errors.reshape(rewards.shape), times)
    if members > 2:
        controls = [ranked[BY_NORM]] if sample.norm is not None else []
        befores = None if sample.before is None else without_each(before)
        found |= _left_out(without_each(flat), np.abs(errors), controls, befores, weights)
    return found


def _left_out(
    sigmas: np.ndarray,
    errors: np.ndarray,
    norm: list[np.ndarray],
    befores: np.ndarray | None,
    weights: np.ndarray,
) -> dict[str, np.ndarray]:
    """Rank correlations [B] of sigma without each member [n, K] with its |error| [n, K], averaged
    over members; also given the ranks of the norm, and of that sigma before training [n, K]."""
    found: dict[str, list[np.ndarray]] = {}
    for k in range(errors.shape[1]):
        variables = [ranks(sigmas[:, k], weights), ranks(errors[:, k], weights), *norm]
        if befores is not None:
            variables.append(ranks(befores[:, k], weights))
        table = correlations(variables, weights)
        of = {LEAVE_ONE_OUT: table[:, 0, 1]}
        if norm:
            of[GIVEN_NORM] = partial(table[:, :3, :3])
        if befores is not None:
            only = [0, 1, len(variables) - 1]
            of[GIVEN_BEFORE] = partial(table[:, only][:, :, only])
        if norm and befores is not None:
            of[GIVEN_BOTH] = partial(table)
        for name, values in of.items():
            found.setdefault(name, []).append(values)
    return {name: np.mean(values, axis=0) for name, values in found.items()}


def _shared(errors: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The mean correlation [B] of two members' errors [P, R, K]."""
    members = errors.shape[2]
    count = np.full(len(errors), errors.shape[1])
    means = ratio(errors.sum(1), count[:, None], times)
    squares = ratio(errors.swapaxes(1, 2) @ errors, count[:, None, None], times)
    table = to_correlation(squares - means[:, :, None] * means[:, None, :])
    return table[:, ~np.eye(members, dtype=bool)].mean(1)


def own_std(sample: Sample, times: np.ndarray) -> np.ndarray:
    """The rank correlation [B] of a member's own std with its |error|, averaged over members."""
    weights = np.repeat(times.T, sample.truth.shape[1], axis=0)
    flat = sample.rewards.reshape(sample.truth.size, -1)
    errors = np.abs(true_errors(flat, sample.truth.reshape(-1)))
    pairs = zip(errors.T, sample.std.reshape(flat.shape).T, strict=True)
    found = [
        correlations([ranks(error, weights), ranks(std, weights)], weights)[:, 0, 1]
        for error, std in pairs
    ]
    return np.mean(found, axis=0)


def diagnose(
    sample: Sample,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    repetitions: int = REPETITIONS,
) -> dict[str, Measured]:
    """Every statistic of one ensemble, with its interval, noise range and value before training.

    Intervals are 95% percentile bootstraps over prompts; the lines on the truth and the choice of
    the lowest member stay fixed. Noise is ``constant_sigma``; for the members' own stds it is the
    same stds, each given to another response.
    """
    prompts = len(sample.truth)
    times = draws(prompts, resamples, rng)
    drawn = measures(sample, times)
    noise: dict[str, list[float]] = {}
    for _ in range(repetitions if sample.rewards.shape[2] > 1 else 0):
        simulated = sample._replace(rewards=constant_sigma(sample.rewards, rng))
        for name, values in measures(simulated, once(prompts)).items():
            noise.setdefault(name, []).append(values[0])
    untrained: dict[str, np.ndarray] = {}
    if sample.before is not None:
        start = sample._replace(rewards=sample.before, before=None)
        untrained = measures(start, once(prompts))
    if sample.std is not None:
        size = max(1, CHUNK // sample.truth.size)
        parts = [own_std(sample, times[at : at + size]) for at in range(0, len(times), size)]
        drawn[OWN_STD] = np.concatenate(parts)
        flat = sample.std.reshape(sample.truth.size, -1)
        mixed = (rng.permutation(flat).reshape(sample.std.shape) for _ in range(repetitions))
        noise[OWN_STD] = [own_std(sample._replace(std=std), once(prompts))[0] for std in mixed]
    return {
        name: Measured(
            *interval(values),
            *noise_range(noise.get(name, []) if name in (*OF_NOISE, OWN_STD) else []),
            untrained=float(untrained[name][0]) if name in untrained else float("nan"),
        )
        for name, values in drawn.items()
    }
