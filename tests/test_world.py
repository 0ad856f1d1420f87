"""The embedded world: its grammar against enumeration, its reward against worked examples."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from prudent.schemas import SCHEMAS
from prudent.tables import read_table, write_parquet
from prudent.world.benchmark import SUBSETS, benchmark
from prudent.world.grammar import (
    REVIEWS,
    Grammar,
    cut,
    grammatical,
    join,
    share,
    split,
    vocabulary,
)
from prudent.world.rarity import counts_of_rarest, judgement_counts, rarest_judgement
from prudent.world.reviews import continuations
from prudent.world.reviews import reviews as draw_reviews
from prudent.world.reward import genre_of, gold_reward, judgements, relevance, repeats
from prudent.world.words import (
    DEGREE,
    GENRE_OF,
    GENRES,
    LEXICON,
    MOOD_SIGN,
    NEGATOR,
    POLARITY,
    RANKED,
    TOPIC,
    VERBS,
    frequencies,
)


def reward(prompt: str, response: str) -> float:
    return gold_reward([prompt], [response])[0]


def values(prompt: str, response: str) -> list[float]:
    before, words = split(prompt), split(response)
    return judgements(before + words, len(before), genre_of(before + words))


# --- the grammar ----------------------------------------------------------------------------------

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


# --- reviews --------------------------------------------------------------------------------------


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


# --- frequencies ----------------------------------------------------------------------------------


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


# --- the reward -----------------------------------------------------------------------------------


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


# --- the benchmark --------------------------------------------------------------------------------


def test_benchmark(tmp_path):
    frame = benchmark(200, np.random.default_rng(0))
    assert frame.equals(benchmark(200, np.random.default_rng(0)))
    assert list(frame.columns) == SCHEMAS["benchmark"].names
    write_parquet(frame, tmp_path / "benchmark.parquet", "benchmark")
    assert read_table(tmp_path / "benchmark.parquet", "benchmark").equals(frame)
    assert set(frame["subset"].value_counts()) == {20} and frame["id"].is_unique
    assert frame.groupby("section")["subset"].nunique().to_dict() == {
        "Wide margin": 2,
        "Narrow margin": 2,
        "Negation": 2,
        "Off-policy": 4,
    }
    prompts = [messages[0]["content"] for messages in frame["prompt"]]
    assert all(messages[0]["role"] == "user" for messages in frame["prompt"])
    for side in ("chosen", "rejected"):
        assert {len(split(text)) for text in frame[side]} == {10}
        assert all(text[0] in " .," for text in frame[side])
        own = [grammatical(p + text) for p, text in zip(prompts, frame[side], strict=True)]
        off_policy = frame["section"] == "Off-policy"
        assert all(np.array(own)[~off_policy])
        assert np.mean(np.array(own)[off_policy]) == (side == "chosen")
    margin = np.subtract(
        gold_reward(prompts, list(frame["chosen"])),
        gold_reward(prompts, list(frame["rejected"])),
    )
    for subset, (_, least, most) in SUBSETS.items():
        margins = margin[frame["subset"] == subset]
        assert (margins >= least).all() and (margins <= most).all() and least > 0


def test_benchmark_pairs_have_the_form_of_their_subset():
    frame = benchmark(100, np.random.default_rng(1)).set_index("subset")
    for _, row in frame.loc["negation"].iterrows():
        sides = [split(row[side]) for side in ("chosen", "rejected")]
        longer, shorter = sorted(sides, key=lambda side: -side.count("not"))
        place = next(
            i for i, pair in enumerate(zip(longer, shorter, strict=True)) if len({*pair}) > 1
        )
        assert longer[place] == "not" and [*longer[:place], *longer[place + 1 :]] == shorter[:9]
    for _, row in frame.loc["contrast"].iterrows():
        chosen, rejected = split(row["chosen"]), split(row["rejected"])
        assert sorted(chosen) == sorted(rejected)
        assert sum(a != b for a, b in zip(chosen, rejected, strict=True)) == 2
    for _, row in frame.loc["shuffled"].iterrows():
        assert sorted(split(row["chosen"])) == sorted(split(row["rejected"]))
    for _, row in frame.loc["praise"].iterrows():
        assert set(split(row["rejected"])) <= set(LEXICON["PRAISE"])
