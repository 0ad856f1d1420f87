"""How good, and how knowing, the rewards are on the reference policy's own responses.

Pure functions on arrays: P prompts, R responses of each, K heads.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats


def within_prompt_correlation(rewards: np.ndarray, truth: np.ndarray) -> float:
    """Mean over prompts of Pearson's correlation between rewards [P, R] and truth [P, R].

    Prompts whose rewards or truth do not vary are left out; NaN if there are no others.
    """
    rewards = rewards - rewards.mean(1, keepdims=True)
    truth = truth - truth.mean(1, keepdims=True)
    scale = np.sqrt((rewards**2).sum(1) * (truth**2).sum(1))
    known = scale > 1e-12
    if not known.any():
        return float("nan")
    return float(((rewards * truth).sum(1)[known] / scale[known]).mean())


def true_errors(rewards: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The heads' mean |error| [n]. Rewards [n, K] are of free scale and offset, so a head's errors
    are the residuals of its least-squares line on the truth [n]."""
    design = np.stack([np.ones_like(truth), truth], axis=1)
    coefficients, *_ = np.linalg.lstsq(design, rewards, rcond=None)
    return np.abs(rewards - design @ coefficients).mean(1)


def diagnose(rewards: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """What is known about one ensemble's rewards [P, R, K] against the truth [P, R]."""
    heads = rewards.shape[2]
    flat, true = rewards.reshape(-1, heads), truth.reshape(-1)
    sigma = flat.std(1, ddof=1) if heads > 1 else np.full(len(flat), np.nan)
    low, median, high = np.quantile(sigma, [0.1, 0.5, 0.9])
    mean = flat.mean(1)
    return {
        "sd of the true reward within prompts": float(truth.std(1, ddof=1).mean()),
        "within-prompt correlation with the truth: one head": float(
            np.mean([within_prompt_correlation(rewards[:, :, k], truth) for k in range(heads)])
        ),
        "within-prompt correlation with the truth: ensemble mean": within_prompt_correlation(
            rewards.mean(2), truth
        ),
        "sigma: median": float(median),
        "sigma: 90th over 10th percentile": float(high / low),
        "sigma and the true error: rank correlation": float(
            stats.spearmanr(sigma, true_errors(flat, true)).statistic
        ),
        "sigma and |mean reward|: rank correlation": float(
            stats.spearmanr(sigma, np.abs(mean)).statistic
        ),
    }


def pair_accuracy(
    difference: np.ndarray, base: np.ndarray, ensembles: list[np.ndarray]
) -> dict[str, float]:
    """Share of pairs that the base model, one head, and the ensembles' means get right.

    ``difference`` [n, d]: features of the chosen less those of the rejected responses; ``base``
    [1, d] and ``ensembles`` [K, d]: weights of the heads on them.
    """
    margins = np.stack([difference @ weight.T for weight in ensembles])
    return {
        "accuracy on unseen pairs: base model": float((difference @ base.T > 0).mean()),
        "accuracy on unseen pairs: one head": float((margins > 0).mean()),
        "accuracy on unseen pairs: ensemble mean": float((margins.mean(-1) > 0).mean()),
    }


# What the embedded world promises (quantity: lowest, highest): rich enough to flatter no method.
WORLD_TARGETS = {
    "grammatical responses": (0.8, 1.0),
    "accuracy on unseen pairs: base model": (0.6, 0.85),
    "within-prompt correlation with the truth: one head": (0.3, 0.8),
    "sigma: 90th over 10th percentile": (2.0, np.inf),
    "sigma and the true error: rank correlation": (0.0, 0.8),
}


def diagnosis_table(
    accuracies: dict[str, float],
    rewards: list[np.ndarray],
    verdict: dict[str, np.ndarray],
    responses: int,
    targets: bool,
) -> pd.DataFrame:
    """Rows quantity, value, low, high; with targets, the embedded world's promised ranges.

    ``rewards`` [P R, K] of each ensemble and the judge's ``verdict`` [P R] are of ``responses`` R
    responses to each prompt, prompt by prompt; the ensembles' numbers are averaged.
    """
    truth = verdict["score"].reshape(-1, responses)
    found = [diagnose(table.reshape(*truth.shape, -1), truth) for table in rewards]
    values = accuracies | {
        name: float(np.mean([numbers[name] for numbers in found])) for name in found[0]
    }
    if "grammatical" in verdict:
        values = {"grammatical responses": float(verdict["grammatical"].mean())} | values
    ranges = WORLD_TARGETS if targets else {}
    rows = [(name, value, *ranges.get(name, (np.nan, np.nan))) for name, value in values.items()]
    return pd.DataFrame(rows, columns=["quantity", "value", "low", "high"])
