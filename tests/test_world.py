"""The embedded world: its grammar against enumeration, its reward against worked examples."""

import itertools
import math

import numpy as np
import pytest

from prudent.tables import SCHEMAS, read_table, write_parquet
from prudent.world.benchmark import SUBSETS, benchmark
from prudent.world.grammar import Grammar, cut, grammatical, join, split, vocabulary
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
    TOPIC,
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


def test_breaks_are_as_few_as_can_be():
    texts = enumerate_texts(SMALL, ("TEXT",), 16)
    passages = {text[i:j] for text in texts for i in range(len(text)) for j in range(i + 1, i + 8)}
    beginnings = {text[:k] for text in texts for k in range(8)}
    rng = np.random.default_rng(0)
    words = [*sorted({word for passage in passages for word in passage}), "zebra"]
    for _ in range(300):
        text = tuple(str(word) for word in rng.choice(words, int(rng.integers(1, 7))))
        # pieces[j]: the fewest breaks in the first j words.
        pieces = [0] + [math.inf] * len(text)
        for i, j in itertools.combinations(range(len(text) + 1), 2):
            if i == 0 and text[:j] in beginnings:
                pieces[j] = 0
            elif text[i:j] == ("zebra",):
                pieces[j] = pieces[i] + 1
            elif text[i:j] in passages:
                pieces[j] = min(pieces[j], pieces[i] + (i == 0 or text[i - 1] != "zebra"))
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


# --- the reward -----------------------------------------------------------------------------------


def test_reward_is_the_documented_formula():
    # Praise for the prompt's own side of the film: one judgement of 1.5 x 1, one topic of its own.
    assert reward("the plot", " is very gripping. the script") == pytest.approx(
        math.tanh(0.5 * 1.5 + 0.5 * 0.5 - 0.3)  # "the plot is" begins no review: one break
    )
    assert reward("this horror film", " is dull, but the monster is gripping") == pytest.approx(
        math.tanh(0.5 * (0.5 * -1.0 + 1.5 * 1.0) / math.sqrt(2) + 0.5 * 0.5)
    )
    assert reward("this horror film is", "") == pytest.approx(math.tanh(-0.3))
    assert reward("", "") == pytest.approx(math.tanh(-0.3))


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
