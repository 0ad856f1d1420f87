"""Scores and coefficients of objectives that consist of these alone."""

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
    """The objective's optimal policy is not known in closed form; the text says why."""


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
    """The terms of an objective for the rewards of E ensembles: [E, P, N].

    Args:
        rewards: of P N responses of the reference policy each, ordered by prompt.
        per_prompt: N.
        seed: of the study, for an objective's own draws.
        heads: each ensemble's head, for an objective that asks for one; 0 if None.
        runs: numbers that separate the ensembles' random streams; their positions if None.
        spread: how the method takes the spread.
        last_layer: of the features of the ensembles' common backbone, if known.

    Raises NoOptimum for an objective with weights or a penalty, or whose signal depends on the
    batch as a whole, or whose score or coefficient is not linear in beta; InputError and
    Unavailable as the objective does.
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
        """A new run, with an empty memory and the same draws at each beta."""
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
            # Checked once is enough.
            called(objective, rewards, 2.0, head=head, run=run()),
            called(objective, rewards, 3.0, head=head, run=run()),
        )
    )
    slope = s2 - s1
    if not _close(s3 - s2, slope, s1) or not _close(c2, 2 * c1, c1) or not _close(c3, 3 * c1, c1):
        raise NoOptimum(f"{name_of(objective)} is not linear in beta")
    # A score that does not depend on beta has a slope of mere rounding errors.
    slope = slope.where(slope.abs() > TOLERANCE * s1.abs().max(), 0)
    return s1 - slope, slope, c1


def _close(found: torch.Tensor, wanted: torch.Tensor, like: torch.Tensor) -> bool:
    scale = max(like.abs().max().item(), wanted.abs().max().item())
    return bool(((found - wanted).abs() <= TOLERANCE * scale).all())
