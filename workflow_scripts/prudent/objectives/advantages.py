"""Advantages are weighted: uncertain responses teach less."""

from __future__ import annotations

from torch import Tensor

from prudent.objectives.signal import Signal
from prudent.rewards.interface import Rewards
from prudent.settings import Positive


def advantage_weighted(
    rewards: Rewards, beta: float, *, spread: Tensor, floor: Positive = 1e-3
) -> Signal:
    """The members' median reward, with advantages weighted by the signal's share (UARM).

    The signal's variance s^2 is that of the scores less the mean of sigma^2, over the batch. In the
    paper, the noise is the width of a conformal interval of a quantile model, and a batch is the
    group of responses to one prompt. Advantages are whitened before they are weighted.

    Score: median
    Coefficient: beta
    Weight: s^2 / (s^2 + sigma^2), s^2 = max(0, var(score) - mean(sigma^2)) + floor
    Source: UARM, arXiv 2606.19818
    Control: median, shuffled spread

    Args:
        floor: variance that is added to the signal's.

    Raises Unavailable where there are fewer than two members.
    """
    score = rewards.mean.quantile(0.5, dim=1)
    noise = spread**2
    signal = (score.var(correction=0) - noise.mean()).clamp_min(0) + floor
    weights = signal / (signal + noise)
    metrics = {"weight": weights.mean().item()}
    return Signal(score, beta * score.new_ones(score.shape), weights=weights, metrics=metrics)
