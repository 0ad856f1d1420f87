"""The material of ensembles: pairs, the models to start from, labels, and texts to centre on."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import nn

from prudent.checkpoints import load_tokenizer
from prudent.errors import InputError
from prudent.rewards.features import PairFeatures, load_features
from prudent.rewards.models import final_linear, load_reward_model
from prudent.rewards.settings import RewardSettings
from prudent.rewards.text import Prompt
from prudent.seeding import generator
from prudent.tables import read_csv

logger = logging.getLogger(__name__)

LEAST_ACCURACY = 0.55
"""Accuracy on the validation pairs below which a member has hardly learned anything."""

CENTRING_PAIRS = 1000
"""Training pairs on whose responses rewards are centred, if that takes forward passes. The mean of
2,000 rewards is known to 2% of their standard deviation."""


class FrozenBase(NamedTuple):
    """The base reward model, whose body stays as it is."""

    model: Any
    tokenizer: Any
    layer: nn.Linear
    """The model's final layer."""
    features: PairFeatures
    """That layer's inputs for the pairs."""


@dataclass(frozen=True)
class Material:
    """Everything that an ensemble may be trained from; each kind takes what it needs."""

    preferences: pd.DataFrame
    """The schema "preferences"."""
    backbone: str | Path
    """Folder or hub id of the model that reward models start from."""
    reward: RewardSettings
    """How a whole reward model is trained."""
    base: Path | None = None
    """The base reward model's checkpoint, for heads on its frozen body."""
    features: PairFeatures | Path | None = None
    """The base model's features of the pairs, or their file."""
    members: tuple[Path, ...] = ()
    """Checkpoints of independent members, for the kinds that are made of them."""
    stored_labels: bool = False
    """Whether every ensemble keeps the stored labels, as ensemble 0 does."""

    def base_model(self) -> Path:
        """The base reward model's checkpoint; ``InputError`` where there is none."""
        if self.base is None:
            raise InputError("this kind of ensemble needs a base reward model, and none is given")
        return self.base

    def frozen_base(self) -> FrozenBase:
        """The base model and its features; ``InputError`` where either is not given."""
        path = self.base_model()
        if self.features is None:
            raise InputError("this kind of ensemble needs the pairs' features, and none are given")
        model = load_reward_model(path)
        layer, features = final_linear(model)[1], self.features
        if not isinstance(features, PairFeatures):
            features = load_features(features, layer.in_features)
        features = replace(features, probability=self._known(features.probability))
        return FrozenBase(model, load_tokenizer(path), layer, features)

    def labels(self, seed: int, ensemble: int, stage: str) -> pd.DataFrame:
        """The preferences with the training pairs labelled by ``draw_labels``."""
        probability = torch.tensor(self.preferences["probability"].to_numpy(dtype=float))
        signs = draw_labels(self._known(probability), seed, ensemble, stage)
        return relabelled(self.preferences, signs)

    def _known(self, probability: torch.Tensor) -> torch.Tensor:
        """The probabilities that labels are drawn from; all nan with ``stored_labels``."""
        return torch.full_like(probability, torch.nan) if self.stored_labels else probability

    def member_losses(self, draw: int) -> pd.DataFrame:
        """The losses of ensemble ``draw``'s members: ensemble, head, step, loss, accuracy, split.

        Members that hardly learned anything are named in the log.
        """
        tables = []
        for head, path in enumerate(self.members):
            table = read_csv(path / "losses.csv", "member_losses")
            accuracy = table.loc[table["split"] == "validation", "accuracy"]
            if len(accuracy) and accuracy.iloc[-1] < LEAST_ACCURACY:
                logger.warning(
                    "ensemble %d: member %d of the pool, head %d here, is right about %.3f of the "
                    "validation pairs: it has hardly learned anything",
                    draw,
                    table["member"].iloc[0],
                    head,
                    accuracy.iloc[-1],
                )
            table = table.assign(ensemble=draw, head=head)
            tables.append(table[["ensemble", "head", "step", "loss", "accuracy", "split"]])
        return pd.concat(tables, ignore_index=True)

    def centring_texts(self, seed: int) -> tuple[list[Prompt], list[str]]:
        """Prompts and responses of training pairs, both sides, at most ``CENTRING_PAIRS``."""
        pairs = self.preferences[self.preferences["split"] == "train"]
        draws = generator(seed, "ensembles", "centring")
        rows = torch.randperm(len(pairs), generator=draws)[:CENTRING_PAIRS].tolist()
        chosen = pairs.iloc[rows]
        responses = [*chosen["chosen"], *chosen["rejected"]]
        return [*chosen["prompt"], *chosen["prompt"]], responses


def draw_labels(
    probability: torch.Tensor, seed: int, ensemble: int, stage: str = "heads"
) -> torch.Tensor:
    """Signs [n] of the pairs' differences for one ensemble: -1 where its fresh label disagrees.

    ``probability`` [n] is that of the stored label under the gold labeller, NaN where the label was
    given. Ensemble 0 keeps the stored labels, which are themselves a draw; the others draw anew.
    Independent members each draw their own labels, as ensembles do.
    """
    signs = torch.ones(len(probability))
    if ensemble > 0:
        draws = torch.rand(
            len(probability), generator=generator(seed, stage, ensemble, "labels")
        ).double()
        signs[~probability.isnan() & (draws >= probability.double())] = -1.0
    return signs


def relabelled(preferences: pd.DataFrame, signs: torch.Tensor) -> pd.DataFrame:
    """The pairs with sides exchanged where the sign [n] of a training pair is -1."""
    turned = (signs < 0).numpy() & (preferences["split"] == "train").to_numpy()
    pairs = preferences.copy()
    pairs["chosen"] = preferences["rejected"].where(turned, preferences["chosen"])
    pairs["rejected"] = preferences["chosen"].where(turned, preferences["rejected"])
    return pairs
