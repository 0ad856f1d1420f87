"""The embedded world's benchmark: pairs in sections and subsets, as in RewardBench."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from prudent.world.grammar import cut, grammatical, split, vocabulary
from prudent.world.reviews import ZIPF, continuations
from prudent.world.reward import gold_reward
from prudent.world.words import LEXICON, MOOD_SIGN, POLARITY

# Section, least and greatest gold margin of each subset.
SUBSETS = {
    "wide": ("Wide margin", 1.1, 2.0),
    "clear": ("Wide margin", 0.7, 1.1),
    "close": ("Narrow margin", 0.2, 0.4),
    "narrow": ("Narrow margin", 0.05, 0.2),
    "negation": ("Negation", 0.2, 2.0),
    "contrast": ("Negation", 0.2, 2.0),
    "salad": ("Off-policy", 0.3, 2.0),
    "shuffled": ("Off-policy", 0.3, 2.0),
    "repeated": ("Off-policy", 0.3, 2.0),
    "praise": ("Off-policy", 0.3, 2.0),
}

RESPONSE_WORDS = 10

BE = ("is", "are", "was", "were", "feels", "feel", "seems", "seem")


def benchmark(rows: int, rng: np.random.Generator, zipf: float = ZIPF) -> pd.DataFrame:
    """Draws ``rows`` pairs of ten-word responses to prompts of 2 to 8 words, over all subsets.

    Word frequencies are those of ``reviews`` with this exponent of Zipf's law.

    Columns as in ``schemas.SCHEMAS["benchmark"]``. The chosen response is the one with the higher
    ``gold_reward``, by a margin within its subset's ``SUBSETS``. wide, clear, close, narrow: two
    continuations of a review. negation: one continuation, with and without an added or removed
    "not". contrast: one continuation, with the judgements on the two sides of a "but" or an
    "although" swapped. Off-policy: a continuation of positive reward, against random words (salad),
    its own words shuffled, one to three of them repeated, or words of praise alone.
    """
    found = []
    for row in range(rows):
        subset = list(SUBSETS)[row % len(SUBSETS)]
        prompt, chosen, rejected = _draw_pair(subset, rng, zipf)
        found.append(
            {
                "prompt": [{"role": "user", "content": prompt}],
                "chosen": chosen,
                "rejected": rejected,
                "subset": subset,
                "section": SUBSETS[subset][0],
                "id": f"{subset}-{row // len(SUBSETS)}",
            }
        )
    return pd.DataFrame(found, columns=["prompt", "chosen", "rejected", "subset", "section", "id"])


def _draw_pair(subset: str, rng: np.random.Generator, zipf: float) -> tuple[str, str, str]:
    """Draws candidates until one has the subset's form and margin: prompt, chosen, rejected."""
    section, least, most = SUBSETS[subset]
    while True:
        # Two extra words, because an edit can remove one.
        (prompt,), ((first, second),) = continuations(1, 2, rng, RESPONSE_WORDS + 2, zipf)
        begun, words = split(prompt), split(first)
        other = split(second) if section.endswith("margin") else _edit(subset, words, rng)
        texts = [cut(begun + side, len(begun), RESPONSE_WORDS)[1] for side in (words, other)]
        if section == "Negation" and not grammatical(prompt + texts[1]):
            continue
        golds = gold_reward([prompt, prompt], texts)
        if section != "Off-policy" and golds[0] < golds[1]:
            texts, golds = texts[::-1], golds[::-1]
        if section == "Off-policy" and golds[0] <= 0:
            continue
        if least <= golds[0] - golds[1] <= most:
            return prompt, texts[0], texts[1]


def _edit(subset: str, words: list[str], rng: np.random.Generator) -> list[str]:
    """A response's counterpart in a subset; the response itself where an edit is not possible."""
    if subset == "negation":
        places = [i for i, word in enumerate(words) if word == "not"]
        if places:
            return words[: places[0]] + words[places[0] + 1 :]
        places = [i for i, word in enumerate(words) if word in BE]
        return words[: places[0] + 1] + ["not"] + words[places[0] + 1 :] if places else words
    if subset == "contrast":
        judged = [i for i in range(RESPONSE_WORDS) if words[i] in POLARITY or words[i] in MOOD_SIGN]
        for i, j in pairwise(judged):
            between = words[i:j]
            if "." not in between and ("but" in between or "although" in words[:i]):
                return words[:i] + [words[j], *words[i + 1 : j], words[i]] + words[j + 1 :]
        return words
    if subset == "salad":
        return [str(word) for word in rng.choice(sorted(vocabulary()), RESPONSE_WORDS)]
    if subset == "shuffled":
        return [str(word) for word in rng.permutation(words[:RESPONSE_WORDS])]
    if subset == "repeated":
        start, length = int(rng.integers(6)), int(rng.integers(1, 4))
        return (words[start : start + length] * RESPONSE_WORDS)[:RESPONSE_WORDS]
    return [str(word) for word in rng.choice(LEXICON["PRAISE"], RESPONSE_WORDS)]
