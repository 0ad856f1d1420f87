"""The verdict on each method: it reduces variance, it does not, or it is undecided.

The rule is stated in ``preregistration``, before any policy is trained. A verdict is reached on the
optimal policies of each level and on the trained policies; the first that exists stands for the
method. ``sentences.verdicts`` makes the result, a ``Verdicts``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from prudent.analysis.policies import at_one_target, cluster_ids, kl_mismatch
from prudent.analysis.preregistration import SIZE, Preregistration
from prudent.analysis.statistics import (
    Interval,
    dominance,
    holm,
    permutation_test,
    share_interval,
    t_interval,
    tail_mean,
    variance,
    variance_ratio,
)
from prudent.checkpoint_files import read_json
from prudent.errors import InputError
from prudent.settings import Amount, Proportion, Settings, read

GIVEN, ANEW, TRAINED = "given the backbone", "all drawn anew", "trained policies"
"""The kinds of policies that verdicts use; the first two are levels of ``exact.evaluate``.
Independent members are left out: their policies share members, so intervals are too short."""
ROUNDING = 1e-9
LEAST_DRAWS = 6
"""With fewer, no two-sided permutation test can have p < 0.05."""

Known = float | None
"""A number, or None where the data do not give one."""
Word = Literal["reduces", "does not", "undecided"]
Reason = Literal[
    "beyond its controls",
    "bound",
    "no more than a control",
    "too few draws",
    "another KL",
    "no control",
    "controls undecided",
    "not confirmed",
    "open",
]


class Ratio(Settings):
    """A ratio of the variances of two methods' scores, with the method's own as denominator."""

    estimate: Known
    """Above 1 where the method varies less."""
    low: Known
    """Lower end of the 95% interval, by the jackknife over draws."""
    high: Known
    p: Known
    """p of the paired permutation test; against the baseline, Holm-adjusted over the methods."""


class Difference(Settings):
    """A method's mean score less the baseline's."""

    estimate: Known
    low: Known
    """Lower end of the 95% interval, by Student's t over draws."""
    high: Known


class Risk(Settings):
    """The scores of a method's policies; for optimal policies, gains over the reference policy."""

    mean: Known
    sd: Known
    """Standard deviation over policies (ddof 1)."""
    worse: Proportion
    """The share of policies that score worse than the reference policy."""
    worse_low: Proportion
    """Lower end of Wilson's 95% interval over draws."""
    worse_high: Proportion
    quantile05: Known
    """The 5% quantile."""
    cvar10: Known
    """The mean of the lowest tenth."""


class Order(Settings):
    """Stochastic dominance over the baseline, by ``statistics.dominance``."""

    advantage: Known
    """How far the method's distribution is ahead, at most."""
    advantage_p: Known
    """p of the null that the baseline dominates or both are equal; not adjusted for the methods."""
    shortfall: Known
    """How far it is behind, at most."""
    shortfall_p: Known

    @property
    def dominates(self) -> bool:
        """Whether the method is significantly ahead, and nowhere behind in this sample."""
        known = self.advantage_p is not None and self.shortfall is not None
        return known and self.advantage_p < SIZE and self.shortfall <= ROUNDING * self.advantage


class Comparison(Settings):
    """A method against the baseline, among optimal policies of one level or trained ones."""

    policies: Literal["given the backbone", "all drawn anew", "trained policies"]
    word: Word
    reason: Reason
    """Why the verdict is what it is."""
    control: str | None
    """The control that the reason is about."""
    draws: Amount
    """Independent draws of the rewards for which both methods have policies."""
    unit: Literal["member", "ensemble"]
    """The unit of a draw."""
    draws_to_decide: Amount | None
    """Estimated number of draws that would decide an undecided verdict, if the ratio stays."""
    kl: Known
    """KL of the method's policies."""
    baseline_kl: Known
    ratio: Ratio
    """Baseline over method; brought to one KL if the trained policies' elasticity is known."""
    controls: dict[str, Ratio]
    """Control over method, for the controls that have policies."""
    difference: Difference
    risk: Risk
    baseline_risk: Risk
    first_order: Order
    second_order: Order


class MethodVerdict(Settings):
    """The findings about one method."""

    name: str
    word: Word
    """The verdict of the first comparison."""
    comparisons: list[Comparison]
    sentence: str
    """The conclusion, in one paragraph."""


class Verdicts(Settings):
    """The content of ``verdict.json``."""

    baseline: str
    rule_stated: Literal["before the policies", "after the policies"]
    """Whether the rule is older than all policies; it may be changed, but not unnoticed."""
    rule: list[str]
    methods: list[MethodVerdict]


def read_verdicts(path: Path) -> Verdicts:
    """The verdicts of a file; ``InputError`` where it does not hold any."""
    try:
        return read(Verdicts, read_json(path))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


# --- What is found --------------------------------------------------------------------------------


class Scores:
    """The scores of all methods' policies of one kind, paired by a key.

    Args:
        table: method, key (a replicate or a seed), unit, member and ensemble (the draw of the
            rewards, by either unit), score, kl.
        worse: the score below which a policy is worse than the reference policy.
        elasticity: d log variance / d log KL, to bring ratios to one KL.
        one_target: methods whose policies are all at one target KL.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        worse: float = 0.0,
        elasticity: float = 0.0,
        one_target: Sequence[str] = (),
    ) -> None:
        self.of = {name: part.set_index("key") for name, part in table.groupby("method")}
        self.worse, self.elasticity, self.one_target = worse, elasticity, set(one_target)

    def pair(self, first: str, second: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The policies that both methods have, in the same order."""
        both = self.of[first], self.of[second]
        keys = both[0].index.intersection(both[1].index)
        unit = self.unit(first, second)
        one, two = (part.loc[keys].assign(draw=part.loc[keys, unit]) for part in both)
        return one, two

    def unit(self, *methods: str) -> Literal["member", "ensemble"]:
        """The unit by which the methods' policies differ; "ensemble" if it is that of any."""
        units = {self.of[method]["unit"].iloc[0] for method in methods}
        return "ensemble" if "ensemble" in units else "member"

    def ratio(self, first: str, second: str, permutations: int, words: str, seed: int) -> Ratio:
        """The ratio of variances of two methods, first over second."""
        one, two = self.pair(first, second)
        a, b, draws = one["score"].to_numpy(), two["score"].to_numpy(), one["draw"].to_numpy()
        kls = one["kl"].mean(), two["kl"].mean()
        factor = (kls[1] / kls[0]) ** self.elasticity if min(kls) > 0 else 1.0
        found = Interval(*(factor * bound for bound in variance_ratio(a, b, draws)))
        rng = np.random.default_rng([seed, *words.encode()])
        p = permutation_test(a, b, draws, permutations, rng)
        return Ratio(**_known(found), p=_or_none(p))

    def same_kl(self, first: str, second: str, tolerance: float) -> bool:
        """Whether two methods' policies are equally far from the reference policy."""
        if {first, second} <= self.one_target:
            return True
        one, two = self.pair(first, second)
        return bool(kl_mismatch(one["kl"].mean(), two["kl"].mean()) <= tolerance)

    def risk(self, method: str) -> Risk:
        """Mean, spread and tail of a method's policies."""
        part = self.of[method]
        scores = part["score"].to_numpy()
        share = share_interval(scores < self.worse, part[self.unit(method)].to_numpy())
        return Risk(
            mean=float(scores.mean()),
            sd=_or_none(math.sqrt(variance(scores))),
            worse=share.estimate,
            worse_low=share.low,
            worse_high=share.high,
            quantile05=float(np.quantile(scores, 0.05)),
            cvar10=tail_mean(scores),
        )

    def order(self, first: str, second: str, order: int, permutations: int, seed: int) -> Order:
        """Whether the second method dominates the first."""
        one, two = self.pair(first, second)
        found = dominance(
            one["score"],
            two["score"],
            one["draw"],
            order,
            permutations,
            np.random.default_rng([seed, order, *second.encode()]),
        )
        return Order(**{name: _or_none(value) for name, value in found._asdict().items()})


def of_optima(policies: pd.DataFrame, level: str, kl: float) -> Scores | None:
    """The optimal policies of a level at a KL, from a table of ``exact_policies``, or None."""
    part = policies[(policies["level"] == level) & (policies["kl_target"] == kl)]
    part = part.dropna(subset="gain")
    if part.empty:
        return None
    table = part.rename(columns={"replicate": "key", "gain": "score"})
    return Scores(table.assign(unit="ensemble", member=table["key"], ensemble=table["key"]))


def of_trained(policies: pd.DataFrame, reference: float, elasticity: float) -> Scores:
    """The trained policies, from a table ``policies``."""
    ids = {unit: cluster_ids(policies, unit) for unit in ("member", "ensemble")}
    table = policies.rename(columns={"seed": "key"}).assign(**ids)
    reached = policies[policies["target"] == "reached"]
    one_target = list(dict.fromkeys(reached["method"])) if at_one_target(reached) else []
    elasticity = elasticity if math.isfinite(elasticity) else 0.0
    return Scores(table, reference, elasticity, one_target)


def comparisons(
    scores: Scores,
    policies: str,
    stated: Preregistration,
    seed: int,
) -> dict[str, Comparison]:
    """Compares each method that has policies of a kind with the baseline.

    Args:
        policies: their kind, ``GIVEN``, ``ANEW`` or ``TRAINED``.
        seed: of the tests.
    """
    if stated.baseline not in scores.of:
        return {}
    held = [method for method in stated.methods if method.name in scores.of]
    first = (stated.baseline,)
    ratios = {
        method.name: scores.ratio(*first, method.name, stated.permutations, method.name, seed)
        for method in held
    }
    adjusted = holm([math.nan if r.p is None else r.p for r in ratios.values()])
    found = {}
    for method, p in zip(held, adjusted, strict=True):
        name = method.name
        ratio = ratios[name].replace(p=_or_none(p))
        controls = {
            control: scores.ratio(
                control, name, stated.permutations, f"{name} over {control}", seed
            )
            for control in method.controls
            if control != stated.baseline and control in scores.of
        }
        one, two = scores.pair(stated.baseline, name)
        draws = int(one["draw"].nunique())
        beyond = stated.baseline in method.controls or bool(controls)
        same = [
            scores.same_kl(other, name, stated.kl_tolerance)
            for other in (stated.baseline, *controls)
        ]
        word, reason, control, needed = decide(
            ratio, controls, beyond, all(same), draws, stated.margin
        )
        difference = t_interval(two["score"] - one["score"].to_numpy(), one["draw"])
        orders = [scores.order(*first, name, order, stated.permutations, seed) for order in (1, 2)]
        found[name] = Comparison(
            policies=policies,
            word=word,
            reason=reason,
            control=control,
            draws=draws,
            unit=scores.unit(stated.baseline, name),
            draws_to_decide=needed,
            kl=_or_none(two["kl"].mean()),
            baseline_kl=_or_none(one["kl"].mean()),
            ratio=ratio,
            controls=controls,
            difference=Difference(**_known(difference)),
            risk=scores.risk(name),
            baseline_risk=scores.risk(stated.baseline),
            first_order=orders[0],
            second_order=orders[1],
        )
    return found


def decide(
    ratio: Ratio,
    controls: Mapping[str, Ratio],
    beyond: bool,
    same_kl: bool,
    draws: int,
    margin: float,
) -> tuple[Word, Reason, str | None, int | None]:
    """The verdict by ``preregistration.rule_in_words``: word, reason, control, draws to decide.

    Args:
        ratio: to the baseline, with the adjusted p.
        controls: the ratio to each control.
        beyond: whether there is a control; the baseline may be the only one.
    """
    if not same_kl:
        return "undecided", "another KL", None, None
    if ratio.low is None or ratio.high is None or draws < LEAST_DRAWS:
        return "undecided", "too few draws", None, LEAST_DRAWS
    if ratio.high < margin:
        return "does not", "bound", None, None
    for name, held in controls.items():
        if held.high is not None and held.high < margin:
            return "does not", "no more than a control", name, None
    if not ratio.low > 1:
        return "undecided", "open", None, draws_to_decide(ratio, draws, margin)
    if ratio.p is None or not ratio.p < SIZE:
        return "undecided", "not confirmed", None, None
    if not beyond:
        return "undecided", "no control", None, None
    for name, held in controls.items():
        if held.low is None or not held.low > 1:
            return "undecided", "controls undecided", name, draws_to_decide(held, draws, margin)
        if held.p is None or not held.p < SIZE:
            return "undecided", "controls undecided", name, None
    return "reduces", "beyond its controls", None, None


def draws_to_decide(ratio: Ratio, draws: int, margin: float) -> int | None:
    """Estimates how many draws put the interval of a ratio above 1 or below the margin.

    It assumes that the ratio stays and that the interval's width falls with the root of the draws.
    """
    if None in (ratio.estimate, ratio.low, ratio.high) or not 0 < ratio.low < ratio.high:
        return None
    centre = math.log(ratio.estimate)
    half = (math.log(ratio.high) - math.log(ratio.low)) / 2
    distance = max(centre, math.log(margin) - centre)
    return max(draws + 1, math.ceil(draws * (half / distance) ** 2))


def _known(interval: Interval) -> dict[str, Known]:
    return {name: _or_none(value) for name, value in interval._asdict().items()}


def _or_none(value: float) -> Known:
    return float(value) if math.isfinite(value) else None
