"""Controls: methods without the information in their uncertainty, or in their ensemble.

The third control is an option of every method that asks for a spread: ``spread: {shuffled: true}``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from prudent.objectives.signal import Run, Signal
from prudent.rewards.interface import Rewards
from prudent.seeding import generator


def scale_only(
    rewards: Rewards, beta: float, *, head: int, reference_spread: Tensor, power: Literal[1, 2] = 1
) -> Signal:
    """``variance_aware`` with one coefficient for all responses, the average of its coefficients.

    An effect that remains is due to the coefficient's size alone.

    Score: r_head
    Coefficient: beta E[sigma^power], over responses of the reference policy

    Args:
        power: 1 for the standard deviation, 2 for the variance.

    Raises Unavailable where there are fewer than two members.
    """
    score = rewards.mean[:, head]
    level = (reference_spread**power).mean()
    return Signal(score, beta * level * score.new_ones(score.shape))


def random_head(rewards: Rewards, beta: float, *, run: Run) -> Signal:
    """One member of the ensemble in place of all, drawn once for each policy.

    A pooled method has to beat it: it uses as many ensembles, but pools nothing.

    Score: r_k, k drawn for the run
    Coefficient: beta
    """
    draws = generator(run.seed, "objective", run.run_seed, "head")
    head = torch.randint(rewards.members, (1,), generator=draws).item()
    score = rewards.mean[:, head]
    return Signal(score, beta * score.new_ones(score.shape))
