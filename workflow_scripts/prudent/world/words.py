"""The embedded world's words, and their meaning to the true reward."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

# Nouns by topic, singular and plural: three sides that every film has, then each genre's own.
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

# The judgement of each word, whatever the film.
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

VERBS = {  # past form, form after "did not" and "will", judgement
    "enjoyed": ("enjoy", 1.0),
    "loved": ("love", 1.4),
    "liked": ("like", 0.8),
    "admired": ("admire", 1.0),
    "hated": ("hate", -1.4),
    "disliked": ("dislike", -0.8),
    "regretted": ("regret", -1.0),
    "resented": ("resent", -1.0),
}

# Words whose meaning depends on the genre: praise in the first genres, a fault in the second ones,
# and neutral in others or if the genre is not known.
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


def _by_word(strengths: dict[float, str], sign: float = 1.0) -> dict[str, float]:
    return {word: sign * value for value, words in strengths.items() for word in words.split()}


# The reward's knowledge of words: their polarity, fixed or by genre; their effect on the polarity
# that follows; the topic of nouns and of genre names.
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

ORDER = 5
"""The first integer whose order, at Zipf's exponent 1, favours neither strong nor weak words: the
mean strength of praise, of faults and of verbs stays within 0.05 of that of a flat world."""


def _ordered(words: Iterable[str]) -> list[str]:
    """Words ordered by a hash: arbitrary, the same everywhere, independent of their meaning."""
    return sorted(words, key=lambda word: hashlib.sha256(f"{ORDER} {word}".encode()).digest())


# Words that Zipf's law ranks as one group, the most frequent first. Praise and faults are ranked
# separately, for words and for verbs, so that both are equally frequent at every rank.
RANKED = {
    "genre": [_ordered(GENRES)],
    "genre's name": [_ordered(names.split()) for names in GENRES.values()],
    "noun": [_ordered(form.split()) for forms in NOUNS.values() for form in forms],
    "praise": [_ordered(LEXICON["PRAISE"])],
    "fault": [_ordered(LEXICON["FAULT"])],
    "mood": [_ordered(MOOD)],
    "verb": [
        _ordered(past for past, (_, value) in VERBS.items() if (value > 0) == praise)
        for praise in (True, False)
    ],
}


def frequencies(kind: str, zipf: float) -> dict[str, float]:
    """The frequency of each word of a kind of ``RANKED`` by Zipf's law, with mean 1 in each group.

    It is proportional to k^-zipf at rank k, so 0 makes all words of a group equally frequent.
    """
    found = {}
    for words in RANKED[kind]:
        shares = [rank**-zipf for rank in range(1, len(words) + 1)]
        mean = sum(shares) / len(shares)
        found |= {word: share / mean for word, share in zip(words, shares, strict=True)}
    return found
