"""The search for the coefficient beta at which a method's policies end at a given KL.

The mean final KL falls as beta grows, on log-log axes almost along a straight line, so a secant in
log beta needs few evaluations. An evaluation trains a few policies, the pilots, and is noisy. The
same pilots are trained at each beta, so their luck is the same at each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prudent.checkpoint_files import read_json
from prudent.errors import InputError

KL_TOLERANCE = 0.05
"""The relative distance from the target, or from each other, at which KLs still count as equal: a
variance of scores that grows with KL^2.6 then differs by a factor of 1.14."""
EVALUATIONS = 6
"""The most coefficients that a search tries."""
LEAST = 1e-6
"""The least KL, as a share of the target: policies that did not move have a KL of 0."""
LONGEST = math.log(4)
"""The longest step of log beta beyond the interval that the evaluations enclose."""
GUARD = 0.1
"""The least distance of a step from the ends of an enclosing interval, as a share of its length."""
STEEPEST, FLATTEST = -4.0, -0.25
"""Bounds of d log KL / d log beta from two evaluations. It is about -2 near the reference."""


class Estimate(NamedTuple):
    """A mean with its standard error."""

    mean: float
    se: float


class Search(NamedTuple):
    """The evaluations and the result of a search."""

    betas: list[float]
    kls: list[float]
    nearest: int
    """The index of the coefficient whose KL is nearest to the target."""
    beta: float
    """The coefficient to use: the one that would be tried next if the nearest KL is within the
    tolerance, and otherwise the nearest one."""


def find_beta(
    kl_of: Callable[[float], float],
    target: float,
    start: float,
    slope: float = -2.0,
    tolerance: float = KL_TOLERANCE,
    evaluations: int = EVALUATIONS,
) -> Search:
    """Tries coefficients until the KL of one is ``target``, by a bracketed secant in log beta.

    Args:
        kl_of: the mean final KL at a coefficient; it may be noisy.
        start: the first coefficient to try.
        slope: d log KL / d log beta to assume until two evaluations give an estimate.
        tolerance: of the KL, as a share of the target.
        evaluations: the most coefficients to try.
    """
    found: list[tuple[float, float]] = []  # log beta, log(KL / target)
    betas, kls = [], []
    place = math.log(start)
    while True:
        betas.append(math.exp(place))
        kls.append(kl_of(betas[-1]))
        found.append((place, math.log(max(kls[-1] / target, LEAST))))
        near = abs(kls[-1] / target - 1) <= tolerance
        if near or len(found) == evaluations:
            nearest = min(range(len(found)), key=lambda number: abs(found[number][1]))
            beta = math.exp(_next(found, slope, 0.0)) if near else betas[nearest]
            return Search(betas, kls, nearest, beta)
        place = _next(found, slope, GUARD)


def _next(found: list[tuple[float, float]], slope: float, guard: float) -> float:
    """The log beta to try next, at least ``guard`` of its length inside an enclosing interval."""
    above = min(((y, x) for x, y in found if y > 0), default=None)
    below = max(((y, x) for x, y in found if y <= 0), default=None)
    if above is not None and below is not None:
        # Between the nearest ones on either side, which noise may have put in the wrong order.
        share = min(max(above[0] / (above[0] - below[0]), guard), 1 - guard)
        return above[1] + share * (below[1] - above[1])
    # All on one side: go on from the outermost, so that no coefficient is tried twice.
    found = sorted(found, reverse=above is None)
    (x, y) = found[-1]
    if len(found) > 1:
        own = (y - found[-2][1]) / (x - found[-2][0])
        slope = own if STEEPEST <= own <= FLATTEST else slope
    slope = min(max(slope, STEEPEST), FLATTEST)
    return x + min(max(-y / slope, -LONGEST), LONGEST)


def mean_of(kls: Sequence[float]) -> Estimate:
    """The mean of pilots' KLs; its standard error is nan for a single one."""
    values = np.asarray(kls)
    n = len(values)
    return Estimate(float(values.mean()), float(values.std(ddof=1) / n**0.5) if n > 1 else math.nan)


class Calibration(NamedTuple):
    """A method's coefficient, as ``calibrate_beta`` found it."""

    beta: float
    kl: float
    """The pilots' mean final KL at the nearest coefficient that was tried."""
    kl_se: float | None
    """Its standard error; None with one pilot."""
    kl_target: float
    reached: bool
    """Whether that is within 5% of the target."""


def read_calibration(path: Path) -> Calibration:
    """Reads a file of ``calibrate_beta``; ``InputError`` for another file."""
    found = read_json(path).get("found")
    try:
        return Calibration(**found)
    except TypeError as error:
        raise InputError(f"{path}: found no calibration; expected {Calibration._fields}") from error
