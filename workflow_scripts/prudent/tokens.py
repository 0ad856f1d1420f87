"""How tokenizers read texts: as mere text, and with the special tokens that they add."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def token_rows(tokenizer: Any, texts: Sequence[str], **options: Any) -> Any:
    """What a tokenizer makes of texts themselves: no special tokens, also where one is spelt."""
    return tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, **options)


def tokens_around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer writes before a text, such as BOS, and behind it, such as EOS."""
    (plain,), (whole,) = (
        tokenizer(["a"], add_special_tokens=special)["input_ids"] for special in (False, True)
    )
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    return [], []


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """The tokens that stand for no text, with their ids."""
    found = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    for id_, token in tokenizer.added_tokens_decoder.items():
        if token.special:
            found[token.content] = id_
    return found
