"""Fig 10: how far the policies move from the reference over training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prudent.analysis.policies import at_one_target, kl_mismatch, missed
from prudent.analysis.statistics import variance
from prudent.analysis.wording import MINUS, name_of, number
from prudent.figures import curves
from prudent.figures.looks import INK
from prudent.figures.style import new_figure, off_target, styled
from prudent.policies.target_kl import KL_TOLERANCE
from prudent.tables import read_csv


def plot(
    training_logs: Sequence[Path], policies: Path, methods: Sequence[str], seeds: Sequence[int]
) -> Figure:
    """The KL to the reference in every policy's training log, and that of the final policies."""
    logs = curves.read(training_logs, methods, seeds)
    return draw_kl(logs, read_csv(policies, "policies"), methods)


@styled
def draw_kl(logs: pd.DataFrame, policies: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Fig 10: KL to the reference policy over training.

    Args:
        logs: method, seed, step, kl; one row per policy and step.
        policies: method, kl, kl_target, target; one row per policy.
    """
    ends = {
        method: policies.loc[policies["method"] == method, "kl"].to_numpy(float)
        for method in methods
    }
    means = {method: float(values.mean()) for method, values in ends.items()}
    note = (
        f"{curves.legend(logs, methods)} The numbers at the right are the final policies' KLs: "
        "exact for each token, on the test prompts, \N{PLUS-MINUS SIGN} 1 standard deviation over "
        "policies."
    )
    figure = new_figure(8.6, curves.height(methods), "How far the policies move", note)
    axes = figure.add_subplot()
    off = missed(policies)
    labels = {
        method: f"  {_mean_and_sd(ends[method])}{off_target(method, off)}" for method in methods
    }
    curves.draw_curves(axes, logs, methods, {"kl": "-"}, labels)
    axes.set_ylabel("KL to the reference (nats per response)")
    if len(methods) > 1:
        one = policies["kl_target"].iloc[0] if at_one_target(policies) else None
        axes.set_title(_match(means, one), color=INK)
    return figure


def _match(means: dict[str, float], target: float | None) -> str:
    """One line that says whether the methods' final KLs are close enough to be compared."""
    low, high = min(means, key=means.get), max(means, key=means.get)
    gap = kl_mismatch(means[low], means[high])
    if not np.isfinite(gap):
        return "Final KLs are not all positive: the methods cannot be matched by KL"
    limit = f"{KL_TOLERANCE:.0%}"
    if target is not None:
        return f"Final KLs are all within {limit} of {number(target)}, as asked: matched"
    apart = f"{100 * gap:.0f}% apart"
    if gap <= KL_TOLERANCE:
        most = "" if len(means) == 2 else "at most "
        return f"Final KLs are {most}{apart}: matched (within {limit})"
    if len(means) == 2:
        return f"Final KLs are {apart}: NOT matched (more than {limit})"
    names = f"{name_of(low)} and {name_of(high)}"
    return f"Final KLs are up to {apart} ({names}): NOT matched (more than {limit})"


def _mean_and_sd(values: np.ndarray) -> str:
    """Mean and standard deviation with the same number of decimals."""
    mean, sd = float(values.mean()), np.sqrt(variance(values))
    if not np.isfinite(sd):
        return number(mean)
    largest = max(abs(mean), sd)
    decimals = max(0, 2 - int(np.floor(np.log10(largest)))) if largest > 0 else 0
    return f"{mean:.{decimals}f} \N{PLUS-MINUS SIGN} {sd:.{decimals}f}".replace("-", MINUS)
