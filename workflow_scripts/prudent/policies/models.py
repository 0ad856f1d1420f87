"""Language models as policies."""

from __future__ import annotations

from pathlib import Path

from torch import nn
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
)
from transformers.activations import NewGELUActivation

from prudent.checkpoints import device, load_model


def load_causal_lm(checkpoint: str | Path, revision: str | None = None) -> PreTrainedModel:
    """A language model in float32 and evaluation mode, on our device."""
    return load_model(AutoModelForCausalLM, checkpoint, revision).to(device()).eval()


def use_fused_gelu(model: nn.Module) -> None:
    """Replaces GPT-2's activation, which is spelt out in eight operations, by torch's own kernel.

    The function is the same one, GELU's tanh approximation, up to rounding.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
