"""The embedded world's true reward r*(prompt, response), which reward models only get to guess.

r* hangs on negation, concession, genre and topic, not on words alone: over the grammar's own
continuations its standard deviation is 0.46, nearly all of it among the responses to one prompt,
and a linear regression on the words of prompt and response, fitted on 12,000 pairs and tested on as
many, explains R2 = 0.45 of its variance (tests/bench/world.py). It cannot be hacked by leaving the
language: whatever is ungrammatical is worth less than 0, and after any beginning of a review
something grammatical is worth more (tests/test_world_search.py).
"""

from __future__ import annotations

import math

from prudent.world.grammar import breaks, share
from prudent.world.words import DEGREE, GENRE_OF, GENRES, MOOD_SIGN, NEGATOR, POLARITY, SIDES, TOPIC

LIGHT, HEAVY = 0.5, 1.5  # what is conceded, and what is held against it

TOO_MUCH = -1.2

JUDGEMENT, RELEVANCE, REPETITION, EXCESS = 0.5, 0.5, 0.3, 0.3


def genre_of(words: list[str]) -> str | None:
    """The genre that the words name first, or else the one whose own nouns they use first."""
    named = [GENRE_OF[word] for word in words if word in GENRE_OF]
    hinted = [TOPIC[word] for word in words if TOPIC.get(word) in GENRES]
    return next(iter(named + hinted), None)


def polarity(word: str, genre: str | None) -> float | None:
    """What a word says of a film of that genre; None where it is no judgement at all."""
    if word in MOOD_SIGN:
        return MOOD_SIGN[word].get(genre or "", 0.0)
    return POLARITY.get(word)


def judgements(words: list[str], start: int, genre: str | None) -> list[float]:
    """The value of each judgement in ``words[start:]``, read in the light of all the words.

    A judgement word is worth its polarity, times the degree word before it, or, if it is negated,
    divided by it ("not very good" is milder than "not good") and times each negator, none of which
    is above 1. Of several degree words the nearest one counts. "too" makes any judgement word a
    fault. A negator reaches to the next judgement word and over an "or" after
    it; it ends, as degrees do, with the clause. In a sentence what stands before a "but", and what
    stands between "although" and the next comma, counts half; what follows, one and a half times.
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
    """How much the response keeps to what the prompt is about, in (-1, 1).

    The prompt's topics are those of its nouns and of the genres that it names. Each topical word of
    the response counts once: 1 if its topic is among them; -1 if it is another genre's where the
    prompt has one, or another side of films (story, people, craft) where the prompt has one; else
    0. The sum s becomes s / (1 + |s|).
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
    """How many of the response's nouns, genres' names, judgement and degree words came before."""
    content = [
        w for w in response if any(w in kind for kind in (TOPIC, POLARITY, MOOD_SIGN, DEGREE))
    ]
    return len(content) - len(set(content))


def gold_reward(prompts: list[str], responses: list[str]) -> list[float]:
    """The true reward r*(prompt, response) of each pair, in [-1, 1]; defined for any text.

    r* = 2^-breaks (1 + tanh(core)) - 1
    core = 0.5 sum_i v_i / sqrt(max(n, 1)) + 0.5 relevance - 0.3 repeats - 0.3 excess

    with v_1 ... v_n the response's ``judgements``, ``relevance`` and ``repeats`` as defined there,
    and excess = max(0, n - max(3, 0.3 words)), so that judgement piled on judgement loses in the
    end. breaks is the number of ``grammar.breaks`` of prompt and response as one text, less those
    of the prompt alone, plus one if the response has no words. So r* < 0 for whatever breaks the
    grammar, whatever else it says, and each further break halves what is left above -1.

    The response is read as it stands behind the prompt, so it brings its own leading space. How the
    words of the one text are shared is said by ``grammar.share``; negations, concessions and the
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
