"""How a reward model reads a prompt and a response: chat templates, and token ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import (
    PreTrainedTokenizerBase,
)

from prudent.checkpoints import load_tokenizer
from prudent.errors import InputError
from prudent.rewards.templates import TEMPLATES

Message = dict[str, str]

Prompt = str | Sequence[Message]


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
