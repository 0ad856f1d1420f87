"""Controls: what a method would do if its uncertainty knew nothing of the responses."""

from __future__ import annotations

import torch

from prudent.objectives.signal import Run, Signal
from prudent.rewards.interface import Rewards


def shuffled(rewards: Rewards, head: int, beta: float, *, run: Run) -> Signal:
    """``variance_aware`` with each response's spread given to another one of the batch.

    The coefficients are as large and as different as the method's, and say nothing of their
    responses: what is left of an effect is not the uncertainty's. Each step draws a new order.

    Raises InputError where there are fewer than two members.
    """
    spread = rewards.spread()
    order = torch.randperm(len(spread), generator=run.generator("shuffle")).to(spread.device)
    return Signal(rewards.mean[:, head], beta * spread[order])
