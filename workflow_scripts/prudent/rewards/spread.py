"""The spread of a response: its source, centring, scale, limits and shuffling."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prudent.errors import InputError
from prudent.rewards.interface import Rewards, Unavailable
from prudent.rewards.last_layer import LastLayer
from prudent.rewards.settings import ON_BASE, SpreadSettings


def spread_of(
    rewards: Rewards,
    settings: SpreadSettings,
    reference: Callable[[], Rewards],
    last_layer: LastLayer | None = None,
    stream: torch.Generator | None = None,
) -> Tensor:
    """The spread [B] of each response, as the settings say.

    Args:
        rewards: of B responses.
        reference: returns the rewards of the reference policy's responses; called only if the
            spread is centred on them or scaled by them.
        last_layer: of the features, for ``of: last_layer``.
        stream: the random stream for the order of ``shuffled``.

    Raises Unavailable for fewer than two members, and if needed features, last layer or prompts are
    missing; InputError where all members agree and the scale would be 0.
    """
    spread = _raw(rewards, settings, reference, last_layer)
    if settings.scale == "reference":
        level = _raw(reference(), settings, reference, last_layer).to(spread).mean()
        if not level > 0:
            raise InputError(
                "spread.scale: is reference, and the spread of all of the reference policy's "
                "responses is 0; expected one to divide by"
            )
        spread = spread / level
    if settings.low is not None or settings.high is not None:
        spread = spread.clamp(settings.low, settings.high)
    if settings.shuffled:
        spread = spread[torch.randperm(len(spread), generator=stream).to(spread.device)]
    return spread


def centred(values: Tensor, rewards: Rewards, of: Tensor | None, center: str) -> Tensor:
    """Values [B, n], centred as ``center`` says: not at all, on the mean of the reference's ``of``
    [R, n], or on their mean over the responses to the same prompt."""
    if center == "prompt":
        return values - _prompt_means(values, rewards.prompt)
    return values if of is None else values - of.to(values).mean(dim=0)


def features_of(rewards: Rewards) -> Tensor:
    """The features [B, d]; Unavailable where there are none."""
    if rewards.features is None:
        raise Unavailable(
            "the rewards come without features; expected an ensemble of one of the kinds "
            f"{', '.join(ON_BASE)}"
        )
    return rewards.features


def _raw(
    rewards: Rewards,
    settings: SpreadSettings,
    reference: Callable[[], Rewards],
    last_layer: LastLayer | None,
) -> Tensor:
    """The spread [B] before it is scaled."""
    by_reference = reference() if settings.center == "reference" else None
    if settings.of == "members":
        if settings.center == "none":
            return rewards.spread()
        rewards.check_members()
        of = None if by_reference is None else by_reference.mean
        return centred(rewards.mean, rewards, of, settings.center).std(dim=1)
    if last_layer is None:
        raise Unavailable(
            "spread.of: is last_layer, and the features of the training pairs are not known"
        )
    of = None if by_reference is None else features_of(by_reference)
    features = centred(features_of(rewards), rewards, of, settings.center)
    return last_layer.whitened(features, settings.ridge).norm(dim=1)


def _prompt_means(values: Tensor, prompt: Tensor | None) -> Tensor:
    """The means [B, n] of values over the responses to each response's prompt."""
    if prompt is None:
        raise Unavailable(
            "spread.center: is prompt, and which prompt a response belongs to is not known"
        )
    _, place, count = prompt.unique(return_inverse=True, return_counts=True)
    if (count < 2).any():
        raise Unavailable(
            "spread.center: is prompt, and a prompt has one response; expected several to each, "
            "as exact policies have, or none or reference"
        )
    place = place.to(values.device)
    sums = values.new_zeros(len(count), values.shape[1]).index_add_(0, place, values)
    return (sums / count.to(sums)[:, None])[place]
