"""Reward models: sequence classifiers, whose final linear layer holds the heads."""

from __future__ import annotations

import re
from pathlib import Path

from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from prudent.checkpoints import MAX_LENGTH, check_length, check_tokenizer, device, load_model
from prudent.errors import InputError

# The parameters that stand between a backbone and the logits, in the architectures' own names.
HEAD = re.compile(r"^(score|classifier|pre_classifier|pooler)\.|\.pooler\.")


def load_reward_model(checkpoint: str | Path, tokens: int = 0) -> PreTrainedModel:
    """A trained sequence-classification model, on our device, for texts of so many tokens.

    ``InputError`` if a weight, such as the head's, is not in the checkpoint: a freshly initialised
    head gives rewards that mean nothing.
    """
    model = load_model(AutoModelForSequenceClassification, checkpoint, tokens=tokens)
    return model.to(device()).eval()


def new_reward_model(
    checkpoint: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    revision: str | None = None,
) -> PreTrainedModel:
    """A backbone with one label whose head is freshly initialised, for training."""
    set_seed(seed % 2**32)
    model = load_model(
        AutoModelForSequenceClassification,
        checkpoint,
        revision,
        fresh=HEAD,
        tokens=tokenizer.model_max_length,
        num_labels=1,
    )
    check_tokenizer(tokenizer, model, checkpoint)
    if tokenizer.model_max_length < MAX_LENGTH:
        check_length(model, tokenizer.model_max_length, "max_length is")
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.problem_type = None
    return model.to(device())


def final_linear(model: PreTrainedModel) -> tuple[str, nn.Linear]:
    """The name and the module of the last linear layer, whose rows are the heads."""
    modules = dict(model.named_modules())
    for name in ("score", "classifier", "classifier.out_proj"):
        if isinstance(modules.get(name), nn.Linear):
            return name, modules[name]
    raise InputError(
        f"{type(model).__name__}: no final linear layer found; expected one named score, "
        "classifier or classifier.out_proj"
    )
