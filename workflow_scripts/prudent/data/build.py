"""The four tables that the data stage writes, with their data cards."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prudent import tables
from prudent.data.labels import label_pairs
from prudent.data.rows import (
    CLEANING,
    BadRow,
    Message,
    not_text,
    shown,
    to_pair,
    to_text,
)
from prudent.data.sources import Source, read_source
from prudent.errors import InputError
from prudent.seeding import derive_seed

log = logging.getLogger(__name__)

Card = dict[str, Any]

# Whole reviews need not be tokenised for their first few tokens: so many characters do.
_CHARACTERS_PER_TOKEN = 32


def split_of(key: str, seed: int, stage: str, validation: float, judge: float = 0.0) -> str:
    """The split of a text or prompt: by its own hash, so other rows and their order do not matter.

    ``judge`` is the share of all keys that goes to the judge, ``validation`` the share of the rest;
    the two are drawn independently, so that changing one share does not reshuffle the other.
    """
    if derive_seed(seed, stage, "judge", key) / 2**63 < judge:
        return "judge"
    return (
        "validation"
        if derive_seed(seed, stage, "validation", key) / 2**63 < validation
        else ("train")
    )


def build_texts(
    sources: Sequence[Mapping[str, Any]], validation: float, bad_rows: str, seed: int
) -> tuple[pd.DataFrame, Card]:
    """The texts for the reference policy: cleaned, without duplicates, split by text.

    Returns a table of the schema ``texts`` and its data card.
    """
    table = _Table(["text", "source"])
    for part, spec in enumerate(sources):
        source = read_source(spec, ["text"], [], derive_seed(seed, "texts", "rows", part))
        texts, dropped = _parse(source, lambda row: to_text(row["text"]), bad_rows)
        table.add(source, texts, [(text, source.name) for text in texts], dropped)
    frame = table.frame()
    frame["split"] = [split_of(text, seed, "texts", validation) for text in frame["text"]]
    _check_splits(frame, {"train": 1.0, "validation": validation})
    return frame, {"cleaning": CLEANING, **table.card(splits=_counts(frame["split"]))}


def build_prompts(
    settings: Mapping[str, Any], tokenizer: Any, bad_rows: str, seed: int
) -> tuple[pd.DataFrame, Card]:
    """Prompts for the policies: the first few tokens of texts, as in the paper.

    ``settings`` is the config's section: sources, min_tokens, max_tokens (inclusive),
    min_characters (of the cleaned text; the paper's "more than 200" is 201) and test, the number
    of prompts held out. How many tokens of a text are taken is drawn uniformly from a stream of
    that text, so neither other rows nor their order matter. ``tokenizer`` is the reference
    policy's, a fast one; a prompt is a piece of the text itself, not decoded tokens, and it is
    kept if it reads as so many tokens on its own too. Equal prompts are one. Returns a table of
    the schema ``prompts`` and its data card.
    """
    low, high = settings["min_tokens"], settings["max_tokens"]
    if not 1 <= low <= high:
        raise InputError(
            f"prompts: found min_tokens {low} and max_tokens {high}, expected 1 <= min <= max"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"prompts: found {type(tokenizer).__name__} as the reference policy's tokenizer, "
            "expected a fast one (tokenizer.json), which knows where tokens lie in a text"
        )

    def length(text: str) -> int:
        return low + derive_seed(seed, "prompts", "length", text) % (high - low + 1)

    table = _Table(["prompt", "source", "tokens"])
    for part, spec in enumerate(settings["sources"]):
        source = read_source(spec, ["text"], [], derive_seed(seed, "prompts", "rows", part))
        texts, dropped = _parse(source, lambda row: to_text(row["text"]), bad_rows)
        long_enough = [text for text in texts if len(text) >= settings["min_characters"]]
        dropped["below_min_characters"] = len(texts) - len(long_enough)
        wanted = [(text, length(text)) for text in long_enough]
        prompts, more_dropped = _first_tokens(wanted, tokenizer)
        rows = [(prompt, source.name, tokens) for prompt, tokens in prompts]
        table.add(source, [prompt for prompt, _ in prompts], rows, dropped + more_dropped)
    frame = table.frame()
    test = settings["test"]
    if not 0 <= test < len(frame):
        raise InputError(
            f"prompts: found test {test}, expected less than the {len(frame)} distinct prompts of "
            "the sources, so that some are left to train on"
        )
    order = np.argsort([derive_seed(seed, "prompts", "test", p) for p in frame["prompt"]])
    frame["split"] = "train"
    frame.loc[order[:test], "split"] = "test"
    return frame, {"cleaning": CLEANING, **table.card(splits=_counts(frame["split"]))}


def _first_tokens(
    texts: Sequence[tuple[str, int]], tokenizer: Any, batch: int = 4096
) -> tuple[list[tuple[str, int]], Counter[str]]:
    """The first n tokens of each text, as text, where there are more than that many."""
    prompts, dropped = [], Counter[str]()
    for start in range(0, len(texts), batch):
        rows = texts[start : start + batch]
        heads = [text[: _CHARACTERS_PER_TOKEN * count] for text, count in rows]
        spans = tokenizer(heads, add_special_tokens=False, return_offsets_mapping=True)
        cut = [
            (head[: span[count - 1][1]], count)
            for head, span, (_, count) in zip(heads, spans["offset_mapping"], rows, strict=True)
            if len(span) > count
        ]
        alone = tokenizer([prompt for prompt, _ in cut], add_special_tokens=False)["input_ids"]
        kept = [pair for pair, ids in zip(cut, alone, strict=True) if len(ids) == pair[1]]
        dropped["too_few_tokens"] += len(rows) - len(cut)
        dropped["cut_inside_a_character_or_word_piece"] += len(cut) - len(kept)
        prompts += kept
    return prompts, dropped


def build_preferences(
    settings: Mapping[str, Any],
    bad_rows: str,
    seed: int,
    prompts: Sequence[str] = (),
    sample: Callable[[list[str], int], list[str]] | None = None,
    gold: Callable[[list[list[Message]], list[str]], np.ndarray] | None = None,
) -> tuple[pd.DataFrame, Card]:
    """Preference pairs, split by prompt into train, validation and judge.

    ``settings`` is the config's section: sources, sharpness, label_noise, validation, judge. A
    source ``{sampled: N}`` draws N pairs of responses to ``prompts`` (each prompt once before any
    comes again) with ``sample(prompts, source's number)``; ``relabel: true`` takes the two
    responses of a read source. Both are labelled by ``gold(prompts, responses) -> scores [n]``
    (`draw_labels`); other sources keep their labels, and their probability is null. Returns a
    table of the schema ``preferences`` and its data card.
    """
    table = _Table(["prompt", "chosen", "rejected", "source", "probability"])
    for part, spec in enumerate(settings["sources"]):
        if "sampled" in spec:
            source, pairs, dropped = _sample_pairs(spec, prompts, sample, seed, part)
            # A pair that is drawn again is another draw of its label, not a duplicate.
            keys = [(part, index) for index in range(len(pairs))]
        else:
            stream = derive_seed(seed, "preferences", "rows", part)
            source = read_source(spec, ["chosen", "rejected"], ["prompt"], stream)
            pairs, dropped = _parse(source, to_pair, bad_rows)
            keys = [(prompt_key(prompt), *responses) for prompt, *responses in pairs]
        probabilities: list[float | None] = [None] * len(pairs)
        if "sampled" in spec or spec.get("relabel"):
            stream = derive_seed(seed, "preferences", "labels", part)
            pairs, probabilities = label_pairs(pairs, settings, gold, stream)
        rows = [
            (prompt, chosen, rejected, source.name, probability)
            for (prompt, chosen, rejected), probability in zip(pairs, probabilities, strict=True)
        ]
        table.add(source, keys, rows, dropped)
    frame = table.frame()
    shares = {"train": 1.0, "validation": settings["validation"], "judge": settings["judge"]}
    frame["split"] = [
        split_of(prompt_key(p), seed, "preferences", shares["validation"], shares["judge"])
        for p in frame["prompt"]
    ]
    _check_splits(frame, shares)
    frame["probability"] = frame["probability"].astype(float)
    return frame, table.card(splits=_counts(frame["split"]))


def prompt_key(prompt: Sequence[Message]) -> str:
    """One string for a prompt's messages, whatever white space stands around them."""
    return json.dumps([[message["role"], message["content"].strip()] for message in prompt])


def _sample_pairs(
    spec: Mapping[str, Any],
    prompts: Sequence[str],
    sample: Callable[[list[str], int], list[str]] | None,
    seed: int,
    part: int,
) -> tuple[Source, list[tuple[list[Message], str, str]], Counter[str]]:
    count = spec["sampled"]
    if not len(prompts) or sample is None:
        raise InputError(
            f"source {dict(spec)}: found no prompts to sample responses to, expected prompts and "
            "the reference policy"
        )
    rng = np.random.default_rng(derive_seed(seed, "preferences", "prompts", part))
    order: list[int] = []
    while len(order) < count:
        order += rng.permutation(len(prompts)).tolist()
    drawn = [prompts[index] for index in order[:count]]
    responses = sample(drawn + drawn, part)
    pairs, dropped = [], Counter[str]()
    for row in zip(drawn, responses[:count], responses[count:], strict=True):
        try:
            pairs.append(to_pair(dict(zip(("prompt", "chosen", "rejected"), row, strict=True))))
        except BadRow as bad:  # the policy ended at once, or said the same twice
            dropped[bad.reason] += 1
    name = spec.get("name") or "sampled"
    origin = "pairs of responses of the reference policy"
    return Source(name, origin, count, list(range(1, count + 1)), {}), pairs, dropped


def build_benchmark(
    settings: Mapping[str, Any], bad_rows: str, seed: int
) -> tuple[pd.DataFrame, Card]:
    """The benchmark's pairs; a row without a section has RewardBench's own for its subset.

    Nothing is removed as a duplicate: the set is scored as it stands, and ``id`` with ``subset``
    has to name a row. Returns a table of the schema ``benchmark`` and its data card.
    """
    table = _Table(["prompt", "chosen", "rejected", "subset", "section", "id"])
    for part, spec in enumerate(settings["sources"]):
        source = read_source(
            spec,
            ["chosen", "rejected", "subset", "id"],
            ["prompt", "section"],
            derive_seed(seed, "benchmark", "rows", part),
        )
        rows, dropped = _parse(source, _benchmark_row, bad_rows)
        table.add(source, [(part, index) for index in range(len(rows))], rows, dropped)
    frame = table.frame()
    repeated = frame[frame.duplicated(["subset", "id"])]
    if len(repeated):
        row = repeated.iloc[0]
        raise InputError(
            f"benchmark: found the id {row['id']!r} more than once in the subset "
            f"{row['subset']!r} ({len(repeated)} such row(s)), expected ids to be unique in a "
            f"subset; the sources: {', '.join(card['origin'] for card in table.cards)}"
        )
    return frame, table.card(sections=_counts(frame["section"]), subsets=_counts(frame["subset"]))


def _benchmark_row(row: Mapping[str, Any]) -> tuple[Any, ...]:
    from prudent.rewards.rewardbench import SECTION_OF

    prompt, chosen, rejected = to_pair(row)
    if not isinstance(row["subset"], str):
        raise not_text(row["subset"], "subset", "a text")
    if not isinstance(row["id"], str | int):
        raise not_text(row["id"], "id", "a text or an integer")
    section = row.get("section")
    if section is None:
        if row["subset"] not in SECTION_OF:
            raise BadRow(
                "unknown_subset",
                "subset",
                shown(row["subset"]),
                "one of RewardBench's, or a column section",
            )
        section = SECTION_OF[row["subset"]]
    if not isinstance(section, str):
        raise not_text(section, "section", "a text")
    return prompt, chosen, rejected, row["subset"], section, str(row["id"])


def save(frame: pd.DataFrame, card: Card, schema: str, path: Path, card_path: Path) -> None:
    """Writes a table and, beside it, its data card with the table's SHA-256."""
    tables.write_parquet(frame, path, schema)
    tables.write_json({**card, "sha256": tables.file_digest(path)}, card_path)


class _Table:
    """Rows of all sources of one table, each key once, with what happened to each source."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.rows: list[tuple[Any, ...]] = []
        self.cards: list[Card] = []
        self.seen: set[Any] = set()

    def add(
        self, source: Source, keys: Sequence[Any], rows: Sequence[tuple[Any, ...]], dropped: Counter
    ) -> None:
        before = len(self.rows)
        for key, row in zip(keys, rows, strict=True):
            if key not in self.seen:
                self.seen.add(key)
                self.rows.append(row)
        kept = len(self.rows) - before
        self.cards.append(
            {
                "name": source.name,
                "origin": source.origin,
                "available": source.available,
                "read": len(source.numbers),
                "dropped": {reason: count for reason, count in dropped.items() if count},
                "duplicates": len(rows) - kept,
                "kept": kept,
            }
        )
        log.info("%s: kept %d of %d rows", source.origin, kept, len(source.numbers))

    def frame(self) -> pd.DataFrame:
        if not self.rows:
            raise InputError(
                "found no row to keep, expected some; the sources: "
                + "; ".join(
                    f"{card['origin']}: {card['read']} rows read, dropped {card['dropped']}"
                    for card in self.cards
                )
            )
        return pd.DataFrame(self.rows, columns=self.names)

    def card(self, **counts: dict[str, int]) -> Card:
        return {"sources": self.cards, "rows": len(self.rows), **counts}


def _counts(values: pd.Series) -> dict[str, int]:
    return {str(name): int(count) for name, count in values.value_counts().items()}


def _check_splits(frame: pd.DataFrame, shares: Mapping[str, float]) -> None:
    counts = _counts(frame["split"])
    for split, share in shares.items():
        if share > 0 and not counts.get(split):
            raise InputError(
                f"found no row in the split {split} of {len(frame)} rows ({counts}), expected "
                f"some for the share {share}: more rows or another share"
            )


def _parse(
    source: Source, parse: Callable[[Mapping[str, Any]], Any], bad_rows: str
) -> tuple[list[Any], Counter[str]]:
    """Every row in our form; bad ones are refused in one message, or dropped and counted."""
    if bad_rows not in ("refuse", "drop"):
        raise InputError(f"bad_rows: found {bad_rows!r}, expected refuse or drop")
    parsed, dropped, first = [], Counter[str](), ""
    for number, row in source.rows():
        try:
            parsed.append(parse(row))
        except BadRow as bad:
            first = first or f"{source.origin}: row {number}, {bad}"
            dropped[bad.reason] += 1
    if first and bad_rows == "refuse":
        raise InputError(
            f"{first} ({dropped.total()} bad row(s) in all; `bad_rows: drop` drops them and counts "
            "them in the data card)"
        )
    return parsed, dropped
