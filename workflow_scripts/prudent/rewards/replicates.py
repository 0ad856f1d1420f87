"""Whole replicates: pairs, labels, base model and ensemble, all drawn anew.

Ensembles of heads share their base model, so comparisons of them hold *given the backbone*. To know
how a method does when everything is drawn anew takes replicates.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from prudent.data.draws import draw_anew
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import pair_features
from prudent.rewards.loading import kind_module, train_function
from prudent.rewards.material import Material
from prudent.rewards.settings import KINDS, ON_BASE, MemberSettings, RewardSettings
from prudent.rewards.training import train_reward_model
from prudent.seeding import derive_seed

logger = logging.getLogger(__name__)

VALIDATION_PAIRS = 500
"""Validation pairs on which a replicate's models are measured; an accuracy is known to 0.02."""


def train_replicate(
    preferences: pd.DataFrame,
    kind: str,
    settings: dict[str, Any],
    reward: RewardSettings,
    backbone: str | Path,
    count: int,
    models: int,
    seed: int,
    replicate: int,
    output: str | Path,
) -> pd.DataFrame:
    """Trains and writes one ensemble that shares only the backbone and the validation pairs with
    others, and returns its losses; the column ``ensemble`` is the replicate's number.

    Args:
        preferences: the schema "preferences", from which the replicate draws (``draw_anew``).
        settings: of the kind.
        count: members K.
        models: independent reward models that the ensemble is made of; 0 for other kinds.
    """
    stream = derive_seed(seed, "replicates", replicate)
    pairs = draw_anew(preferences, seed, replicate)
    train = pairs[pairs["split"] == "train"]
    validation = pairs[pairs["split"] == "validation"].iloc[:VALIDATION_PAIRS]
    pairs = pd.concat([train, validation], ignore_index=True)
    material = Material(preferences=pairs, backbone=backbone, reward=reward)
    with tempfile.TemporaryDirectory() as place:
        base = Path(place, "base")
        if kind in ON_BASE or settings.get("start") == "base":
            train_reward_model(pairs, "train", backbone, reward, stream, base)
            material = dataclasses.replace(material, base=base)
        if kind in ON_BASE:
            model = RewardEnsemble.load(base)
            found = pair_features(model.model, model.tokenizer, pairs)
            material = dataclasses.replace(material, features=found)
        members = []
        for member in range(models):
            logger.info("replicate %d: member %d of %d", replicate, member + 1, models)
            members.append(Path(place, str(member)))
            known = {key: settings[key] for key in MemberSettings.model_fields}
            train_member = kind_module("members").train_member
            train_member(material, MemberSettings(**known), stream, member, members[-1])
        material = dataclasses.replace(material, members=tuple(members))
        train_kind = train_function(kind)
        losses = train_kind(material, KINDS[kind](**settings), count, stream, 0, output)
    return losses.assign(ensemble=replicate)
