"""Loading checkpoints: models and tokenizers from safetensors, without remote code.

A model is only loaded if every weight of it stands in the checkpoint.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from prudent.errors import InputError

MAX_LENGTH = 1 << 20


def device() -> torch.device:
    """The device that models run on: the first GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def attention(tokens: int = 0) -> str:
    """The attention that is fastest for texts of that many tokens.

    On a CPU that is the eager form for the few tokens of a policy's prompt and response, and SDPA
    for longer texts.
    """
    return "sdpa" if torch.cuda.is_available() or tokens > 64 else "eager"


def load_tokenizer(
    checkpoint: str | Path, revision: str | None = None, **options: Any
) -> PreTrainedTokenizerBase:
    """A checkpoint's tokenizer; one without a padding token pads with EOS (masks go by length).

    ``options`` replace the checkpoint's own and are stored with it from then on.
    """
    _look_for(checkpoint)
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, revision=revision, **options)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{checkpoint}: no tokenizer can be loaded: {_first_line(error)}"
        ) from None
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise InputError(f"{checkpoint}: the tokenizer has neither a padding nor an EOS token")
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.model_max_length > MAX_LENGTH:  # "unlimited" in a tokenizer without a limit
        tokenizer.model_max_length = MAX_LENGTH
    return tokenizer


def load_model(
    kind: Any,
    checkpoint: str | Path,
    revision: str | None = None,
    fresh: re.Pattern[str] | None = None,
    tokens: int = 0,
    **options: Any,
) -> PreTrainedModel:
    """A model of an ``AutoModel`` class in float32, for texts of so many tokens.

    ``fresh`` matches the names of the weights that may be newly initialised, for training; every
    other one has to stand in the checkpoint. ``InputError`` where it does not.
    """
    _look_for(checkpoint)
    try:
        model, report = kind.from_pretrained(
            checkpoint,
            revision=revision,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=attention(tokens),
            output_loading_info=True,
            ignore_mismatched_sizes=fresh is not None,
            **options,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{checkpoint}: cannot be loaded as a model: {_first_line(error)}"
        ) from None
    # A linear layer's mask buffers and the like may be missing; a parameter may not.
    parameters = {name for name, _ in model.named_parameters()}
    mismatched = {entry[0] for entry in report["mismatched_keys"]}  # of another shape
    missing = sorted((set(report["missing_keys"]) | mismatched) & parameters)
    if fresh is not None:
        missing = [name for name in missing if not fresh.search(name)]
    if missing:
        raise InputError(
            f"{checkpoint}: the weights {', '.join(missing[:5])} are not in the checkpoint in the "
            "model's shape and would be freshly initialised; expected a checkpoint with every "
            "weight trained"
        )
    return model


def _look_for(checkpoint: str | Path) -> None:
    """``InputError`` where the checkpoint is plainly a folder, and there is none."""
    path = Path(checkpoint)
    if not path.is_dir() and (isinstance(checkpoint, Path) or path.is_absolute()):
        raise InputError(f"{checkpoint}: no such folder; expected that of a checkpoint")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
