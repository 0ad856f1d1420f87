"""The KL penalty of a response grows with the members' disagreement on it."""

from __future__ import annotations

from prudent.objectives.signal import Signal
from prudent.rewards.interface import Rewards


def variance_aware(rewards: Rewards, head: int, beta: float) -> Signal:
    """The own head's reward, and a KL coefficient in proportion to the members' spread.

    score = r_head, coefficient = beta * sigma, where sigma is the members' standard deviation
    (ddof 1, the own head included): arXiv 2410.23726, Section 5, as printed there. Section 2 and
    Theorem 3.6 of the same paper weight by the variance, sigma^2; the two give different
    coefficients, and a beta tuned for one does not suit the other.

    Raises InputError where there are fewer than two members.
    """
    return Signal(rewards.mean[:, head], beta * rewards.spread())
