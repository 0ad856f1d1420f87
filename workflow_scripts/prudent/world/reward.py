"""The embedded world's true reward r*(prompt, response), which reward models have to learn.

r* depends on negation, concession, genre and topic, not on words alone. Over the grammar's own
continuations its standard deviation is 0.46, nearly all of it among the responses to one prompt. A
linear regression on the words of prompt and response, fitted on 12,000 pairs and tested on as many,
explains R2 = 0.45 of its variance (tests/bench/world.py). It cannot be hacked by leaving the
language: ungrammatical text is worth less than 0, and after any beginning of a review some
grammatical text is worth more (tests/test_world_search.py).
"""

from __future__ import annotations

import math

from prudent.world.grammar import breaks, share
from prudent.world.words import DEGREE, GENRE_OF, GENRES, MOOD_SIGN, NEGATOR, POLARITY, SIDES, TOPIC

LIGHT, HEAVY = 0.5, 1.5  # weights of a concession, and of the clause that it is set against

TOO_MUCH = -1.2

JUDGEMENT, RELEVANCE, REPETITION, EXCESS = 0.5, 0.5, 0.3, 0.3


def genre_of(words: list[str]) -> str | None:
    """The genre that the words name first, or else the first one whose own nouns they use."""
    named = [GENRE_OF[word] for word in words if word in GENRE_OF]
    hinted = [TOPIC[word] for word in words if TOPIC.get(word) in GENRES]
    return next(iter(named + hinted), None)


def polarity(word: str, genre: str | None) -> float | None:
    """A word's judgement of a film of that genre; None if it is not a judgement word."""
    if word in MOOD_SIGN:
        return MOOD_SIGN[word].get(genre or "", 0.0)
    return POLARITY.get(word)


def judgements(words: list[str], start: int, genre: str | None) -> list[float]:
    """The value of each judgement in ``words[start:]``, read in the context of all words.

    A judgement word is worth its polarity, times the degree word before it. If it is negated, it is
    divided by the degree word ("not very good" is milder than "not good") and multiplied by each
    negator, none of which is above 1. Of several degree words the nearest one counts. "too" makes
    any judgement word a fault. A negator reaches to the next judgement word and across an "or"
    after it; like degrees, it ends with the clause. In a sentence, judgements before a "but", or
    between "although" and the next comma, count half; those after it, one and a half times.
    """
    values: list[float] = []
    weight, conceding, sentence = 1.0, False, 0
    negation, degree, too, judged = 1.0, 1.0, False, False
    for index, word in enumerate(words):
        value = polarity(word, genre)
        if (judged and word != "or") or word in (".", ",", "but", "although", "because"):
            negation, degree, too = 1.0, 1.0, False
        judged = value is not None
        if word == ".":
            weight, conceding, sentence = 1.0, False, len(values)
        elif word == "," and conceding:
            weight, conceding = HEAVY, False
        elif word == "although":
            weight, conceding = LIGHT, True
        elif word == "but":
            values[sentence:] = [LIGHT * earlier for earlier in values[sentence:]]
            weight = HEAVY
        elif word in NEGATOR:
            negation *= NEGATOR[word]
        elif word in DEGREE:
            degree = DEGREE[word]
        elif word == "too":
            too = True
        elif value is not None:
            value = TOO_MUCH if too else value * (degree if negation == 1.0 else 1 / degree)
            if index >= start:
                values.append(weight * negation * value)
            degree, too = 1.0, False
    return values


def relevance(prompt: list[str], response: list[str]) -> float:
    """How closely the response keeps to the prompt's topics, in (-1, 1).

    The prompt's topics are those of its nouns and of the genres that it names. Each topical word of
    the response counts once: 1 if its topic is among them; -1 if it belongs to another genre where
    the prompt has one, or to another side of films (story, people, craft) where the prompt has one;
    else 0. The sum s becomes s / (1 + |s|).
    """
    topics = {TOPIC[word] for word in prompt if word in TOPIC}
    score = 0
    for topic in (TOPIC[word] for word in set(response) if word in TOPIC):
        if topic in topics:
            score += 1
        elif any((other in SIDES) == (topic in SIDES) for other in topics):
            score -= 1
    return score / (1 + abs(score))


def repeats(response: list[str]) -> int:
    """How many of the response's nouns, genre names, judgement and degree words are repetitions."""
    content = [
        w for w in response if any(w in kind for kind in (TOPIC, POLARITY, MOOD_SIGN, DEGREE))
    ]
    return len(content) - len(set(content))


def gold_reward(prompts: list[str], responses: list[str]) -> list[float]:
    """The true reward r*(prompt, response) of each pair, in [-1, 1]; defined for any text.

    r* = 2^-breaks (1 + tanh(core)) - 1
    core = 0.5 sum_i v_i / sqrt(max(n, 1)) + 0.5 relevance - 0.3 repeats - 0.3 excess

    with v_1 ... v_n the response's ``judgements``, ``relevance`` and ``repeats`` as defined there,
    and excess = max(0, n - max(3, 0.3 words)), so that piling up judgements does not pay. breaks is
    the number of ``grammar.breaks`` of prompt and response as one text, less those of the prompt
    alone, plus one if the response has no words. So r* < 0 for any text that breaks the grammar,
    and each further break halves the distance from -1.

    The response is appended to the prompt as it is, so it needs its own leading space.
    ``grammar.share`` divides the words of the text between them; negations, concessions and the
    genre of the prompt carry over to the response. After a grammatical prompt, a response with any
    words has no breaks if and only if ``grammatical(prompt + response)``.
    """
    rewards = []
    for prompt, response in zip(prompts, responses, strict=True):
        before, words = share(prompt, response)
        both = before + words
        values = judgements(both, len(before), genre_of(both))
        excess = max(0.0, len(values) - max(3.0, 0.3 * len(words)))
        core = (
            JUDGEMENT * sum(values) / math.sqrt(max(len(values), 1))
            + RELEVANCE * relevance(before, words)
            - REPETITION * repeats(words)
            - EXCESS * excess
        )
        broken = breaks(prompt + response) - breaks(prompt) + (not words)
        rewards.append(2.0**-broken * (1.0 + math.tanh(core)) - 1.0)
    return rewards
