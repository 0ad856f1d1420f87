"""One reward pooled from all members, and the same KL coefficient for every response."""

from __future__ import annotations

from prudent.objectives.signal import Signal
from prudent.rewards.interface import Rewards


def mean(rewards: Rewards, beta: float) -> Signal:
    """The members' mean reward: the gain from an ensemble without use of its spread.

    Score: mean
    Coefficient: beta
    Source: Coste et al., arXiv 2310.02743; Eisenstein et al., arXiv 2312.09244
    Control: vanilla, random_head
    """
    score = rewards.mean.mean(dim=1)
    return Signal(score, beta * score.new_ones(score.shape))


def median(rewards: Rewards, beta: float) -> Signal:
    """The members' median reward; for an even number, the mean of the two in the middle.

    Score: median
    Coefficient: beta
    Source: Eisenstein et al., arXiv 2312.09244
    Control: vanilla, random_head
    """
    score = rewards.mean.quantile(0.5, dim=1)
    return Signal(score, beta * score.new_ones(score.shape))
