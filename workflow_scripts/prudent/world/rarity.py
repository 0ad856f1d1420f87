"""Counts of judgement words, and the rarest one of a response."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from prudent.world.grammar import share, split
from prudent.world.words import MOOD_SIGN, POLARITY

JUDGEMENTS = frozenset(POLARITY) | frozenset(MOOD_SIGN)


def judgement_counts(texts: Iterable[str]) -> dict[str, int]:
    """How often each judgement word occurs in the texts, 0 for those that do not."""
    counts = dict.fromkeys(sorted(JUDGEMENTS), 0)
    for text in texts:
        for word in split(text):
            if word in JUDGEMENTS:
                counts[word] += 1
    return counts


def rarest_judgement(words: Iterable[str], counts: Mapping[str, int]) -> str | None:
    """The judgement word of a response that is least frequent by the counts (missing ones are 0).

    Of equally rare words, the alphabetically first; None for a response that judges nothing.
    """
    judged = (word for word in words if word in JUDGEMENTS)
    return min(judged, key=lambda word: (counts.get(word, 0), word), default=None)


def counts_of_rarest(
    prompts: Sequence[str], responses: Sequence[str], written: Iterable[str]
) -> np.ndarray:
    """How often each response's rarest judgement occurs in the ``written`` texts; [n] floats.

    nan for a response that judges nothing.
    """
    counts = judgement_counts(written)
    rarest = [
        rarest_judgement(share(prompt, response)[1], counts)
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    return np.array([np.nan if word is None else counts[word] for word in rarest])
