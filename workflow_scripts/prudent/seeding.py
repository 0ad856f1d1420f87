"""Random streams: each is derived from the study's seed and the words that say what it is for.

In the code ``seed`` is the study's, ``run_seed`` that of one policy, and ``stream`` what is derived
from them for one purpose. Tables and paths know policies alone, and call ``run_seed`` the seed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from prudent.errors import InputError, quoted

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, stage: str, *parts: str | int) -> int:
    """A 63-bit seed for one stream, e.g. ``derive_seed(0, "policy", 3, "sampling", step)``.

    Streams whose words differ are independent; the same words give the same seed on every machine
    and in every process (no use of Python's salted hash). NumPy's ``default_rng`` takes all of it;
    see ``generator`` for torch. Raises InputError for a seed that is no whole number.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InputError(f"seed: found {quoted(seed)}, expected a whole number")
    key = "\x1f".join(f"{type(part).__name__}:{part}" for part in (seed, stage, *parts))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def generator(seed: int, stage: str, *parts: str | int) -> torch.Generator:
    """A CPU generator for one stream: draws are made on the CPU, so devices see the same ones.

    torch's CPU generator starts from the low 32 bits of a seed. Of n streams about n^2 / 2^33 pairs
    are therefore expected to draw the same numbers by chance, where 63 bits would make it n^2 /
    2^64. It matters only for streams whose draws are used alike and compared, such as those of an
    ensemble's members or of runs at the same step, and these are few.
    """
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, stage, *parts))


def seed_parts(run_seed: int, ensembles: int, heads: int) -> tuple[int, int, int]:
    """A policy's (ensemble, head, trial): s mod E, (s div E) mod K, s div (E K)."""
    return run_seed % ensembles, run_seed // ensembles % heads, run_seed // (ensembles * heads)
