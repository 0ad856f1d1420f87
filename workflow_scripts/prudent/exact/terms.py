"""Objectives as scores and coefficients, as far as they are nothing else."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from prudent.errors import InputError
from prudent.exact.optimum import Terms
from prudent.objectives.signal import Run, called, evaluate, name_of
from prudent.rewards.interface import Rewards
from prudent.rewards.last_layer import LastLayer
from prudent.rewards.settings import SpreadSettings

TOLERANCE = 1e-6
"""The relative error below which a signal counts as linear in beta."""


class NoOptimum(InputError):
    """An objective whose optimal policy is not known in closed form; the text says why."""


def terms_of(
    objective: Any,
    rewards: Sequence[Rewards],
    per_prompt: int,
    seed: int,
    heads: Sequence[int] | None = None,
    runs: Sequence[int] | None = None,
    spread: SpreadSettings = SpreadSettings(),  # noqa: B008, it is frozen
    last_layer: LastLayer | None = None,
) -> Terms:
    """What an objective makes of the rewards of E ensembles: [E, P, N].

    Args:
        rewards: of P N responses of the reference policy each, prompt by prompt.
        per_prompt: N.
        seed: of the study, for an objective's own draws.
        heads: each ensemble's head, for an objective that asks for one; 0 if None.
        runs: what tells the ensembles' random streams apart; their place if None.
        spread: how the method takes the spread.
        last_layer: of the features of the ensembles' one backbone, where it is known.

    Raises NoOptimum for an objective with weights or a penalty, whose signal depends on the batch
    as a whole, or whose score or coefficient is not linear in beta; InputError and Unavailable as
    the objective does.
    """
    parts = []
    for place, table in enumerate(rewards):
        head = heads[place] if heads is not None else 0
        run_seed = runs[place] if runs is not None else place
        run = functools.partial(Run, seed, run_seed, spread=spread, last_layer=last_layer)
        parts.append(_linear(objective, table, head, run, per_prompt))
    score, slope, coefficient = (torch.stack(part) for part in zip(*parts, strict=True))
    shape = (len(rewards), -1, per_prompt)
    moves = bool((slope != 0).any())
    return Terms(
        score.reshape(shape), coefficient.reshape(shape), slope.reshape(shape) if moves else None
    )


def _linear(
    objective: Any, rewards: Rewards, head: int, new_run: Callable[..., Run], per_prompt: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """s0, s1 and c [B] of the score s0 + beta s1 and the coefficient beta c."""
    prompt = torch.arange(len(rewards.mean)) // per_prompt
    rewards = replace(rewards.to(rewards.mean.double()), prompt=prompt)

    def run() -> Run:
        """A memory would begin with this batch, and draws are the same at each beta."""
        return new_run(sample_reference=lambda: rewards)

    first = evaluate(objective, rewards, 1.0, head=head, run=run())
    for part in ("weights", "penalty"):
        if getattr(first, part) is not None:
            raise NoOptimum(f"{name_of(objective)} has {part} beside a score and a coefficient")
    if first.of_batch:
        raise NoOptimum(f"{name_of(objective)} scores a response by the rest of its batch")
    (s1, c1), (s2, c2), (s3, c3) = (
        (signal.score, signal.kl_coefficient)
        for signal in (
            first,
            # What was checked once needs no second check.
            called(objective, rewards, 2.0, head=head, run=run()),
            called(objective, rewards, 3.0, head=head, run=run()),
        )
    )
    slope = s2 - s1
    if not _close(s3 - s2, slope, s1) or not _close(c2, 2 * c1, c1) or not _close(c3, 3 * c1, c1):
        raise NoOptimum(f"{name_of(objective)} is not linear in beta")
    # What rounding leaves of a score that does not depend on beta.
    slope = slope.where(slope.abs() > TOLERANCE * s1.abs().max(), 0)
    return s1 - slope, slope, c1


def _close(found: torch.Tensor, wanted: torch.Tensor, like: torch.Tensor) -> bool:
    scale = max(like.abs().max().item(), wanted.abs().max().item())
    return bool(((found - wanted).abs() <= TOLERANCE * scale).all())
