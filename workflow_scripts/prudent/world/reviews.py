"""Reviews and continuations, drawn from the embedded world's grammar."""

from __future__ import annotations

from itertools import islice

import numpy as np

from prudent.world.grammar import REVIEWS, Stack, cut, join
from prudent.world.words import (
    GENRE_OF,
    GENRES,
    LEXICON,
    MOOD,
    MOOD_SIGN,
    SIDES,
    TOPIC,
    VERBS,
    frequencies,
)

ZIPF = 1.0
"""Default exponent of Zipf's law, about that of words in natural languages."""


class Writers:
    """Draws the films of reviews and the weights of their rules, in a world with frequencies.

    The relative frequencies of genres, their names, nouns, praise, faults, moods and verbs follow
    Zipf's law with an exponent (``words.frequencies``); 0 is a flat world.
    """

    def __init__(self, zipf: float) -> None:
        self.genres = list(GENRES)
        shares = [frequencies("genre", zipf)[genre] for genre in self.genres]
        self.shares = [share / sum(shares) for share in shares]
        self.names = frequencies("genre's name", zipf)
        self.nouns = frequencies("noun", zipf)
        self.verbs = frequencies("verb", zipf)
        # Gamma weights of these shapes, normalised, have the frequencies as their exact means.
        self.shapes = {
            name: np.array([frequencies(kind, zipf)[word] for word in LEXICON[name]])
            for name, kind in (("PRAISE", "praise"), ("FAULT", "fault"), ("MOOD", "mood"))
        }

    def film(self, rng: np.random.Generator) -> tuple[str, str]:
        """A film: a genre, and the side of the film that its reviewer writes about most."""
        return str(rng.choice(self.genres, p=self.shares)), str(rng.choice(SIDES))

    def weights(self, rng: np.random.Generator, genre: str, side: str) -> dict[str, list[float]]:
        """The weights of rules for a reviewer of that film, who has an opinion and pet words."""
        opinion = rng.beta(1.5, 1.5)  # the share of praise, before any negation
        topics = dict.fromkeys(GENRES, 0.15) | dict.fromkeys(SIDES, 0.7)
        topics |= {genre: 2.5, side: 4.0}
        likes = {-1.0: 1.0 - opinion, 0.0: 0.2, 1.0: opinion}
        pets = {
            name: rng.gamma(0.4 * shapes) + 1e-3 * shapes for name, shapes in self.shapes.items()
        }
        verbs = [
            self.verbs[past] * (opinion if value > 0 else 1.0 - opinion)
            for past, (_, value) in VERBS.items()
        ]
        return {
            "GENRE": [
                self.names[word] * float(GENRE_OF[word] == genre) for word in LEXICON["GENRE"]
            ],
            "NOUN_S": [self.nouns[noun] * topics[TOPIC[noun]] for noun in LEXICON["NOUN_S"]],
            "NOUN_P": [self.nouns[noun] * topics[TOPIC[noun]] for noun in LEXICON["NOUN_P"]],
            "ADJ": [opinion, 1.0 - opinion, 0.4],
            "PRAISE": pets["PRAISE"].tolist(),
            "FAULT": pets["FAULT"].tolist(),
            "MOOD": [
                weight * likes[MOOD_SIGN[word].get(genre, 0.0)]
                for weight, word in zip(pets["MOOD"].tolist(), MOOD, strict=True)
            ],
            "LIKED": verbs,
            "LIKE": verbs,
        }


def _draw_review(rng: np.random.Generator) -> Stack:
    return ("OPENING", *["SENTENCE"] * int(rng.integers(2, 5)))


def reviews(rows: int, rng: np.random.Generator, zipf: float = ZIPF) -> list[str]:
    """Draws reviews of three to five sentences (about 30 to 60 words).

    Each has its genre and topics, an opinion that its sentences tend to share, and pet words, so a
    review is coherent but its continuation stays open. Over all reviews, words have the frequencies
    of ``Writers``.
    """
    writers, texts = Writers(zipf), []
    for _ in range(rows):
        weights = writers.weights(rng, *writers.film(rng))
        texts.append(join([word for word, _ in REVIEWS.write(_draw_review(rng), rng, weights)]))
    return texts


def continuations(
    rows: int, count: int, rng: np.random.Generator, words: int = 10, zipf: float = ZIPF
) -> tuple[list[str], list[list[str]]]:
    """Draws prompts, the first 2 to 8 words of a review, and ``count`` responses to each.

    A response continues the review by ``words`` words. It keeps the prompt's film; its writer's
    opinion and words are drawn anew.
    """
    writers = Writers(zipf)
    prompts, responses = [], []
    for _ in range(rows):
        film = writers.film(rng)
        weights = writers.weights(rng, *film)
        length = int(rng.integers(2, 9))
        opened = list(islice(REVIEWS.write(_draw_review(rng), rng, weights), length))
        begun, stack = [word for word, _ in opened], opened[-1][1]
        prompts.append(join(begun))
        drawn = []
        for _ in range(count):
            # Enough sentences that no response ends early.
            rest = REVIEWS.write(stack + ("SENTENCE",) * words, rng, writers.weights(rng, *film))
            written = begun + [word for word, _ in islice(rest, words)]
            drawn.append(cut(written, length, words)[1])
        responses.append(drawn)
    return prompts, responses
