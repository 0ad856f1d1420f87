"""The texts that the reference policy is trained on, and the prompts that are cut from texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from prudent.data.rows import CLEANING, to_text
from prudent.data.settings import PromptSettings, TextSettings
from prudent.data.sources import read_source
from prudent.data.table import Card, Table, check_splits, count, parse, split_of
from prudent.errors import InputError
from prudent.seeding import derive_seed
from prudent.tokens import token_rows

# Only the beginning of a text is tokenised: this many characters for each token of the prompt.
CHARACTERS_PER_TOKEN = 32


def build_texts(settings: TextSettings, bad_rows: str, seed: int) -> tuple[pd.DataFrame, Card]:
    """The texts for the reference policy: cleaned, without duplicates, split by text.

    Returns a table of the schema ``texts`` and its data card.
    """
    table = Table(["text", "source"])
    for part, source in enumerate(settings.sources):
        rows = read_source(source, ["text"], [], derive_seed(seed, "texts", "rows", part))
        texts, _, dropped = parse(rows, lambda row: to_text(row["text"]), bad_rows)
        table.add(rows, texts, [(text, rows.name) for text in texts], dropped)
    frame = table.frame()
    share = settings.validation
    frame["split"] = [split_of(text, seed, "texts", share) for text in frame["text"]]
    check_splits(frame, {"train": 1.0, "validation": share})
    return frame, {"cleaning": CLEANING, **table.card(splits=count(frame["split"]))}


def build_prompts(
    settings: PromptSettings, tokenizer: Any, bad_rows: str, seed: int
) -> tuple[pd.DataFrame, Card]:
    """Prompts for the policies: the first few tokens of texts, as in the paper.

    The number of tokens is drawn uniformly, both ends included, from a stream of that text, so
    neither other rows nor their order matter. ``tokenizer`` is the reference policy's, a fast one.
    A prompt is a piece of the text itself, not decoded tokens, and is kept only if it has the same
    number of tokens by itself. Equal prompts are merged. Returns a table of the schema ``prompts``
    and its data card.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"prompts: found {type(tokenizer).__name__} as the reference policy's tokenizer, "
            "expected a fast one (tokenizer.json), which knows where tokens lie in a text"
        )
    low, high = settings.min_tokens, settings.max_tokens

    def length(text: str) -> int:
        return low + derive_seed(seed, "prompts", "length", text) % (high - low + 1)

    table = Table(["prompt", "source", "tokens"])
    for part, source in enumerate(settings.sources):
        rows = read_source(source, ["text"], [], derive_seed(seed, "prompts", "rows", part))
        texts, _, dropped = parse(rows, lambda row: to_text(row["text"]), bad_rows)
        long_enough = [text for text in texts if len(text) >= settings.min_characters]
        dropped["below_min_characters"] = len(texts) - len(long_enough)
        wanted = [(text, length(text)) for text in long_enough]
        prompts, more_dropped = _first_tokens(wanted, tokenizer)
        found = [(prompt, rows.name, tokens) for prompt, tokens in prompts]
        table.add(rows, [prompt for prompt, _ in prompts], found, dropped + more_dropped)
    frame = table.frame()
    test = settings.test
    if test >= len(frame):
        raise InputError(
            f"prompts: found test {test}, expected less than the {len(frame)} distinct prompts of "
            "the sources, so that some are left to train on"
        )
    order = np.argsort([derive_seed(seed, "prompts", "test", p) for p in frame["prompt"]])
    frame["split"] = "train"
    frame.loc[order[:test], "split"] = "test"
    return frame, {"cleaning": CLEANING, **table.card(splits=count(frame["split"]))}


def _first_tokens(
    texts: Sequence[tuple[str, int]], tokenizer: Any, batch: int = 4096
) -> tuple[list[tuple[str, int]], Counter[str]]:
    """The first n tokens of each text, as text, for texts with more than n tokens."""
    prompts, dropped = [], Counter[str]()
    for start in range(0, len(texts), batch):
        rows = texts[start : start + batch]
        heads = [text[: CHARACTERS_PER_TOKEN * number] for text, number in rows]
        spans = token_rows(tokenizer, heads, return_offsets_mapping=True)
        cut = [
            (head[: span[number - 1][1]], number)
            for head, span, (_, number) in zip(heads, spans["offset_mapping"], rows, strict=True)
            if len(span) > number
        ]
        dropped["too_few_tokens"] += len(rows) - len(cut)
        if not cut:  # the tokenizer fails on an empty list
            continue
        alone = token_rows(tokenizer, [prompt for prompt, _ in cut])["input_ids"]
        kept = [pair for pair, ids in zip(cut, alone, strict=True) if len(ids) == pair[1]]
        dropped["cut_inside_a_character_or_word_piece"] += len(cut) - len(kept)
        prompts += kept
    return prompts, dropped
