"""What a reward model's scores know of the labels, and what an ensemble's spread knows of errors.

n pairs, K members, C prompts, B resamples of the prompts (``resampling``): pairs of one prompt are
one observation. A margin is the score of the chosen less that of the rejected response; a pair is
right if its margin is above 0, so ties are wrong. ``prompts`` [n] says which pairs share a prompt.

Each measurement has its 95% percentile interval from the resamples (a share of 0 or 1, in which
they do not vary, has Wilson's). Bins, temperature, random
subsets of members and the members' scales are those of the sample in all of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from prudent.analysis.statistics import EXACT_SWAPS, holm, share_interval, sign_flip_test
from prudent.audit.scores import Choice, Scores
from prudent.data.preferences import prompt_key
from prudent.rewards import calibration
from prudent.rewards.calibration import BINS, REPETITIONS, RESAMPLES, equal_mass, temperature
from prudent.rewards.resampling import (
    NAN,
    Measured,
    correlations,
    draws,
    interval,
    noise_range,
    partial,
    ranks,
    ratio,
    to_correlation,
)
from prudent.rewards.rewardbench import section_weights, subset_weights
from prudent.seeding import derive_seed

CHUNK = 2**20  # numbers of one array over observations and resamples
MATCHED = 5  # lengths match if they differ by at most this part of the longer, a fifth
FIFTHS = 5
TEAMS = (1, 2, 5, 10)  # sizes of the subsets of members in the learning curve, and all members
SUBSETS = 50  # of the members, for each size
SHUFFLES = 200  # of the spread over the pairs

ACCURACY_MEAN = "accuracy: ensemble mean"
ACCURACY_ONE = "accuracy: one member"
ACCURACY_MATCHED = "accuracy: ensemble mean, at matched length"
ACCURACY_WEIGHTED = "accuracy: ensemble mean, by the benchmark's weights"
LONGER = "accuracy: the longer response"
BEYOND_LONGER = "accuracy: ensemble mean less the longer response"
LENGTH = "margin and difference in length: rank correlation"
TEMPERATURE = "temperature"
ECE = "expected calibration error, after one temperature"
BRIER = "Brier score, after one temperature"
LOG_LOSS = "log loss, after one temperature"
SHUFFLED = "random labels"
RELIABILITY = "share right in bin {} of {} of confidence"
BY_SPREAD = "accuracy in fifth {} of the spread"
LOW_SPREAD, LARGE_MARGIN = "low spread first", "large |margin| first"
LARGE_RATIO, RANDOM = "large |margin| / spread first", "random order"
AREA = "area under the risk-coverage curve: {}"
LESS = "area under the risk-coverage curve: {} less {}"
AGREEMENT = "members: agreement of two"
SHARED = "members: correlation of two members' errors"
EFFECTIVE = "members: effective number"
TEAM = "accuracy: mean of {} standardised member(s)"
BEST_OF_N = "accuracy: ensemble mean, best of n"
TIES = "score of ties, by RewardBench 2's rule"
BY_SUBSETS = "score: mean of the subsets, by RewardBench 2's rule"
BY_NORM = "share of the spread's ranks explained by the feature norm"
BY_UNTRAINED = "share of the spread's ranks explained by the spread before training"
BY_BOTH = "share of the spread's ranks explained by both"

COLUMNS = "section subset quantity value low high noise noise_low noise_high n p".split()
ALL = "all"


class Counted(NamedTuple):
    """A measurement, and the number of pairs that it is of."""

    measured: Measured
    n: int


Found = dict[str, Counted]


def _clusters(prompts: np.ndarray) -> np.ndarray:
    """The prompt of each pair [n], numbered from 0 without gaps."""
    return np.unique(np.asarray(prompts), return_inverse=True)[1]


def _sums(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Sums [C, q] over each prompt's pairs of values [n, q]."""
    sums = np.zeros((clusters.max() + 1, *values.shape[1:]))
    np.add.at(sums, clusters, values)
    return sums


def _means(
    values: np.ndarray, known: np.ndarray, clusters: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """Means [B, q] of values [n, q] over the pairs where ``known`` [n, q]; nan without any."""
    return ratio(_sums(values * known, clusters), _sums(1.0 * known, clusters), times)


def _resampled(
    of_draws: Callable[[np.ndarray], dict[str, np.ndarray]],
    clusters: np.ndarray,
    width: int,
    rng: np.random.Generator,
    resamples: int,
) -> dict[str, np.ndarray]:
    """Statistics [1 + resamples] of the sample and of resamples of the prompts.

    ``of_draws`` maps draws [B, C] to statistics [B]; it gets so many draws at once that arrays of
    ``width`` numbers for each of them stay small.
    """
    count, size = int(clusters.max()) + 1, max(1, CHUNK // width)
    parts = []
    for start in range(0, max(resamples, 1), size):
        times = draws(count, min(size, resamples - start), rng)
        parts.append(of_draws(times[1 if start else 0 :]))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _counted(
    drawn: np.ndarray, values: np.ndarray, prompts: np.ndarray, noise: Sequence[float] = ()
) -> Counted:
    """A share in the sample and in resamples [1 + B], and the pairs' values [n] that it is of.

    Resamples of values that are all 0 or all 1 do not vary; those have Wilson's interval, in which
    each prompt counts as one pair.
    """
    found = interval(drawn)
    if found[1] == found[2] in (0, 1):
        found = share_interval(values, prompts)
    return Counted(Measured(*found, *noise), len(values))


def accuracy(
    margins: np.ndarray,
    prompts: np.ndarray,
    lengths: np.ndarray,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Found:
    """Accuracy of the members' mean, of single members, and of the rule that the longer wins.

    Args:
        margins: [n, K].
        lengths: of the chosen and the rejected response [n, 2], in any unit. Equal lengths count
            half for the rule. Lengths match if they differ by at most a fifth of the longer one.

    The mean's accuracy less the rule's is taken in the same resamples. The rank correlation is
    Spearman's, of the mean's margin with the difference in length, and nan where either does not
    vary.
    """
    clusters, mean = _clusters(prompts), margins.mean(1)
    longer = lengths[:, 0] - lengths[:, 1]
    right = mean > 0
    names = (ACCURACY_MEAN, ACCURACY_ONE, ACCURACY_MATCHED, LONGER)
    values = np.stack([right, (margins > 0).mean(1), right, (np.sign(longer) + 1) / 2], axis=1)
    known = np.ones(values.shape, dtype=bool)
    known[:, names.index(ACCURACY_MATCHED)] = MATCHED * np.abs(longer) <= lengths.max(1)

    def of_draws(times: np.ndarray) -> dict[str, np.ndarray]:
        weights = times.T[clusters]
        table = correlations([ranks(mean, weights), ranks(longer, weights)], weights)
        found = _means(values, known, clusters, times)
        of = dict(zip(names, found.T, strict=True))
        beyond = of[ACCURACY_MEAN] - of[LONGER]
        return of | {BEYOND_LONGER: beyond, LENGTH: table[:, 0, 1]}

    drawn = _resampled(of_draws, clusters, len(margins), rng, resamples)
    found = {
        name: _counted(drawn.pop(name), of[there], clusters[there])
        for name, of, there in zip(names, values.T, known.T, strict=True)
    }
    return found | {
        name: Counted(Measured(*interval(of)), len(margins)) for name, of in drawn.items()
    }


def weighted_accuracy(
    margins: np.ndarray,
    prompts: np.ndarray,
    section: Sequence[str],
    subset: Sequence[str],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Found:
    """Accuracy of the members' mean by the weights of RewardBench's leaderboard.

    ``prudent.rewards.rewardbench`` has the rule, also for other benchmarks. A resample without any
    pair of a subset gives its weight to the others. ``section`` and ``subset`` are of each pair
    [n], and each subset lies in one section.
    """
    clusters, right = _clusters(prompts), 1.0 * (margins.mean(1) > 0)
    numbers, names = pd.factorize(np.asarray(subset, dtype=object))
    member = np.eye(len(names))[numbers]
    sections = pd.Series(list(section)).groupby(numbers).first()
    weights = np.zeros((len(names), sections.nunique()))
    for column, name in enumerate(sections.unique()):
        own = np.flatnonzero(sections == name)
        weights[own, column] = subset_weights(name, names[own].tolist(), member[:, own].sum(0))
    of_sections = section_weights(sections.unique().tolist())

    def of_draws(times: np.ndarray) -> dict[str, np.ndarray]:
        shares = _means(right[:, None] * member, member, clusters, times)
        known = np.isfinite(shares)
        total = known @ weights
        parts = np.where(known, shares, 0) @ weights / np.where(total > 0, total, 1)
        there = (total > 0) * of_sections
        return {ACCURACY_WEIGHTED: (parts * there).sum(1) / there.sum(1)}

    drawn = _resampled(of_draws, clusters, len(names), rng, resamples)
    return {
        name: Counted(Measured(*interval(values)), len(margins)) for name, values in drawn.items()
    }


class Warmed(NamedTuple):
    """Margins after a temperature that was fitted on other prompts."""

    temperature: float
    margins: np.ndarray  # of the pairs that it was not fitted on [m]
    prompts: np.ndarray  # [m]


def warmed(margins: np.ndarray, prompts: np.ndarray) -> Warmed | None:
    """The members' mean after one temperature: fitted on every other prompt, for the pairs of the
    remaining ones. None for a single prompt. Where no temperature beats a coin flip it is infinite,
    and all margins are 0."""
    fitted = _clusters(prompts) % 2 == 0
    if fitted.all():
        return None
    mean = margins.mean(1)
    found = temperature(mean[fitted])
    return Warmed(found, mean[~fitted] / found, np.asarray(prompts)[~fitted])


def calibration_measures(
    margins: np.ndarray,
    prompts: np.ndarray,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    repetitions: int = REPETITIONS,
) -> Found:
    """Calibration error, Brier score and log loss of the members' mean after one temperature.

    They are of the prompts that the temperature (which has no interval) was not fitted on, and the
    scores are of the probability of the label. Noise is the value of a perfectly calibrated
    predictor with the same confidences, by sampling alone. The quantities with "random labels" are
    those of the same confidences if the labels were coin flips, mean and 95% range of many draws:
    what a predictor gets that is as sure but knows nothing. Empty for a single prompt.

    Args:
        margins: [n, K].
        repetitions: of the sampled labels.
    """
    found = warmed(margins, prompts)
    if found is None:
        return {}
    clusters, count = _clusters(found.prompts), len(found.margins)
    loss = np.logaddexp(0, -found.margins)[:, None]
    known = np.ones(loss.shape, dtype=bool)
    shared = calibration.pair_measures(
        found.margins[:, None], rng, found.prompts, resamples, repetitions
    )
    drawn = _resampled(
        lambda times: {LOG_LOSS: _means(loss, known, clusters, times)[:, 0]},
        *(clusters, len(clusters), rng, resamples),
    )
    sure, _ = calibration.confidence(found.margins)
    noise = _sampled(found.margins, sure, repetitions, rng)
    flips = _sampled(found.margins, np.full(count, 0.5), repetitions, rng)
    measured = {
        ECE: shared[calibration.ECE_MEAN],
        BRIER: shared[calibration.BRIER_MEAN],
        LOG_LOSS: Measured(*interval(drawn[LOG_LOSS]), *noise_range(noise[LOG_LOSS])),
    }
    for name, values in flips.items():
        measured[f"{name}: {SHUFFLED}"] = Measured(*noise_range(values))
    fitted = Counted(Measured(found.temperature), len(margins) - count)
    return {TEMPERATURE: fitted} | {name: Counted(of, count) for name, of in measured.items()}


def _sampled(
    margins: np.ndarray, chance: np.ndarray, repetitions: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Calibration errors, Brier scores and log losses [repetitions] of margins [n] whose likelier
    response gets each label with the probability ``chance`` [n]."""
    sure, _ = calibration.confidence(margins)
    member = np.eye(BINS)[equal_mass(sure, BINS)]
    right = rng.random((repetitions, len(sure))) < chance
    signed = np.where(right, 1, -1) * np.abs(margins)
    return {
        ECE: np.abs((right - sure) @ member).sum(1) / len(sure),
        BRIER: ((right - sure) ** 2).mean(1),
        LOG_LOSS: np.logaddexp(0, -signed).mean(1),
    }


def reliability(margins: np.ndarray, prompts: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """The confidence of margins [n], and how often the likelier response is the chosen one.

    Returns:
        One row per bin of equal size that is not empty: bin (from 1), confidence (its mean), right
        (the share; ties count half), low, high (Wilson's 95% interval, in which each prompt counts
        as one pair), n.
    """
    sure, right = calibration.confidence(margins)
    place, prompts = equal_mass(sure, bins), np.asarray(prompts)
    rows = []
    for number in np.unique(place):
        inside = place == number
        share = share_interval(right[inside], prompts[inside])
        rows.append((number + 1, sure[inside].mean(), *share, int(inside.sum())))
    return pd.DataFrame(rows, columns=["bin", "confidence", "right", "low", "high", "n"])


def areas(keys: np.ndarray, wrong: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Areas [B] under the risk-coverage curve when pairs are kept from the least key [n] on.

    It is the mean over k of the share of ``wrong`` [n] among the first k pairs (Geifman et al.,
    arXiv 1805.08206), each pair repeated ``weights`` [n, B] times, whole numbers. Pairs of one key
    come in random order: the area is the expected one. So E wrong ones of W before w copies with
    the mean error e add sum_j (E + j e) / (W + j), j = 1..w, which harmonic numbers give.
    """
    order = np.argsort(keys, kind="stable")
    ordered, weights = keys[order], weights[order]
    first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    size = np.add.reduceat(weights, first, axis=0)
    errors = np.add.reduceat(weights * wrong[order, None], first, axis=0)
    start = np.zeros((1, weights.shape[1]))
    upto = np.concatenate([start, np.cumsum(size, axis=0)])
    before = np.concatenate([start, np.cumsum(errors, axis=0)[:-1]])
    harmonic = np.append(0, np.cumsum(1 / np.arange(1, upto[-1].max() + 1)))
    passed = np.diff(harmonic[upto.astype(int)], axis=0)
    risk = errors / np.maximum(size, 1)
    return (errors + (before - risk * upto[:-1]) * passed).sum(0) / upto[-1]


def risk_coverage(keys: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The share of ``wrong`` [n] among the first 1, 2, ..., n pairs when pairs are kept from the
    least key [n] on; pairs of one key come in random order, and the share is the expected one.

    Its mean is ``areas``.
    """
    values, group, size = np.unique(keys, return_inverse=True, return_counts=True)
    risk = np.bincount(group, wrong, minlength=len(values)) / size
    return np.cumsum(np.repeat(risk, size)) / np.arange(1, len(keys) + 1)


def orders(mean: np.ndarray, spread: np.ndarray) -> dict[str, np.ndarray]:
    """The keys [n] of each order of pairs by their mean margin [n] and spread [n], the least of
    which comes first."""
    size = np.abs(mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        sure = np.where(size > 0, size / spread, 0)
    return {LOW_SPREAD: spread, LARGE_MARGIN: -size, LARGE_RATIO: -sure}


def _areas(of: dict[str, np.ndarray], rate: np.ndarray) -> dict[str, np.ndarray]:
    """The areas [B] of the orders, their differences to that of a random order, which is the error
    rate [B], and to that of the order by margin."""
    found = {AREA.format(name): area for name, area in of.items()} | {AREA.format(RANDOM): rate}
    found |= {LESS.format(name, RANDOM): area - rate for name, area in of.items()}
    return found | {
        LESS.format(name, LARGE_MARGIN): of[name] - of[LARGE_MARGIN]
        for name in (LOW_SPREAD, LARGE_RATIO)
    }


def spread_measures(
    margins: np.ndarray,
    prompts: np.ndarray,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    repetitions: int = SHUFFLES,
) -> Found:
    """What the spread, the members' sd (ddof 1) of a pair's margin, knows of the mean's errors.

    Accuracy in fifths of the spread, the first of which has the least; and areas under the
    risk-coverage curve (``areas``), with differences between orders in the same resamples. Noise is
    the value if each pair had the spread of another one; orders by margin alone have none. The
    spreads are shuffled over pairs, so the noise ranges (not the intervals) take the pairs of one
    prompt as independent.

    Args:
        margins: [n, K], K > 1.
        repetitions: of the shuffled spread.
    """
    clusters, mean, spread = _clusters(prompts), margins.mean(1), margins.std(1, ddof=1)
    wrong = 1.0 * (mean <= 0)
    # Pairs of one spread go to the fifths by chance, and not by their place in the file.
    mixed = rng.permutation(len(wrong))
    member = np.zeros((len(wrong), FIFTHS))
    member[mixed, equal_mass(spread[mixed], FIFTHS)] = 1
    fifths = [BY_SPREAD.format(number + 1) for number in range(FIFTHS)]
    right = (1 - wrong)[:, None] * member

    def of_draws(times: np.ndarray) -> dict[str, np.ndarray]:
        weights = times.T[clusters]
        rate = wrong @ weights / weights.sum(0)
        of = {key: areas(by, wrong, weights) for key, by in orders(mean, spread).items()}
        shares = _means(right, member, clusters, times)
        return dict(zip(fifths, shares.T, strict=True)) | _areas(of, rate)

    drawn = _resampled(of_draws, clusters, len(wrong), rng, resamples)
    sizes = member.sum(0)
    noise: dict[str, list[float]] = {name: [] for name in drawn}
    for _ in range(repetitions):
        order = rng.permutation(len(wrong))
        with np.errstate(invalid="ignore"):  # of fifths without a pair
            shares = (1 - wrong) @ member[order] / sizes
        of = {
            key: areas(by, wrong, np.ones((len(wrong), 1)))
            for key, by in orders(mean, spread[order]).items()
        }
        found = _areas(of, wrong.mean(keepdims=True)) | dict(zip(fifths, shares, strict=True))
        for name, value in found.items():
            noise[name].append(float(np.squeeze(value)))
    alone = (AREA.format(LARGE_MARGIN), AREA.format(RANDOM), LESS.format(LARGE_MARGIN, RANDOM))
    found = {}
    for name, inside in zip(fifths, member.T > 0, strict=True):
        by_chance = noise_range(noise[name])
        found[name] = _counted(drawn.pop(name), 1 - wrong[inside], clusters[inside], by_chance)
    return found | {
        name: Counted(
            Measured(*interval(values), *noise_range([] if name in alone else noise[name])),
            len(wrong),
        )
        for name, values in drawn.items()
    }


def _teams(members: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Subsets of ``size`` members as columns of 0 and 1 [K, S]: all, or 50 random ones if there are
    more."""
    if math.comb(members, size) <= SUBSETS:
        chosen = list(itertools.combinations(range(members), size))
    else:
        chosen = [rng.permutation(members)[:size] for _ in range(SUBSETS)]
    teams = np.zeros((members, len(chosen)))
    for column, team in enumerate(chosen):
        teams[list(team), column] = 1
    return teams


def _errors_shared(right: np.ndarray, clusters: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The mean correlation [B] of right/wrong [n, K] between two members that both vary; nan where
    no two do."""
    known, members = np.ones((len(right), 1), dtype=bool), right.shape[1]
    # Sums over prompts for all pairs of members at once would be large with many members.
    both = np.stack(
        [_means(right * column[:, None], known, clusters, times) for column in right.T], axis=1
    )
    means = np.diagonal(both, axis1=1, axis2=2)
    table = to_correlation(both - means[:, :, None] * means[:, None, :])
    pairs = table[:, ~np.eye(members, dtype=bool)]
    there = np.isfinite(pairs)
    count = there.sum(1)
    return np.where(count > 0, np.where(there, pairs, 0).sum(1) / np.maximum(count, 1), np.nan)


def member_measures(
    margins: np.ndarray,
    prompts: np.ndarray,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Found:
    """How much the members repeat one another, and the accuracy of the mean of some of them.

    The agreement of two members is the share of pairs for which their margins have one sign. The
    effective number is K / (1 + (K - 1) rho), with rho the mean correlation of their errors, at
    least 0. The learning curve averages over at most 50 random subsets of m members, each divided
    by its own root mean square first, so that members of large scores do not decide alone.

    Args:
        margins: [n, K], K > 1.
    """
    clusters, members = _clusters(prompts), margins.shape[1]
    right = 1.0 * (margins > 0)
    counts = np.stack([(np.sign(margins) == sign).sum(1) for sign in (-1, 0, 1)])
    same = (counts * (counts - 1)).sum(0) / (members * (members - 1))
    size = np.sqrt((margins**2).mean(0))
    standard = margins / np.where(size > 0, size, 1)
    sizes = sorted({m for m in (*TEAMS, members) if m <= members})
    curve = [(standard @ _teams(members, m, rng) > 0).mean(1) for m in sizes]
    names = [AGREEMENT, *(TEAM.format(m) for m in sizes)]
    values = np.stack([same, *curve], axis=1)
    known = np.ones(values.shape, dtype=bool)

    def of_draws(times: np.ndarray) -> dict[str, np.ndarray]:
        found = dict(zip(names, _means(values, known, clusters, times).T, strict=True))
        shared = _errors_shared(right, clusters, times)
        return found | {
            SHARED: shared,
            EFFECTIVE: members / (1 + (members - 1) * np.maximum(shared, 0)),
        }

    drawn = _resampled(of_draws, clusters, max(len(margins), members**2), rng, resamples)
    found = {
        name: _counted(drawn.pop(name), of, clusters)
        for name, of in zip(names, values.T, strict=True)
    }
    return found | {
        name: Counted(Measured(*interval(of)), len(margins)) for name, of in drawn.items()
    }


def explained(
    spread: np.ndarray,
    prompts: np.ndarray,
    norm: np.ndarray | None,
    untrained: np.ndarray | None,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Found:
    """How much of the spread [n] the features and the initialisation explain, where known.

    Squared rank correlations with the norm of the difference of the two responses' features [n],
    and with the spread before training [n]; and R^2 of the spread's ranks on those of both.
    """
    known = {BY_NORM: norm, BY_UNTRAINED: untrained}
    given = {name: values for name, values in known.items() if values is not None}
    if not given:
        return {}
    clusters = _clusters(prompts)

    def of_draws(times: np.ndarray) -> dict[str, np.ndarray]:
        weights = times.T[clusters]
        ranked = [ranks(values, weights) for values in (spread, *given.values())]
        table = correlations(ranked, weights)
        found = {name: table[:, 0, place] ** 2 for place, name in enumerate(given, 1)}
        if len(given) > 1:
            # Of what the first leaves over, the second explains the square of its partial one.
            left = partial(table[:, [0, 2, 1]][:, :, [0, 2, 1]]) ** 2
            found[BY_BOTH] = found[BY_NORM] + (1 - found[BY_NORM]) * left
        return found

    drawn = _resampled(of_draws, clusters, len(spread), rng, resamples)
    return {
        name: Counted(Measured(*interval(values)), len(spread)) for name, values in drawn.items()
    }


def best_of_n(choice: Choice) -> float:
    """The share of chosen ones among the responses with the highest score of the members' mean."""
    chosen, rejected = choice.chosen.mean(1), choice.rejected.mean(1)
    best = max(chosen.max(), rejected.max())
    first, others = (chosen == best).sum(), (rejected == best).sum()
    return float(first / (first + others))


TIE_WEIGHTS = (0.3, 0.3, 0.2, 0.2, 0.01)


def _tie_parts(choices: Sequence[Choice], clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The parts [C, 5] of RewardBench 2's score of its subset Ties, and which are known [C, 5].

    The gap of a prompt is its lowest chosen less its highest rejected score. For each number: is
    the gap of the tied prompt, and of the one with a single right response (ref), above 0; is the
    tied one's gap, and the smaller of both, above the difference of the highest and lowest chosen
    score of the tied one; and tanh of that smaller gap over the difference, less 1 (0 for 0 / 0).
    """
    values = np.zeros((clusters.max() + 1, len(TIE_WEIGHTS)))
    gaps, widths = np.full((len(values), 2), np.nan), np.full(len(values), np.nan)
    for choice, cluster in zip(choices, clusters, strict=True):
        if choice.tie is not None:
            chosen, rejected = choice.chosen.mean(1), choice.rejected.mean(1)
            side = ("tied", "ref").index(choice.tie[0])
            gaps[cluster, side] = chosen.min() - rejected.max()
            if side == 0:
                widths[cluster] = chosen.max() - chosen.min()
    least = gaps.min(1)  # nan where either is not known
    with np.errstate(divide="ignore", invalid="ignore"):
        margin = np.nan_to_num(np.tanh(least / widths - 1), nan=0)
    values[:, :2], values[:, 2], values[:, 3] = gaps > 0, gaps[:, 0] > widths, least > widths
    values[:, 4] = margin
    known = np.isfinite(gaps)
    both = np.repeat(known.all(1)[:, None], 3, axis=1)
    return values, np.column_stack([known, both])


def _ties_score(values: np.ndarray, known: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The score [B] of parts [C, 5], each the mean over the numbers that have it; nan without."""
    return ratio(values * known, known, times) @ np.array(TIE_WEIGHTS)


def choice_measures(
    choices: Sequence[Choice],
    prompts: Sequence[int],
    subset: Sequence[str],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Found:
    """RewardBench 2's scores of the members' mean, for prompts with lists of responses.

    The rule is that of its leaderboard (allenai/reward-bench, rewardbench/utils.py). Best of n is
    right if the response with the highest score is a chosen one; a tie for the highest counts as
    the share of chosen ones in it. The subset Ties has another score in its stead
    (``_tie_parts``). Each subset counts alike in their mean, which is left out for a single one. A
    resample without any prompt of a subset gives its weight to the others. ``n`` counts the prompts
    with lists.

    Args:
        choices: m of them.
        prompts: which of them share a prompt [m]; a "ref" and a "tied" one of one number do, too.
        subset: of each [m].
    """
    units = [
        ("prompt", prompt) if choice.tie is None else ("tie", choice.tie[1])
        for choice, prompt in zip(choices, prompts, strict=True)
    ]
    clusters = pd.factorize(pd.Series(units))[0]
    tied = np.array([choice.tie is not None for choice in choices])
    numbers, names = pd.factorize(np.asarray(subset, dtype=object))
    member = np.eye(len(names))[numbers] * ~tied[:, None]
    right = np.array([best_of_n(choice) for choice in choices])
    averaged = int(member.any(0).sum()) + int(tied.any())
    parts_of_ties = _tie_parts(choices, clusters) if tied.any() else None

    def of_draws(times: np.ndarray) -> dict[str, np.ndarray]:
        found = {}
        parts = _means(right[:, None] * member, member > 0, clusters, times)
        if not tied.all():
            of_all = _means(right[:, None], ~tied[:, None], clusters, times)
            found[BEST_OF_N] = of_all[:, 0]
        if tied.any():
            found[TIES] = _ties_score(*parts_of_ties, times)
            parts = np.column_stack([parts, found[TIES]])
        there = np.isfinite(parts)
        if averaged > 1:
            total = np.where(there, parts, 0).sum(1)
            found[BY_SUBSETS] = total / np.maximum(there.sum(1), 1)
        return found

    drawn = _resampled(of_draws, clusters, len(choices), rng, resamples)
    found = {}
    if BEST_OF_N in drawn:
        found[BEST_OF_N] = _counted(drawn.pop(BEST_OF_N), right[~tied], clusters[~tied])
    counts = {TIES: int(tied.sum()), BY_SUBSETS: len(choices)}
    return found | {
        name: Counted(Measured(*interval(values)), counts[name]) for name, values in drawn.items()
    }


def coin_flip(right: np.ndarray, prompts: np.ndarray) -> float:
    """Two-sided p of the hypothesis that a pair is ``right`` [n] with the probability 1/2.

    With one pair per prompt it is the exact binomial test. Otherwise a prompt's right less its
    wrong pairs change their sign with the probability 1/2: all combinations of signs for up to 12
    prompts, or else their normal approximation.
    """
    apart = _sums(np.where(right, 0.5, -0.5), _clusters(prompts))
    if len(apart) == len(right):
        return float(stats.binomtest(int(np.sum(right)), len(right)).pvalue)
    if len(apart) <= EXACT_SWAPS:
        return float(sign_flip_test(apart, 0, np.random.default_rng(0)))
    size = np.sqrt((apart**2).sum())
    return float(2 * stats.norm.sf(abs(apart.sum()) / size)) if size > 0 else 1.0


class _Pairs(NamedTuple):
    """What the measures need of some pairs."""

    margins: np.ndarray  # [n, K]
    prompts: np.ndarray  # [n]
    lengths: np.ndarray  # [n, 2]
    section: np.ndarray  # [n]
    subset: np.ndarray  # [n]
    norm: np.ndarray | None  # [n]
    untrained: np.ndarray | None  # [n]


def audit_table(scores: Scores, seed: int, resamples: int = RESAMPLES) -> pd.DataFrame:
    """Every measurement of the scores, in the long form of ``COLUMNS``.

    All of them overall (section and subset "all") and per section; those of accuracy also per
    subset, as those of prompts with lists of responses. Those of the spread and of the members need
    two members. Lengths are in characters. A bin of confidence has its mean confidence as noise.
    ``n`` is the number of pairs that a row is of (``choice_measures``: of prompts); ``p`` is
    ``coin_flip`` of the mean's accuracy in each subset, after Holm's adjustment over the subsets,
    and nan elsewhere. Subsets without sections are in the section "all".

    Args:
        seed: of the study; each part's and measure's stream depends on it and on their names.
        resamples: of the prompts; with 0, intervals are nan.
    """
    count = len(scores.prompts)
    lengths = [list(map(len, side)) for side in (scores.chosen, scores.rejected)]
    pairs = _Pairs(
        scores.margins,
        pd.factorize(np.array([prompt_key(prompt) for prompt in scores.prompts], dtype=object))[0],
        np.array(lengths).T,
        *(
            np.array([ALL] * count if names is None else names, dtype=object)
            for names in (scores.section, scores.subset)
        ),
        scores.norm,
        scores.untrained,
    )
    choices = scores.choices or []
    first = np.array([choice.pair for choice in choices], dtype=int)
    tables, tests = [], []
    for section, subset, rows in _parts(pairs, scores):
        part = _Pairs(*(None if of is None else of[rows] for of in pairs))
        weighted = scores.section is not None and subset == ALL
        found = _of_part(part, seed, section, subset, resamples, weighted)
        inside = np.flatnonzero(np.isin(first, rows))
        if len(inside):
            found |= choice_measures(
                [choices[i] for i in inside],
                *(pairs.prompts[first[inside]], pairs.subset[first[inside]]),
                _stream(seed, section, subset, "choices"),
                resamples,
            )
        lines = [(section, subset, name, *m[:6], n, NAN) for name, (m, n) in found.items()]
        tables.append(pd.DataFrame(lines, columns=COLUMNS))
        tests.append(NAN if subset == ALL else coin_flip(part.margins.mean(1) > 0, part.prompts))
    for table, p in zip(tables, holm(tests), strict=True):
        table.loc[table["quantity"] == ACCURACY_MEAN, "p"] = p
    return pd.concat(tables, ignore_index=True)


def by_part(table: pd.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of an audit's table by section and subset, and then by quantity."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in table.itertuples(index=False):
        found.setdefault((row.section, row.subset), {})[row.quantity] = row
    return found


def _parts(pairs: _Pairs, scores: Scores) -> Iterator[tuple[str, str, np.ndarray]]:
    """The parts of the table in its order: all, then each section with its subsets."""
    yield ALL, ALL, np.arange(len(pairs.prompts))
    for section in pd.unique(pairs.section):
        inside = pairs.section == section
        if scores.section is not None:
            yield section, ALL, np.flatnonzero(inside)
        for subset in pd.unique(pairs.subset[inside]) if scores.subset is not None else ():
            yield section, subset, np.flatnonzero(inside & (pairs.subset == subset))


def _stream(seed: int, section: str, subset: str, measure: str) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, "audit", section, subset, measure))


def _of_part(
    part: _Pairs, seed: int, section: str, subset: str, resamples: int, weighted: bool
) -> Found:
    """The measurements of one part of the pairs: of a subset, those of accuracy alone."""

    def stream(measure: str) -> np.random.Generator:
        return _stream(seed, section, subset, measure)

    margins, prompts, lengths, *names, norm, untrained = part
    found = accuracy(margins, prompts, lengths, stream("accuracy"), resamples)
    if subset != ALL:
        return found
    if weighted:
        found |= weighted_accuracy(margins, prompts, *names, stream("weighted"), resamples)
    found |= calibration_measures(margins, prompts, stream("calibration"), resamples)
    after = warmed(margins, prompts)
    for row in reliability(after.margins, after.prompts).itertuples() if after else ():
        share = Measured(row.right, row.low, row.high, row.confidence)
        found[RELIABILITY.format(row.bin, BINS)] = Counted(share, row.n)
    if margins.shape[1] > 1:
        found |= spread_measures(margins, prompts, stream("spread"), resamples)
        found |= member_measures(margins, prompts, stream("members"), resamples)
        spread = margins.std(1, ddof=1)
        found |= explained(spread, prompts, norm, untrained, stream("explained"), resamples)
    return found
