"""Responses of a policy, with draws that belong to the prompts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from prudent.checkpoints import check_length
from prudent.policies.models import load_causal_lm, load_policy
from prudent.policies.sampling import Rollout, sample, token_kl
from prudent.policies.text import decode_responses, encode_prompts, end_tokens, pad_token
from prudent.seeding import generator

logger = logging.getLogger(__name__)

BATCH = 256


def sample_responses(
    checkpoint: str | Path,
    prompts: list[str],
    response_length: int,
    temperature: float,
    draws: torch.Generator,
) -> list[str]:
    """One response of a policy for each prompt, without special tokens.

    Draws [n, response_length] are taken from the generator in the prompts' order, so policies given
    generators with the same seed answer with common random numbers.
    """
    return sample_with_log_probs(checkpoint, prompts, response_length, temperature, draws)[0]


def sample_with_log_probs(
    checkpoint: str | Path,
    prompts: list[str],
    response_length: int,
    temperature: float,
    draws: torch.Generator,
) -> tuple[list[str], torch.Tensor]:
    """``sample_responses``, and each response's log-probability [n], its end included."""
    responses: list[str] = []
    log_probs: list[torch.Tensor] = []
    for batch in _sampled(*load_policy(checkpoint), prompts, response_length, temperature, draws):
        responses += batch.responses
        log_probs.append(batch.rollout.log_probs.double().sum(1).cpu())
    return responses, torch.cat(log_probs) if log_probs else torch.empty(0)


class _Batch(NamedTuple):
    """A policy's answers to some prompts."""

    ids: torch.Tensor
    mask: torch.Tensor
    rollout: Rollout
    responses: list[str]


def _sampled(
    model: Any,
    tokenizer: Any,
    prompts: list[str],
    response_length: int,
    temperature: float,
    draws: torch.Generator,
) -> Iterator[_Batch]:
    """A policy's responses, one for each prompt, in batches."""
    uniforms = torch.rand(len(prompts), response_length, generator=draws)
    ends = end_tokens(model, tokenizer)
    for start in range(0, len(prompts), BATCH):
        rows = slice(start, start + BATCH)
        ids, mask = (part.to(model.device) for part in encode_prompts(tokenizer, prompts[rows]))
        longest = ids.shape[1] + response_length
        check_length(model, longest, "the longest prompt and its response have")
        rollout = sample(
            model,
            ids,
            mask,
            uniforms[rows].to(model.device),
            temperature,
            ends,
            pad_token(tokenizer),
        )
        responses = decode_responses(tokenizer, ids, mask, rollout.response_ids, rollout.mask)
        yield _Batch(ids, mask, rollout, responses)
        if (start // BATCH) % 10 == 9:
            logger.info("sampled %d of %d responses", start + len(responses), len(prompts))


def answers(
    policy: Any,
    tokenizer: Any,
    reference: Any,
    prompts: list[str],
    response_length: int,
    temperature: float,
    draws: torch.Generator,
) -> tuple[list[str], torch.Tensor]:
    """A model's responses, and the KL [n] of each to the reference: the sum of ``token_kl`` over
    its tokens. The mean over prompts is the policy's KL, in nats per response."""
    responses: list[str] = []
    kls: list[torch.Tensor] = []
    for batch in _sampled(policy, tokenizer, prompts, response_length, temperature, draws):
        responses += batch.responses
        answered = batch.rollout.mask
        ids = torch.cat([batch.ids, batch.rollout.response_ids], dim=1)
        mask = torch.cat([batch.mask, answered.to(batch.mask.dtype)], dim=1)
        found = token_kl(policy, reference, ids, mask, answered.shape[1], temperature)
        kls.append((found * answered).double().sum(1).cpu())
    return responses, torch.cat(kls).clamp_min(0)


def respond(
    policies: Mapping[int, str | Path],
    reference: str | Path,
    prompts: list[str],
    response_length: int,
    temperature: float,
    seed: int,
) -> pd.DataFrame:
    """Answers of policies, by their run's seed, to the same prompts: seed, prompt, response, kl.

    All of them draw from the same stream, so they differ by what they learned and not by luck. kl
    is that of ``answers``.
    """
    held_against = load_causal_lm(reference)
    tables = []
    for number, (run_seed, checkpoint) in enumerate(policies.items(), 1):
        draws = generator(seed, "judge", "sampling")
        responses, kls = answers(
            *load_policy(checkpoint), held_against, prompts, response_length, temperature, draws
        )
        table = pd.DataFrame({"seed": run_seed, "prompt": prompts, "response": responses})
        tables.append(table.assign(kl=kls.numpy()))
        logger.info("%d of %d policies have answered", number, len(policies))
    return pd.concat(tables, ignore_index=True)
