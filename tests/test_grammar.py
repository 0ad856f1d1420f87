"""The grammar, against enumeration."""

import itertools
import math

import numpy as np
import pytest

from prudent.world.grammar import (
    Grammar,
)

SMALL = Grammar(
    """
TEXT = A MORE
MORE = | B MORE
A = 2 the N runs . | the N and the N run .
B = 0.5 it D runs . | it D D runs , it runs .
N = dog | cat
D = | not
""",
    "TEXT",
)


def enumerate_texts(grammar: Grammar, stack: tuple[str, ...], longest: int) -> set[tuple]:
    """The first ``longest`` words of every text of a stack, by plain expansion."""
    if not stack or longest == 0:
        return {()}
    if stack[0] not in grammar.rules:
        rest = enumerate_texts(grammar, stack[1:], longest - 1)
        return {(stack[0], *text) for text in rest}
    return set().union(
        *(enumerate_texts(grammar, rule + stack[1:], longest) for rule in grammar.rules[stack[0]])
    )


def test_automaton_agrees_with_enumeration():
    prefixes = {
        text[:k] for text in enumerate_texts(SMALL, ("TEXT",), 12) for k in range(len(text) + 1)
    }
    words = sorted({word for text in prefixes for word in text})
    assert words == sorted(SMALL.follow(SMALL.anywhere))
    pending, seen = [()], 0
    while pending:  # every accepted sequence with each word after it; nothing follows a refused one
        text = pending.pop()
        seen += 1
        state = SMALL.start
        for word in text:
            state = SMALL.follow(state)[word]
        for word in words:
            longer = (*text, word)
            assert (word in SMALL.follow(state)) == (longer in prefixes), longer
            if longer in prefixes and len(longer) < 12:
                pending.append(longer)
    assert seen == len({text for text in prefixes if len(text) < 12}) > 100


UNKNOWN = ("zebra", "do", "r")  # words of no text, two of them beginnings of words


def test_breaks_are_as_few_as_can_be():
    texts = enumerate_texts(SMALL, ("TEXT",), 16)
    passages = {text[i:j] for text in texts for i in range(len(text)) for j in range(i + 1, i + 8)}
    beginnings = {text[:k] for text in texts for k in range(8)}

    def with_cut(texts: set[tuple]) -> set[tuple]:
        """The texts, and those whose last word is cut."""
        return {(*t[:-1], t[-1][:k]) for t in texts if t for k in range(1, len(t[-1]) + 1)}

    cut_passages, cut_beginnings = with_cut(passages), with_cut(beginnings)
    rng = np.random.default_rng(0)
    words = [*sorted({word for passage in passages for word in passage}), *UNKNOWN]
    for _ in range(600):
        text = tuple(str(word) for word in rng.choice(words, int(rng.integers(1, 7))))
        # pieces[j]: the fewest breaks in the first j words.
        pieces = [0] + [math.inf] * len(text)
        for i, j in itertools.combinations(range(len(text) + 1), 2):
            last = j == len(text)  # which alone may be cut
            if i == 0 and text[:j] in (cut_beginnings if last else beginnings):
                pieces[j] = 0
            elif text[i:j] in [(word,) for word in UNKNOWN] and not (last and text[i] != "zebra"):
                pieces[j] = min(pieces[j], pieces[i] + 1)
            elif text[i:j] in (cut_passages if last else passages):
                unknown = i > 0 and text[i - 1] in UNKNOWN
                pieces[j] = min(pieces[j], pieces[i] + (not unknown))
        assert sum(SMALL.breaks(list(text))) == pieces[-1], text


def test_weights_of_rules_are_followed():
    rng = np.random.default_rng(0)
    first = [list(SMALL.write(("A",), rng, {}))[2][0] for _ in range(3000)]
    assert np.mean([word == "runs" for word in first]) == pytest.approx(2 / 3, abs=0.03)
    nouns = {word for _ in range(50) for word, _ in SMALL.write(("N",), rng, {"N": [0.0, 1.0]})}
    assert nouns == {"cat"}
