"""Controls: what a method would do if its uncertainty knew nothing of the responses."""

from __future__ import annotations

import torch

from prudent.objectives.signal import Run, Signal
from prudent.rewards.interface import Rewards


def shuffled(rewards: Rewards, beta: float, *, head: int, run: Run) -> Signal:
    """``variance_aware`` with each response's spread given to another one of the batch.

    The coefficients are as large and as different as the method's, and say nothing of their
    responses: what is left of an effect is not the uncertainty's. Each step draws a new order.

    Raises InputError where there are fewer than two members.
    """
    spread = rewards.spread()
    order = torch.randperm(len(spread), generator=run.generator("shuffle")).to(spread.device)
    return Signal(rewards.mean[:, head], beta * spread[order])


def scale_only(rewards: Rewards, beta: float, *, head: int, run: Run) -> Signal:
    """``variance_aware`` with one coefficient for all responses, as large as its are on average.

    score = r_head, coefficient = beta * (mean sigma of the reference policy's responses): what is
    left of an effect is the coefficient's size alone.

    Raises InputError where there are fewer than two members.
    """
    score = rewards.mean[:, head]
    level = run.reference.spread().mean().to(score)
    return Signal(score, beta * level * score.new_ones(score.shape))
