"""The common interface of all kinds of reward models: their rewards of responses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from prudent.errors import InputError


class Unavailable(InputError):
    """The model does not have what a method asks for; the text says which kinds do."""


@dataclass(frozen=True)
class Rewards:
    """The rewards of B responses by the K members of an ensemble."""

    mean: Tensor
    """[B, K] each member's reward of each response."""
    std: Tensor | None = None
    """[B, K] each member's own standard deviation, where it has one."""
    features: Tensor | None = None
    """[B, d] the input of the members' final linear layers, where they share it."""
    prompt: Tensor | None = None
    """[B] integers: the prompt of each response. The caller that has the prompts sets it."""

    @property
    def members(self) -> int:
        """The number of members K."""
        return self.mean.shape[1]

    def spread(self) -> Tensor:
        """The members' standard deviation [B] on each response (ddof 1).

        Raises Unavailable where there are fewer than two members.
        """
        self.check_members()
        return self._spread.clone()

    def check_members(self) -> None:
        """``Unavailable`` where there are fewer than two members."""
        if self.members < 2:
            raise Unavailable(
                f"the ensemble has {self.members} member(s); a spread needs at least 2"
            )

    @functools.cached_property
    def _spread(self) -> Tensor:
        return self.mean.std(dim=1)

    def to(self, other: Tensor) -> Rewards:
        """The same rewards with another tensor's type and device."""
        parts = (self.mean, self.std, self.features)
        prompt = None if self.prompt is None else self.prompt.to(other.device)
        return Rewards(*(None if part is None else part.to(other) for part in parts), prompt)

    @staticmethod
    def joined(parts: Sequence[Rewards]) -> Rewards:
        """Several batches as one."""

        def join(name: str) -> Tensor | None:
            tensors = [getattr(part, name) for part in parts]
            return None if tensors[0] is None else torch.cat(tensors)

        return Rewards(*(join(part.name) for part in fields(Rewards)))


RewardFunction = Callable[[list[str], list[str]], Any]
"""Prompts and responses, B texts each, to ``Rewards`` or to a table of numbers [B, K]."""


def as_rewards(found: Any, responses: int) -> Rewards:
    """A reward function's result as ``Rewards``; a bare table holds the members' means.

    Raises InputError where its shapes do not fit the number of responses.
    """
    if not isinstance(found, Rewards):
        try:
            # A copy by rows: sums depend on the layout, and torch warns of read-only arrays.
            rows = isinstance(found, np.ndarray | pd.DataFrame)
            table = torch.as_tensor(np.array(found, order="C") if rows else found)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise InputError(
                f"the reward function returned a {type(found).__name__} that is no table of "
                f"numbers, [{responses}, members]: {error}"
            ) from error
        found = Rewards(table)
    for name in ("mean", "std", "features"):
        part = getattr(found, name)
        plain = isinstance(part, Tensor) and part.layout == torch.strided and not part.is_complex()
        if not plain and (name == "mean" or part is not None):
            kind = (
                f"{part.layout} {part.dtype}" if isinstance(part, Tensor) else type(part).__name__
            )
            raise InputError(
                f"the reward function returned a {name} of {kind}; expected a dense tensor of real "
                "numbers"
            )
    shape = tuple(found.mean.shape)
    if len(shape) != 2 or shape[0] != responses:
        raise InputError(
            f"the reward function returned a table of shape {shape} for {responses} responses; "
            f"expected [{responses}, members]"
        )
    if found.std is not None and found.std.shape != found.mean.shape:
        raise InputError(
            f"the reward function returned members' standard deviations of shape "
            f"{tuple(found.std.shape)}; expected {list(shape)}, as the rewards"
        )
    features = found.features
    if features is not None and (features.ndim != 2 or len(features) != responses):
        raise InputError(
            f"the reward function returned features of shape {tuple(features.shape)}; expected "
            f"[{responses}, width]"
        )
    return found
