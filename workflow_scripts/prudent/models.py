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
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.activations import NewGELUActivation
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

# The parameters that stand between a backbone and the logits, in the architectures' own names.
HEAD = re.compile(r"^(score|classifier|pre_classifier|pooler)\.|\.pooler\.")

# Its warnings on newly initialised weights are this module's to give, as errors.
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


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


def load_causal_lm(checkpoint: str | Path, revision: str | None = None) -> PreTrainedModel:
    """A language model in float32 and evaluation mode, on our device."""
    return _load(AutoModelForCausalLM, checkpoint, revision).to(device()).eval()


def load_reward_model(checkpoint: str | Path, tokens: int = 0) -> PreTrainedModel:
    """A trained sequence-classification model, on our device, for texts of so many tokens.

    ``InputError`` if a weight, such as the head's, is not in the checkpoint: a freshly initialised
    head gives rewards that mean nothing.
    """
    model = _load(AutoModelForSequenceClassification, checkpoint, tokens=tokens)
    return model.to(device()).eval()


def new_reward_model(
    checkpoint: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    revision: str | None = None,
) -> PreTrainedModel:
    """A backbone with one label whose head is freshly initialised, for training."""
    set_seed(seed % 2**32)
    model = _load(
        AutoModelForSequenceClassification,
        checkpoint,
        revision,
        fresh_head=True,
        tokens=tokenizer.model_max_length,
        num_labels=1,
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.problem_type = None
    return model.to(device())


def use_fused_gelu(model: nn.Module) -> None:
    """Replaces GPT-2's activation, which is spelt out in eight operations, by torch's own kernel.

    The function is the same one, GELU's tanh approximation, up to rounding.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


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
    tokenizer = load_tokenizer(checkpoint, revision, truncation_side="left", padding_side="right")
    if template is not None:
        tokenizer.chat_template = TEMPLATES.get(template, template)
    if tokenizer.chat_template is None:
        raise InputError(
            f"{checkpoint}: the tokenizer has no chat template; set reward.template to one of "
            f"{', '.join(TEMPLATES)} or to a Jinja template"
        )
    tokenizer.model_max_length = max_length
    return tokenizer


def encode(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Sequence[str]
) -> list[list[int]]:
    """Token ids of prompts with their responses, as the reward model reads them.

    The template decides the text; the tokenizer's own special tokens (such as [CLS]) are added
    unless the template writes the BOS token itself. A text of more than ``model_max_length``
    tokens loses its beginning, whatever side the tokenizer was saved with. Never empty: an empty
    text is one EOS or padding token.
    """
    tokenizer.truncation_side = "left"
    conversations = [
        [*as_messages(prompt), {"role": "assistant", "content": response}]
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    if not conversations:
        return []
    texts = tokenizer.apply_chat_template(conversations, tokenize=False)
    ids = tokenizer(
        texts,
        add_special_tokens=not _writes_bos(tokenizer),
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


def _writes_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template begins every text with BOS (asked with a conversation of no weight)."""
    if tokenizer.bos_token in (None, tokenizer.eos_token):
        return False
    probe = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    return tokenizer.apply_chat_template(probe, tokenize=False).startswith(tokenizer.bos_token)


def _load(
    kind: Any,
    checkpoint: str | Path,
    revision: str | None = None,
    fresh_head: bool = False,
    tokens: int = 0,
    **options: Any,
) -> PreTrainedModel:
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
            ignore_mismatched_sizes=fresh_head,
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
    if fresh_head:
        missing = [name for name in missing if not HEAD.search(name)]
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
