"""Objectives: how a method turns the members' rewards into PPO's score and KL coefficient.

Every public function of this module is an objective, and its name is what a method's ``objective``
in the configuration may say. An objective is a pure function

    (scores [B, K], head, beta) -> (score [B], kl_coefficient [B])

where ``scores`` holds the rewards of the K heads for B responses, ``head`` is the policy's own head
and ``beta`` the method's KL coefficient. PPO then maximises

    score[b] - kl_coefficient[b] * sum over tokens of (log pi - log pi_reference)

with the coefficient treated as a constant. To add a method, add a function here and a line to the
configuration's ``methods``.
"""

from __future__ import annotations

from torch import Tensor

from prudent.errors import InputError


def vanilla(scores: Tensor, head: int, beta: float) -> tuple[Tensor, Tensor]:
    """Standard RLHF: the own head's reward, and the same coefficient for every response."""
    score = scores[:, head]
    return score, beta * score.new_ones(score.shape)


def variance_aware(scores: Tensor, head: int, beta: float) -> tuple[Tensor, Tensor]:
    """The KL penalty of a response grows with the heads' disagreement on it.

    score = r_head, coefficient = beta * sigma, where sigma is the heads' standard deviation
    (ddof 1, the own head included): arXiv 2410.23726, Section 5, as printed there. Section 2 and
    Theorem 3.6 of the same paper weight by the variance, sigma^2; the two give different
    coefficients, and a beta tuned for one does not suit the other.

    Raises InputError where there are fewer than two heads.
    """
    if scores.shape[1] < 2:
        raise InputError(
            "objective variance_aware: the ensemble has 1 head; it needs at least 2 to disagree"
        )
    return scores[:, head], beta * scores.std(dim=1)
