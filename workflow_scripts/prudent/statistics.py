"""Are the policies of one method less variable, and less often bad, than those of another?

The unit is a policy, and policies come in clusters: those trained on the same reward head share its
errors, so a head is one draw and its trials are not (``ensemble``, ``head`` name the cluster).
Methods are paired: the same seed sees the same head, prompts and sampling streams in each of them.
All of it works from tables; where there are too few policies for a number, it is nan.

Score, here, is the judge's mean score of a policy's responses to the fixed test prompts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from scipy import stats

from prudent.errors import InputError
from prudent.seeding import seed_parts

LEVEL = 0.95
KL_TOLERANCE = 0.15
EXACT_SWAPS = 12  # up to this many clusters all label swaps are enumerated

T = TypeVar("T")


class Interval(NamedTuple):
    """An estimate with its 95% interval; nan where the data do not give one."""

    estimate: float
    low: float
    high: float


# --- policies -----------------------------------------------------------------------------------


def by_policy(
    items: Sequence[T], methods: Sequence[str], seeds: Sequence[int]
) -> dict[tuple[str, int], T]:
    """Files of policies, listed method by method and seed by seed, under (method, seed)."""
    keys = list(itertools.product(methods, seeds))
    if len(items) != len(keys):
        raise InputError(
            f"{len(items)} files of policies for {len(methods)} methods x {len(seeds)} seeds; "
            f"expected {len(keys)}"
        )
    return dict(zip(keys, items, strict=True))


def read_logs(
    paths: Sequence[Path], methods: Sequence[str], seeds: Sequence[int]
) -> dict[tuple[str, int], pd.DataFrame]:
    """The training logs of all policies, under (method, seed)."""
    return {key: pd.read_csv(path) for key, path in by_policy(paths, methods, seeds).items()}


def long_table(logs: dict[tuple[str, int], pd.DataFrame]) -> pd.DataFrame:
    """Training logs under each other, with the columns method and seed in front."""
    parts = [log.assign(method=method, seed=seed) for (method, seed), log in logs.items()]
    table = pd.concat(parts, ignore_index=True)
    return table[["method", "seed", *table.columns.drop(["method", "seed"])]]


def final_mean(values: Sequence[float]) -> float:
    """The level at which a training curve ends: mean over the last 10% of steps, at least 5."""
    values = np.asarray(values, dtype=float)
    return float(values[-max(5, round(0.1 * len(values))) :].mean()) if len(values) else np.nan


def mean_and_se(scores: Sequence[float]) -> tuple[float, float]:
    """The mean of per-prompt scores and its standard error over prompts."""
    values = np.asarray(scores, dtype=float)
    se = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(values.mean()), float(se)


def policy_table(
    judgements: dict[tuple[str, int], pd.DataFrame],
    logs: dict[tuple[str, int], pd.DataFrame],
    reference: pd.DataFrame,
    ensembles: int,
    heads: int,
) -> pd.DataFrame:
    """One row a policy.

    Args:
        judgements: per (method, seed) the judged responses: prompt, response, score, and, where the
            judge tells, grammatical (0/1). The same prompts in the same order in all of them.
        logs: per (method, seed) the training log with kl.
        reference: the reference policy's judged responses to the same prompts.

    Returns:
        method, seed, ensemble, head, trial, score (mean over prompts), score_se (over prompts),
        worse (score below the reference's mean), kl (``final_mean``), and grammatical where known.
    """
    reference_score = reference["score"].mean()
    prompts = reference["prompt"].tolist()
    rows = []
    for (method, seed), judged in judgements.items():
        if judged["prompt"].tolist() != prompts:
            raise InputError(
                f"judge/{method}/seed{seed}: {len(judged)} prompts that are not the reference's "
                f"{len(prompts)} in the same order; judge both with the same settings"
            )
        if not np.isfinite(judged["score"]).all():
            raise InputError(f"judge/{method}/seed{seed}: a score is not finite")
        score, se = mean_and_se(judged["score"])
        ensemble, head, trial = seed_parts(seed, ensembles, heads)
        row = {"method": method, "seed": seed, "ensemble": ensemble, "head": head, "trial": trial}
        row |= {"score": score, "score_se": se, "worse": bool(score < reference_score)}
        row["kl"] = final_mean(logs[method, seed]["kl"])
        if "grammatical" in judged:
            row["grammatical"] = judged["grammatical"].mean()
        rows.append(row)
    return pd.DataFrame(rows)


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


# --- estimates with intervals -------------------------------------------------------------------


def _cluster_ids(policies: pd.DataFrame) -> np.ndarray:
    return policies["ensemble"].to_numpy() * 1_000_003 + policies["head"].to_numpy()


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


def swap_test(
    baseline: Sequence[float],
    method: Sequence[float],
    clusters: Sequence[int],
    resamples: int,
    rng: np.random.Generator,
) -> float:
    """Two-sided permutation p for equal variances: the methods' labels are swapped within heads.

    It keeps the pairing and the clusters. Each arm is first centred at its mean, so that a
    difference of means is not taken for one of variances. All swaps are enumerated up to 12 heads,
    and drawn at random above. nan with fewer than three clusters.
    """
    arms = np.array([baseline, method], dtype=float)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(names) < 3:
        return float("nan")
    arms = arms - arms.mean(axis=1, keepdims=True)
    if len(names) <= EXACT_SWAPS:
        codes = np.arange(2 ** len(names))[:, None]
        swaps = (codes >> np.arange(len(names))) & 1
    else:
        swaps = rng.integers(0, 2, size=(max(resamples, 1), len(names)))
        swaps = np.vstack([np.zeros_like(swaps[:1]), swaps])  # what was observed is one of them
    swapped = swaps[:, index].astype(bool)
    first = np.where(swapped, arms[1], arms[0]).var(axis=1, ddof=1)
    second = np.where(swapped, arms[0], arms[1]).var(axis=1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.abs(np.log(first) - np.log(second))
    if not np.isfinite(size[0]):
        return float("nan")
    return float(np.mean(size >= size[0] - 1e-12))


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """McNemar's exact two-sided p: do paired yes/no outcomes have the same share of yes?

    Only the pairs that differ count; takes the pairs as independent. nan where no pair differs.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return float("nan")
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def kl_mismatch(first: float, second: float) -> float:
    """How far apart two KLs are, as a share of the smaller; nan unless both are positive."""
    if not min(first, second) > 0:
        return float("nan")
    return abs(first - second) / min(first, second)


# --- tables -------------------------------------------------------------------------------------


def summary_table(
    policies: pd.DataFrame, judged: dict[str, np.ndarray], reference: Sequence[float]
) -> pd.DataFrame:
    """One row a method.

    Args:
        policies: ``policy_table``.
        judged: per method its per-prompt scores [policies, prompts], for the evaluation noise.
        reference: the reference policy's per-prompt scores.

    Returns:
        method, policies, heads (clusters), score and its t interval over heads, score_variance,
        score_sd, noise_variance (``evaluation_noise``), worse (count), worse_share and Wilson
        interval, kl (mean over policies) and kl_sd, grammatical where known, reference_score,
        reference_se.
    """
    reference_score, reference_se = mean_and_se(reference)
    rows = []
    for method, part in policies.groupby("method", sort=False):
        clusters = _cluster_ids(part)
        score = t_interval(part["score"], clusters)
        share = wilson_interval(int(part["worse"].sum()), len(part))
        row = {"method": method, "policies": len(part), "heads": len(np.unique(clusters))}
        row |= {"score": float(part["score"].mean())}
        row |= {"score_low": score.low, "score_high": score.high}
        row |= {"score_variance": variance(part["score"])}
        row |= {"score_sd": np.sqrt(row["score_variance"])}
        row |= {"noise_variance": evaluation_noise(judged[method])}
        row |= {"worse": int(part["worse"].sum()), "worse_share": share.estimate}
        row |= {"worse_low": share.low, "worse_high": share.high}
        row |= {"kl": float(part["kl"].mean()), "kl_sd": np.sqrt(variance(part["kl"]))}
        if "grammatical" in part:
            row["grammatical"] = float(part["grammatical"].mean())
        row |= {"reference_score": reference_score, "reference_se": reference_se}
        rows.append(row)
    return pd.DataFrame(rows)


def comparison_table(
    policies: pd.DataFrame, baseline: str, resamples: int, seed: int
) -> pd.DataFrame:
    """Every other method against the baseline, paired by seed.

    Returns:
        method, baseline, pairs, heads (clusters), quantity, estimate, low, high, p. Quantities:
        score_difference (method - baseline; t over heads), variance_ratio (baseline / method;
        bootstrap over heads), brown_forsythe and swap_test (p only), worse_difference (method -
        baseline, share of policies worse than the reference; p of McNemar), kl_mismatch.
    """
    by_method = {name: part.set_index("seed") for name, part in policies.groupby("method")}
    if baseline not in by_method:
        raise InputError(
            f"statistics.baseline: {baseline!r} is not a method; choose one of "
            f"{', '.join(policies['method'].unique())}"
        )
    rows = []
    for method in policies["method"].unique():
        if method == baseline:
            continue
        seeds = by_method[baseline].index.intersection(by_method[method].index)
        first, second = by_method[baseline].loc[seeds], by_method[method].loc[seeds]
        clusters = _cluster_ids(first)
        a, b = first["score"].to_numpy(), second["score"].to_numpy()
        # A generator per test and method: another method or test changes none of these numbers.
        rng = np.random.default_rng([seed, *method.encode()])
        nan = float("nan")
        difference = second["worse"].mean() - first["worse"].mean()
        found = {
            "score_difference": (*t_interval(b - a, clusters), nan),
            "variance_ratio": (*variance_ratio(a, b, clusters, resamples, rng), nan),
            "brown_forsythe": (nan, nan, nan, brown_forsythe(a, b)),
            "swap_test": (nan, nan, nan, swap_test(a, b, clusters, resamples, rng)),
            "worse_difference": (difference, nan, nan, mcnemar(first["worse"], second["worse"])),
            "kl_mismatch": (kl_mismatch(first["kl"].mean(), second["kl"].mean()), nan, nan, nan),
        }
        common = {"method": method, "baseline": baseline, "pairs": len(seeds)}
        common["heads"] = len(np.unique(clusters))
        for quantity, numbers in found.items():
            values = dict(zip(("estimate", "low", "high", "p"), numbers, strict=True))
            rows.append({**common, "quantity": quantity, **values})
    columns = ["method", "baseline", "pairs", "heads", "quantity", "estimate", "low", "high", "p"]
    return pd.DataFrame(rows, columns=columns)


def with_comparisons(summary: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """The summary with each method's comparison to the baseline; nan in the baseline's own row."""
    columns = {
        "variance_ratio": ("variance_ratio", "estimate"),
        "variance_ratio_low": ("variance_ratio", "low"),
        "variance_ratio_high": ("variance_ratio", "high"),
        "brown_forsythe_p": ("brown_forsythe", "p"),
        "swap_test_p": ("swap_test", "p"),
        "kl_mismatch": ("kl_mismatch", "estimate"),
    }
    result = summary.copy()
    for name, (quantity, value) in columns.items():
        found = tests[tests["quantity"] == quantity].set_index("method")[value]
        result[name] = result["method"].map(found).astype(float)
    return result
