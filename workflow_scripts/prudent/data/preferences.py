"""Preference pairs: read, sampled from the reference policy, or labelled anew."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from prudent.data.draws import with_spare
from prudent.data.given_labels import read_pairs, to_labelled_pair
from prudent.data.labels import Gold, label_pairs
from prudent.data.rows import BadRow, Message, Pair, to_pair
from prudent.data.settings import PreferenceSettings, Source
from prudent.data.sources import Rows
from prudent.data.table import Card, Table, check_splits, count, parse, split_of
from prudent.errors import InputError
from prudent.seeding import derive_seed

Sample = Callable[[list[str], int], list[str]]


def build_preferences(
    settings: PreferenceSettings,
    bad_rows: str,
    seed: int,
    prompts: Sequence[str] = (),
    sample: Sample | None = None,
    gold: Gold | None = None,
) -> tuple[pd.DataFrame, Card]:
    """Preference pairs, split by prompt into train, validation and judge.

    If ``settings.train`` is a number of pairs, the others of split train become spare. A source
    ``{sampled: N}`` draws N pairs of responses to ``prompts`` (each prompt once before any repeats)
    with ``sample(prompts, source's number)``; ``relabel: true`` takes the two responses of a read
    source. Both are labelled by ``gold(prompts, responses) -> scores [n]`` (`draw_labels`); other
    sources keep their labels, and their probability is null. A pair's id gives its origin: the
    source's position in the list, and its row or draw, from 1. Returns a table of the schema
    ``preferences`` and its data card.
    """
    table = Table(["id", "prompt", "chosen", "rejected", "source", "probability"])
    for part, source in enumerate(settings.sources):
        if source.kind == "sampled":
            rows, pairs, numbers, dropped = _sample_pairs(source, prompts, sample, seed, part)
            # A pair that is drawn again is another draw of its label, not a duplicate.
            keys = [(part, number) for number in numbers]
        else:
            stream = derive_seed(seed, "preferences", "rows", part)
            rows = read_pairs(source, [], ["prompt"], stream)
            one = partial(to_labelled_pair, label=source.label)
            pairs, numbers, dropped = parse(rows, one, bad_rows)
            keys = [(prompt_key(prompt), *responses) for prompt, *responses in pairs]
        probabilities: list[float | None] = [None] * len(pairs)
        if source.kind == "sampled" or source.relabel:
            stream = derive_seed(seed, "preferences", "labels", part)
            pairs, probabilities = label_pairs(pairs, settings, gold, stream)
        found = [
            (f"{part}:{number}", *pair, rows.name, probability)
            for number, pair, probability in zip(numbers, pairs, probabilities, strict=True)
        ]
        table.add(rows, keys, found, dropped)
    frame = table.frame()
    contradict = contradictions(frame)
    if settings.contradictions == "drop":
        frame = frame[~contradict].reset_index(drop=True)
        if frame.empty:
            raise InputError(
                f"preferences: found {len(contradict)} pairs that contradict each other and no "
                "others, expected some to keep; `contradictions: keep` keeps them"
            )
    shares = {"train": 1.0, "validation": settings.validation, "judge": settings.judge}
    frame["split"] = [
        split_of(prompt_key(p), seed, "preferences", shares["validation"], shares["judge"])
        for p in frame["prompt"]
    ]
    check_splits(frame, shares)
    if settings.train is not None:
        frame["split"] = with_spare(frame["split"], settings.train, seed)
    frame["probability"] = frame["probability"].astype(float)
    card = table.card(splits=count(frame["split"]), contradictions=int(contradict.sum()))
    return frame, card | {"rows": len(frame)}


def prompt_key(prompt: Sequence[Message]) -> str:
    """One string for a prompt's messages, without the white space around them."""
    return json.dumps([[message["role"], message["content"].strip()] for message in prompt])


def contradictions(pairs: pd.DataFrame) -> np.ndarray:
    """Marks pairs [n] (bool) that another pair with the same two responses contradicts.

    ``pairs`` has the columns prompt, chosen and rejected.
    """
    directed = [
        (prompt_key(prompt), chosen.strip(), rejected.strip())
        for prompt, chosen, rejected in pairs[["prompt", "chosen", "rejected"]].itertuples(
            index=False
        )
    ]
    known = set(directed)
    return np.array([(prompt, b, a) in known for prompt, a, b in directed], dtype=bool)


def _sample_pairs(
    source: Source, prompts: Sequence[str], sample: Sample | None, seed: int, part: int
) -> tuple[Rows, list[Pair], list[int], Counter[str]]:
    number = source.sampled
    if not len(prompts) or sample is None:
        raise InputError(
            f"preferences.sources[{part}]: found no prompts to sample responses to, expected "
            "prompts and the reference policy"
        )
    rng = np.random.default_rng(derive_seed(seed, "preferences", "prompts", part))
    order: list[int] = []
    while len(order) < number:
        order += rng.permutation(len(prompts)).tolist()
    drawn = [prompts[index] for index in order[:number]]
    responses = sample(drawn + drawn, part)
    pairs, kept, dropped = [], [], Counter[str]()
    for draw, *row in zip(
        range(1, number + 1), drawn, responses[:number], responses[number:], strict=True
    ):
        try:
            pairs.append(to_pair(dict(zip(("prompt", "chosen", "rejected"), row, strict=True))))
            kept.append(draw)
        except BadRow as bad:  # an empty response, or twice the same
            dropped[bad.reason] += 1
    origin = "pairs of responses of the reference policy"
    rows = Rows(source.name or "sampled", origin, number, list(range(1, number + 1)), {})
    return rows, pairs, kept, dropped
