"""Judges: the embedded world's true reward, or a reward model.

A judge is a function ``(prompts, responses) -> {"score": [n], ...}``. Every policy answers the same
prompts with the same sampling streams, so policies differ by what they learned and not by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from prudent.errors import InputError
from prudent.policies.respond import sample_responses
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.text import Prompt, as_messages
from prudent.seeding import generator
from prudent.world.grammar import grammatical
from prudent.world.reward import gold_reward

Judge = Callable[[Sequence[Prompt], Sequence[str]], dict[str, np.ndarray]]


def load_judge(scorer: str | Path) -> Judge:
    """The judge of that name: "world", or the folder or hub id of a reward model with one label.

    The world's judge also says which texts are grammatical (as 0 or 1).
    """
    if str(scorer) == "world":
        return judge_world
    model = RewardEnsemble.load(scorer)
    if model.heads != 1:
        raise InputError(f"{scorer}: a judge has one label, this model has {model.heads}")

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


def judge_checkpoint(
    checkpoint: str | Path,
    prompts: list[str],
    judge: Judge,
    response_length: int,
    temperature: float,
    root: int,
) -> pd.DataFrame:
    """A policy's answers, judged: prompt, response, score, and what else the judge says."""
    draws = generator(root, "judge", "sampling")
    responses = sample_responses(checkpoint, prompts, response_length, temperature, draws)
    return pd.DataFrame({"prompt": prompts, "response": responses, **judge(prompts, responses)})
