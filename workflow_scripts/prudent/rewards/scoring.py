"""Member scores as long tables: one reward per row, side, ensemble and head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import BATCH_TOKENS, extract
from prudent.rewards.interface import Rewards
from prudent.rewards.models import final_linear
from prudent.rewards.text import Prompt, reading

KEYS = ["id", "subset", "section"]


def score_responses(
    models: Sequence[Any],
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    batch_tokens: int = BATCH_TOKENS,
    progress: str | None = None,
) -> list[Rewards]:
    """Each model's rewards. A backbone that several models share is run once."""
    found: list[Rewards | None] = [None] * len(models)
    for number, first in enumerate(models):
        if found[number] is not None:
            continue
        if not isinstance(first, RewardEnsemble):
            found[number] = first(prompts, responses)
            continue
        features = extract(
            first.model, first.tokenizer, prompts, responses, batch_tokens, progress=progress
        )
        for other in range(number, len(models)):
            if found[other] is None and _same_body(first, models[other]):
                found[other] = models[other].from_features(features)
    return found


def _same_body(first: RewardEnsemble, other: Any) -> bool:
    """Whether two models read the same features."""
    if not isinstance(other, RewardEnsemble):
        return False
    if first is other:
        return True
    if reading(first.tokenizer) != reading(other.tokenizer):
        return False
    head = final_linear(first.model)[0]
    ours, theirs = first.model.state_dict(), other.model.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours if not name.startswith(f"{head}.")
    )


def score_pairs(
    pairs: pd.DataFrame, models: Sequence[Any], batch_tokens: int = BATCH_TOKENS
) -> pd.DataFrame:
    """The schema "scores" of a benchmark; ``models`` are the base model and then the ensembles.

    The base model's rows have ensemble -1 and head -1.
    """
    tables = []
    for side in ("chosen", "rejected"):
        rewards = score_responses(
            models, pairs["prompt"].tolist(), pairs[side].tolist(), batch_tokens, f"{side} side"
        )
        keys = pairs[KEYS].reset_index(drop=True).assign(side=side)
        tables.append(
            keys.assign(ensemble=-1, head=-1, reward=rewards[0].mean[:, 0].double().numpy())
        )
        tables.append(long_table(keys, rewards[1:]))
    return pd.concat(tables, ignore_index=True)


def reward_table(responses: pd.DataFrame, models: Sequence[Any]) -> pd.DataFrame:
    """The schema "rewards": every head's rewards of responses of the schema "responses"."""
    rewards = score_responses(
        models, responses["prompt"].tolist(), responses["response"].tolist(), progress="responses"
    )
    return long_table(responses[["method", "seed", "prompt"]], rewards)


def long_table(keys: pd.DataFrame, rewards: Sequence[Rewards]) -> pd.DataFrame:
    """``keys`` [n rows], repeated for each ensemble's rewards [n, K], + ensemble, head, reward."""
    return pd.concat(
        [
            keys.assign(ensemble=ensemble, head=head, reward=table.mean[:, head].double().numpy())
            for ensemble, table in enumerate(rewards)
            for head in range(table.members)
        ],
        ignore_index=True,
    )
