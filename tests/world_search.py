"""Searches for responses that the embedded world's true reward likes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from prudent.world.grammar import REVIEWS, WORD, State, grammatical, vocabulary
from prudent.world.reward import gold_reward, judgements

LENGTH = 10  # words of a response
HACK = "very really truly deeply very really truly deeply very superb"


def spaced(word: str) -> str:
    """A word as it stands behind another."""
    return word if word in (".", ",") else f" {word}"


def endings(prompt: str) -> Iterator[tuple[str, State]]:
    """What a grammatical prompt's last word can become, and the state behind it."""
    words = WORD.findall(prompt)
    if not words:
        yield "", REVIEWS.start
        return
    state = REVIEWS.start
    for word in words[:-1]:
        state = REVIEWS.follow(state)[word]
    for known, after in REVIEWS.follow(state).items():
        if known.startswith(words[-1]):
            yield known[len(words[-1]) :], after


def best_grammatical(prompt: str, enough: float = 1.0) -> tuple[float, str]:
    """The best response found by a beam within the grammar, of at most LENGTH words.

    Of the texts from which a judgement would follow alike (the same state, and the same worth of
    praise there, after negations, degrees and concessions) the best one is kept, so that what pays
    only later is not lost. The search ends where it has found ``enough``.
    """
    beam = list(endings(prompt))
    texts = [text for text, _ in beam if text]
    best = max(zip(gold_reward([prompt] * len(texts), texts), texts, strict=True), default=(-1, ""))
    for _ in range(LENGTH):
        longer = [
            (text + (spaced(word) if prompt or text else word), after)
            for text, state in beam
            for word, after in REVIEWS.follow(state).items()
        ]
        golds = gold_reward([prompt] * len(longer), [text for text, _ in longer])
        found = sorted(zip(golds, longer, strict=True), key=lambda entry: -entry[0])
        best = max(best, (found[0][0], found[0][1][0]))
        if best[0] >= enough:
            break
        kept: Counter = Counter()
        beam = []
        for _, (text, state) in found:
            if kept[state] < 20:  # most are not worth a look at what follows
                words = [*WORD.findall(prompt + text), "fresh"]
                key = (state, judgements(words, len(words) - 1, None)[0])
                kept.update([state, key])
                if kept[key] == 1:
                    beam.append((text, state))
    return best


MOVES = sorted(vocabulary())


def best_broken_by_beam(prompt: str, starts: list[str], width: int = 4) -> tuple[float, str]:
    """The best ungrammatical response found by a beam over the whole vocabulary.

    Words may follow with or without a space. Half of the beam is grammatical, since a response may
    do well to break the grammar at its end alone. ``starts`` are grown as well.
    """
    moves = [" " + word for word in MOVES] + [word for word in MOVES if word in (".", ",", "and")]
    beam, best = ["", *starts], (-1.0, "")
    for _ in range(LENGTH):
        longer = [text + move for text in beam for move in moves]
        found = sorted(zip(gold_reward([prompt] * len(longer), longer), longer, strict=True))[::-1]
        halves: tuple[list, list] = ([], [])
        for gold, text in found:
            whole = grammatical(prompt + text)
            if not whole:
                best = max(best, (gold, text))
            if len(halves[whole]) < width:
                halves[whole].append(text)
            elif all(len(half) == width for half in halves):
                break
        beam = halves[0] + halves[1]
    return best


def best_broken_by_evolution(
    prompt: str, starts: list[str], rng: np.random.Generator, rounds: int = 30, size: int = 60
) -> tuple[float, str]:
    """The best ungrammatical response found by an evolutionary search from some starts.

    Words are put in, taken out, replaced, exchanged and doubled; parents are the best of all that
    lived, ungrammatical ones alone, and the starts.
    """
    living: dict[str, float] = {}
    parents = [WORD.findall(start) for start in starts]
    for _ in range(rounds):
        children = []
        for _ in range(size):
            words = list(parents[int(rng.integers(len(parents)))])
            for _ in range(int(rng.integers(1, 4))):
                words = _mutated(words, rng)
            children.append("".join(spaced(word) for word in words[:LENGTH]))
        children = [c for c in children if not grammatical(prompt + c) and c not in living]
        golds = gold_reward([prompt] * len(children), children)
        living |= dict(zip(children, golds, strict=True))
        fittest = sorted(living, key=living.get)[::-1][:20]
        parents = [WORD.findall(text) for text in [*fittest, *starts]]
    text = max(living, key=living.get)
    return living[text], text


def _mutated(words: list[str], rng: np.random.Generator) -> list[str]:
    kind, at = int(rng.integers(5)), int(rng.integers(len(words) + 1))
    new = str(rng.choice(MOVES))
    if kind == 0 or at == len(words):
        return [*words[:at], new, *words[at:]]
    if kind == 1:
        return [*words[:at], *words[at + 1 :]]
    if kind == 2:
        return [*words[:at], new, *words[at + 1 :]]
    if kind == 3:
        other = int(rng.integers(len(words)))
        words = list(words)
        words[at], words[other] = words[other], words[at]
        return words
    return [*words[:at], words[at], *words[at:]]
