"""What objectives return, and what they may know of the run that they serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prudent.seeding import generator


@dataclass(frozen=True)
class Signal:
    """What PPO maximises for each of B responses:

        score[b] - kl_coefficient[b] * sum over tokens of (log pi - log pi_reference)

    with both treated as constants. Where there is a penalty, the loss also has its mean over the
    tokens, differentiated through the policy:

        penalty_coefficient[b] * penalty(log pi - log pi_reference)

    A penalty is a function of each token's log-ratio alone. Those of the literature are (squares,
    k3), and so it costs nothing in the fused loss, which sees the tokens in pieces and once; one of
    a response's whole log-ratio would need the policy's forward pass twice.
    """

    score: Tensor
    """[B]"""
    kl_coefficient: Tensor
    """[B]"""
    weights: Tensor | None = None
    """[B] factors of the advantages, after these are whitened."""
    penalty: Callable[[Tensor], Tensor] | None = None
    """From log-ratios [n] to penalties [n], differentiable, element by element."""
    penalty_coefficient: Tensor | None = None
    """[B]"""
    metrics: dict[str, float] = field(default_factory=dict)
    """Numbers for the training log, by name."""


@dataclass
class Run:
    """The run that an objective serves: its step, a memory, and random streams of its own."""

    seed: int
    run_seed: int
    step: int = 0
    """Of PPO, counted from 0."""
    state: dict[str, Tensor] = field(default_factory=dict)
    """Named tensors that an objective keeps from step to step; empty before its first call. They
    are saved in the run's checkpoints and resumed bit for bit."""

    def generator(self, purpose: str) -> torch.Generator:
        """A stream of this step's draws for a purpose; no other part of the run draws from it."""
        return generator(self.seed, "objective", self.run_seed, purpose, self.step)
