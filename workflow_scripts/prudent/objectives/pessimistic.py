"""The score is lowered where the reward is uncertain; the KL coefficient is the same for all."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prudent.objectives.signal import Run, Signal
from prudent.rewards.interface import Rewards
from prudent.settings import Nonnegative, Positive, Share


def lower_confidence_bound(
    rewards: Rewards, beta: float, *, spread: Tensor, width: Nonnegative = 1.0
) -> Signal:
    """The ensemble's mean less ``width`` standard deviations of its members (LCB).

    With ``spread: {of: last_layer}`` it is the bound of a Bayesian last layer (LWUN-s in arXiv
    2403.05171, BAY-LIN in 2602.24040).

    Score: mean - width sigma
    Coefficient: beta
    Source: Zhang et al., arXiv 2401.16635; Eisenstein et al., arXiv 2312.09244
    Control: mean, shuffled spread

    Args:
        width: how many standard deviations the score lies below the members' mean.

    Raises Unavailable where there are fewer than two members.
    """
    score = rewards.mean.mean(dim=1) - width * spread
    return Signal(score, beta * score.new_ones(score.shape))


def head_lower_confidence_bound(
    rewards: Rewards, beta: float, *, head: int, spread: Tensor, width: Nonnegative = 1.0
) -> Signal:
    """The own head's reward less ``width`` standard deviations of all members.

    Score: r_head - width sigma
    Coefficient: beta
    Source: Zhang et al., arXiv 2401.16635, as their text prints it
    Control: vanilla, shuffled spread

    Args:
        width: how many standard deviations the score lies below the own head's reward.

    Raises Unavailable where there are fewer than two members.
    """
    score = rewards.mean[:, head] - width * spread
    return Signal(score, beta * score.new_ones(score.shape))


def uncertainty_weighted(
    rewards: Rewards, beta: float, *, spread: Tensor, width: Nonnegative = 0.5
) -> Signal:
    """The ensemble's mean less ``width`` times the members' variance (UWO).

    The variance is over K members (ddof 0), as the paper prints it; its PPO code divides by K - 1.

    Score: mean - width sigma^2 (K - 1) / K
    Coefficient: beta
    Source: Coste et al., arXiv 2310.02743
    Control: mean, shuffled spread

    Args:
        width: the cost of one unit of variance, in reward.

    Raises Unavailable where there are fewer than two members.
    """
    variance = spread**2 * (1 - 1 / rewards.members)
    score = rewards.mean.mean(dim=1) - width * variance
    return Signal(score, beta * score.new_ones(score.shape))


def worst_case(rewards: Rewards, beta: float) -> Signal:
    """The least reward that any member gives the response (WCO).

    Members' rewards have to share a zero and a scale, which Bradley-Terry alone does not ensure.

    Score: min_k r_k
    Coefficient: beta
    Source: Coste et al., arXiv 2310.02743
    Control: vanilla, random_head
    """
    score = rewards.mean.min(dim=1).values
    return Signal(score, beta * score.new_ones(score.shape))


def soft_minimum(rewards: Rewards, beta: float, *, temperature: Positive = 1.0) -> Signal:
    """A mean of the members' rewards that leans to the least, robust to reweighted members.

    It is the worst expectation over weights of the members within a KL ball around equal weights.
    In the paper the temperature is beta. Large temperatures give the mean less variance / (2
    temperature), which is ``uncertainty_weighted``; small ones give ``worst_case``.

    Score: -temperature log mean_k exp(-r_k / temperature)
    Coefficient: beta
    Source: KL-DRO, arXiv 2606.09073
    Control: mean

    Args:
        temperature: in units of reward.
    """
    scaled = -rewards.mean / temperature
    score = -temperature * (scaled.logsumexp(dim=1) - math.log(rewards.members))
    return Signal(score, beta * score.new_ones(score.shape))


def centred_spread(
    rewards: Rewards,
    beta: float,
    *,
    spread: Tensor,
    width: Nonnegative = 1.0,
    decay: Share = 0.99,
    squares: Nonnegative = 0.0,
    run: Run,
) -> Signal:
    """The ensemble's mean less ``width`` times the spread's excess over its running mean.

    The running mean begins with the first batch's mean. Each batch, including the present one, then
    enters it with weight 1 - ``decay``; the paper averages over all samples so far. The paper has
    no KL in the reward (``beta: 0``), but a loss of squared log-ratios (``squares``), of whole
    responses instead of tokens.

    Score: mean - width (sigma - running mean of sigma)
    Coefficient: beta
    Penalty: squares log-ratio^2 of each token, where squares > 0
    Source: UP-RLHF, arXiv 2401.00243
    Control: mean, shuffled spread

    Args:
        width: the cost of one unit of spread above the running mean, in reward.
        decay: share of the running mean that is kept at each step.
        squares: coefficient of the squared log-ratios in the loss.

    Raises Unavailable where there are fewer than two members.
    """
    level = run.state.get("level", spread.mean())
    run.state["level"] = level = decay * level + (1 - decay) * spread.mean()
    score = rewards.mean.mean(dim=1) - width * (spread - level)
    ones = score.new_ones(score.shape)
    return Signal(
        score,
        beta * ones,
        penalty=torch.square if squares else None,
        penalty_coefficient=squares * ones if squares else None,
        metrics={"level": level.item()},
    )
