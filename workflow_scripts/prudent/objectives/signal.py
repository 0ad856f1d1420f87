"""The result of objectives, their view of the run, and how they are called."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import create_model
from torch import Tensor

from prudent.errors import InputError, quoted
from prudent.rewards.interface import Rewards, Unavailable
from prudent.rewards.last_layer import LastLayer
from prudent.rewards.settings import SpreadSettings
from prudent.rewards.spread import spread_of
from prudent.seeding import generator
from prudent.settings import Settings


@dataclass(frozen=True)
class Signal:
    """What PPO maximises for each of B responses:

        score[b] - kl_coefficient[b] * sum over tokens of (log pi - log pi_reference)

    with both treated as constants. With a penalty, the loss also has its mean over the tokens,
    differentiated through the policy:

        penalty_coefficient[b] * penalty(log pi - log pi_reference)

    A penalty is a function of each token's log-ratio alone, as in the literature (squares, k3). So
    it costs nothing in the fused loss, which sees each piece of the tokens once; a function of a
    response's whole log-ratio would need the policy's forward pass twice.
    """

    score: Tensor
    """[B]"""
    kl_coefficient: Tensor
    """[B], not negative."""
    weights: Tensor | None = None
    """[B] factors of the advantages, applied after whitening."""
    penalty: Callable[[Tensor], Tensor] | None = None
    """Maps log-ratios [n] to penalties [n], elementwise and differentiable."""
    penalty_coefficient: Tensor | None = None
    """[B]"""
    of_batch: bool = False
    """Whether a response's score or coefficient depends on the rest of the batch as a sample of the
    policy. Then the optimum does not follow from the reference's responses alone."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Numbers for the training log, by name."""


@dataclass
class Run:
    """The run of an objective: its step, a memory, and its own random streams."""

    seed: int
    run_seed: int
    step: int = 0
    """PPO's step, counted from 0."""
    state: dict[str, Tensor] = field(default_factory=dict)
    """Named tensors that an objective keeps from step to step; empty before its first call. They
    are saved in the run's checkpoints and resumed bit for bit."""
    sample_reference: Callable[[], Rewards] | None = None
    """Draws the rewards for ``reference``."""
    spread: SpreadSettings = SpreadSettings()  # noqa: RUF009, it is frozen
    """How the method takes the spread."""
    last_layer: LastLayer | None = None
    """On the members' features, if they share them and the training pairs are known."""

    def generator(self, purpose: str) -> torch.Generator:
        """A stream of this step's draws for a purpose; no other part of the run draws from it."""
        return generator(self.seed, "objective", self.run_seed, purpose, self.step)

    @functools.cached_property
    def reference(self) -> Rewards:
        """The rewards of responses that the reference policy gives to training prompts.

        They serve to centre or scale rewards. They are drawn at first use, and are the same in
        every step and after a resume. Raises InputError where the caller offers none.
        """
        if self.sample_reference is None:
            raise InputError("the objective asks for the reference's responses, and there are none")
        return self.sample_reference()

    @functools.cached_property
    def reference_spread(self) -> Tensor:
        """The spread [R] of the reference policy's responses; never shuffled."""
        settings = self.spread.replace(shuffled=False)
        return spread_of(self.reference, settings, lambda: self.reference, self.last_layer)

    def spread_of(self, rewards: Rewards) -> Tensor:
        """The spread [B] of responses, as the method takes it; InputError as in ``spread_of``."""
        stream = self.generator("shuffle") if self.spread.shuffled else None
        return spread_of(rewards, self.spread, lambda: self.reference, self.last_layer, stream)


class NonFiniteSignal(InputError):
    """An objective returned infinities or NaN, in these ``rows`` of the batch."""

    def __init__(self, message: str, rows: list[int]) -> None:
        super().__init__(message)
        self.rows = rows


EXPECTED = "a function of rewards, beta, and keyword parameters (prudent/objectives/__init__.py)"


def _std(rewards: Rewards) -> Tensor:
    if rewards.std is None:
        raise Unavailable(
            "the members have no standard deviation of their own; expected an ensemble of the kind "
            "gaussian"
        )
    return rewards.std.clone()


def _last_layer(run: Run) -> LastLayer:
    if run.last_layer is None:
        raise Unavailable("the features of the reward model's training pairs are not known")
    return run.last_layer


GIVEN: dict[str, Callable[[Rewards, int, Run], Any]] = {
    "head": lambda rewards, head, run: head,
    "run": lambda rewards, head, run: run,
    "spread": lambda rewards, head, run: run.spread_of(rewards),
    "reference_spread": lambda rewards, head, run: run.reference_spread.to(rewards.mean),
    "std": lambda rewards, head, run: _std(rewards),
    "last_layer": lambda rewards, head, run: _last_layer(run),
}
"""The inputs that an objective may ask for; all other keyword parameters have defaults."""


def name_of(function: Any) -> str:
    """The name of a function, of a partial's function, or of an object's class."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__qualname__", type(function).__qualname__)


def asks_for(objective: Any) -> list[str]:
    """The inputs of ``GIVEN`` that an objective asks for.

    ``InputError`` for anything that is not an objective, and for parameters, bound by
    ``functools.partial``, without the type or the bounds of their annotations.
    """
    if not callable(objective):
        raise InputError(f"objective: found {type(objective).__name__}, expected {EXPECTED}")
    try:
        signature = inspect.signature(objective)
        asked = [name for name in GIVEN if name in signature.parameters]
        signature.bind(None, 0.0, **dict.fromkeys(asked))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"objective: found {name_of(objective)}, expected {EXPECTED}: {error}"
        ) from error
    _check_parameters(objective)
    return asked


def _check_parameters(objective: Any) -> None:
    """``InputError`` where a bound parameter does not fit its annotation."""
    bound: dict[str, Any] = {}
    while isinstance(objective, functools.partial):
        bound = objective.keywords | bound
        objective = objective.func
    try:
        hints = typing.get_type_hints(objective, include_extras=True)
    except (NameError, TypeError):  # names that only a type checker knows
        return
    forms = {name: (hints[name], ...) for name in bound if name in hints and name not in GIVEN}
    if forms:
        parameters = create_model(name_of(objective), __base__=Settings, **forms)
        parameters(**{name: bound[name] for name in forms})


def evaluate(
    objective: Any, rewards: Rewards, beta: float, *, head: int = 0, run: Run | None = None
) -> Signal:
    """The checked signal of an objective for the rewards of B responses.

    The objective gets the inputs of ``GIVEN`` that it asks for. Raises Unavailable if one is
    missing; InputError if it is not an objective, if it does not return a ``Signal`` of B numbers
    each with coefficients that are not negative, changes its rewards, or keeps anything other than
    tensors; NonFiniteSignal for infinities and NaN.
    """
    asks_for(objective)
    run = run or Run(0, 0)
    parts = [part for part in (rewards.mean, rewards.std, rewards.features) if part is not None]
    before = [part.clone() for part in parts]
    signal = called(objective, rewards, beta, head=head, run=run)
    name = f"the objective {name_of(objective)}"
    if not all(map(_same, parts, before)):
        raise InputError(f"{name} changed the rewards that it was given; expected copies of them")
    if not isinstance(signal, Signal):
        raise InputError(f"{name} returned {type(signal).__name__}; expected a Signal")
    _check_vectors(signal, name, len(rewards.mean))
    if signal.penalty is not None:
        _check_penalty(signal.penalty, signal.score, name)
    _check_names(signal.metrics, "metric", int | float, "a number", name)
    _check_names(run.state, "memory", Tensor, "a tensor", name)
    return signal


def called(objective: Any, rewards: Rewards, beta: float, *, head: int, run: Run) -> Any:
    """The unchecked result of an objective, given the inputs of ``GIVEN`` that it asks for."""
    asked = inspect.signature(objective).parameters
    given = {name: find(rewards, head, run) for name, find in GIVEN.items() if name in asked}
    return objective(rewards, beta, **given)


def _same(part: Tensor, before: Tensor) -> bool:
    return torch.equal(part.nan_to_num(), before.nan_to_num())


def _check_vectors(signal: Signal, name: str, size: int) -> None:
    """Checks shapes, types and finiteness of a signal's numbers for each response."""
    vectors = {"score": signal.score, "KL coefficient": signal.kl_coefficient}
    vectors |= {} if signal.weights is None else {"weight": signal.weights}
    if signal.penalty is not None:
        vectors["penalty coefficient"] = signal.penalty_coefficient
    for part, values in vectors.items():
        shape = tuple(values.shape) if isinstance(values, Tensor) else None
        if shape != (size,):
            found = type(values).__name__ if shape is None else f"shape {shape}"
            raise InputError(
                f"{name} returned a {part} of {found}; expected a tensor [{size}], one number a "
                "response"
            )
        if not values.is_floating_point():
            raise InputError(
                f"{name} returned a {part} of {values.dtype}; expected floating-point numbers"
            )
        if not values.isfinite().all():
            rows = (~values.isfinite()).nonzero().flatten().tolist()
            raise NonFiniteSignal(
                f"{name} returned a {part} that is not finite for {len(rows)} of {size} responses",
                rows,
            )
    if (signal.kl_coefficient < 0).any():
        raise InputError(
            f"{name} returned the KL coefficient {signal.kl_coefficient.min().item():.4g}; "
            "expected none below 0, which would reward a policy for leaving the reference"
        )


def _check_penalty(penalty: Any, like: Tensor, name: str) -> None:
    """``InputError`` unless a penalty maps n numbers to n numbers, differentiably."""
    expected = "expected a function from log-ratios [n] to penalties [n], differentiable"
    probe = torch.linspace(-1, 1, 3, dtype=like.dtype, device=like.device).requires_grad_()
    try:
        with torch.enable_grad():
            found = penalty(probe)
    except Exception as error:  # of whatever the caller's function does
        raise InputError(f"{name}: its penalty fails: {error}; {expected}") from error
    if not isinstance(found, Tensor) or found.shape != probe.shape or found.dtype != probe.dtype:
        what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"{name}: its penalty of 3 log-ratios is of {what}; {expected}")
    if not found.requires_grad:
        raise InputError(f"{name}: its penalty has no gradient; {expected}")


def _check_names(values: Any, what: str, kind: Any, expected: str, name: str) -> None:
    """``InputError`` unless a dictionary's keys are texts and its values of a kind."""
    if not isinstance(values, dict):
        raise InputError(
            f"{name}: found {type(values).__name__} as its {what}, expected a dictionary"
        )
    for key, value in values.items():
        if not isinstance(key, str) or not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(
                f"{name}: its {what} {quoted(key)} is {quoted(value)}; expected {expected}, under "
                "a name"
            )
