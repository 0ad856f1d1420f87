"""Reward models: sequence classifiers, whose final linear layer holds the heads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from prudent.checkpoints import (
    MAX_LENGTH,
    check_length,
    check_tokenizer,
    device,
    load_model,
    stored_rows,
    why,
)
from prudent.errors import InputError

# The parameters that stand between a backbone and the logits, in the architectures' own names.
HEAD = re.compile(r"^(score|classifier|pre_classifier|pooler|head)\.|\.pooler\.")

# The last linear layer, whose rows are the heads.
FINAL = ("score", "classifier", "classifier.out_proj")

DROPOUT = re.compile(r"dropout|pdrop")


def load_reward_model(
    checkpoint: str | Path, tokens: int = 0, revision: str | None = None
) -> PreTrainedModel:
    """A trained sequence-classification model, on our device, for texts of ``tokens`` tokens.

    ``InputError`` if a weight, such as the head's, is not in the checkpoint: a freshly initialised
    head gives meaningless rewards.
    """
    model = load_model(
        AutoModelForSequenceClassification,
        checkpoint,
        revision,
        tokens=tokens,
        **_labels(checkpoint, revision),
    )
    return model.to(device()).eval()


def _labels(checkpoint: str | Path, revision: str | None) -> dict[str, int]:
    """The number of heads in the weights if config.json does not say; transformers assumes two."""
    try:
        config, _ = PreTrainedConfig.get_config_dict(checkpoint, revision=revision)
    except Exception:  # of many classes; loading will report it
        return {}
    if "num_labels" in config or "id2label" in config:
        return {}
    labels = stored_rows(checkpoint, [f"{name}.weight" for name in FINAL], revision)
    return {} if labels is None else {"num_labels": labels}


def new_reward_model(
    checkpoint: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    revision: str | None = None,
    dropout: float = 0.0,
) -> PreTrainedModel:
    """A backbone with one label whose head is freshly initialised, for training.

    Every dropout probability in its configuration is set to ``dropout``, unless that is 0. If no
    module of the architecture drops hidden states, the inputs of the final layer are dropped.
    """
    torch.manual_seed(seed % 2**32)  # transformers' set_seed would import its trainer, and peft
    rates = dropout_rates(checkpoint, revision) if dropout else ()
    model = load_model(
        AutoModelForSequenceClassification,
        checkpoint,
        revision,
        fresh=HEAD,
        tokens=tokenizer.model_max_length,
        num_labels=1,
        **dict.fromkeys(rates, dropout),
    )
    if dropout and not hidden_dropouts(model):
        final_linear(model)[1].register_forward_pre_hook(
            lambda layer, inputs: F.dropout(inputs[0], dropout, layer.training)
        )
    _add_padding(model, tokenizer)
    check_tokenizer(tokenizer, model, checkpoint)
    if tokenizer.model_max_length < MAX_LENGTH:
        check_length(model, tokenizer.model_max_length, "max_length is")
    model.config.problem_type = None
    return model.to(device())


def head_state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Copies of the parameters between the backbone and the logits, by name."""
    return {
        name: parameter.detach().cpu().clone()
        for name, parameter in model.named_parameters()
        if HEAD.search(name)
    }


@torch.no_grad()
def _add_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Gives the model the tokenizer's padding token, and an embedding row if the token is new."""
    model.config.pad_token_id = tokenizer.pad_token_id
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer.pad_token_id == rows:
        model.resize_token_embeddings(rows + 1, mean_resizing=False)
        model.get_input_embeddings().weight[rows] = 0  # masked, so it may be anything


def backbone_with_head(
    checkpoint: str | Path, head: Mapping[str, torch.Tensor], tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """A backbone with the parameters that ``head_state`` copied, on our device.

    ``tokenizer`` is the ensemble's. ``InputError`` where the parameters do not fit this backbone.
    """
    model = load_model(
        AutoModelForSequenceClassification,
        checkpoint,
        fresh=HEAD,
        tokens=tokenizer.model_max_length,
        num_labels=1,
    )
    _add_padding(model, tokenizer)
    wanted = {name: value.shape for name, value in head_state(model).items()}
    if wanted != {name: value.shape for name, value in head.items()}:
        raise InputError(
            f"{checkpoint}: is not the backbone that the ensemble was trained from; its head would "
            f"have {', '.join(wanted)}, and the ensemble's had {', '.join(head)}"
        )
    model.load_state_dict(head, strict=False)
    return model.to(device()).eval()


def dropout_rates(checkpoint: str | Path, revision: str | None = None) -> list[str]:
    """The names of the dropout probabilities in a checkpoint's configuration."""
    try:
        config = AutoConfig.from_pretrained(checkpoint, revision=revision, trust_remote_code=False)
    except Exception as error:  # of many classes
        raise InputError(f"{checkpoint}: cannot be loaded as a model: {why(error)}") from error
    return [
        name
        for name, value in config.to_dict().items()
        if DROPOUT.search(name) and (value is None or type(value) in (int, float))
    ]


@torch.no_grad()
def hidden_dropouts(model: PreTrainedModel) -> dict[str, int]:
    """The modules that drop hidden states, with the states' width, in the order of their calls.

    Modules that drop attention probabilities are left out, and so are functions that a model calls
    without a module.
    """
    found: dict[str, int] = {}

    def note(name: str):
        def hook(_, inputs: tuple[torch.Tensor, ...]) -> None:
            if inputs[0].dim() in (2, 3):
                found[name] = inputs[0].shape[-1]

        return hook

    hooks = [
        module.register_forward_pre_hook(note(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Dropout)
    ]
    was_training = model.training
    try:
        model.eval()(input_ids=torch.tensor([[0, 1]], device=model.device))
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return found


def final_linear(model: PreTrainedModel) -> tuple[str, nn.Linear]:
    """The name and the module of the last linear layer, whose rows are the heads."""
    modules = dict(model.named_modules())
    for name in FINAL:
        if isinstance(modules.get(name), nn.Linear):
            return name, modules[name]
    raise InputError(
        f"{type(model).__name__}: no final linear layer found; expected one named "
        f"{', '.join(FINAL)}"
    )
