"""How methods will be judged, stated before any policy is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prudent.checkpoint_files import read_json
from prudent.errors import InputError
from prudent.settings import Count, Nonnegative, Positive, Settings, read

SIZE = 0.05
"""The size of the tests; 1 minus the level of the intervals."""


class Held(Settings):
    """A method that gets a verdict."""

    name: str
    """Its name in the configuration."""
    controls: list[str]
    """The methods of the study that it has to beat: the same method without the information in its
    uncertainty, or in its ensemble. The baseline may be one."""
    missing: list[str]
    """Controls of its objective that the study lacks."""
    trained: bool
    """Whether it trains policies, or only its optimal policies are found."""


class Preregistration(Settings):
    """The rule of the verdict."""

    baseline: str
    """The method that the others are compared with."""
    kl: Positive
    """The KL of the optimal policies, in nats per response."""
    kl_tolerance: Nonnegative
    """How far apart the KLs of trained policies may be, as a share, to count as the same."""
    margin: float
    """The least ratio of variances, baseline over method, that matters."""
    permutations: Count
    """Label swaps that the permutation tests draw if they cannot try all."""
    seed: int
    """The study's seed."""
    methods: list[Held]
    """All methods but the baseline and the controls."""
    rule: list[str]
    """The rule in words."""


def rule_in_words(baseline: str, margin: float, kl_tolerance: float) -> list[str]:
    """The conditions of each verdict."""
    return [
        f"reduces: the 95% interval of the variance ratio, {baseline} over method, lies above 1, "
        f"the paired permutation test has p < {SIZE:g} by Holm over the methods, and the same "
        "holds against each of the method's controls, of which there is at least one; all at the "
        "same KL "
        f"(trained policies: within {kl_tolerance:.0%} of each other, or of one target).",
        f"does not: the interval of the ratio to {baseline}, or to a control, lies below the "
        f"margin {margin:g}, so that an effect that matters is excluded; at the same KL. Where "
        "both this and the first hold, it is this.",
        "undecided: all else, with what would decide it.",
        "Of optimal policies first, given the backbone, then with all drawn anew; then whether the "
        "trained policies agree. The draw of the rewards is the unit.",
    ]


def preregistration(
    methods: Mapping[str, Mapping[str, Any]],
    baseline: str,
    kl: float,
    kl_tolerance: float,
    margin: float,
    permutations: int,
    seed: int,
) -> Preregistration:
    """The rule, from the configuration.

    Args:
        methods: controls, missing and trained of each, as in ``Held``.
    """
    return Preregistration(
        baseline=baseline,
        kl=kl,
        kl_tolerance=kl_tolerance,
        margin=margin,
        permutations=permutations,
        seed=seed,
        methods=[Held(name=name, **held) for name, held in methods.items()],
        rule=rule_in_words(baseline, margin, kl_tolerance),
    )


def read_preregistration(path: Path) -> Preregistration:
    """The rule as it was stated; ``InputError`` where the file does not hold one."""
    try:
        return read(Preregistration, read_json(path))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
