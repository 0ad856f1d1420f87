"""What the numbers say, in sentences made from the numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from prudent.analysis.policies import at_one_target
from prudent.analysis.wording import name_of as name
from prudent.analysis.wording import number
from prudent.policies.target_kl import KL_TOLERANCE

CLAIM = (
    "The claim under test comes from arXiv 2410.23726, for variance-aware PPO: policies that have "
    "moved as far from the reference as the baseline's (the same KL) vary less, and fewer of them "
    "are worse than the reference. Every method here is held against this claim."
)


class Finding(NamedTuple):
    """One method against the baseline: a headline and the sentences that carry it."""

    method: str
    status: str  # for, open, against
    headline: str
    sentences: list[str]


def interval(low: float, high: float, units: int, unit: str) -> str:
    """An interval in words, or why there is none: it needs draws of the unit."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return f"no interval: {units} {unit}{plural(units)}"
    return f"95% interval {number(low)} to {number(high)}"


def plural(count: int) -> str:
    return "" if count == 1 else "s"


def p_value(p: float) -> str:
    if not np.isfinite(p):
        return "not computable"
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def findings(summary: pd.DataFrame, tests: pd.DataFrame) -> list[Finding]:
    """What the numbers say about every method that is not the baseline.

    What the claim needs is fixed here, before any number is known: final KLs within 5% of each
    other or of the target that both have, a variance ratio, corrected for what is left of their
    difference, whose 95% interval lies above 1, and a paired permutation test below 5%, by Holm
    over the methods.

    Args:
        summary: ``statistics.summary_table``.
        tests: ``statistics.comparison_table``.
    """
    rows = summary.set_index("method")
    result = []
    for method, part in tests.groupby("method", sort=False):
        test = part.set_index("quantity")
        baseline = test["baseline"].iloc[0]
        one, base = rows.loc[method], rows.loc[baseline]
        kl, matched = _kl_sentence(method, baseline, one, base, test)
        spread, verdict = _variance_sentence(method, baseline, one, base, test)
        status, headline = _headline(verdict, matched, one["control"] == "yes")
        off = [key for key in (method, baseline) if rows.loc[key, "target"] == "missed"]
        if off:
            headline += f" (off the KL that was asked for: {' and '.join(map(name, off))})"
        sentences = [
            kl,
            spread,
            _noise_sentence(method, baseline, one, base),
            _worse_sentence(method, baseline, one, base, test),
            _score_sentence(method, baseline, one, base, test),
        ]
        result.append(Finding(method, status, headline, [s for s in sentences if s]))
    return result


def _headline(verdict: str, matched: bool | None, control: bool) -> tuple[str, str]:
    """Status and headline from the variance's verdict and whether the KLs are matched."""
    caveat = "" if matched else " (and the KLs are not matched)"
    if control and verdict == "lower":
        return "open", f"a control, and its variance is lower: not for what sigma knows{caveat}"
    if verdict == "lower" and matched:
        return "for", "lower variance at the same KL, as claimed: established here"
    if verdict == "lower":
        return "open", "lower variance, but not at the same KL: it may be a matter of step size"
    if verdict == "higher":
        return "against", f"higher variance, against the claim: established here{caveat}"
    if verdict == "seems lower":
        return "open", f"variance lower in these policies, but not established{caveat}"
    if verdict == "seems higher":
        return "open", f"variance not lower in these policies; nothing established{caveat}"
    return "open", "too few policies to compare variances"


def _kl_sentence(method, baseline, one, base, test) -> tuple[str, bool | None]:
    gap = test.loc["kl_mismatch", "estimate"]
    values = f"{number(one['kl'])} for {name(method)}, {number(base['kl'])} for {name(baseline)}"
    if not np.isfinite(gap):
        return f"Final KL to the reference: {values}; not both positive, so not comparable.", None
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
        f"({KL_TOLERANCE:.0%} of each other, or of one target, counts as matched).{missed}",
        matched,
    )


def _variance_sentence(method, baseline, one, base, test) -> tuple[str, str]:
    """The sentence on the variances, and what it comes to."""
    ratio = test.loc["variance_ratio", "estimate"]
    if np.isnan(ratio):
        return (
            f"Variance of the policies' scores: not comparable with {one['policies']:.0f} and "
            f"{base['policies']:.0f} policies.",
            "none",
        )
    unit, units, pairs = test.loc["variance_ratio", ["unit", "units", "pairs"]]
    p_permuted = test.loc["swap_test", "p_holm"]
    corrected = test.loc["corrected_ratio", ["estimate", "low", "high"]]
    known = np.isfinite(corrected["estimate"])
    if known:
        middle, low, high = corrected
    else:
        middle, (low, high) = ratio, test.loc["variance_ratio", ["low", "high"]]
    direction = "lower" if middle > 1 else "higher"
    if not np.isfinite(low):
        verdict, says = f"seems {direction}", "not established"
    elif low <= 1 <= high:
        verdict, says = f"seems {direction}", "not established, the interval includes 1"
    elif not p_permuted < 0.05:
        verdict = f"seems {direction}"
        says = (
            "not established, the interval excludes 1 but the permutation test does not confirm it"
        )
    else:
        verdict, says = direction, f"{direction} variance is established, the interval excludes 1"
    return (
        f"Variance of the policies' scores: {number(one['score_variance'])} for {name(method)}, "
        f"{number(base['score_variance'])} for {name(baseline)}; ratio {name(baseline)} over "
        f"{name(method)} {number(ratio)}{_at_one_kl(test, middle) if known else ''} "
        f"({interval(low, high, units, unit)}, "
        f"{units} {unit}{plural(units)}, {pairs} pairs of policies): {says} "
        f"(paired permutation test p {p_value(p_permuted)}, by Holm over the methods; "
        f"Pitman-Morgan p {p_value(test.loc['pitman_morgan', 'p'])}, "
        f"Brown-Forsythe p {p_value(test.loc['brown_forsythe', 'p'])}).",
        verdict,
    )


def _at_one_kl(test, ratio: float) -> str:
    """The ratio without what the KLs' difference makes of it."""
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
