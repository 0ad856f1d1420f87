"""Accuracy, error and sigma by the frequency, in training, of a response's rarest judgement.

P prompts, R responses of each, K members.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from prudent.rewards.disagreement import RESAMPLES, true_errors
from prudent.rewards.resampling import draws, interval, ratio

BINS = 5
QUANTITIES = ("accuracy_member", "accuracy_mean", "error_member", "error_mean", "sigma")
COLUMNS = [
    *("ensemble", "bin", "count_low", "count_high", "n", "pairs"),
    *(f"{name}{end}" for name in QUANTITIES for end in ("", "_low", "_high")),
]


def count_edges(counts: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The largest count of each bin, for bins of about equal size; fewer bins if counts are tied.

    nan in ``counts`` (any shape) means no judgement, and belongs to no bin.
    """
    known = np.sort(counts[np.isfinite(counts)])
    if not len(known):
        return np.empty(0)
    return np.unique(known[np.arange(1, bins + 1) * len(known) // bins - 1])


def bins_of(counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The bin of each count, -1 for nan."""
    return np.where(np.isfinite(counts), np.searchsorted(edges, np.nan_to_num(counts)), -1)


def frequency_table(
    name: str,
    rewards: np.ndarray,
    truth: np.ndarray,
    counts: np.ndarray,
    rng: np.random.Generator,
    bins: int = BINS,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """One ensemble's ``COLUMNS``, one row per bin of the counts, the rarest first.

    ``counts`` [P, R]: how often the rarest judgement word of a response occurs in the training
    pairs' responses, nan if it has none. n is the number of responses with a count from
    ``count_low`` to ``count_high``. A pair is two responses to one prompt whose truth [P, R]
    differs; it is in the bin of the rarer one. Errors are root mean squares of the residuals of the
    line on the truth, of one member (to compare with leave-one-out sigma) and of the mean. Sigma is
    averaged. Each number has the 95% interval of a bootstrap over prompts.
    """
    members = rewards.shape[2]
    edges = count_edges(counts, bins)
    flat = np.concatenate([rewards, rewards.mean(2, keepdims=True)], axis=2)
    errors = true_errors(flat.reshape(-1, members + 1), truth.reshape(-1)).reshape(flat.shape)
    sigma = rewards.std(2, ddof=1) if members > 1 else np.full(truth.shape, np.nan)

    first, second = np.triu_indices(truth.shape[1], 1)
    apart = truth[:, first] - truth[:, second]
    right = (flat[:, first] - flat[:, second]) * apart[:, :, None] > 0
    rarer = np.fmin(counts[:, first], counts[:, second])
    pair_bins = np.where(np.abs(apart) > 1e-12, bins_of(rarer, edges), -1)

    inside = bins_of(counts, edges)[:, :, None] == np.arange(len(edges))  # [P, R, bins]
    paired = pair_bins[:, :, None] == np.arange(len(edges))
    times = draws(len(truth), resamples, rng)

    def mean(values: np.ndarray, member: np.ndarray) -> np.ndarray:
        sums = np.einsum("pr,prb->pb", values, member)
        return ratio(sums, member.sum(1), times)

    drawn = {
        "accuracy_member": mean(right[:, :, :-1].mean(2), paired),
        "accuracy_mean": mean(1.0 * right[:, :, -1], paired),
        "error_member": np.sqrt(mean((errors[:, :, :-1] ** 2).mean(2), inside)),
        "error_mean": np.sqrt(mean(errors[:, :, -1] ** 2, inside)),
        "sigma": mean(sigma, inside),
    }
    rows = []
    for place in range(len(edges)):
        of = counts[inside[:, :, place]]
        row = {"ensemble": name, "bin": place, "count_low": of.min(), "count_high": of.max()}
        row |= {"n": len(of), "pairs": int(paired[:, :, place].sum())}
        for quantity, values in drawn.items():
            ends = (quantity, f"{quantity}_low", f"{quantity}_high")
            row |= dict(zip(ends, interval(values[:, place]), strict=True))
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)
