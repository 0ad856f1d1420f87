"""The input of a diagnosis: ensembles' rewards of sampled responses and of labelled pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from prudent.rewards.diagnosis import Evidence
from prudent.rewards.interface import Rewards
from prudent.rewards.scoring import score_responses
from prudent.rewards.text import Prompt


def evidence_of(
    models: Sequence[Any],
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    per_prompt: int,
    pairs: pd.DataFrame,
    backbone: str | Path,
) -> Iterator[tuple[Rewards, Evidence]]:
    """The rewards and the evidence of each draw of an ensemble, on P x R responses and n pairs.

    Args:
        prompts, responses: P R texts each, ordered by prompt.
        per_prompt: R.
        pairs: columns prompt, chosen, rejected [n rows].
        backbone: the model that reward models start from, for members before training.
    """
    asked = pairs["prompt"].tolist()
    found = score_responses(models, prompts, responses)
    chosen, rejected = (score_responses(models, asked, pairs[s].tolist()) for s in SIDES)
    for model, rewards, better, worse in zip(models, found, chosen, rejected, strict=True):

        def table(values: Tensor | None) -> np.ndarray | None:
            if values is None:
                return None
            return values.double().numpy().reshape(-1, per_prompt, *values.shape[1:])

        before = model.untrained(backbone)
        norm = None if rewards.features is None else rewards.features.double().square().sum(1)
        yield (
            rewards,
            Evidence(
                table(rewards.mean),
                (better.mean - worse.mean).double().numpy(),
                None if before is None else table(before(prompts, responses).mean),
                table(norm),
                table(rewards.std),
            ),
        )


def drawn_anew(name: str, replicates: Sequence[Evidence]) -> dict[str, list[Evidence]]:
    """The evidence of an ensemble's replicates, under the names that tables use.

    Each replicate is an ensemble whose members share a base model. The first members of different
    replicates share nothing; three or more of them form an ensemble of independent members.
    """
    found = {f"{name}, all drawn anew": list(replicates)}
    if len(replicates) >= 3:
        found[f"{name}, one of each replicate"] = [
            Evidence(
                np.concatenate([one.rewards[..., :1] for one in replicates], axis=-1),
                np.concatenate([one.margins[..., :1] for one in replicates], axis=-1),
            )
        ]
    return found


SIDES = ("chosen", "rejected")
