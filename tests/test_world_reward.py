"""The true reward, against worked examples."""

import itertools
import math

import numpy as np
import pytest

from prudent.world.grammar import (
    REVIEWS,
    grammatical,
    join,
    share,
    split,
    vocabulary,
)
from prudent.world.reviews import continuations
from prudent.world.reviews import reviews as draw_reviews
from prudent.world.reward import genre_of, gold_reward, judgements, relevance, repeats
from prudent.world.words import (
    DEGREE,
    GENRES,
    LEXICON,
    MOOD_SIGN,
    NEGATOR,
    POLARITY,
    TOPIC,
)


def reward(prompt: str, response: str) -> float:
    return gold_reward([prompt], [response])[0]


def values(prompt: str, response: str) -> list[float]:
    before, words = split(prompt), split(response)
    return judgements(before + words, len(before), genre_of(before + words))


def test_reward_is_the_documented_formula():
    # Praise for the prompt's own side of the film: one judgement of 1.5 x 1, one topic of its own.
    core = 0.5 * 1.5 + 0.5 * 0.5
    assert reward("the plot in this war film", " is very gripping. the script") == pytest.approx(
        math.tanh(core)
    )
    assert reward("the plot", " is very gripping. the script") == pytest.approx(
        (1 + math.tanh(core)) / 2 - 1  # "the plot is" begins no review: one break
    )
    assert reward("the plot", " very is gripping. the script") == pytest.approx(
        (1 + math.tanh(core)) / 4 - 1  # "very" is another
    )
    assert reward("this horror film", " is dull, but the monster is gripping") == pytest.approx(
        math.tanh(0.5 * (0.5 * -1.0 + 1.5 * 1.0) / math.sqrt(2) + 0.5 * 0.5)
    )
    assert reward("this horror film is", "") == reward("", "") == -0.5
    assert reward("this horror film is", " \n") == -0.5
    # What is wrong with the prompt is not held against the response.
    assert reward("the plot is", " gripping") == pytest.approx(math.tanh(0.5))


def test_words_are_the_responses_if_any_letter_is():
    assert share("the plot", " is good") == (["the", "plot"], ["is", "good"])
    assert share("the plot is gri", "pping.") == (["the", "plot", "is"], ["gripping", "."])
    assert share("the plot is grim", " it") == (["the", "plot", "is", "grim"], ["it"])
    assert share("the plot is ", "grim") == (["the", "plot", "is"], ["grim"])
    assert share("the plot is", "") == (["the", "plot", "is"], [])
    assert share("", "the plot") == ([], ["the", "plot"])
    prompts, responses = continuations(50, 1, np.random.default_rng(0))
    for prompt, (response,) in zip(prompts, responses, strict=True):
        assert share(prompt, response) == (split(prompt), split(response))
        text = prompt + response
        for k in range(len(text) + 1):  # one text, wherever it is cut
            before, words = share(text[:k], text[k:])
            assert before + words == split(text)
    # The judgement that the response completes is its own, and so is what it says of the prompt.
    whole = reward("this horror film", " is gripping, and it is sca")
    assert whole == reward("this horror film", " is gripping, and it is")
    assert reward("this horror film is gri", "pping.") == reward(
        "this horror film is", " gripping."
    )
    assert reward("this horror film is gri", "m.") == reward("this horror film is", " grim.")


def damaged(text: str, place: int, rng: np.random.Generator) -> str:
    """A text with one random edit of its characters or words behind a place."""
    kind = int(rng.integers(6))
    at = int(rng.integers(place, len(text)))
    if kind == 0:  # left off
        return text[:at] + text[at + 1 :]
    if kind == 1:  # put in
        return text[:at] + str(rng.choice([*" .,!TA\n", "x", "the", " the "])) + text[at:]
    if kind == 2:  # a capital
        return text[:at] + text[at].upper() + text[at + 1 :]
    if kind == 3:  # cut
        return text[:at]
    if kind == 4:  # a word again
        words = text[place:].split(" ")
        at = int(rng.integers(len(words)))
        return text[:place] + " ".join([*words[:at], words[at], *words[at:]])
    return text + str(rng.choice([" ", "\n", ".", " .", "!", " the", " is"]))


def test_no_breaks_are_the_same_as_grammatical():
    rng = np.random.default_rng(0)
    reviews = draw_reviews(200, rng)
    seen = {True: 0, False: 0}
    for review in reviews:
        for _ in range(15):
            # Prompts end anywhere, in words too, as those that are cut by tokens do.
            place = int(rng.integers(1, 40))
            text = review[: place + int(rng.integers(1, 50))]
            for _ in range(int(rng.integers(3))):
                if len(text) > place:
                    text = damaged(text, place, rng)
            prompt, response = text[:place], text[place:]
            assert grammatical(prompt)
            if not response.strip():
                continue
            whole = grammatical(text)
            assert whole == read_by_definition(text), text
            seen[whole] += 1
            unbroken = math.tanh(core_of(*share(prompt, response)))
            assert (reward(prompt, response) == pytest.approx(unbroken, abs=1e-9)) == whole, text
            assert whole or reward(prompt, response) < 0, text
    assert min(seen.values()) > 500


def read_by_definition(text: str) -> bool:
    """``grammatical`` by its meaning: ordinary spacing, and words that some review goes on from."""
    words = split(text)
    if join(words) != text.strip():
        return False
    state = REVIEWS.start
    for place, word in enumerate(words, 1):
        following = REVIEWS.follow(state)
        if word not in following:
            return place == len(words) and any(known.startswith(word) for known in following)
        state = following[word]
    return True


def core_of(before: list[str], words: list[str]) -> float:
    """What stands in the tanh, by the docstring's formula."""
    found = judgements(before + words, len(before), genre_of(before + words))
    return (
        0.5 * sum(found) / math.sqrt(max(len(found), 1))
        + 0.5 * relevance(before, words)
        - 0.3 * repeats(words)
        - 0.3 * max(0.0, len(found) - max(3.0, 0.3 * len(words)))
    )


def test_negation_flips_judgements():
    for adjective in ("gripping", "dull", "superb"):
        plain = values("this war film", f" is {adjective}.")[0]
        for negated in ("is not", "is never", "is hardly", "is far from", "fails to be"):
            (value,) = values("this war film", f" {negated} {adjective}.")
            assert value * plain < 0 and abs(value) <= abs(plain), negated
    assert values("this war film is not", " gripping.") == [-0.8]  # the prompt's negation counts
    assert values("this film is", " not dull or clumsy, and stale") == [0.8, 0.8, -1.0]
    assert values("it is", " not dull and clumsy") == [0.8, -1.0]
    assert values("nobody will call", " the plot gripping. it is gripping") == [-0.8, 1.0]
    assert values("it is", " not very good, dull") == [-1.0]  # ends with the clause
    assert (
        reward("this war film", " is gripping.") > 0 > reward("this war film", " is not gripping.")
    )


def test_degrees_and_too():
    assert values("it is", " very gripping. rather gripping") == [1.5, 0.6]
    assert values("it is", " very really truly deeply gripping") == [1.5]  # the nearest alone
    assert values("it is", " very rather gripping") == [0.6]
    assert values("it is", " never fails far not very superb") == [pytest.approx(0.64 * 1.4 / 1.5)]
    assert values("it is", " not very gripping") == [pytest.approx(-0.8 / 1.5)]
    assert values("this horror film is", " too scary. it is never too scary") == [-1.2, 1.2]


def test_what_follows_a_contrast_weighs_more():
    assert values("it", " is dull, but it is fresh. it is fresh") == [-0.5, 1.5, 1.0]
    assert values("although it", " is dull, it is fresh. it is fresh") == [-0.5, 1.5, 1.0]
    assert values("it is dull, but", " it is fresh") == [1.5]
    better = reward("this war film", " is dull, but the plot is fresh.")
    assert better > 0 > reward("this war film", " is fresh, but the plot is dull.")
    better = reward("although this war film", " is dull, the plot is fresh.")
    assert better > 0 > reward("although this war film", " is fresh, the plot is dull.")


def test_no_word_has_two_meanings():
    kinds = (
        set(POLARITY),
        set(MOOD_SIGN),
        set(TOPIC),
        set(NEGATOR),
        set(DEGREE),
        {"too", "or", "but", "although", "because", ".", ","},
    )
    assert all(not (a & b) for a, b in itertools.combinations(kinds, 2))
    assert set().union(*kinds) <= vocabulary()
    words = [word for listed in LEXICON.values() for word in listed]
    assert len(words) == len(set(words))


def test_polarity_hangs_on_the_genre():
    assert reward("this horror film", " is scary.") > 0 > reward("this family film", " is scary.")
    assert reward("this wedding film", " is slow.") > 0 > reward("this action film", " is slow.")
    assert values("this", " horror film is scary") == [1.0]  # read from the response
    assert values("the monster", " is scary") == [1.0]  # or from what only one genre has
    assert values("it", " is scary") == [0.0]
    for word, signs in MOOD_SIGN.items():
        assert set(signs.values()) == {1.0, -1.0} and set(signs) <= set(GENRES), word


def test_relevance():
    def related(prompt, response):
        return relevance(split(prompt), split(response))

    assert related("the acting in this war film", "the actors") == 0.5
    assert related("the acting in this war film", "the chase and the actors") == 2 / 3
    assert related("the acting in this war film", "the actors, the actors") == 0.5
    assert related("the acting in this war film", "the music") == -0.5
    assert related("the acting in this war film", "the jokes") == -0.5
    assert related("the acting", "the jokes") == related("it", "the jokes") == 0
    on = reward("the acting in this war film is", " gripping because the actors are gripping.")
    off = reward("the acting in this war film is", " gripping because the gags are gripping.")
    assert on > off


def test_repetition_piled_praise_and_broken_grammar_lose():
    prompt = "this war film is"
    assert repeats(split("the plot is dull and the plot is dull")) == 2
    assert repeats(split("very dull and very very clumsy")) == 2
    assert reward(prompt, " fresh, and the plot is rich.") > reward(
        prompt, " fresh, and the plot is fresh."
    )
    good = reward(prompt, " gripping, and the fights are very memorable.")
    assert good > 0.6
    words = LEXICON["PRAISE"][:10]
    for stacked in (
        " ".join(words),
        " and ".join(words[:5]) + " and",
        " ".join(["superb"] * 10),
        "gripping, the and fights memorable very are",
    ):
        assert reward(prompt, " " + stacked) < 0 < good, stacked


def test_reward_is_bounded_and_defined_for_any_text():
    rng = np.random.default_rng(0)
    known = sorted(vocabulary())
    salad = [" ".join(rng.choice(known, int(rng.integers(40)))) for _ in range(300)]
    noise = ["".join(chr(c) for c in rng.integers(1, 0x2FFF, 30)) for _ in range(100)]
    texts = (
        salad + noise + ["", " ", "\ufffd", "superb " * 500, "not " * 2000 + "dull", "but " * 99]
    )
    rewards = gold_reward(texts, texts[::-1])
    assert all(isinstance(value, float) and -1 <= value <= 1 for value in rewards)
    assert np.mean(np.array(rewards[:300]) < 0) > 0.95
    assert gold_reward([], []) == []
    with pytest.raises(ValueError):
        gold_reward(["a"], [])


def word_counts(texts: list[str]) -> np.ndarray:
    index = {word: i for i, word in enumerate(sorted(vocabulary()))}
    counts = np.zeros((len(texts), len(index)))
    for row, text in enumerate(texts):
        for word in split(text):
            counts[row, index[word]] += 1
    return counts


def test_the_world_is_neither_flat_nor_linear():
    rows, count = 3000, 4
    prompts, responses = continuations(rows, count, np.random.default_rng(0))
    prompts = [prompt for prompt in prompts for _ in range(count)]
    responses = [response for drawn in responses for response in drawn]
    gold = np.array(gold_reward(prompts, responses))
    within = np.sqrt(gold.reshape(rows, count).var(axis=1, ddof=1).mean())
    assert 0.3 < within < 0.55
    assert np.quantile(gold, 0.1) < -0.45 and np.quantile(gold, 0.9) > 0.45
    assert abs(gold.mean()) < 0.1
    # Ridge regression on the counts of words, fitted on half of the prompts, tested on the others.
    counts = np.hstack([word_counts(prompts), word_counts(responses)])
    half = rows * count // 2
    mean, level = counts[:half].mean(axis=0), gold[:half].mean()
    centred = counts[:half] - mean
    weights = np.linalg.solve(
        centred.T @ centred + 3 * np.eye(counts.shape[1]), centred.T @ (gold[:half] - level)
    )
    error = gold[half:] - level - (counts[half:] - mean) @ weights
    assert 0.3 < 1 - error.var() / gold[half:].var() < 0.75
