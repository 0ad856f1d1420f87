"""The results of trained policies, in sentences made from the numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from prudent.analysis.policies import at_one_target
from prudent.analysis.wording import name_of as name
from prudent.analysis.wording import number, p_value, plural
from prudent.policies.target_kl import KL_TOLERANCE


def interval(low: float, high: float, units: int, unit: str) -> str:
    """An interval in words, or why there is none: it needs draws of the unit."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return f"no interval: {units} {unit}{plural(units)}"
    return f"95% interval {number(low)} to {number(high)}"


def findings(summary: pd.DataFrame, tests: pd.DataFrame) -> dict[str, list[str]]:
    """Sentences about every trained method except the baseline, controls included.

    Args:
        summary: ``policies.summary_table``.
        tests: ``policies.comparison_table``.
    """
    rows = summary.set_index("method")
    result = {}
    for method, part in tests.groupby("method", sort=False):
        test = part.set_index("quantity")
        baseline = test["baseline"].iloc[0]
        one, base = rows.loc[method], rows.loc[baseline]
        sentences = [
            _kl_sentence(method, baseline, one, base, test),
            _variance_sentence(method, baseline, one, base, test),
            _noise_sentence(method, baseline, one, base),
            _worse_sentence(method, baseline, one, base, test),
            _score_sentence(method, baseline, one, base, test),
        ]
        result[str(method)] = [sentence for sentence in sentences if sentence]
    return result


def _kl_sentence(method, baseline, one, base, test) -> str:
    gap = test.loc["kl_mismatch", "estimate"]
    values = f"{number(one['kl'])} for {name(method)}, {number(base['kl'])} for {name(baseline)}"
    if not np.isfinite(gap):
        return f"Final KL to the reference: {values}; not both positive, so not comparable."
    asked = [
        f"{name(key)} was to end at {number(row['kl_target'])} and does not"
        for key, row in ((method, one), (baseline, base))
        if row["target"] == "missed"
    ]
    missed = f" {'; '.join(asked)}." if asked else ""
    matched = bool(gap <= KL_TOLERANCE or at_one_target(pd.DataFrame([one, base])))
    says = "matched" if matched else "NOT matched"
    return (
        f"Final KL to the reference: {values}, {100 * gap:.1f}% apart: {says} "
        f"({KL_TOLERANCE:.0%} of each other, or of one target, counts as matched).{missed}"
    )


def _variance_sentence(method, baseline, one, base, test) -> str:
    ratio = test.loc["variance_ratio", "estimate"]
    if np.isnan(ratio):
        return (
            f"Variance of the policies' scores: not comparable with {one['policies']:.0f} and "
            f"{base['policies']:.0f} policies."
        )
    unit, units, pairs = test.loc["variance_ratio", ["unit", "units", "pairs"]]
    p_permuted = test.loc["swap_test", "p_holm"]
    corrected = test.loc["corrected_ratio", ["estimate", "low", "high"]]
    known = np.isfinite(corrected["estimate"])
    middle, low, high = (
        corrected if known else test.loc["variance_ratio", ["estimate", "low", "high"]]
    )
    if not np.isfinite(low):
        says = "not established"
    elif low <= 1 <= high:
        says = "not established, the interval includes 1"
    elif not p_permuted < 0.05:
        says = (
            "not established, the interval excludes 1 but the permutation test does not confirm it"
        )
    else:
        says = f"{'lower' if middle > 1 else 'higher'} for {name(method)}, the interval excludes 1"
    return (
        f"Variance of the policies' scores: {number(one['score_variance'])} for {name(method)}, "
        f"{number(base['score_variance'])} for {name(baseline)}; ratio {name(baseline)} over "
        f"{name(method)} {number(ratio)}{_at_one_kl(test, middle) if known else ''} "
        f"({interval(low, high, units, unit)}, "
        f"{units} {unit}{plural(units)}, {pairs} pairs of policies): {says} "
        f"(paired permutation test p {p_value(p_permuted)}, by Holm over the methods; "
        f"Pitman-Morgan p {p_value(test.loc['pitman_morgan', 'p'])}, "
        f"Brown-Forsythe p {p_value(test.loc['brown_forsythe', 'p'])})."
    )


def _at_one_kl(test, ratio: float) -> str:
    """The ratio without the effect of the KLs' difference."""
    elasticity = number(test.loc["elasticity", "estimate"], 2)
    return f", {number(ratio)} at one KL (the optima's variance grows with KL^{elasticity})"


def _noise_sentence(method, baseline, one, base) -> str:
    shares = [row["noise_variance"] / row["score_variance"] for row in (one, base)]
    if not np.isfinite(shares).all():
        return ""
    first, second = (min(share, 1) for share in shares)
    return (
        f"The finite number of test prompts makes up {first:.0%} of the variance of {name(method)} "
        f"and {second:.0%} of that of {name(baseline)}; it pulls the ratio towards 1."
    )


def _worse_sentence(method, baseline, one, base, test) -> str:
    def share(row) -> str:
        return (
            f"{row['worse']:.0f} of {row['policies']:.0f} "
            f"({row['worse_low']:.0%} to {row['worse_high']:.0%})"
        )

    p = test.loc["worse_difference", "p"]
    difference = test.loc["worse_difference", "estimate"]
    if difference == 0:
        says = "no difference"
    else:
        direction = "fewer" if difference < 0 else "more"
        established = p < 0.05
        against = ", against the claim" if direction == "more" and established else ""
        says = f"{direction} for {name(method)}, " + (
            f"established{against}" if established else "not established"
        )
        says += f" (McNemar p {p_value(p)})"
    return (
        f"Policies worse than the reference (Wilson intervals): {share(one)} for {name(method)}, "
        f"{share(base)} for {name(baseline)}: {says}."
    )


def _score_sentence(method, baseline, one, base, test) -> str:
    estimate, low, high = test.loc["score_difference", ["estimate", "low", "high"]]
    unit, units = test.loc["score_difference", ["unit", "units"]]
    if low > 0:
        says = "higher, established"
    elif high < 0:
        says = "lower, established"
    else:
        says = "a difference is not established"
    return (
        f"Mean score: {number(one['score'])} for {name(method)}, {number(base['score'])} for "
        f"{name(baseline)}, {number(one['reference_score'])} for the reference; difference between "
        f"the methods {number(estimate)} ({interval(low, high, units, unit)}): {says}."
    )
