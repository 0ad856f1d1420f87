"""Member scores as long tables: one reward per row, side, ensemble and head."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import BATCH_TOKENS, extract
from prudent.rewards.text import Prompt

KEYS = ["id", "subset", "section"]


def score_responses(
    models: Sequence[RewardEnsemble],
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    batch_tokens: int = BATCH_TOKENS,
    progress: str | None = None,
) -> list[torch.Tensor]:
    """Rewards [n, K] of each model. All share one frozen backbone, so it is run once."""
    first = models[0]
    features = extract(
        first.model, first.tokenizer, prompts, responses, batch_tokens, progress=progress
    )
    return [model.rewards(features) for model in models]


def score_pairs(
    pairs: pd.DataFrame, models: Sequence[RewardEnsemble], batch_tokens: int = BATCH_TOKENS
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
        tables.append(keys.assign(ensemble=-1, head=-1, reward=rewards[0][:, 0].double().numpy()))
        tables.append(long_table(keys, rewards[1:]))
    return pd.concat(tables, ignore_index=True)


def long_table(keys: pd.DataFrame, rewards: Sequence[torch.Tensor]) -> pd.DataFrame:
    """``keys`` [n rows] repeated for each ensemble's rewards [n, K]: + ensemble, head, reward."""
    return pd.concat(
        [
            keys.assign(ensemble=ensemble, head=head, reward=table[:, head].double().numpy())
            for ensemble, table in enumerate(rewards)
            for head in range(table.shape[1])
        ],
        ignore_index=True,
    )
