"""Runs Prudent's PPOTrainer, a step at a time: prudent_worker.py '{"size": "4x256", ...}'."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
from common import Work, even_reward, steps, tokenizer
from torch import nn

from prudent import precision
from prudent.checkpoints import attention
from prudent.objectives.single import vanilla
from prudent.policies import lm_head, sampling
from prudent.policies.models import use_fused_gelu
from prudent.ppo.memory import keep_freed_memory
from prudent.ppo.trainer import PPOSettings, PPOTrainer
from prudent.rewards.interface import RewardFunction


def prudent_trainer(
    work: Work, models: tuple[nn.Module, nn.Module], words: Any, reward: RewardFunction
) -> PPOTrainer:
    """Prudent's trainer of this work, for the models policy and reference.

    The value network starts as a copy of the policy.
    """
    settings = PPOSettings(
        batch_size=work.batch,
        minibatch_size=work.batch,
        epochs=work.epochs,
        learning_rate=work.learning_rate,
        response_length=work.response,
        value_network="separate",
        bfloat16=work.dtype == "bfloat16",
    )
    for model in models:
        use_fused_gelu(model)
    keep_freed_memory()
    precision.native = lambda device: True  # equal work, also where bfloat16 is emulated
    return PPOTrainer(*models, words, reward, vanilla, beta=work.beta, settings=settings)


def take_away(what: str) -> None:
    """Takes away one of the things that make it fast, to see what it gives."""
    global use_fused_gelu, keep_freed_memory
    match what:
        case "the fused loss":  # the model's own logits, and autograd
            sampling.linear_head = lambda model: None
        case "large chunks":  # of logits, but such as a processor's cache may hold
            lm_head.CHUNK_BYTES["cpu"] = 16 << 20
        case "torch's GELU":
            use_fused_gelu = lambda model: model  # noqa: E731
        case "keeping freed memory":
            keep_freed_memory = lambda: None  # noqa: E731
        case "sums of blocks in the sampler":
            sampling.inverse_cdf = lambda p, u: torch.searchsorted(p.cumsum(1), u[:, None])[:, 0]


if __name__ == "__main__":
    task = Work(**json.loads(sys.argv[1]))
    words, queries = tokenizer(), task.queries()
    without = os.environ.get("WITHOUT", "")
    take_away(without)
    kind = "sdpa" if without == "eager attention" else attention()
    models = task.policy(kind), task.policy(kind)
    trainer = prudent_trainer(task, models, words, even_reward)
    prompts, mask = words.batch_decode(queries), torch.ones_like(queries)
    for step in steps():
        trainer.step(step, prompts, queries, mask)
