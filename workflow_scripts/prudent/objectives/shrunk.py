"""Rewards shrunk towards a prior mean: the empirical-Bayes posterior mean.

The model: a response's true reward is normal around its prior mean with variance tau^2, and the
members' rewards are normal around the true one with variance sigma^2. No paper of the field tries
it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prudent.objectives.signal import Run, Signal
from prudent.rewards.interface import Rewards
from prudent.rewards.spread import centred


def shrunk(
    rewards: Rewards,
    beta: float,
    *,
    head: int,
    spread: Tensor,
    reference_spread: Tensor,
    run: Run,
) -> Signal:
    """The own head's reward, shrunk to the prior mean where the members disagree.

    c is r_head less its prior mean: its mean over responses of the reference policy, or over those
    to the same prompt if the method's ``spread`` has ``center: prompt``. tau^2 is the variance of c
    over the reference policy's responses less the mean of sigma^2.

    Score: c tau^2 / (tau^2 + sigma^2)
    Coefficient: beta
    Source: none; James and Stein's shrinkage, by response
    Control: vanilla, shuffled spread

    Raises Unavailable where there are fewer than two members.
    """
    one = slice(head, head + 1)
    score = _posterior(rewards, one, spread**2, reference_spread**2, run)
    return Signal(score, beta * score.new_ones(score.shape))


def shrunk_mean(
    rewards: Rewards, beta: float, *, spread: Tensor, reference_spread: Tensor, run: Run
) -> Signal:
    """The members' mean reward, shrunk to the prior mean where the members disagree.

    As ``shrunk``, with the mean's variance sigma^2 / K, which assumes that the members' errors are
    independent.

    Score: c tau^2 / (tau^2 + sigma^2 / K), c of the mean
    Coefficient: beta
    Source: none; James and Stein's shrinkage, by response
    Control: mean, shuffled spread

    Raises Unavailable where there are fewer than two members.
    """
    count = rewards.members
    variances = spread**2 / count, reference_spread**2 / count
    score = _posterior(rewards, slice(None), *variances, run)
    return Signal(score, beta * score.new_ones(score.shape))


def _posterior(
    rewards: Rewards, members: slice, variance: Tensor, of_reference: Tensor, run: Run
) -> Tensor:
    """The posterior means [B] of the true rewards less their prior means.

    ``variance`` [B] and ``of_reference`` [R] are those of the estimates, the mean of ``members``.
    """
    center = "prompt" if run.spread.center == "prompt" else "reference"
    reference = run.reference

    def estimate(of: Rewards) -> Tensor:
        values = of.mean[:, members].mean(dim=1, keepdim=True)
        prior = reference.mean[:, members].mean(dim=1, keepdim=True)
        return centred(values, of, prior, center)[:, 0]

    seen = estimate(reference).to(variance)
    # If the estimates vary less than their errors, only the prior is known. A small part of them is
    # kept, so that the estimates with the least noise still count the most.
    tau2 = (seen.var() - of_reference.mean()).clamp_min(1e-3 * seen.var())
    kept = tau2 / (tau2 + variance)
    return estimate(rewards) * torch.where(variance > 0, kept, 1.0)
