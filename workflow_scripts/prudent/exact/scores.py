"""The scores of the reference policy's responses by judge and reward ensembles, in one file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from prudent.errors import InputError
from prudent.rewards.features import PairFeatures
from prudent.rewards.interface import Rewards
from prudent.rewards.kinds.heads import train_heads
from prudent.rewards.models import final_linear, load_reward_model
from prudent.rewards.settings import HeadSettings
from prudent.tables import atomic_path

logger = logging.getLogger(__name__)

PARTS = ("mean", "std")


@dataclass(frozen=True)
class Scores:
    """Scores of B responses."""

    judge: Tensor
    """[B] float64"""
    draws: Sequence[Rewards]
    """Rewards by the ensemble's draws."""
    anew: Sequence[Rewards]
    """Rewards by its replicates, all drawn anew."""
    features: Tensor | None = None
    """[B, d], by the base reward model, if fresh heads can be trained on them."""


def save_scores(scores: Scores, path: str | Path) -> None:
    """Writes the scores as safetensors: judge, features, and LEVEL.NUMBER.mean and .std."""
    tensors = {"judge": scores.judge.double()}
    if scores.features is not None:
        tensors["features"] = scores.features
    for level in ("draws", "anew"):
        for number, rewards in enumerate(getattr(scores, level)):
            for part in PARTS:
                if (values := getattr(rewards, part)) is not None:
                    tensors[f"{level}.{number}.{part}"] = values
    with atomic_path(path) as temporary:
        save_file({name: one.contiguous() for name, one in tensors.items()}, temporary)


def load_scores(path: str | Path, responses: int) -> Scores:
    """Reads a file of ``save_scores``; ``InputError`` unless its number of responses fits and all
    scores are finite."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not readable as safetensors: {error}") from error
    for name, values in tensors.items():
        if len(values) != responses or not values.isfinite().all():
            raise InputError(
                f"{path}: {name} is of shape {tuple(values.shape)}; expected finite numbers of "
                f"{responses} responses"
            )
    if "judge" not in tensors:
        raise InputError(f"{path}: found no tensor judge; expected what score_reference wrote")
    levels = {level: _rewards(tensors, level) for level in ("draws", "anew")}
    return Scores(tensors["judge"], **levels, features=tensors.get("features"))


def _rewards(tensors: dict[str, Tensor], level: str) -> list[Rewards]:
    count = sum(name.startswith(f"{level}.") and name.endswith(".mean") for name in tensors)
    features = tensors.get("features") if level == "draws" else None
    return [
        Rewards(
            tensors[f"{level}.{number}.mean"],
            tensors.get(f"{level}.{number}.std"),
            features,
        )
        for number in range(count)
    ]


def independent(anew: Sequence[Rewards], per_prompt: int) -> Rewards | None:
    """The first members of all replicates as one ensemble [B, R]; None with fewer than three.

    They share nothing, not even a scale, so each is divided by its standard deviation within
    prompts, unless it is 0.
    """
    if len(anew) < 3:
        return None
    table = torch.stack([rewards.mean[:, 0].double() for rewards in anew], dim=1)
    within = table.reshape(-1, per_prompt, len(anew))
    within = within - within.mean(1, keepdim=True)
    scale = within.square().mean((0, 1)).sqrt()
    return Rewards(table / scale.where(scale > 0, 1))


def fresh_heads(
    base: str | Path,
    pairs: PairFeatures,
    features: Tensor,
    settings: HeadSettings,
    count: int,
    seed: int,
    ensembles: int,
) -> Iterator[Rewards]:
    """The rewards of the responses with these features [B, d] by fresh ensembles of heads.

    Ensemble e has the weights of draw e of ``train_ensemble``.
    """
    linear = final_linear(load_reward_model(base))[1]
    for number in range(ensembles):
        heads = train_heads(
            pairs.chosen,
            pairs.rejected,
            pairs.of("train"),
            pairs.probability,
            linear,
            settings,
            count,
            seed,
            number,
        )
        bias = 0 if heads.bias is None else heads.bias
        yield Rewards(features @ heads.weight.T + (bias - heads.offsets), features=features)
        if number % 10 == 9:
            logger.info("%d of %d ensembles of heads", number + 1, ensembles)
