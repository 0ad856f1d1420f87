"""Checkpoints: policies, reward models and their tokenizers, and how a reward model reads text.

Everything is loaded from safetensors, without remote code, and a reward model is only loaded if
every weight of it stands in the checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from prudent.errors import InputError

Message = dict[str, str]
Prompt = str | Sequence[Message]

# How a reward model reads a prompt and a response, as chat templates: the name stands in the
# config, the text is stored in the reward model's checkpoint. The continuation ends in EOS so that
# a decoder's last state is always taken at the same token, one that can look back at all others.
TEMPLATES = {
    "continuation": "{% for m in messages %}{{ m['content'] }}{% endfor %}{{ eos_token }}",
    "dialogue": (
        "{% for m in messages %}{{ '\n\nHuman: ' if m['role'] == 'user' else '\n\nAssistant: ' "
        "if m['role'] == 'assistant' else '\n\nSystem: ' }}{{ m['content'] | trim }}{% endfor %}"
    ),
}

MAX_LENGTH = 1 << 20

# Its warnings on newly initialised weights are this module's to give, as errors.
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


def device() -> torch.device:
    """The device that models run on: the first GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def attention() -> str:
    """Eager attention on a CPU, where SDPA costs several times as much at a few tens of tokens."""
    return "sdpa" if torch.cuda.is_available() else "eager"


def load_tokenizer(checkpoint: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """A checkpoint's tokenizer; one without a padding token pads with EOS (masks go by length)."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, revision=revision)
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


def load_causal_lm(checkpoint: str | Path, revision: str | None = None) -> PreTrainedModel:
    """A language model in float32 and evaluation mode, on our device."""
    return _load(AutoModelForCausalLM, checkpoint, revision).to(device()).eval()


def load_reward_model(checkpoint: str | Path, revision: str | None = None) -> PreTrainedModel:
    """A trained sequence-classification model, on our device.

    ``InputError`` if a weight, such as the head's, is not in the checkpoint: a freshly initialised
    head gives rewards that mean nothing.
    """
    return _load(AutoModelForSequenceClassification, checkpoint, revision).to(device()).eval()


def new_reward_model(
    checkpoint: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    revision: str | None = None,
) -> PreTrainedModel:
    """A backbone with one label whose head is freshly initialised, for training."""
    set_seed(seed % 2**32)
    model = _load(
        AutoModelForSequenceClassification, checkpoint, revision, fresh_head=True, num_labels=1
    )
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


def reward_tokenizer(
    checkpoint: str | Path, template: str | None, max_length: int, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a reward model that is to be trained, with its chat template set.

    ``template`` is a name of ``TEMPLATES``, a Jinja chat template, or None for the checkpoint's
    own; ``InputError`` where it has none. Longer texts lose their beginning, never the response.
    """
    tokenizer = load_tokenizer(checkpoint, revision)
    if template is not None:
        tokenizer.chat_template = TEMPLATES.get(template, template)
    if tokenizer.chat_template is None:
        raise InputError(
            f"{checkpoint}: the tokenizer has no chat template; set reward.template to one of "
            f"{', '.join(TEMPLATES)} or to a Jinja template"
        )
    tokenizer.model_max_length = max_length
    tokenizer.truncation_side = "left"
    tokenizer.padding_side = "right"
    return tokenizer


def encode(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Sequence[str]
) -> list[list[int]]:
    """Token ids of prompts with their responses, as the reward model reads them.

    The template decides the text; the tokenizer's own special tokens (such as [CLS]) are added
    unless the text already begins with the BOS token. Never empty: an empty text is one EOS or
    padding token.
    """
    texts = tokenizer.apply_chat_template(
        [
            [*as_messages(prompt), {"role": "assistant", "content": response}]
            for prompt, response in zip(prompts, responses, strict=True)
        ],
        tokenize=False,
    )
    begun = bool(tokenizer.bos_token and texts and texts[0].startswith(tokenizer.bos_token))
    begun = begun and tokenizer.bos_token != tokenizer.eos_token
    ids = tokenizer(
        texts,
        add_special_tokens=not begun,
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_attention_mask=False,
        return_token_type_ids=False,
    )["input_ids"]
    empty = [tokenizer.pad_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id]
    return [row or empty for row in ids]


def as_messages(prompt: Prompt) -> list[Message]:
    """A prompt as messages: plain text is one user message."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def _load(
    kind: Any,
    checkpoint: str | Path,
    revision: str | None,
    fresh_head: bool = False,
    **options: Any,
) -> PreTrainedModel:
    try:
        model, report = kind.from_pretrained(
            checkpoint,
            revision=revision,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=attention(),
            output_loading_info=True,
            ignore_mismatched_sizes=fresh_head,
            **options,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{checkpoint}: cannot be loaded as a model: {_first_line(error)}"
        ) from None
    # A linear layer's mask buffers and the like may be missing; a parameter may not.
    parameters = {name for name, _ in model.named_parameters()}
    missing = sorted(set(report["missing_keys"]) & parameters)
    if fresh_head:
        missing = [name for name in missing if not re.match(r"(score|classifier|pooler)\b", name)]
        missing = [name for name in missing if ".pooler." not in name]
    if missing:
        raise InputError(
            f"{checkpoint}: the weights {', '.join(missing[:5])} are not in the checkpoint and "
            "would be freshly initialised; expected a checkpoint with every weight trained"
        )
    return model


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
