"""A summary of methods by their exact policies: mean gain, spread, risk, and comparisons.

A replicate is one draw of everything that varies at its level. Replicates are independent, and
methods are paired by replicate.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from prudent.analysis.statistics import (
    Interval,
    jackknife_half_width,
    share_interval,
    t_interval,
    tail_mean,
    variance_ratio,
)

KEYS = ["level", "kl_target", "method"]
LEAST_SIZE = 10.0
"""The effective number of responses above which a prompt's policy is well known."""


def summary_table(policies: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """One row per level, KL and method, in the order of ``policies``.

    Args:
        policies: one row per policy: level, replicate, method, kl_target, gain, effective_size, and
            the gains first_half, second_half of policies made from half the responses.

    Columns: the keys; replicates with a policy; gain, sd, each with its interval (low, high);
    difference to the baseline's gain with interval and p of the paired t test; ratio of variances,
    baseline over method, with interval; below, the number of policies worse than the reference,
    and below_share with interval; quantile05 of the gains, and cvar10, the mean of the lowest
    tenth; the median effective_size; sampling_sd, the change of a gain with another sample of as
    many responses, estimated from the difference of the halves; and half_shift, the change of the
    mean gain with half the responses. Intervals are 95%: Student's t for means, the jackknife over
    replicates for log sd and log ratio, Wilson's for shares.
    """
    rows = []
    for (level, kl), part in policies.groupby(["level", "kl_target"], sort=False):
        wide = part.pivot(index="replicate", columns="method", values="gain")
        base = wide[baseline] if baseline in wide else None
        for method in dict.fromkeys(part["method"]):
            row = _row(level, kl, method, wide[method], base, baseline)
            of_method = part[part["method"] == method]
            rows.append(
                row
                | {"effective_size": of_method["effective_size"].median()}
                | finite_samples(of_method)
            )
    return pd.DataFrame(rows)


def _row(level, kl, method, gains: pd.Series, base: pd.Series | None, baseline: str) -> dict:
    known = gains.dropna()
    values = known.to_numpy()
    mean, sd = t_interval(values), spread(values)
    below = int((values < 0).sum())
    share = share_interval(values < 0)
    row = {"level": level, "kl_target": kl, "method": method, "replicates": len(values)}
    row |= named("gain", mean) | named("sd", sd)
    difference = ratio = Interval(*[float("nan")] * 3)
    p = float("nan")
    if base is not None and method != baseline:
        both = pd.concat([base, gains], axis=1, keys=["base", "own"]).dropna()
        first, second = both["base"].to_numpy(), both["own"].to_numpy()
        if len(both) > 1:
            difference = t_interval(second - first)
            ratio = variance_ratio(first, second)
        if len(both) > 1 and np.ptp(second - first) > 0:
            p = float(stats.ttest_rel(second, first).pvalue)
    row |= named("difference", difference) | {"p": p} | named("ratio", ratio)
    row |= {"below": below} | named("below_share", share)
    row["quantile05"] = float(np.quantile(values, 0.05)) if len(values) else float("nan")
    row["cvar10"] = tail_mean(values)
    return row


def finite_samples(policies: pd.DataFrame) -> dict[str, float]:
    """The effect of a finite number of responses on the gains of ``policies``.

    The halves' gains are independent estimates from N / 2 responses each, so half their difference
    has the standard deviation of an estimate from N.
    """
    first, second = policies["first_half"], policies["second_half"]
    halves = (first + second) / 2
    return {
        "sampling_sd": float(np.sqrt(((first - second) ** 2).mean()) / 2),
        "half_shift": float((halves - policies["gain"]).mean()),
    }


def named(name: str, interval: Interval) -> dict[str, float]:
    """An interval as three columns: the estimate, low and high."""
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


def spread(values: np.ndarray) -> Interval:
    """The standard deviation (ddof 1) with the jackknife's interval of its logarithm."""
    return _exp(jackknife([values], lambda one: 0.5 * _log_variance(one)))


def jackknife(samples: list[np.ndarray], statistic: Callable[..., np.ndarray]) -> Interval:
    """A statistic of paired samples [n] with the jackknife-t interval; nan where n < 3.

    ``statistic`` takes arrays [..., n] and reduces their last axis.
    """
    n = len(samples[0])
    if n < 3:
        estimate = float(statistic(*samples)) if n > 1 else float("nan")
        return Interval(estimate, float("nan"), float("nan"))
    estimate = float(statistic(*samples))
    kept = np.array([np.delete(np.arange(n), place) for place in range(n)])
    left_out = statistic(*(sample[kept] for sample in samples))
    half = jackknife_half_width(left_out)
    return Interval(estimate, estimate - half, estimate + half)


def _log_variance(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(values.var(axis=-1, ddof=1))


def _exp(interval: Interval) -> Interval:
    return Interval(*(float(np.exp(value)) for value in interval))
