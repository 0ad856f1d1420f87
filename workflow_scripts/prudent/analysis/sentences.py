"""Verdicts in sentences made from their numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from prudent.analysis.preregistration import Held, Preregistration
from prudent.analysis.verdict import (
    GIVEN,
    TRAINED,
    Comparison,
    Known,
    MethodVerdict,
    Ratio,
    Verdicts,
)
from prudent.analysis.wording import name_of as name
from prudent.analysis.wording import number, p_value, plural

HEADLINES = {
    "beyond its controls": "reduces variance at the same KL, beyond its controls",
    "bound": "does not reduce variance by a factor that matters",
    "no more than a control": "no factor that matters beyond its controls",
    "too few draws": "undecided: too few draws",
    "another KL": "undecided: not at the same KL",
    "no control": "undecided: variance is lower, but no control stands beside it",
    "controls undecided": "undecided: variance is lower, whether beyond its controls is open",
    "not confirmed": "undecided: the permutation test does not confirm the interval",
    "open": "undecided",
}


def verdicts(
    stated: Preregistration,
    found: Sequence[Mapping[str, Comparison]],
    rule_stated: str,
) -> Verdicts:
    """All methods' verdicts, from their comparisons in order."""
    methods = []
    for held in stated.methods:
        own = [part[held.name] for part in found if held.name in part]
        if own:
            said = sentence(held, own, stated)
            methods.append(
                MethodVerdict(name=held.name, word=own[0].word, comparisons=own, sentence=said)
            )
    return Verdicts(
        baseline=stated.baseline,
        rule_stated=rule_stated,
        rule=stated.rule,
        methods=methods,
    )


def headline(comparison: Comparison) -> str:
    """A verdict in a few words, with the policies that it was reached on."""
    return f"{HEADLINES[comparison.reason]} ({comparison.policies})"


def sentence(held: Held, comparisons: Sequence[Comparison], stated: Preregistration) -> str:
    """The sentences about a method: the first comparison in full, then what the others add."""
    first, *others = comparisons
    said = [_first(held, first, stated), _cost(first, stated), _tail(first, stated)]
    said += [_other(first, other) for other in others]
    return " ".join(part for part in said if part)


def _first(held: Held, one: Comparison, stated: Preregistration) -> str:
    """The sentence that says whether the variance is lower."""
    who, baseline, place = name(held.name), name(stated.baseline), _place(one)
    controls = "".join(
        f"; to {name(control)} {interval(found, '')}" for control, found in one.controls.items()
    )
    numbers = f"ratio to {baseline} {interval(one.ratio)}{controls}"
    test = f"p {p_value(one.ratio.p)}"
    match one.reason:
        case "beyond its controls":
            return f"{place}, {who} reduces the variance: {numbers}; {test}."
        case "bound":
            low, high = one.ratio.low or 0.0, one.ratio.high or 0.0
            says = f"does not reduce the variance {stated.margin:g} times or more"
            if high < 1:
                says = "raises the variance"
            elif low > 1:
                says = f"reduces the variance, but by less than {stated.margin:g} times"
            return f"{place}, {who} {says}: {numbers}."
        case "no more than a control":
            control = str(one.control)
            than = f"its control {name(control)} does"
            says = f"does not reduce the variance more than {than}"
            if (one.controls[control].low or 0.0) > 1:
                says = f"reduces the variance more than {than}, but by less than "
                says += f"{stated.margin:g} times"
            return f"{place}, {who} {says}: {numbers}."
        case "another KL":
            return (
                f"{place}, it is undecided whether {who} reduces the variance, since its KL is "
                f"{_number(one.kl)} and that of {baseline} {_number(one.baseline_kl)}: {numbers}. "
                "The same KL would decide it."
            )
        case "too few draws":
            return (
                f"{place}, it is undecided whether {who} reduces the variance: fewer than "
                f"{one.draws_to_decide} draws cannot show a difference."
            )
        case "no control":
            needed = f": {' or '.join(map(name, held.missing))}" if held.missing else ""
            return (
                f"{place}, {who} has the lower variance, {numbers}; {test}. No control stands "
                f"beside it, which would decide what that comes from{needed}."
            )
        case "controls undecided":
            return (
                f"{place}, {who} has a lower variance than {baseline}; whether it is lower than "
                f"that of its control {name(str(one.control))} is undecided: {numbers}."
                f"{_needed(one)}"
            )
        case "not confirmed":
            return (
                f"{place}, it is undecided whether {who} reduces the variance: {numbers}, which "
                f"the permutation test does not confirm ({test})."
            )
        case _:
            return (
                f"{place}, it is undecided whether {who} reduces the variance: {numbers}."
                f"{_needed(one)}"
            )


def _other(first: Comparison, other: Comparison) -> str:
    """What another comparison adds to the first."""
    place, found = _place(other, full=False), interval(other.ratio)
    if other.reason == "another KL":
        return (
            f"{place}, nothing is decided: its KL is {_number(other.kl)}, that of the baseline "
            f"{_number(other.baseline_kl)}."
        )
    if other.reason == "too few draws":
        return f"{place}, nothing is decided: there are too few."
    if other.policies == TRAINED:
        return f"The trained policies ({_draws(other)}) {_agreement(first, other)}: {found}."
    says = {
        "beyond its controls": "it is reduced, too",
        "bound": "it is not reduced by a factor that matters",
        "no more than a control": f"it is not reduced more than by {name(other.control or '')}, or "
        "not by a factor that matters",
        "no control": "the variance is lower, too",
        "controls undecided": "it is undecided whether it is lower than its controls'",
        "not confirmed": "the permutation test confirms no difference",
        "open": "it is undecided",
    }[other.reason]
    return f"{place}, {says}: {found}.{_needed(other)}"


def _agreement(first: Comparison, trained: Comparison) -> str:
    """Whether the trained policies' ratio agrees with that of the optimal ones."""
    ratio, optimum = trained.ratio, first.ratio.estimate
    if None in (ratio.low, ratio.high, optimum):
        return "say nothing of it"
    if not ratio.low <= optimum <= ratio.high:
        return "disagree"
    if ratio.low <= 1 <= ratio.high:
        return "leave it open"
    return "agree"


def _cost(one: Comparison, stated: Preregistration) -> str:
    """The cost, or gain, in the mean score."""
    found = one.difference
    if found.estimate is None:
        return ""
    what = "mean score" if one.policies == TRAINED else "mean gain"
    if found.low is None or found.high is None:
        return f"Its {what} differs by {number(found.estimate)}."
    bounds = f"{number(found.low)} to {number(found.high)}"
    if found.low > 0:
        return f"Its {what} is {number(found.estimate)} higher ({bounds})."
    if found.high < 0:
        return f"Its {what} is {number(-found.estimate)} lower ({bounds})."
    return f"Its {what} is not told apart from that of {name(stated.baseline)} ({bounds})."


def _tail(one: Comparison, stated: Preregistration) -> str:
    """Dominance, where there is one."""
    for order, found in (("first", one.first_order), ("second", one.second_order)):
        if found.dominates:
            return (
                f"It dominates {name(stated.baseline)} stochastically in {order} order "
                f"(p {p_value(found.advantage_p)})."
            )
    return ""


def _place(one: Comparison, full: bool = True) -> str:
    """The policies that a comparison is made on, to begin a sentence with."""
    if one.policies == TRAINED:
        place, count = "Among trained policies", _draws(one)
    else:
        place = "Given the backbone" if one.policies == GIVEN else "With all drawn anew"
        count = f"optimal policies of {_draws(one)}" if full else _draws(one)
    kl = f", KL {number(one.kl)}" if full and one.kl is not None else ""
    return f"{place} ({count}{kl})"


def _draws(one: Comparison) -> str:
    return f"{one.draws} {one.unit}{plural(one.draws)}"


def _needed(one: Comparison) -> str:
    count = one.draws_to_decide
    if count is None:
        return ""
    rounded = count if count < 100 else round(count, 1 - math.floor(math.log10(count)))
    return f" About {rounded} draws would decide it."


def interval(found: Ratio, called: str = "95% interval ") -> str:
    """A ratio with its interval."""
    if found.estimate is None:
        return "not known"
    if found.low is None or found.high is None:
        return f"{number(found.estimate)} (no interval)"
    return f"{number(found.estimate)} ({called}{number(found.low)} to {number(found.high)})"


def _number(value: Known) -> str:
    return number(math.nan if value is None else value)
