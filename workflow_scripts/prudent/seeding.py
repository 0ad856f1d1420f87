"""Random streams: each is derived from the study's seed and the words that say what it is for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from prudent.errors import InputError

if TYPE_CHECKING:
    import torch


def derive_seed(root: int, stage: str, *parts: str | int) -> int:
    """A 63-bit seed for one stream, e.g. ``derive_seed(0, "policy", 3, "sampling", step)``.

    Streams whose words differ are independent; the same words give the same seed on every machine
    and in every process (no use of Python's salted hash). Raises InputError for a root that is no
    whole number.
    """
    if isinstance(root, bool) or not isinstance(root, int):
        raise InputError(f"seed: found {root!r}, expected a whole number")
    key = "\x1f".join(f"{type(part).__name__}:{part}" for part in (root, stage, *parts))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def generator(root: int, stage: str, *parts: str | int) -> torch.Generator:
    """A CPU generator for one stream: draws are made on the CPU, so devices see the same ones."""
    import torch

    return torch.Generator().manual_seed(derive_seed(root, stage, *parts))


def seed_parts(seed: int, ensembles: int, heads: int) -> tuple[int, int, int]:
    """A policy's (ensemble, head, trial): seed mod E, (seed div E) mod K, seed div (E K)."""
    return seed % ensembles, seed // ensembles % heads, seed // (ensembles * heads)
