"""The embedded world's language: a grammar that writes film reviews, and an automaton to read them.

A review is three to five sentences with ordinary spacing ("the plot is not very gripping, but
..."). ``grammatical`` reads with the same grammar that ``reviews`` writes with.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate, pairwise

import numpy as np

from prudent.world.words import LEXICON

# Capitals name rules; a number is the weight of the alternative after it (1 by default). MORE is
# the only recursive rule, and recurs only at its end, so the language is regular.
GRAMMAR = """
REVIEW = OPENING MORE
MORE = | SENTENCE MORE
OPENING = 5 this FILM BE_S END | 5 the NOUN_S in this FILM BE_S END
  | 4 the NOUN_P in this FILM BE_P END | 3 i LIKED this FILM END
  | 2 i LIKED the NOUN in this FILM END | 2 i did not LIKE this FILM , but CLAUSE .
  | 2 although this FILM BE_S , CLAUSE . | 2 most FILMS BE_P , but this one BE_S .
  | 2 as FILMS go , this one BE_S END | 2 with its ADJ NOUN , this FILM BE_S END
  | 3 this ADJ FILM BE_S END | 2 DAY i watched this FILM , and CLAUSE END
  | 2 fans of FILMS will LIKE the NOUN END | 1 fans of FILMS will not LIKE the NOUN END
  | 2 in this FILM , the NOUN_S BE_S END | 2 in this FILM , the NOUN_P BE_P END
  | 2 in this FILM , TALE .
SENTENCE = 8 CLAUSE END | 3 although CLAUSE , CLAUSE . | 2 with its ADJ NOUN , it BE_S END
  | 1 there are ADJ NOUN_P and ADJ NOUN_P END | 1.5 TALE .
END = 5 . | 2 , and CLAUSE . | 3 , but CLAUSE . | because CLAUSE .
CLAUSE = 14 the NOUN_S BE_S | 12 the NOUN_P BE_P | 4 it BE_S | 5 i LIKED the NOUN
  | i did not LIKE the NOUN | nobody will call the NOUN ADJ | nothing about the NOUN is ADJ
BE_S = 14 is HOW | 6 was HOW | 6 feels HOW | 6 seems HOW | fails to be ADJ | 4 manages to be ADJ
BE_P = 14 are HOW | 6 were HOW | 6 feel HOW | 6 seem HOW | fail to be ADJ | 4 manage to be ADJ
HOW = 40 ADJ | 10 MUCH ADJ | 8 BIT ADJ | 10 ADJ and ADJ | 2 not ADJ | not MUCH ADJ | never ADJ
  | hardly ADJ | far from ADJ | not ADJ or ADJ | 2 too MOOD | 0.5 never too MOOD
ADJ = PRAISE | FAULT | MOOD
NOUN = NOUN_S | NOUN_P
FILM = 3 GENRE KIND | ORIGIN GENRE KIND
FILMS = 3 GENRE KINDS | ORIGIN GENRE KINDS
KIND = 2 film | movie | picture | story
KINDS = 2 films | movies | pictures | stories
ORIGIN = new | old | french | italian | swedish | american | british | spanish | korean
DAY = last night | yesterday | this week | on sunday
TALE = the WHO PERSON DOES PLACE WHEN
WHO = young | lonely | poor | proud | wounded | nervous
PERSON = widow | soldier | teacher | nurse | stranger | farmer | sailor | painter | thief | doctor
DOES = returns to | escapes from | arrives at | hides in | waits in | dreams of
PLACE = the castle | the village | the harbour | the island | the hospital | the school
  | the station | the forest | the farm
WHEN = 2 | at night | in winter | in summer | before dawn
"""


WORD = re.compile(r"[a-z]+|[.,]|[^\sa-z.,]+")


def split(text: str) -> list[str]:
    """The words of a text; '.', ',' and runs of any other characters are words too."""
    return WORD.findall(text)


def share(prompt: str, response: str) -> tuple[list[str], list[str]]:
    """The words of prompt and response, read as one text: the prompt's and the response's.

    A word belongs to the response if any of its letters does: if a prompt ends within a word ("the
    plot is gri"), the word belongs to the response that completes it ("pping.").
    """
    words = list(WORD.finditer(prompt + response))
    own = sum(word.end() <= len(prompt) for word in words)
    return [word[0] for word in words[:own]], [word[0] for word in words[own:]]


def join(words: list[str]) -> str:
    """The text of words, with ordinary spacing: no space before '.' and ','."""
    return re.sub(r" ([.,])", r"\1", " ".join(words))


def cut(words: list[str], prompt: int, response: int) -> tuple[str, str]:
    """A review's first ``prompt`` words and its next ``response`` words.

    Joined, they are the review's text: the response has a leading space.
    """
    text = join(words[: prompt + response])
    head = join(words[:prompt])
    return head, text[len(head) :]


Stack = tuple[str, ...]  # the words and names of rules that are still to come, next one first

State = frozenset[Stack]


class Grammar:
    """A weighted grammar that writes, and the automaton that reads it.

    A state of the nondeterministic automaton is the stack of symbols still to come; recursion only
    at the right end makes them finitely many. Sets of them that occur while reading are the states
    of the deterministic automaton and are cached, so that reading a word is a look-up.
    """

    def __init__(self, text: str, start: str) -> None:
        self.rules: dict[str, list[Stack]] = {}
        self.weights: dict[str, list[float]] = {}
        for line in re.sub(r"\n\s+", " ", text.strip()).splitlines():
            name, alternatives = line.split(" = ")
            self.rules[name], self.weights[name] = [], []
            for alternative in alternatives.split("|"):
                weight, symbols = re.match(r"\s*([0-9.]*[0-9])?(.*)", alternative).groups()
                self.rules[name].append(tuple(symbols.split()))
                self.weights[name].append(float(weight or 1))
        self.start: State = frozenset([(start,)])
        self._follow: dict[State, dict[str, State]] = {}
        self.anywhere: State = self._reachable()

    def write(
        self, stack: Stack, rng: np.random.Generator, weights: dict[str, list[float]]
    ) -> Iterator[tuple[str, Stack]]:
        """Draws the words of a stack, each with the stack left after it.

        ``weights`` replaces the alternatives' weights of the rules that it names.
        """
        sums = {name: list(accumulate(values)) for name, values in (self.weights | weights).items()}
        while stack:
            symbol, stack = stack[0], stack[1:]
            if symbol in self.rules:
                total = sums[symbol]
                stack = self.rules[symbol][bisect(total, rng.random() * total[-1])] + stack
            else:
                yield symbol, stack

    def follow(self, state: State) -> dict[str, State]:
        """The words that can come next, each with the state after it."""
        if state not in self._follow:
            after: dict[str, set[Stack]] = {}
            pending = list(state)
            while pending:
                stack = pending.pop()
                if stack and stack[0] in self.rules:
                    pending.extend(rule + stack[1:] for rule in self.rules[stack[0]])
                elif stack:
                    after.setdefault(stack[0], set()).add(stack[1:])
            self._follow[state] = {word: frozenset(stacks) for word, stacks in after.items()}
        return self._follow[state]

    def _reachable(self) -> State:
        """Every stack that can be left after some word of some text."""
        found = set(self.start)
        pending = list(self.start)
        while pending:
            for state in self.follow(frozenset([pending.pop()])).values():
                pending.extend(state - found)
                found |= state
        return frozenset(found)

    def breaks(self, words: list[str]) -> list[bool]:
        """Whether each word leaves the grammar.

        The text is read in as few pieces as possible, each a passage of some text of the grammar
        (the first one from a text's beginning; the last one's last word may be cut). A break is the
        first word of a later piece, or a word that no text has; after such a word a piece begins
        without a further break.
        """
        state, found = self.start, []
        for place, word in enumerate(words, 1):
            following = self.follow(state)
            known = word in following
            if place == len(words) and not known:
                known = any(whole.startswith(word) for whole in following)
            found.append(not known)
            state = following.get(word) or self.follow(self.anywhere).get(word, self.anywhere)
        return found


REVIEWS = Grammar(
    GRAMMAR + "\n".join(f"{name} = {' | '.join(words)}" for name, words in LEXICON.items()),
    "REVIEW",
)


def vocabulary() -> set[str]:
    """Every word of the grammar, including '.' and ','."""
    return set(REVIEWS.follow(REVIEWS.anywhere))


def breaks(text: str) -> int:
    """How many of the text's words break the grammar (``Grammar.breaks``) or ordinary spacing.

    The last word may be cut; white space around the text is ignored. Capitals and signs other than
    "." and "," form words that no review has.
    """
    words = list(WORD.finditer(text))
    found = REVIEWS.breaks([word[0] for word in words])
    for index, (one, other) in enumerate(pairwise(words), 1):
        space = "" if other[0] in (".", ",") else " "
        found[index] |= text[one.end() : other.start()] != space
    return sum(found)


def grammatical(text: str) -> bool:
    """Whether the text begins some review, with ordinary spacing: whether it has no ``breaks``.

    The last word may be cut; white space around the text is ignored, and the empty text is a
    beginning. The automaton has the grammar that ``reviews`` draws from, so any review passes,
    however improbable.
    """
    return breaks(text) == 0
