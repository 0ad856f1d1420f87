"""What an audit's numbers say, in sentences that follow from their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from prudent.analysis.wording import number, plural
from prudent.audit import measures
from prudent.figures.page_tables import between, decimals, percent

Rows = Mapping[str, Any]
"""The rows of all pairs, by quantity."""

ENOUGH = 20  # prompts: the bootstrap's intervals of fewer are too short to claim anything from


def summary(of: Rows, members: int, prompts: int) -> list[str]:
    """A sentence or two each on accuracy, calibration, the spread and the members.

    Args:
        of: the audit's rows of all pairs.
        prompts: the number of different ones.
    """
    if prompts < ENOUGH:
        return [
            f"With {prompts} prompt{plural(prompts)} nothing is said here: at least {ENOUGH} are "
            "needed for an interval that can be trusted. The numbers are in the tables."
        ]
    said = [_accuracy(of, members) + _choices(of), _calibration(of)]
    if members == 1:
        return [*said, "There is one member: nothing is known of disagreement."]
    return [*said, _spread(of) + _explained(of), _members(of, members)]


def _accuracy(of: Rows, members: int) -> str:
    mean, longer, beyond = (
        of[name] for name in (measures.ACCURACY_MEAN, measures.LONGER, measures.BEYOND_LONGER)
    )
    who = "The scores prefer" if members == 1 else f"The mean of the {members} members prefers"
    says = {
        "above": "The scores are right more often",
        "below": "The scores are right less often",
        "open": "It is not shown that the scores are right more often",
    }[_side(beyond)]
    text = (
        f"{who} the chosen response in {_shares(mean, '95% interval ')} of {mean.n} "
        f"pair{plural(mean.n)}. To always prefer the longer response is right in "
        f"{_shares(longer)}. {says}: the difference is {_points(beyond)} percentage points."
    )
    matched = of[measures.ACCURACY_MATCHED]
    if matched.n:
        open_ = "" if _side(matched, 0.5) != "open" else ", not told apart from a coin flip"
        text += (
            f" At matched length ({matched.n} pair{plural(matched.n)}) they are right in "
            f"{_shares(matched)}{open_}."
        )
    return text


def _choices(of: Rows) -> str:
    """Of prompts with lists of responses."""
    names = {
        measures.BEST_OF_N: "The response with the highest score of all is a chosen one in",
        measures.BY_SUBSETS: "RewardBench 2's score, the mean of the subsets, is",
    }
    known = ((of[quantity], text) for quantity, text in names.items() if quantity in of)
    return "".join(f" {text} {_shares(row)}." for row, text in known)


def _calibration(of: Rows) -> str:
    temperature, error = of[measures.TEMPERATURE].value, of[measures.ECE]
    if math.isinf(temperature):
        return (
            "On the half of the prompts that calibration is fitted on, the scores point the wrong "
            "way: no temperature makes their confidence better than a coin flip."
        )
    alone = between(error.noise_low, error.noise_high, decimals)
    says = f"no more than chance gives a calibrated model ({alone})"
    if error.value > error.noise_high:
        says = f"more than chance gives a calibrated model ({alone}): they are not calibrated"
    return (
        f"After division by one temperature ({number(temperature)}), the scores' confidence is off "
        f"by {_value(error, '95% interval ')} on average, {says}."
    )


def _spread(of: Rows) -> str:
    """What the spread knows of errors, beside a random order, and what it adds to |margin|.

    What it adds is told from the order by |margin| / spread, which was fixed before any data.
    """
    chance = of[measures.LESS.format(measures.LOW_SPREAD, measures.RANDOM)]
    beyond = of[measures.LESS.format(measures.LARGE_RATIO, measures.LARGE_MARGIN)]
    first = {
        "below": "The spread knows something of the errors, and pairs that the members agree on "
        "are wrong less often",
        "above": "The spread points the wrong way, and pairs that the members agree on are wrong "
        "more often",
        "open": "It is not shown that the spread knows anything of the errors",
    }[_side(chance)]
    second = {
        "below": "Beyond |margin| it knows something, too: |margin| / spread finds errors better "
        "than |margin| alone",
        "above": "Beyond |margin| it is no help: |margin| / spread finds errors worse than "
        "|margin| alone",
        "open": "That it knows anything beyond |margin| is not shown: |margin| / spread is not "
        "told apart from |margin| alone",
    }[_side(beyond)]
    return (
        f"{first}: the area under the risk-coverage curve less that of a random order is "
        f"{_value(chance)}, where below 0 is better. {second}, with a difference of areas of "
        f"{_value(beyond)}."
    )


def _explained(of: Rows) -> str:
    """Where the spread comes from, if that is known."""
    sources = {
        measures.BY_NORM: "the norm of the features",
        measures.BY_UNTRAINED: "the spread before training",
    }
    parts = [
        f"{name} explains {_shares(of[quantity])}"
        for quantity, name in sources.items()
        if quantity in of and math.isfinite(of[quantity].value)
    ]
    return f" Of the spread's ranks, {' and '.join(parts)}." if parts else ""


def _members(of: Rows, members: int) -> str:
    effective, shared = of[measures.EFFECTIVE], of[measures.SHARED]
    one, all_ = (of[measures.TEAM.format(size)] for size in (1, members))
    gain = (
        f"One member alone is right in {percent(one.value)} of the pairs, the mean of all in "
        f"{percent(all_.value)} (members at one scale)."
    )
    if not math.isfinite(effective.value):
        return f"How many members they are worth is not known: their errors do not vary. {gain}"
    return (
        f"The {members} members are worth {_value(effective, '95% interval ', number)} independent "
        f"ones, since the errors of two correlate at {decimals(shared.value)}. {gain}"
    )


def _side(row: Any, of: float = 0) -> str:
    """Whether a row's interval lies above or below a value, or leaves it open."""
    if row.low > of:
        return "above"
    return "below" if row.high < of else "open"


def _value(row: Any, called: str = "", text: Callable[[float], str] = decimals) -> str:
    """A value with its interval, if it has one."""
    bounds = between(row.low, row.high, text)
    return f"{text(row.value)} ({called}{bounds})" if bounds else f"{text(row.value)} (no interval)"


def _shares(row: Any, called: str = "") -> str:
    return _value(row, called, percent)


def _points(row: Any) -> str:
    return _value(row, text=lambda share: percent(share).removesuffix("%"))
