"""Reviews and continuations, drawn from the embedded world's grammar."""

from __future__ import annotations

from itertools import islice

import numpy as np

from prudent.world.grammar import REVIEWS, Stack, cut, join
from prudent.world.words import GENRE_OF, GENRES, LEXICON, MOOD, MOOD_SIGN, SIDES, TOPIC, VERBS


def _draw_film(rng: np.random.Generator) -> tuple[str, str]:
    """What a review is about: a genre, and the side of the film that its writer looks at most."""
    return str(rng.choice(list(GENRES))), str(rng.choice(SIDES))


def _draw_weights(rng: np.random.Generator, genre: str, side: str) -> dict[str, list[float]]:
    """What a reviewer of that film will say, as weights of rules: an opinion, and pet words."""
    opinion = rng.beta(1.5, 1.5)  # the share of what is said as praise, before any negation
    topics = dict.fromkeys(GENRES, 0.15) | dict.fromkeys(SIDES, 0.7)
    topics |= {genre: 2.5, side: 4.0}
    likes = {-1.0: 1.0 - opinion, 0.0: 0.2, 1.0: opinion}

    def pet(words: list[str]) -> list[float]:
        return list(rng.gamma(0.4, size=len(words)) + 1e-3)

    verbs = [opinion if value > 0 else 1.0 - opinion for _, value in VERBS.values()]
    return {
        "GENRE": [float(GENRE_OF[word] == genre) for word in LEXICON["GENRE"]],
        "NOUN_S": [topics[TOPIC[noun]] for noun in LEXICON["NOUN_S"]],
        "NOUN_P": [topics[TOPIC[noun]] for noun in LEXICON["NOUN_P"]],
        "ADJ": [opinion, 1.0 - opinion, 0.4],
        "PRAISE": pet(LEXICON["PRAISE"]),
        "FAULT": pet(LEXICON["FAULT"]),
        "MOOD": [
            weight * likes[MOOD_SIGN[word].get(genre, 0.0)]
            for weight, word in zip(pet(LEXICON["MOOD"]), MOOD, strict=True)
        ],
        "LIKED": verbs,
        "LIKE": verbs,
    }


def _draw_review(rng: np.random.Generator) -> Stack:
    return ("OPENING", *["SENTENCE"] * int(rng.integers(2, 5)))


def reviews(rows: int, rng: np.random.Generator) -> list[str]:
    """Draws reviews of three to five sentences (about 30 to 60 words).

    Each has a genre and topics that it keeps to, an opinion that its sentences share only by
    tendency, and pet words, so that a review hangs together while what comes next stays open.
    """
    texts = []
    for _ in range(rows):
        weights = _draw_weights(rng, *_draw_film(rng))
        texts.append(join([word for word, _ in REVIEWS.write(_draw_review(rng), rng, weights)]))
    return texts


def continuations(
    rows: int, count: int, rng: np.random.Generator, words: int = 10
) -> tuple[list[str], list[list[str]]]:
    """Draws prompts, the first 2 to 8 words of a review, and ``count`` responses to each.

    A response is ``words`` words with which the review could go on; it keeps the prompt's film, and
    its writer's opinion and words are drawn anew.
    """
    prompts, responses = [], []
    for _ in range(rows):
        film = _draw_film(rng)
        weights = _draw_weights(rng, *film)
        length = int(rng.integers(2, 9))
        opened = list(islice(REVIEWS.write(_draw_review(rng), rng, weights), length))
        begun, stack = [word for word, _ in opened], opened[-1][1]
        prompts.append(join(begun))
        drawn = []
        for _ in range(count):
            # Sentences enough that no response ends early.
            rest = REVIEWS.write(stack + ("SENTENCE",) * words, rng, _draw_weights(rng, *film))
            written = begun + [word for word, _ in islice(rest, words)]
            drawn.append(cut(written, length, words)[1])
        responses.append(drawn)
    return prompts, responses
