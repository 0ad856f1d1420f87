"""The score is lowered where the members disagree; every response has the same KL coefficient."""

from __future__ import annotations

import math

from prudent.objectives.signal import Run, Signal
from prudent.rewards.interface import Rewards
from prudent.settings import Nonnegative, Positive, Share


def lower_confidence_bound(rewards: Rewards, beta: float, *, width: Nonnegative = 1.0) -> Signal:
    """The ensemble's mean less ``width`` standard deviations of its members.

    score = mean - width * sigma (ddof 1), coefficient = beta: the pessimism of Zhang et al.
    (arXiv 2401.16635), whose text subtracts from one member's reward, and of Eisenstein et al.

    Args:
        width: standard deviations that the score lies below the members' mean.

    Raises InputError where there are fewer than two members.
    """
    score = rewards.mean.mean(dim=1) - width * rewards.spread()
    return Signal(score, beta * score.new_ones(score.shape))


def uncertainty_weighted(rewards: Rewards, beta: float, *, width: Nonnegative = 0.5) -> Signal:
    """The ensemble's mean less ``width`` times the members' variance (UWO).

    score = mean - width * variance, coefficient = beta: Coste et al., arXiv 2310.02743, with the
    variance over K members (ddof 0) as the paper prints it; its PPO code divides by K - 1.

    Args:
        width: reward that one unit of variance costs.

    Raises InputError where there are fewer than two members.
    """
    variance = rewards.spread() ** 2 * (1 - 1 / rewards.members)
    score = rewards.mean.mean(dim=1) - width * variance
    return Signal(score, beta * score.new_ones(score.shape))


def worst_case(rewards: Rewards, beta: float) -> Signal:
    """The least reward that a member gives to the response (WCO).

    score = min over members, coefficient = beta: Coste et al., arXiv 2310.02743. Members' rewards
    have to share a zero and a scale, which Bradley-Terry alone does not give them.
    """
    score = rewards.mean.min(dim=1).values
    return Signal(score, beta * score.new_ones(score.shape))


def soft_minimum(rewards: Rewards, beta: float, *, temperature: Positive = 1.0) -> Signal:
    """A mean of the members' rewards that leans to the least: robust to reweighted members.

    score = -temperature * log mean_k exp(-r_k / temperature), coefficient = beta: the worst
    expectation over weights of the members within a KL ball around equal ones (KL-DRO, arXiv
    2606.09073, where the temperature is beta). Large temperatures give the mean less variance /
    (2 temperature), which is ``uncertainty_weighted``; small ones give ``worst_case``.

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
    width: Nonnegative = 1.0,
    decay: Share = 0.99,
    run: Run,
) -> Signal:
    """The ensemble's mean less ``width`` times what the spread is above its running mean.

    score = mean - width * (sigma - running mean of sigma), coefficient = beta, as in UP-RLHF, which
    instead of the KL coefficient has a loss of squared log-ratios. The running mean begins with the
    first batch's mean; each batch, the present one too, then has the share 1 - ``decay`` in it.

    Args:
        width: reward that one unit of spread above the running mean costs.
        decay: share of the running mean that is kept at each step.

    Raises InputError where there are fewer than two members.
    """
    spread = rewards.spread()
    level = run.state.get("level", spread.mean())
    run.state["level"] = level = decay * level + (1 - decay) * spread.mean()
    score = rewards.mean.mean(dim=1) - width * (spread - level)
    return Signal(score, beta * score.new_ones(score.shape), metrics={"level": level.item()})
