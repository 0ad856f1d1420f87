"""Pools of replicates: the pairs, labels and base reward model of each are drawn anew.

Each base model is a member of ensembles of independent reward models, and the backbone of one
ensemble of every other kind.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from prudent.data.draws import draw_of_regime, in_pool
from prudent.exact.regimes import one_reward
from prudent.rewards.features import pair_features
from prudent.rewards.interface import Rewards
from prudent.rewards.loading import load_rewards, train_function
from prudent.rewards.material import Material
from prudent.rewards.scoring import score_responses
from prudent.rewards.settings import KINDS, RewardSettings
from prudent.seeding import derive_seed

logger = logging.getLogger(__name__)


def pairs_of(preferences: pd.DataFrame, pairs: int | None) -> int:
    """A number of training pairs; all that are kept for neither validation nor a judge if None."""
    return in_pool(preferences) if pairs is None else pairs


def stream_of(pairs: int, noise: float, seed: int, replicate: int) -> int:
    """The seed of a replicate's training."""
    return derive_seed(seed, "regimes", pairs, f"{noise:g}", replicate)


def draw_of_pool(
    preferences: pd.DataFrame, pairs: int, noise: float, seed: int, replicate: int
) -> pd.DataFrame:
    """A replicate's training pairs alone, with its labels; see ``draw_of_regime``."""
    drawn = draw_of_regime(preferences, pairs, noise, seed, replicate)
    return drawn[drawn["split"] == "train"].reset_index(drop=True)


def rewards_of_pool(
    models: Mapping[int, Path],
    preferences: pd.DataFrame,
    responses: pd.DataFrame,
    pairs: int,
    noise: float,
    ensembles: Mapping[str, Mapping[str, Any]],
    count: int,
    reward: RewardSettings,
    backbone: str | Path,
    seed: int,
) -> tuple[list[Rewards], dict[str, list[Rewards]]]:
    """The rewards of responses by each replicate's base model, and by its ensembles.

    Args:
        models: the base models' checkpoints, by the replicate's number.
        responses: with the columns prompt and response.
        ensembles: kind and settings of ensembles on the base model, by name.
        count: members of each of them.

    Returns the base models' centred rewards [B, 1], and the ensembles' [B, count], by replicate.
    """
    asked = responses["prompt"].tolist(), responses["response"].tolist()
    pool: list[Rewards] = []
    found: dict[str, list[Rewards]] = {name: [] for name in ensembles}
    for number, path in models.items():
        base = load_rewards(path)
        drawn = draw_of_pool(preferences, pairs, noise, seed, number)
        material = Material(
            preferences=drawn,
            backbone=backbone,
            reward=reward,
            base=path,
            features=pair_features(base.model, base.tokenizer, drawn) if ensembles else None,
        )
        stream, loaded = stream_of(pairs, noise, seed, number), [base]
        with tempfile.TemporaryDirectory() as place:
            for name, said in ensembles.items():
                settings, output = KINDS[said["kind"]](**said["settings"]), Path(place, name)
                # Draw 0 keeps the labels, which are the replicate's own.
                train_function(said["kind"])(material, settings, count, stream, 0, output)
                loaded.append(load_rewards(output))
            own, *others = score_responses(loaded, *asked)
        pool.append(one_reward(own.mean[:, 0]))
        for name, rewards in zip(ensembles, others, strict=True):
            found[name].append(rewards)
        logger.info("%d of %d replicates", len(pool), len(models))
    return pool, found
