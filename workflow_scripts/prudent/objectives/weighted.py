"""The KL penalty of a response grows with the members' disagreement on it."""

from __future__ import annotations

from typing import Literal

from prudent.objectives.signal import Signal
from prudent.rewards.interface import Rewards


def variance_aware(rewards: Rewards, beta: float, *, head: int, power: Literal[1, 2] = 1) -> Signal:
    """The own head's reward, and a KL coefficient in proportion to the members' spread.

    score = r_head, coefficient = beta * sigma^power, where sigma is the members' standard deviation
    (ddof 1, the own head included): arXiv 2410.23726, Section 5, prints sigma, Section 2 and
    Theorem 3.6 of the same paper weight by the variance. The two give different coefficients, and a
    beta tuned for one does not suit the other.

    Args:
        power: 1 for the standard deviation, 2 for the variance.

    Raises InputError where there are fewer than two members.
    """
    return Signal(rewards.mean[:, head], beta * rewards.spread() ** power)


def exact_gradient(rewards: Rewards, beta: float, *, head: int) -> Signal:
    """The own head's reward less the variance-weighted KL, with that objective's whole gradient.

    score = r_head - beta * sigma^2, coefficient = beta * sigma^2. Section 2 of arXiv 2410.23726
    maximises E[r - beta sigma^2 log-ratio]; the gradient of its second term is that of a log-ratio
    held constant, and another beta E[sigma^2 grad log pi], which ``variance_aware`` leaves out. It
    vanishes where sigma is constant, and else lowers the reward of what the members disagree on.

    Raises InputError where there are fewer than two members.
    """
    variance = rewards.spread() ** 2
    return Signal(rewards.mean[:, head] - beta * variance, beta * variance)


def mean_variance_aware(rewards: Rewards, beta: float, *, power: Literal[1, 2] = 1) -> Signal:
    """``variance_aware`` with the members' mean reward in place of the own head's.

    score = mean, coefficient = beta * sigma^power (ddof 1).

    Args:
        power: 1 for the standard deviation, 2 for the variance.

    Raises InputError where there are fewer than two members.
    """
    return Signal(rewards.mean.mean(dim=1), beta * rewards.spread() ** power)
