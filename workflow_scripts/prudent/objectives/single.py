"""One member's reward, as if it were certain."""

from __future__ import annotations

from prudent.objectives.signal import Signal
from prudent.rewards.interface import Rewards


def vanilla(rewards: Rewards, beta: float, *, head: int) -> Signal:
    """Standard RLHF: the own head's reward, and the same KL coefficient for every response.

    Score: r_head
    Coefficient: beta
    Source: Stiennon et al., arXiv 2009.01325
    """
    score = rewards.mean[:, head]
    return Signal(score, beta * score.new_ones(score.shape))
