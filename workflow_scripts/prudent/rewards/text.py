"""How a reward model reads a prompt and a response: chat templates, and token ids."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prudent.errors import InputError, quoted
from prudent.rewards.templates import TEMPLATES, fault
from prudent.texts import as_list, check_text, text_list

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

# The largest share of pairs whose two sides may be the same tokens: they teach nothing.
MAX_EQUAL = 0.01

Message = dict[str, str]

Prompt = str | Sequence[Message]


def reward_tokenizer(
    checkpoint: str | Path, template: str | None, max_length: int, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a reward model that is to be trained, with its chat template set.

    ``template`` is a name of ``TEMPLATES``, a Jinja chat template, or None for the checkpoint's
    own; ``InputError`` where it has none. Longer texts lose their beginning, the prompt's first,
    and the response's where that alone is longer.
    """
    # What reads texts alone, as the world's judge does, needs no transformers.
    from prudent.checkpoints import load_tokenizer

    tokenizer = load_tokenizer(checkpoint, revision, truncation_side="left", padding_side="right")
    if template is not None:
        tokenizer.chat_template = TEMPLATES.get(template, template)
    if tokenizer.chat_template is None:
        raise InputError(
            f"{checkpoint}: the tokenizer has no chat template; set reward.template to one of "
            f"{', '.join(TEMPLATES)} or to a Jinja template"
        )
    check_template(tokenizer, checkpoint)
    tokenizer.model_max_length = max_length
    return tokenizer


def reading(tokenizer: PreTrainedTokenizerBase) -> tuple[Any, ...]:
    """What decides how a tokenizer reads a prompt and a response."""
    return (
        tokenizer.chat_template,
        tokenizer.model_max_length,
        tokenizer.pad_token_id,
        tokenizer.get_vocab(),
    )


def check_template(tokenizer: PreTrainedTokenizerBase, checkpoint: str | Path) -> None:
    """``InputError`` where the tokenizer's template fails or does not show the response."""
    wrong = fault(
        str(tokenizer.chat_template),
        lambda messages: tokenizer.apply_chat_template(messages, tokenize=False),
    )
    if wrong:
        raise InputError(f"{checkpoint}: the chat template {wrong}")


def encode(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Sequence[str]
) -> list[list[int]]:
    """Token ids of prompts with their responses, as the reward model reads them.

    The template decides the text; the tokenizer's own special tokens (such as [CLS]) are added
    unless the template writes the BOS token itself. A text of more than ``model_max_length``
    tokens loses its beginning, whatever side the tokenizer was saved with; of a response that alone
    is longer the end is left (see ``count_cut``). Never empty: an empty text is one EOS or padding
    token.
    """
    conversations = [
        [*as_messages(prompt), {"role": "assistant", "content": response}]
        for prompt, response in zip(*checked_texts(prompts, responses), strict=True)
    ]
    if not conversations:
        return []
    texts = _render(tokenizer, conversations)
    side = tokenizer.truncation_side
    tokenizer.truncation_side = "left"  # for this call: the tokenizer is the caller's
    try:
        ids = tokenizer(
            texts,
            add_special_tokens=not _writes_bos(tokenizer),
            truncation=True,
            max_length=tokenizer.model_max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
    finally:
        tokenizer.truncation_side = side
    empty = [tokenizer.pad_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id]
    return [row or empty for row in ids]


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: pd.DataFrame
) -> dict[str, list[list[int]]]:
    """The token ids of both sides of pairs for training, chosen and rejected.

    ``InputError`` where the model would see two equal sides in more than ``MAX_EQUAL`` of them, as
    where the responses' difference is cut off.
    """
    prompts = pairs["prompt"].tolist()
    sides = {
        side: encode(tokenizer, prompts, pairs[side].tolist()) for side in ("chosen", "rejected")
    }
    equal = sum(map(operator.eq, *sides.values()))
    if equal > MAX_EQUAL * len(pairs):
        raise InputError(
            f"found the same tokens for both responses of {equal} of {len(pairs)} pairs, expected "
            f"so of at most {MAX_EQUAL:.0%}; is max_length ({tokenizer.model_max_length}) too "
            "short, or does the template or the tokenizer drop what tells them apart?"
        )
    return sides


def count_cut(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[Sequence[int]], responses: Sequence[str]
) -> int:
    """How many responses are too long for ``model_max_length`` with an empty prompt, so that
    ``ids``, what ``encode`` made of prompts with them, lack their beginning."""
    limit = tokenizer.model_max_length
    full = [text for row, text in zip(ids, responses, strict=True) if len(row) >= limit]
    if not full:
        return 0
    alone = [[*as_messages(""), {"role": "assistant", "content": text}] for text in full]
    rows = tokenizer(
        _render(tokenizer, alone),
        add_special_tokens=not _writes_bos(tokenizer),
        return_attention_mask=False,
        verbose=False,  # it warns of long texts
    )["input_ids"]
    return sum(len(row) > limit for row in rows)


def _render(tokenizer: PreTrainedTokenizerBase, conversations: list[list[Message]]) -> list[str]:
    try:
        return tokenizer.apply_chat_template(conversations, tokenize=False)
    except Exception:  # of one of them; which one?
        for number, conversation in enumerate(conversations):
            try:
                tokenizer.apply_chat_template(conversation, tokenize=False)
            except Exception as error:
                roles = ", ".join(message["role"] for message in conversation)
                raise InputError(
                    f"the chat template cannot render the dialogue {number}, of the roles {roles}: "
                    f"{error}"
                ) from error
        raise


def checked_texts(
    prompts: Iterable[Any], responses: Iterable[Any]
) -> tuple[list[Prompt], list[str]]:
    """Prompts and responses as two lists of one length; arrays and columns of tables will do.

    ``InputError`` where one is not text, or where they are not as many.
    """
    named = {"prompts": as_list(prompts, "prompts"), "responses": text_list(responses, "responses")}
    for number, prompt in enumerate(named["prompts"]):
        _check_prompt(prompt, f"prompts[{number}]")
    counts = {name: len(values) for name, values in named.items()}
    if len(set(counts.values())) > 1:
        raise InputError(
            f"found {counts['prompts']} prompts and {counts['responses']} responses, expected a "
            "response for each prompt"
        )
    return named["prompts"], named["responses"]


def _check_prompt(prompt: Any, place: str) -> None:
    if not isinstance(prompt, list | tuple | np.ndarray) or not len(prompt):
        check_text(prompt, place, "a text or a list of messages")
        return
    for message in prompt:
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, str) or not isinstance(message.get("role"), str):
            raise InputError(f"{place}: found {quoted(message)}, expected a role and a content")
        check_text(content, place)


def as_messages(prompt: Prompt) -> list[Message]:
    """A prompt as messages: plain text is one user message."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def _writes_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template begins every text with BOS (asked with a conversation of no weight)."""
    if tokenizer.bos_token in (None, tokenizer.eos_token):
        return False
    probe = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    return tokenizer.apply_chat_template(probe, tokenize=False).startswith(tokenizer.bos_token)
