"""Optimal and trained policies with known answers."""

import numpy as np
import pandas as pd

from prudent.analysis.preregistration import preregistration
from prudent.analysis.sentences import verdicts
from prudent.analysis.verdict import (
    GIVEN,
    Ratio,
    comparisons,
    of_optima,
)

HELD = {"method": {"controls": ["control"], "missing": [], "trained": True}}


def stated(methods=HELD, permutations=2000, margin=1.5):
    return preregistration(methods, "vanilla", 0.8, 0.05, margin, permutations, 0)


def optima(gains, level=GIVEN, kl=0.8):
    """A table of optimal policies with these gains of each method."""
    parts = [
        pd.DataFrame({"method": name, "replicate": range(len(values)), "gain": values})
        for name, values in gains.items()
    ]
    return pd.concat(parts).assign(level=level, kl_target=kl, kl=kl)


def verdict_of(gains, methods=HELD, **settings):
    """The verdict on optimal policies."""
    rule = stated(methods, **settings)
    found = comparisons(of_optima(optima(gains), GIVEN, 0.8), GIVEN, rule, seed=3)
    return verdicts(rule, [found], "before the policies").methods


def trained(scores, kls, unit="member", target="fixed"):
    """A table of trained policies, one a head."""
    parts = []
    for name, values in scores.items():
        seeds = np.arange(len(values))
        part = pd.DataFrame({"method": name, "seed": seeds, "ensemble": 0, "head": seeds})
        parts.append(part.assign(score=values, kl=kls[name], unit=unit, target=target))
    return pd.concat(parts, ignore_index=True).assign(kl_target=0.8)


def ratio(estimate=2.0, low=1.4, high=2.9, p=0.01):
    return Ratio(estimate=estimate, low=low, high=high, p=p)


OPEN = ratio(1.2, 0.7, 2.1, 0.4)
BELOW = ratio(1.0, 0.8, 1.25, 0.9)
