"""Judges, and the responses they are given.

A judge is a function ``(prompts, responses) -> {"score": [n], ...}``: the embedded world's true
reward, or a reward model. Every policy answers the same prompts with the same sampling streams, so
policies differ by what they learned and not by luck.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from prudent import world
from prudent.ensemble import RewardEnsemble
from prudent.errors import InputError
from prudent.models import Prompt, as_messages, load_causal_lm, load_tokenizer
from prudent.sampling import decode_responses, encode_prompts, pad_token, sample
from prudent.seeding import generator

logger = logging.getLogger(__name__)

Judge = Callable[[Sequence[Prompt], Sequence[str]], dict[str, np.ndarray]]

BATCH = 256


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
        return {"score": model(prompts, responses)[:, 0].double().numpy()}

    return judge


def judge_world(prompts: Sequence[Prompt], responses: Sequence[str]) -> dict[str, np.ndarray]:
    """The embedded world's true reward, and whether the text belongs to its grammar."""
    texts = ["".join(message["content"] for message in as_messages(p)) for p in prompts]
    return {
        "score": np.array(world.gold_reward(texts, list(responses)), dtype=float),
        "grammatical": np.array(
            [
                float(world.grammatical(text + response))
                for text, response in zip(texts, responses, strict=True)
            ]
        ),
    }


def sample_responses(
    checkpoint: str | Path,
    prompts: list[str],
    response_length: int,
    temperature: float,
    draws: torch.Generator,
) -> list[str]:
    """One response of a policy for each prompt, without special tokens.

    Draws [n, response_length] are taken from the generator in the prompts' order, so that policies
    given generators of one seed answer with common random numbers.
    """
    tokenizer = load_tokenizer(checkpoint)
    model = load_causal_lm(checkpoint)
    uniforms = torch.rand(len(prompts), response_length, generator=draws)
    responses: list[str] = []
    for start in range(0, len(prompts), BATCH):
        rows = slice(start, start + BATCH)
        ids, mask = (part.to(model.device) for part in encode_prompts(tokenizer, prompts[rows]))
        rollout = sample(
            model,
            ids,
            mask,
            uniforms[rows].to(model.device),
            temperature,
            tokenizer.eos_token_id,
            pad_token(tokenizer),
        )
        responses += decode_responses(tokenizer, ids, mask, rollout.response_ids, rollout.mask)
        if (start // BATCH) % 10 == 9:
            logger.info("sampled %d of %d responses", len(responses), len(prompts))
    return responses


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
