"""The embedded world: a grammar of short film reviews, and the true reward of a continuation.

Everything is written here and drawn from a seed. A review is three to five sentences with ordinary
spacing ("the plot is not very gripping, but ..."); the study's prompts are the first words of a
review and its responses the next ten. ``grammatical`` reads the same grammar that ``reviews``
writes, and ``gold_reward`` is the r*(prompt, response) that reward models only get to guess.

r* hangs on negation, concession, genre and topic, not on words alone: over the grammar's own
continuations its standard deviation is 0.46, nearly all of it among the responses to one prompt,
and a linear regression on the words of prompt and response, fitted on 12,000 pairs and tested on as
many, explains R2 = 0.42 of its variance.
"""

from __future__ import annotations

import math
import re
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate, islice, pairwise

import numpy as np
import pandas as pd

# --- the language, as data ------------------------------------------------------------------------

# Nouns by topic, singular and plural: three sides that every film has, then what each genre has.
NOUNS = {
    "story": ("plot script ending premise dialogue", "scenes subplots twists"),
    "people": ("acting cast heroine villain", "actors performances characters"),
    "craft": ("music camerawork lighting editing", "effects costumes images"),
    "horror": ("monster atmosphere dread", "scares nightmares"),
    "comedy": ("humour timing banter", "jokes gags"),
    "family": ("animation lesson friendship", "songs animals"),
    "romance": ("chemistry courtship longing", "lovers kisses"),
    "action": ("chase showdown stuntwork", "fights explosions"),
    "mystery": ("puzzle investigation suspense", "clues suspects"),
}
SIDES = ("story", "people", "craft")
GENRES = {
    "horror": "horror ghost",
    "comedy": "comedy slapstick",
    "family": "family cartoon",
    "romance": "romantic wedding",
    "action": "action war",
    "mystery": "mystery crime",
}
# What each word says of a film, whatever the film.
PRAISE = {
    1.4: "superb brilliant wonderful gorgeous",
    1.0: "great gripping clever charming fresh memorable moving rich sharp vivid elegant convincing"
    " delightful impressive original honest stylish lively",
    0.6: "decent pleasant likeable competent",
}
FAULT = {
    1.4: "awful dreadful terrible horrendous",
    1.0: "dull boring clumsy weak tedious shallow stale lazy messy flat hollow wooden forgettable"
    " pointless bland sloppy lifeless muddled",
    0.6: "uneven thin ordinary dated",
}
VERBS = {  # past form, form after "did not" and "will", what it says
    "enjoyed": ("enjoy", 1.0),
    "loved": ("love", 1.4),
    "liked": ("like", 0.8),
    "admired": ("admire", 1.0),
    "hated": ("hate", -1.4),
    "disliked": ("dislike", -0.8),
    "regretted": ("regret", -1.0),
    "resented": ("resent", -1.0),
}
# Words whose meaning hangs on the genre: praise in the first ones, a fault in the others, and
# nothing where neither names it or no genre is known.
MOOD = {
    "scary": ("horror mystery", "family comedy romance"),
    "bloody": ("horror action", "family comedy romance"),
    "grim": ("horror mystery", "family comedy romance"),
    "cruel": ("horror action", "family comedy romance"),
    "strange": ("horror mystery comedy", "family romance action"),
    "tense": ("horror mystery action", "family comedy romance"),
    "violent": ("action horror", "family romance comedy"),
    "loud": ("action comedy", "romance mystery horror"),
    "frantic": ("action comedy", "romance mystery family"),
    "silly": ("comedy family", "horror mystery action"),
    "absurd": ("comedy", "mystery romance action horror"),
    "simple": ("family action", "mystery comedy"),
    "sweet": ("family romance", "horror mystery action"),
    "innocent": ("family romance", "horror action mystery"),
    "tender": ("romance family", "action horror comedy"),
    "sentimental": ("romance family", "action mystery comedy"),
    "slow": ("romance mystery", "action comedy family"),
    "quiet": ("romance mystery horror", "action comedy"),
}
NEGATION = {
    1.0: "never nothing fails fail",
    0.8: "not far nobody",
    0.7: "hardly",
}
MORE_SO = {1.5: "very really truly deeply"}
LESS_SO = {0.6: "rather somewhat fairly slightly"}

# Capitals name rules, a number is the weight of the alternative after it (1 where there is none).
# MORE is the only recursive rule, and only at its end, so that the language is regular.
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


def _by_word(strengths: dict[float, str], sign: float = 1.0) -> dict[str, float]:
    return {word: sign * value for value, words in strengths.items() for word in words.split()}


# What the reward knows of words: their polarity, fixed or by genre; what they do to the polarity
# that follows; the topic of nouns and of genres' names.
POLARITY = _by_word(PRAISE) | _by_word(FAULT, -1.0)
POLARITY |= {form: value for past, (base, value) in VERBS.items() for form in (past, base)}
MOOD_SIGN = {
    word: dict.fromkeys(good.split(), 1.0) | dict.fromkeys(bad.split(), -1.0)
    for word, (good, bad) in MOOD.items()
}
NEGATOR = _by_word(NEGATION, -1.0)
DEGREE = _by_word(MORE_SO) | _by_word(LESS_SO)
GENRE_OF = {word: genre for genre, words in GENRES.items() for word in words.split()}
TOPIC = {noun: topic for topic, pair in NOUNS.items() for noun in " ".join(pair).split()}
TOPIC |= GENRE_OF
LEXICON = {
    "NOUN_S": [noun for singular, _ in NOUNS.values() for noun in singular.split()],
    "NOUN_P": [noun for _, plural in NOUNS.values() for noun in plural.split()],
    "GENRE": list(GENRE_OF),
    "PRAISE": list(_by_word(PRAISE)),
    "FAULT": list(_by_word(FAULT)),
    "MOOD": list(MOOD),
    "LIKED": list(VERBS),
    "LIKE": [base for base, _ in VERBS.values()],
    "MUCH": list(_by_word(MORE_SO)),
    "BIT": list(_by_word(LESS_SO)),
}

# --- words and text -------------------------------------------------------------------------------


def split(text: str) -> list[str]:
    """The words of a text; '.', ',' and runs of any other characters are words too."""
    return re.findall(r"[a-z]+|[.,]|[^\sa-z.,]+", text)


def join(words: list[str]) -> str:
    """The text of words, with ordinary spacing: none before '.' and ','."""
    return re.sub(r" ([.,])", r"\1", " ".join(words))


def cut(words: list[str], prompt: int, response: int) -> tuple[str, str]:
    """A review's first ``prompt`` words and its next ``response`` words.

    Put one after the other they are the review's text: the response brings its leading space.
    """
    text = join(words[: prompt + response])
    head = join(words[:prompt])
    return head, text[len(head) :]


# --- the grammar ----------------------------------------------------------------------------------

Stack = tuple[str, ...]  # what still has to be written: words and names of rules, next one first
State = frozenset[Stack]


class Grammar:
    """A weighted grammar that writes, and the automaton that reads it.

    A state of the nondeterministic automaton is the stack of symbols still to come; with recursion
    at the right end alone there are finitely many. Sets of them, met while reading, are the states
    of the deterministic one and are kept, so that reading a word is a look-up.
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

    def begins(self, words: list[str]) -> bool:
        """Whether some text of the grammar begins with the words, the last one possibly cut."""
        state = self.start
        for index, word in enumerate(words):
            following = self.follow(state)
            if word not in following:
                last = index == len(words) - 1
                return last and any(known.startswith(word) for known in following)
            state = following[word]
        return True

    def breaks(self, words: list[str]) -> list[bool]:
        """Where a text leaves the grammar, for each word.

        The text is read in pieces that are each a passage of some text of the grammar, as few as
        can be (the first one from a text's beginning). A break is the first word of a later piece,
        or a word that no text has; after such a one a piece begins without a further break.
        """
        state, found = self.start, []
        for word in words:
            following = self.follow(state)
            found.append(word not in following)
            state = following.get(word) or self.follow(self.anywhere).get(word, self.anywhere)
        return found


REVIEWS = Grammar(
    GRAMMAR + "\n".join(f"{name} = {' | '.join(words)}" for name, words in LEXICON.items()),
    "REVIEW",
)


def vocabulary() -> set[str]:
    """Every word of the grammar, '.' and ',' among them."""
    return set(REVIEWS.follow(REVIEWS.anywhere))


def grammatical(text: str) -> bool:
    """Whether the text begins some review, with ordinary spacing.

    The last word may be cut; white space around the text is ignored, and the empty text is a
    beginning. Read by the automaton of the grammar that ``reviews`` draws from, so any review
    passes, however improbable.
    """
    words = split(text)
    return join(words) == text.strip() and REVIEWS.begins(words)


# --- reviews --------------------------------------------------------------------------------------


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


# --- the true reward ------------------------------------------------------------------------------

LIGHT, HEAVY = 0.5, 1.5  # what is conceded, and what is held against it
TOO_MUCH = -1.2
JUDGEMENT, RELEVANCE, REPETITION, EXCESS, BREAK = 0.5, 0.5, 0.3, 0.3, 0.3


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

    A judgement word is worth its polarity, times each degree word before it, or, if it is negated,
    divided by it ("not very good" is milder than "not good") and times each negator. "too" makes
    any judgement word a fault. A negator reaches to the next judgement word and over an "or" after
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
            degree *= DEGREE[word]
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
    """How many of the response's nouns, genres' names and judgement words stood in it before."""
    content = [w for w in response if w in TOPIC or w in POLARITY or w in MOOD_SIGN]
    return len(content) - len(set(content))


def gold_reward(prompts: list[str], responses: list[str]) -> list[float]:
    """The true reward r*(prompt, response) of each pair, in [-1, 1]; defined for any text.

    r* = tanh(0.5 sum_i v_i / sqrt(max(n, 1)) + 0.5 relevance
              - 0.3 repeats - 0.3 excess - 0.3 breaks)

    with v_1 ... v_n the response's ``judgements``, ``relevance`` and ``repeats`` as defined there,
    excess = max(0, n - max(3, 0.3 words)), so that judgement piled on judgement loses in the end,
    and breaks the number of the response's words at which the text leaves the grammar
    (``Grammar.breaks``), plus one if the response is empty. Prompt and response are split into
    words apart; negations, concessions and the genre of the prompt carry over to the response.
    """
    rewards = []
    for prompt, response in zip(prompts, responses, strict=True):
        before, words = split(prompt), split(response)
        both = before + words
        values = judgements(both, len(before), genre_of(both))
        excess = max(0.0, len(values) - max(3.0, 0.3 * len(words)))
        breaks = sum(REVIEWS.breaks(both)[len(before) :]) + (not words)
        rewards.append(
            math.tanh(
                JUDGEMENT * sum(values) / math.sqrt(max(len(values), 1))
                + RELEVANCE * relevance(before, words)
                - REPETITION * repeats(words)
                - EXCESS * excess
                - BREAK * breaks
            )
        )
    return rewards


# --- the benchmark --------------------------------------------------------------------------------

# Section, and least and most gold margin, of each subset.
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


def benchmark(rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draws pairs of ten-word responses to a prompt of 2 to 8 words, ``rows`` over all subsets.

    Columns as in ``tables.SCHEMAS["benchmark"]``. The chosen response is the one with the higher
    ``gold_reward``, by a margin within its subset's ``SUBSETS``. wide, clear, close, narrow: two
    continuations of a review. negation: one of them, with a "not" put in or left out. contrast: one
    of them, with the judgements on the two sides of a "but" or an "although" swapped. Off-policy:
    a continuation of positive reward, against words drawn at random (salad), its own words
    shuffled, one to three of them over and over (repeated), or words of praise alone.
    """
    found = []
    for row in range(rows):
        subset = list(SUBSETS)[row % len(SUBSETS)]
        prompt, chosen, rejected = _draw_pair(subset, rng)
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


def _draw_pair(subset: str, rng: np.random.Generator) -> tuple[str, str, str]:
    """Draws candidates until one has the subset's form and margin: prompt, chosen, rejected."""
    section, least, most = SUBSETS[subset]
    while True:
        # Two words to spare, since an edit can take one away.
        (prompt,), ((first, second),) = continuations(1, 2, rng, RESPONSE_WORDS + 2)
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
    """A response's counterpart in a subset; the response itself where it has no place for one."""
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
