"""A small checkpoint of a run, as the tests of the folder and of its lock save it."""

import math
from pathlib import Path

import torch

from prudent.ppo.checkpoint import CheckpointFolder

FINGERPRINT = {"ppo": {"learning_rate": 0.01, "steps": 6}, "code": "a" * 64}
LOG = [{"step": 0, "kl": 0.1, "sigma": math.nan}, {"step": 1, "kl": 1 / 3, "sigma": 2.0}]


def some_tensors(factor: float = 1.0) -> dict[str, torch.Tensor]:
    return {
        "policy.weight": factor * torch.arange(6.0).reshape(2, 3).T,
        "policy.half": factor * torch.ones(4, dtype=torch.bfloat16),
        "adam.policy.weight.step": factor * torch.tensor(7.0),
    }


def save(folder: Path, factor: float = 1.0) -> Path:
    with CheckpointFolder(folder, FINGERPRINT) as checkpoints:
        checkpoints.save(some_tensors(factor), LOG)
    return folder / "checkpoint.safetensors"


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
