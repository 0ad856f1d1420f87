"""The prompts, learning rate and orders of each step, as functions of the seeds and its number."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prudent.ppo.settings import PPOSettings
from prudent.seeding import generator


def prompt_rows(prompts: int, batch_size: int, step: int, seed: int, run_seed: int) -> Tensor:
    """A step's prompts, as rows [batch_size]: a new permutation each epoch, its rest dropped."""
    epoch, place = divmod(step, prompts // batch_size)
    stream = generator(seed, "policy", run_seed, "prompts", epoch)
    return torch.randperm(prompts, generator=stream)[place * batch_size :][:batch_size]


def learning_rate(settings: PPOSettings, step: int) -> float:
    """The learning rate of a step, counted from 0; a schedule would reach 0 after the last one."""
    progress = step / settings.steps
    factor = {
        "constant": 1.0,
        "linear": 1 - progress,
        "cosine": (1 + math.cos(math.pi * progress)) / 2,
    }[settings.schedule]
    return settings.learning_rate * factor


def minibatch_order(batch_size: int, step: int, epoch: int, seed: int, run_seed: int) -> Tensor:
    """The order in which an epoch of a step goes through its responses, [batch_size]."""
    stream = generator(seed, "policy", run_seed, "minibatches", step, epoch)
    return torch.randperm(batch_size, generator=stream)
