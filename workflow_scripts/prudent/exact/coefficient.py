"""KLs of a method's optimal policies at one shared coefficient beta."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from prudent.errors import InputError
from prudent.exact.evaluate import Method
from prudent.exact.optimum import Terms, matched, optimum
from prudent.exact.terms import terms_of
from prudent.policies.target_kl import find_beta
from prudent.rewards.interface import Rewards
from prudent.rewards.last_layer import LastLayer

STEPS, TOLERANCE = 50, 1e-6
"""Most steps of a search for a coefficient, and the relative error of the KL that ends it."""


def policy_terms(
    method: Method,
    draws: Sequence[Rewards],
    policies: Sequence[tuple[int, int]],
    per_prompt: int,
    seed: int,
    last_layer: LastLayer | None = None,
) -> Terms:
    """The terms [E, P, N] of the optimal policies of these draws and members.

    Raises NoOptimum and Unavailable as ``terms_of`` does.
    """
    return terms_of(
        method.objective,
        [draws[draw] for draw, _ in policies],
        per_prompt,
        seed,
        [head for _, head in policies],
        spread=method.spread,
        last_layer=last_layer,
    )


def kls_at(terms: Terms, beta: float) -> Tensor:
    """The KLs [E], means over prompts, of the optimal policies at one coefficient."""
    size = len(terms.score)
    return optimum(terms, torch.full((size,), beta, dtype=torch.float64)).kl


def betas_for(terms: Terms, kl: float, otherwise: float) -> Tensor:
    """The coefficient [E] that takes each of these policies to a KL; ``otherwise`` where none does.

    Heads differ, so one coefficient takes their policies to different KLs. With a coefficient of
    its own, each policy moves as far as the others do on average, and can stand for them.
    """
    betas = matched(terms, kl).beta
    return betas.where(betas.isfinite(), otherwise)


def common_beta(terms: Terms, kl: float) -> float:
    """The one coefficient at which the mean KL of these policies is ``kl``.

    Raises InputError where N responses cannot represent policies of this KL.
    """
    betas = matched(terms, kl).beta
    if not betas.isfinite().all():
        raise InputError(
            f"is {kl:g}, which the exact policies cannot represent: no coefficient takes "
            f"{int((~betas.isfinite()).sum())} of {len(betas)} of them there; expected less, more "
            "responses (exact.samples), or a number for beta"
        )

    def mean(beta: float) -> float:
        return kls_at(terms, beta).mean().item()

    start = betas.log().mean().exp().item()
    return find_beta(mean, kl, start, tolerance=TOLERANCE, evaluations=STEPS).beta


def slope_at(terms: Terms, beta: float) -> float:
    """d log KL / d log beta of the mean KL, by a central difference of 1%."""
    low, high = (kls_at(terms, beta * math.exp(shift)).mean() for shift in (-0.01, 0.01))
    return ((high.log() - low.log()) / 0.02).item()
