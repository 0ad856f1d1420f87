"""The KL penalty of a response grows with the uncertainty of its reward."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from prudent.objectives.signal import Signal
from prudent.rewards.interface import Rewards


def variance_aware(
    rewards: Rewards, beta: float, *, head: int, spread: Tensor, power: Literal[1, 2] = 1
) -> Signal:
    """The own head's reward, and a KL coefficient proportional to the spread.

    sigma is the members' standard deviation (ddof 1, the own head included). Section 5 of the paper
    prints sigma; its Section 2 and Theorem 3.6 weight by the variance. The two give different
    coefficients, and a beta tuned for one does not suit the other.

    Score: r_head
    Coefficient: beta sigma^power
    Source: arXiv 2410.23726, Section 5 (power 1), Section 2 and Theorem 3.6 (power 2)
    Control: scale_only, shuffled spread

    Args:
        power: 1 for the standard deviation, 2 for the variance.

    Raises Unavailable where there are fewer than two members.
    """
    return Signal(rewards.mean[:, head], beta * spread**power)


def exact_gradient(rewards: Rewards, beta: float, *, head: int, spread: Tensor) -> Signal:
    """The own head's reward less the variance-weighted KL, with this objective's full gradient.

    The paper maximises E[r - beta sigma^2 log-ratio]. The gradient of its second term has one part
    with the log-ratio held constant, and another, beta E[sigma^2 grad log pi], which
    ``variance_aware`` leaves out. This part vanishes if sigma is constant; otherwise it lowers the
    reward of responses on which the members disagree.

    Score: r_head - beta sigma^2
    Coefficient: beta sigma^2
    Source: arXiv 2410.23726, Section 2, differentiated
    Control: shuffled spread

    Raises Unavailable where there are fewer than two members.
    """
    variance = spread**2
    return Signal(rewards.mean[:, head] - beta * variance, beta * variance)


def mean_variance_aware(
    rewards: Rewards, beta: float, *, spread: Tensor, power: Literal[1, 2] = 1
) -> Signal:
    """``variance_aware`` with the members' mean reward in place of the own head's.

    Score: mean
    Coefficient: beta sigma^power
    Source: none; the paper's coefficient with the pooled reward
    Control: mean, shuffled spread

    Args:
        power: 1 for the standard deviation, 2 for the variance.

    Raises Unavailable where there are fewer than two members.
    """
    return Signal(rewards.mean.mean(dim=1), beta * spread**power)
