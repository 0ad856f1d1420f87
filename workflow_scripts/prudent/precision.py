"""Whether this machine computes in bfloat16, where the settings leave that to it."""

from __future__ import annotations

import logging
import os
from typing import TypeVar

import torch

from prudent.settings import Settings

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=Settings)

NATIVE = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""What torch calls a processor's instructions for bfloat16, on x86 and on ARM."""


def decided(settings: S, device: str | None = None) -> S:
    """Settings with their ``bfloat16`` true or false: float32 where bfloat16 would be emulated.

    An emulation is many times slower than float32 and no more exact, so that `true` falls back as
    `auto` does, but warns. ``device`` is torch's type of it, by default that of a training here.
    """
    asked = settings.bfloat16
    if not asked:
        return settings
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if native(device):
        return settings.replace(bfloat16=True)
    if os.environ.get("RANK", "0") == "0":
        logger.log(
            logging.WARNING if asked is True else logging.INFO,
            "bfloat16: %s, and this machine's %s has no instructions for it: computing in float32",
            "true" if asked is True else asked,
            "GPU" if device == "cuda" else "processor",
        )
    return settings.replace(bfloat16=False)


def native(device: str) -> bool:
    """Whether a device computes in bfloat16 itself."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return True
    # An older torch cannot say; float32 is never wrong.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in NATIVE)
