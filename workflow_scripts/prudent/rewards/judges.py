"""Judges: the embedded world's true reward, or a reward model.

A judge is a function ``(prompts, responses) -> {"score": [n], ...}``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from prudent.errors import InputError
from prudent.rewards.text import Prompt, as_messages
from prudent.world.grammar import grammatical
from prudent.world.reward import gold_reward

Judge = Callable[[Sequence[Prompt], Sequence[str]], dict[str, np.ndarray]]


def load_judge(name: str | Path, revision: str | None = None) -> Judge:
    """The judge with that name: "world", or the folder or hub id of a reward model with one label.

    The world's judge also says which texts are grammatical (as 0 or 1).
    """
    if str(name) == "world":
        return judge_world
    # The world's judge needs neither torch nor transformers, which take seconds to import.
    from prudent.rewards.ensemble import RewardEnsemble

    model = RewardEnsemble.load(name, revision=revision)
    if model.heads != 1:
        raise InputError(f"{name}: a judge has one label, this model has {model.heads}")

    def judge(prompts: Sequence[Prompt], responses: Sequence[str]) -> dict[str, np.ndarray]:
        return {"score": model(prompts, responses).mean[:, 0].double().numpy()}

    return judge


def judge_world(prompts: Sequence[Prompt], responses: Sequence[str]) -> dict[str, np.ndarray]:
    """The embedded world's true reward, and whether the text belongs to its grammar."""
    texts = ["".join(message["content"] for message in as_messages(p)) for p in prompts]
    return {
        "score": np.array(gold_reward(texts, list(responses)), dtype=float),
        "grammatical": np.array(
            [
                float(grammatical(text + response))
                for text, response in zip(texts, responses, strict=True)
            ]
        ),
    }


def judge_responses(responses: pd.DataFrame, judge: Judge) -> pd.DataFrame:
    """Responses of the schema "responses", with the judge's score and its other columns."""
    # One policy at a time: the last bits of a reward depend on the rest of its batch.
    judged = [
        rows.assign(**judge(rows["prompt"].tolist(), rows["response"].tolist()))
        for _, rows in responses.groupby(["method", "seed"], sort=False)
    ]
    return pd.concat(judged, ignore_index=True)
