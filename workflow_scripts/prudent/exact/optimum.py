"""The optimal policy of an objective on a finite set of the reference policy's responses.

N responses of each of P prompts stand for the reference policy, each with probability 1/N. PPO
treats a response's score s and KL coefficient beta c as constants (``objectives.signal``), so its
gradient vanishes where s - beta c log(pi / pi0) is the same number lambda for all responses of a
prompt:

    log(pi / pi0) = (s - lambda) / (beta c),    lambda such that mean exp(log-ratio) = 1

For a constant c this is the softmax of s / (beta c). A score may have a part that grows with beta:
s = s0 + beta s1. Everything is batched over E ensembles and computed in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LEAST = 1e-9
"""The least coefficient, as a share of an ensemble's mean: 0 would not bound the log-ratio."""
STEPS, TOLERANCE = 100, 1e-8
"""Most steps of a solver, and the relative error of the KL that ends it."""


class Terms(NamedTuple):
    """An objective's score s0 + beta s1 and coefficient beta c, each [E, P, N]."""

    score: Tensor
    coefficient: Tensor
    slope: Tensor | None = None
    """s1; None means 0."""


class Optimum(NamedTuple):
    """The optimal policies of E ensembles."""

    log_ratio: Tensor
    """log(pi / pi0) [E, P, N]."""
    beta: Tensor
    """[E]"""
    kl: Tensor
    """KL(pi || pi0) [E], the mean over prompts; nan where no beta reaches the target."""

    @property
    def probability(self) -> Tensor:
        """pi [E, P, N], which sums to 1 for each prompt."""
        return self.log_ratio.exp() / self.log_ratio.shape[-1]

    def effective_size(self) -> Tensor:
        """The number of equally likely responses [E, P] that a prompt's policy is worth (Kish)."""
        return 1 / self.probability.square().sum(-1)


def optimum(terms: Terms, beta: Tensor) -> Optimum:
    """The optimal policies at one ``beta`` [E] > 0 for each ensemble."""
    return _solved(_prepared(terms), beta.double(), None)[0]


def matched(terms: Terms, kl: float) -> Optimum:
    """The optimal policies whose KL, averaged over prompts, is ``kl`` for each ensemble.

    beta is found by Newton's method on log KL over log beta, within a bracket. Where no beta
    reaches the KL, a policy's numbers are nan: N responses represent at most log N, the score may
    be constant, or a score that falls with beta keeps the policy away from the reference.
    """
    terms = _prepared(terms)
    scale = terms.score.std(-1).mean(-1) / terms.coefficient.mean((-1, -2))
    log_beta = (scale.clamp_min(1e-300) / (2 * kl) ** 0.5).log()
    low, high = log_beta - 30, log_beta + 30
    level = None
    for _ in range(STEPS):
        found, level, slope = _solved(terms, log_beta.exp(), level)
        error = found.kl.log() - torch.tensor(kl, dtype=torch.float64).log()
        done = error.abs() < TOLERANCE
        # The KL falls as beta grows, except for KLs near the largest.
        low = torch.where(error > 0, log_beta, low)
        high = torch.where(error > 0, high, log_beta)
        if (done | (high - low < 1e-12)).all():
            break
        step = log_beta - error / slope
        inside = (step > low) & (step < high)
        log_beta = torch.where(done, log_beta, torch.where(inside, step, (low + high) / 2))
    reached = done[:, None, None]
    return Optimum(
        found.log_ratio.where(reached, torch.nan),
        found.beta.where(done, torch.nan),
        found.kl.where(done, torch.nan),
    )


def _prepared(terms: Terms) -> Terms:
    """The terms in float64, with scores centred within prompts and no coefficient of 0."""
    score = terms.score.double()
    coefficient = terms.coefficient.double()
    least = LEAST * coefficient.mean((-1, -2), keepdim=True)
    least = least.clamp_min(torch.finfo(torch.float64).tiny)
    slope = None if terms.slope is None else terms.slope.double()
    return Terms(score - score.mean(-1, keepdim=True), coefficient.maximum(least), slope)


def _solved(terms: Terms, beta: Tensor, start: Tensor | None) -> tuple[Optimum, Tensor, Tensor]:
    """The optima at beta [E], their lambda [E, P], and d log KL / d log beta [E].

    f(lambda) = log mean exp((s - lambda) / (beta c)) is convex and decreasing, so Newton's steps
    from a start where it is not negative approach its root from below and never pass it.
    """
    wide = beta[:, None, None]
    size = terms.score.shape[-1]
    most = torch.tensor(size, dtype=torch.float64).log()
    score = terms.score if terms.slope is None else terms.score + wide * terms.slope
    inverse = 1 / (wide * terms.coefficient)
    if _constant(terms.coefficient):  # a softmax
        total = (score * inverse).logsumexp(-1) - most
        return _with_slope(terms, beta, score, inverse, total / inverse[..., 0])
    # f >= 0 at both: by Jensen's inequality, and because one response's term is at most the sum.
    mean = (score * inverse).sum(-1) / inverse.sum(-1)
    alone = (score - most / inverse).amax(-1)
    level = mean.maximum(alone)
    if start is not None:  # of a smaller beta, say; not used where f < 0
        f = ((score - start[..., None]) * inverse).logsumexp(-1)
        level = torch.where(f >= most, level.maximum(start), level)
    for _ in range(STEPS):
        log_ratio = (score - level[..., None]) * inverse
        total = log_ratio.logsumexp(-1)
        f = total - most
        weight = (log_ratio - total[..., None]).exp()
        step = f / (weight * inverse).sum(-1)
        level = level + step
        if not ((f > 1e-13) & (step > 1e-15 * level.abs())).any():
            break
    return _with_slope(terms, beta, score, inverse, level)


def _constant(coefficient: Tensor) -> bool:
    """Whether coefficients [E, P, N] are the same for all responses of each prompt."""
    return bool((coefficient == coefficient[..., :1]).all())


def _with_slope(
    terms: Terms, beta: Tensor, score: Tensor, inverse: Tensor, level: Tensor
) -> tuple[Optimum, Tensor, Tensor]:
    """The optima with these lambda, and the slopes of their KLs, as ``_solved`` returns them."""
    log_ratio = (score - level[..., None]) * inverse
    probability = log_ratio.exp() / score.shape[-1]
    of_prompt = (probability * log_ratio).sum(-1)
    kl = of_prompt.mean(-1).clamp_min(0)
    # The log-ratio's derivative by log beta: its own part, and lambda's, which keeps the sum at 1.
    own = -(log_ratio if terms.slope is None else log_ratio - terms.slope / terms.coefficient)
    shift = (probability * own).sum(-1) / (probability * inverse).sum(-1)
    moved = own - shift[..., None] * inverse
    slope = (probability * log_ratio * moved).sum(-1).mean(-1) / kl
    return Optimum(log_ratio, beta, kl), level, slope
