"""What a reward model says of responses, whatever kind of model it is."""

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
    """What is asked for is not there; the text says what has it."""


@dataclass(frozen=True)
class Rewards:
    """The rewards of B responses by the K members of an ensemble."""

    mean: Tensor
    """[B, K] each member's reward of each response."""
    std: Tensor | None = None
    """[B, K] each member's own standard deviation, where it has one."""
    features: Tensor | None = None
    """[B, d] what the members' final linear layers read, where they share it."""
    prompt: Tensor | None = None
    """[B] which prompt a response belongs to, as whole numbers; whoever has the prompts sets it."""

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
        """The same in another tensor's type and on its device."""
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
    """What a reward function returned, as ``Rewards``; a table alone is the members' means.

    Raises InputError where its shapes are not those of so many responses.
    """
    if not isinstance(found, Rewards):
        try:
            # A copy by rows: sums go by the layout, and torch warns of what it may not write to.
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
