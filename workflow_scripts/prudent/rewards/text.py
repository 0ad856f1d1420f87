"""How a reward model reads a prompt and a response: chat templates, and token ids."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prudent.errors import InputError, quoted
from prudent.rewards.templates import TEMPLATES, dated, fault
from prudent.texts import as_list, check_text, text_list
from prudent.tokens import special_tokens, token_rows, tokens_around

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

# The largest share of pairs whose two sides may have equal tokens: such pairs teach nothing.
MAX_EQUAL = 0.01

# Enclose the number of a special token that a message spells, while the template is rendered. Both
# are private-use characters of Unicode.
MARK = "\ue000", "\ue001"
MARKED = re.compile(f"{MARK[0]}([0-9]+){MARK[1]}")

PAD = "<|pad|>"
"""A separate padding token, for tokenizers whose texts end in the padding token."""

Message = dict[str, str]

Prompt = str | Sequence[Message]


def reward_tokenizer(
    checkpoint: str | Path, template: str | None, max_length: int, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a reward model to be trained, with its chat template set.

    ``template`` is a name of ``TEMPLATES``, a Jinja chat template, or None for the checkpoint's
    own; ``InputError`` where it has none. Longer texts lose their beginning, first the prompt's,
    then the response's. If texts end in the padding token, as with GPT-2 and others that pad with
    EOS, a separate token becomes the padding: a decoder is read at its last token that is not
    padding.
    """
    # Users of this module that only read texts, such as the world's judge, need no transformers.
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
    if encode(tokenizer, ["a"], ["b"])[0][-1] == tokenizer.pad_token_id:
        tokenizer.add_special_tokens({"pad_token": PAD})
    tokenizer.model_max_length = max_length
    return tokenizer


def reading(tokenizer: PreTrainedTokenizerBase) -> tuple[Any, ...]:
    """Everything that decides how a tokenizer reads a prompt and a response."""
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
        lambda messages: _apply(tokenizer, messages),
    )
    if wrong:
        raise InputError(f"{checkpoint}: the chat template {wrong}")


def encode(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Sequence[str]
) -> list[list[int]]:
    """Token ids of prompts with their responses, as the reward model reads them.

    The template decides the text; the tokenizer's own special tokens (such as [CLS]) are added
    unless the template writes the BOS token itself. If a prompt or a response spells a special
    token, it stays text. A text of more than ``model_max_length`` tokens loses its beginning after
    BOS, whatever the tokenizer's truncation side; of a response that is too long by itself, the end
    is kept (see ``count_cut``). Never empty: an empty text is one EOS or padding token.
    """
    conversations = [
        [*as_messages(prompt), {"role": "assistant", "content": response}]
        for prompt, response in zip(*checked_texts(prompts, responses), strict=True)
    ]
    if not conversations:
        return []
    # The longest first, since one may be a prefix of another.
    special = dict(sorted(special_tokens(tokenizer).items(), key=lambda item: -len(item[0])))
    texts, bos = _render(tokenizer, _hidden(conversations, [*special])), _writes_bos(tokenizer)
    ids = _token_ids(tokenizer, texts, add_special_tokens=not bos, truncation=True)
    for row, text in enumerate(texts):
        if MARK[0] in text:
            around = ([], []) if bos else tokens_around(tokenizer)
            ids[row] = _with_spelt(tokenizer, text, special, around)
        if bos and len(ids[row]) == tokenizer.model_max_length:
            ids[row][0] = tokenizer.bos_token_id
    empty = [tokenizer.pad_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id]
    return [row or empty for row in ids]


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: pd.DataFrame
) -> dict[str, list[list[int]]]:
    """The token ids of both sides of pairs for training, chosen and rejected.

    ``InputError`` where the model would see equal sides in more than ``MAX_EQUAL`` of the pairs, as
    happens when truncation removes the responses' difference.
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
    """How many responses are too long for ``model_max_length`` even with an empty prompt, so that
    ``ids``, the result of ``encode``, lack their beginning."""
    limit = tokenizer.model_max_length
    full = [text for row, text in zip(ids, responses, strict=True) if len(row) >= limit]
    if not full:
        return 0
    alone = [[*as_messages(""), {"role": "assistant", "content": text}] for text in full]
    rows = _token_ids(
        tokenizer, _render(tokenizer, alone), add_special_tokens=not _writes_bos(tokenizer)
    )
    return sum(len(row) > limit for row in rows)


def _token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], **options: bool
) -> list[list[int]]:
    """Token ids of texts; truncation keeps the end."""
    side = tokenizer.truncation_side
    tokenizer.truncation_side = "left"  # for this call only: the tokenizer is the caller's
    try:
        return tokenizer(
            texts,
            max_length=tokenizer.model_max_length if options.get("truncation") else None,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # it warns of long texts
            **options,
        )["input_ids"]
    finally:
        tokenizer.truncation_side = side


def _hidden(conversations: list[list[Message]], special: Sequence[str]) -> list[list[Message]]:
    """Dialogues with a mark in place of everything that spells a special token."""
    pattern = re.compile("|".join(map(re.escape, (MARK[0], *special))))
    if not any(pattern.search(m["content"]) for dialogue in conversations for m in dialogue):
        return conversations
    spelt = [MARK[0], *special]
    marks = {token: f"{MARK[0]}{number}{MARK[1]}" for number, token in enumerate(spelt)}
    return [
        [m | {"content": pattern.sub(lambda hit: marks[hit[0]], m["content"])} for m in dialogue]
        for dialogue in conversations
    ]


def _with_spelt(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    special: Mapping[str, int],
    around: tuple[list[int], list[int]],
) -> list[int]:
    """Token ids of a rendered text, cut on the left; its marks become plain text.

    Like a tokenizer, it splits at special tokens first, then tokenizes each text between them.
    """
    spelt = [MARK[0], *special]
    ids: list[int] = []
    pieces = re.split("(" + "|".join(map(re.escape, special)) + ")", text) if special else [text]
    for piece in filter(None, pieces):
        if piece in special:
            ids.append(special[piece])
        else:
            words = MARKED.sub(lambda hit: spelt[int(hit[1])], piece)
            ids += token_rows(tokenizer, [words])["input_ids"][0]
    before, behind = around
    room = max(0, tokenizer.model_max_length - len(before) - len(behind))
    return [*before, *ids[max(0, len(ids) - room) :], *behind]


def _apply(tokenizer: PreTrainedTokenizerBase, conversations: Any) -> Any:
    """The template's text of a conversation, or of each of several."""
    template = dated(tokenizer.get_chat_template())
    return tokenizer.apply_chat_template(conversations, chat_template=template, tokenize=False)


def _render(tokenizer: PreTrainedTokenizerBase, conversations: list[list[Message]]) -> list[str]:
    try:
        return _apply(tokenizer, conversations)
    except Exception:  # find out which one fails
        for number, conversation in enumerate(conversations):
            try:
                _apply(tokenizer, conversation)
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
    """Prompts and responses, also from arrays or table columns, as two lists of one length.

    ``InputError`` where one is not text, or the lengths differ.
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
    """Whether the template begins every text with BOS (tried on a short conversation)."""
    if tokenizer.bos_token in (None, tokenizer.eos_token):
        return False
    probe = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    return _apply(tokenizer, probe).startswith(tokenizer.bos_token)
