"""Reviews, and how often their words are written."""

import itertools
from collections import Counter

import numpy as np
import pytest

from prudent.world.grammar import (
    cut,
    grammatical,
    join,
    split,
    vocabulary,
)
from prudent.world.rarity import counts_of_rarest, judgement_counts, rarest_judgement
from prudent.world.reviews import continuations
from prudent.world.reviews import reviews as draw_reviews
from prudent.world.words import (
    GENRE_OF,
    GENRES,
    MOOD_SIGN,
    POLARITY,
    RANKED,
    TOPIC,
    VERBS,
    frequencies,
)


@pytest.fixture(scope="module")
def reviews() -> list[str]:
    return draw_reviews(300, np.random.default_rng(0))


def test_reviews_are_grammatical_and_so_are_their_beginnings(reviews):
    for review in reviews:
        assert grammatical(review)
        words = split(review)
        assert all(grammatical(join(words[:k])) for k in range(len(words)))
    assert all(grammatical(reviews[0][:k]) for k in range(len(reviews[0])))  # cut in a word


def test_corrupted_reviews_are_not_grammatical(reviews):
    rng = np.random.default_rng(1)
    known = sorted(vocabulary())
    swapped, replaced = [], []
    for review in reviews:
        words = split(review)
        i = int(rng.integers(len(words) - 2))
        other = [*words[:i], words[i + 1], words[i], *words[i + 2 :]]
        swapped.append(grammatical(join(other)))
        words[i] = str(rng.choice(known))
        replaced.append(grammatical(join(words)))
    assert np.mean(swapped) < 0.05
    assert np.mean(replaced) < 0.15  # a noun for a noun is no fault
    for text in (
        "plot the is dull",
        "this horror film are dull",
        "the jokes in this comedy film is silly",
        "this horror film is dull but",
        "this horror film is dull , but",
        "this  horror film",
        "thishorror film",
        "This horror film",
        "this horror film is dul.",
        "\ufffd\n!",
    ):
        assert not grammatical(text), text
    for text in ("", " ", "this horror film is dull, but the ac", " the jokes in this"):
        assert grammatical(text), text


def test_reviews_have_their_shape_and_follow_the_seed(reviews):
    assert reviews == draw_reviews(300, np.random.default_rng(0))
    assert reviews != draw_reviews(300, np.random.default_rng(1))
    lengths = [len(split(review)) for review in reviews]
    assert 35 < np.mean(lengths) < 55 and max(lengths) < 110
    assert all(3 <= review.count(".") <= 5 for review in reviews)
    used = {word for review in reviews for word in split(review)}
    assert 200 < len(vocabulary()) < 450 and used <= vocabulary()
    for review in reviews:
        genres = {GENRE_OF[w] for w in split(review) if w in GENRE_OF}
        assert len(genres) == 1  # a review keeps to the genre that it names
    starts = {cut(split(review), 6, 10)[0] for review in reviews}
    assert len(starts) > 200


def test_cut_keeps_the_text():
    words = split("this film, i think, is dull. it was so.")
    for prompt, response in itertools.product(range(1, 9), range(1, 4)):
        head, tail = cut(words, prompt, response)
        assert head + tail == join(words[: prompt + response])
        assert split(head) == words[:prompt]
        assert split(tail) == words[prompt : prompt + response]


def test_continuations_are_the_grammars_own():
    prompts, responses = continuations(100, 4, np.random.default_rng(0))
    for prompt, drawn in zip(prompts, responses, strict=True):
        assert 2 <= len(split(prompt)) <= 8
        assert len(set(drawn)) > 1
        for response in drawn:
            assert len(split(response)) == 10
            assert grammatical(prompt + response)


def frequencies_of(texts: list[str], kind: str) -> list[list[int]]:
    """How often the words of each group of a kind stand in the texts, by rank."""
    counts = Counter(word for text in texts for word in split(text))
    if kind == "genre":
        counts = Counter(next(GENRE_OF[w] for w in split(t) if w in GENRE_OF) for t in texts)
    if kind == "verb":
        for past, (base, _) in VERBS.items():
            counts[past] += counts[base]
    return [[counts[word] for word in group] for group in RANKED[kind]]


def slope(groups: list[list[int]]) -> float:
    """Of the logarithm of frequency on that of rank, over groups with levels of their own."""
    ranks = [np.log(np.arange(1, len(group) + 1)) for group in groups]
    logs = [np.log(group) for group in groups]
    x, y = (np.concatenate([one - one.mean() for one in part]) for part in (ranks, logs))
    return float(x @ y / (x @ x))


@pytest.mark.parametrize("zipf", [0.0, 0.5, 1.0, 1.5])
def test_words_are_as_frequent_as_zipfs_law_says(zipf):
    texts = draw_reviews(6000, np.random.default_rng(3), zipf)
    texts = [text for text in texts if set(split(text)) & set(GENRE_OF)]
    for kind, groups in RANKED.items():
        found = frequencies_of(texts, kind)
        assert slope(found) == pytest.approx(-zipf, abs=0.12), kind
        # Rank by rank, and not by the slope alone; each mood is also liked or not by each genre.
        expected = np.concatenate(
            [[frequencies(kind, zipf)[word] for word in group] for group in groups]
        )
        shares = np.concatenate([np.array(group) / np.mean(group) for group in found])
        ratio = shares / expected
        assert np.abs(np.log(ratio)).mean() < (0.3 if kind == "mood" else 0.12), kind


def test_frequencies_of_words():
    assert set(frequencies("praise", 0.0).values()) == {1.0}
    names = frequencies("genre's name", 1.0)
    for group in RANKED["genre's name"]:
        assert [names[word] for word in group] == [pytest.approx(4 / 3), pytest.approx(2 / 3)]
    ranked = {word for kind, groups in RANKED.items() for group in groups for word in group}
    assert ranked == set(TOPIC) | {*POLARITY} - {base for base, _ in VERBS.values()} | {
        *MOOD_SIGN,
        *GENRES,
    }
    for kind in ("praise", "fault", "verb"):
        for group in RANKED[kind]:
            assert len({POLARITY[word] > 0 for word in group}) == 1
            strength = np.abs([POLARITY[word] for word in group])
            weights = [frequencies(kind, 1.0)[word] for word in group]
            assert np.average(strength, weights=weights) == pytest.approx(strength.mean(), abs=0.05)
    for (group,) in (RANKED["praise"], RANKED["fault"]):
        strength = np.abs([POLARITY[word] for word in group])
        assert abs(np.corrcoef(strength, np.arange(len(group)))[0, 1]) < 0.2


def test_zipf_leaves_opinions_alone():
    for zipf in (0.0, 1.0):
        counts = judgement_counts(draw_reviews(4000, np.random.default_rng(1), zipf))
        praise = sum(count for word, count in counts.items() if POLARITY.get(word, 0) > 0)
        faults = sum(count for word, count in counts.items() if POLARITY.get(word, 0) < 0)
        assert praise / (praise + faults) == pytest.approx(0.5, abs=0.02)


def test_the_rarest_judgement_of_a_response():
    texts = ["the plot is dull, dull and scary", " i enjoyed the plot. it is dull and fresh"]
    counts = judgement_counts(texts)
    assert set(counts) == set(POLARITY) | set(MOOD_SIGN)
    said = {word: count for word, count in counts.items() if count}
    assert said == {"dull": 3, "scary": 1, "enjoyed": 1, "fresh": 1}
    assert rarest_judgement(["the", "plot", "is", "dull"], counts) == "dull"
    assert rarest_judgement(split("scary, dull and enjoyed"), counts) == "enjoyed"
    assert rarest_judgement(split("dull but superb"), counts) == "superb"
    assert rarest_judgement(split("dull but superb"), {"superb": 9}) == "dull"  # 0 times
    assert rarest_judgement(split("the monster is not very"), counts) is None
    assert rarest_judgement([], counts) is None


def test_how_often_the_rarest_judgements_of_responses_are_written():
    written = ["the plot is dull, dull and scary", " i enjoyed the plot. it is dull and fresh"]
    cases = [
        ("the plot is", " dull."),
        ("the plot is dull and", " scary. it is dull"),
        ("the plot is scary and", " dull."),  # what the prompt says is not the response's
        ("the plot is sca", "ry."),  # the word that it completes is
        ("the plot is", " dull and superb."),  # never written
        ("the plot", " is here."),  # judges nothing
        ("the plot is scary", ""),
    ]
    found = counts_of_rarest(*zip(*cases, strict=True), iter(written))
    np.testing.assert_array_equal(found, [3, 1, 3, 1, 0, np.nan, np.nan])
    assert counts_of_rarest([], [], written).shape == (0,)
