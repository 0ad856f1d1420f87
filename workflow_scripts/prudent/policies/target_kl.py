"""The coefficient beta at which a method's policies end at a given KL.

The mean final KL falls as beta grows, on log-log axes almost along a straight line, so that a
secant in log beta needs few evaluations. An evaluation trains a few policies, the pilots, and is
noisy; the same pilots are trained at each beta, so that what luck gives them it gives at all.
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
"""How far from a target, or from each other, KLs may be to be compared, as a share: a variance of
scores that grows with KL^2.6 then differs by a factor of 1.14."""
EVALUATIONS = 6
"""The most coefficients that a search tries."""
LEAST = 1e-6
"""The least share of a target that counts: policies that did not move have a KL of 0."""
LONGEST = math.log(4)
"""The longest step of log beta that leaves what the evaluations enclose."""
GUARD = 0.1
"""How far inside of what encloses the target a step ends, so that each narrows it down."""
STEEPEST, FLATTEST = -4.0, -0.25
"""d log KL / d log beta, where two evaluations are believed. It is about -2 near the reference."""


class Estimate(NamedTuple):
    """A mean with its standard error."""

    mean: float
    se: float


class Search(NamedTuple):
    """What a search tried."""

    betas: list[float]
    kls: list[float]
    nearest: int
    """The place of the coefficient whose KL is nearest to the target."""
    beta: float
    """The coefficient that is taken: the one that would be tried next where the nearest KL is
    within the tolerance, and else the nearest one."""


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
        start: the first coefficient that is tried.
        slope: d log KL / d log beta to believe until two evaluations show their own.
        tolerance: of the KL, as a share of the target.
        evaluations: the most coefficients that are tried.
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
    """The log beta to try next, ``guard`` of an enclosing interval's length inside of it."""
    above = min(((y, x) for x, y in found if y > 0), default=None)
    below = max(((y, x) for x, y in found if y <= 0), default=None)
    if above is not None and below is not None:
        # The nearest on either side; noise may have put them in the wrong order.
        share = min(max(above[0] / (above[0] - below[0]), guard), 1 - guard)
        return above[1] + share * (below[1] - above[1])
    # All on one side: on from the outermost, so that no coefficient is tried twice.
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
    """What ``calibrate_beta`` wrote; ``InputError`` for another file."""
    found = read_json(path).get("found")
    try:
        return Calibration(**found)
    except TypeError as error:
        raise InputError(f"{path}: found no calibration; expected {Calibration._fields}") from error
