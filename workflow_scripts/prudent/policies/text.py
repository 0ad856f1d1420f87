"""Prompts as tokens, and a policy's tokens as text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prudent.errors import InputError, quoted
from prudent.tokens import special_tokens, token_rows, tokens_around


def pad_token(tokenizer: Any) -> int:
    """The tokenizer's padding token, or EOS if it has none (masks mark the real tokens)."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    raise InputError("the policy's tokenizer has neither a padding nor an EOS token; it needs one")


def end_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end a response: the tokenizer's EOS, and those in the model's configuration
    and generation settings (Llama 3 and Qwen have several).

    ``InputError`` where there are none: a response would never end by itself.
    """
    known = {tokenizer.eos_token_id}
    special = {*special_tokens(tokenizer).values()}
    for settings in (model.config, getattr(model, "generation_config", None)):
        named = getattr(settings, "eos_token_id", None)
        # An architecture's default id may be any word of another tokenizer.
        known |= {*(named if isinstance(named, list | tuple) else [named])} & special
    found = tuple(sorted(token for token in known if token is not None))
    if not found:
        raise InputError(
            f"{tokenizer.name_or_path or type(tokenizer).__name__}: neither the tokenizer nor the "
            "model's configuration names a token that ends a text (EOS); expected one"
        )
    return found


def text_ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """The beginnings of texts as policies read them, in training, in sampling and in checks.

    Special tokens before a text are kept. Those after it are left out, because the text is to be
    continued.
    """
    before, _ = tokens_around(tokenizer)
    return [[*before, *row] for row in token_rows(tokenizer, texts)["input_ids"]]


def encode_prompts(tokenizer: Any, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Prompts as ids and mask [B, P], padded on the left to the longest."""
    rows = text_ids(tokenizer, prompts)
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_token(tokenizer))
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        if not row:
            raise InputError(
                f"prompt {quoted(prompts[i])}: it has no tokens; a policy needs at least 1"
            )
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return ids, mask


def decode_responses(
    tokenizer: Any, prompt_ids: Tensor, prompt_mask: Tensor, response_ids: Tensor, mask: Tensor
) -> list[str]:
    """The responses' texts without special tokens, to be appended directly to their prompts.

    They are decoded together with the prompt, because some tokenizers (sentencepiece's) drop the
    space before a text's first word.
    """
    prompts = [
        ids[keep].tolist()
        for ids, keep in zip(prompt_ids.cpu(), prompt_mask.cpu().bool(), strict=True)
    ]
    responses = [
        ids[keep].tolist() for ids, keep in zip(response_ids.cpu(), mask.cpu().bool(), strict=True)
    ]

    def decode(rows: list[list[int]]) -> list[str]:
        return tokenizer.batch_decode(
            rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    heads = decode(prompts)
    wholes = decode([p + r for p, r in zip(prompts, responses, strict=True)])
    return [
        # A response can complete a character that the prompt's last token began; then there is no
        # clean cut, and the response is decoded by itself.
        whole[len(head) :] if whole.startswith(head) else decode([response])[0]
        for head, whole, response in zip(heads, wholes, responses, strict=True)
    ]
