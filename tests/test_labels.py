"""Labels of preference pairs: drawn, drawn anew, and contradicting each other."""

import numpy as np
import pandas as pd
import pytest
from tiny_data import pairs, settings, write_rows

from prudent.data.labels import draw_labels
from prudent.data.preferences import build_preferences, contradictions
from prudent.errors import InputError

pytestmark = pytest.mark.usefixtures("own_cache")


def test_labels_follow_bradley_terry_with_flips():
    rng = np.random.default_rng(0)
    n = 40_000
    gold_a, gold_b = np.full(n, 0.9), np.full(n, 0.4)
    a_is_chosen, probability = draw_labels(gold_a, gold_b, 3.0, 0.1, rng)
    clean_probability = 1 / (1 + np.exp(-3.0 * 0.5))
    expected = 0.9 * clean_probability + 0.1 * (1 - clean_probability)
    assert probability == pytest.approx(np.full(n, expected), abs=1e-12)
    # Standard error 0.0021.
    assert a_is_chosen.mean() == pytest.approx(expected, abs=0.01)


def test_labels_at_the_limits():
    rng = np.random.default_rng(0)
    gold_a, gold_b = np.array([1.0, 0.0, 5.0]), np.array([0.0, 1.0, 5.0])
    with np.errstate(over="raise"):
        a_is_chosen, probability = draw_labels(gold_a, gold_b, 1e6, 0.0, rng)
    assert probability.tolist() == [1.0, 0.0, 0.5]
    assert a_is_chosen[:2].tolist() == [True, False]
    _, swapped = draw_labels(gold_b, gold_a, 2.0, 0.2, rng)
    _, probability = draw_labels(gold_a, gold_b, 2.0, 0.2, rng)
    assert swapped == pytest.approx(1 - probability, abs=1e-15)
    assert draw_labels(gold_a, gold_b, 2.0, 0.5, rng)[1] == pytest.approx([0.5] * 3)


WORDS = ("fine", "great", "dull", "awful", "")


def sampler(prompts, part):
    """Responses drawn from few words, so that some pairs are equal and some responses empty."""
    rng = np.random.default_rng(part)
    return [str(word) for word in rng.choice(WORDS, len(prompts))]


def word_gold(messages, responses):
    assert all(prompt[-1]["role"] == "user" for prompt in messages)
    return np.array([-float(WORDS.index(response)) for response in responses])


def test_sampled_pairs_are_labelled_by_gold():
    prompts = [f"A film of {i}" for i in range(1000)]
    frame, card = build_preferences(
        settings({"sampled": 2500}, sharpness=0.7, label_noise=0.2),
        "refuse",
        0,
        prompts,
        sampler,
        word_gold,
    )
    source = card["sources"][0]
    assert source["read"] == 2500
    assert source["duplicates"] == 0 and frame["id"].is_unique
    # Both responses empty counts as empty: P = 1 - (4/5)^2 = 0.36, equal and not: 4/25.
    assert source["dropped"]["empty_response"] == pytest.approx(2500 * 0.36, abs=100)
    assert source["dropped"]["equal_responses"] == pytest.approx(2500 * 0.16, abs=80)
    assert source["kept"] == len(frame) == 2500 - sum(source["dropped"].values())
    assert (frame["chosen"] != frame["rejected"]).all()

    margin = 0.7 * (
        word_gold(frame["prompt"], frame["chosen"]) - word_gold(frame["prompt"], frame["rejected"])
    )
    sigmoid = 1 / (1 + np.exp(-margin))
    assert frame["probability"].to_numpy() == pytest.approx(0.8 * sigmoid + 0.2 * (1 - sigmoid))
    # Labels were drawn: the rare side wins at its rate, E[1 - p_max] (standard error about 0.014).
    expected = np.minimum(frame["probability"], 1 - frame["probability"]).mean()
    assert (margin < 0).mean() == pytest.approx(expected, abs=0.06)
    # Every prompt comes up before any comes a third time.
    seen = pd.Series([p[-1]["content"] for p in frame["prompt"]]).value_counts()
    assert seen.max() <= 3


def test_real_pairs_are_labelled_anew(tmp_path):
    rows = [{"prompt": f"Film {i}", "chosen": "awful", "rejected": "fine"} for i in range(200)]
    path = str(write_rows([*rows, rows[0]], tmp_path / "a.jsonl"))
    chosen = settings({"path": path, "relabel": True}, sharpness=1e3)
    frame, card = build_preferences(chosen, "refuse", 0, gold=word_gold)
    assert set(frame["chosen"]) == {"fine"} and set(frame["rejected"]) == {"awful"}
    assert frame["probability"].tolist() == [1.0] * 200
    assert card["sources"][0]["duplicates"] == 1
    given, _ = build_preferences(settings({"path": path}), "refuse", 0, gold=word_gold)
    assert set(given["chosen"]) == {"awful"} and given["probability"].isna().all()


def test_labelling_without_its_means_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected prompts and the reference policy"):
        build_preferences(settings({"sampled": 5}), "refuse", 0, gold=word_gold)
    path = str(write_rows(pairs(60), tmp_path / "a.jsonl"))
    with pytest.raises(InputError, match="expected `gold:` to name the labeller"):
        build_preferences(settings({"path": path, "relabel": True}), "refuse", 0)

    def broken(messages, responses):
        return np.full(len(responses), np.nan)

    with pytest.raises(InputError, match="gold gave nan to a response.*Question 0"):
        build_preferences(settings({"path": path, "relabel": True}), "refuse", 0, gold=broken)


def test_pairs_that_contradict_each_other_are_counted_and_dropped_on_demand(tmp_path):
    rows = pairs(60)
    rows[3] = {"prompt": " Question 2? ", "chosen": "Bad 2.", "rejected": "Good 2. "}
    rows[7] = {"prompt": "Question 8?", "chosen": "Bad 8.", "rejected": "Good 9."}
    path = {"path": str(write_rows(rows, tmp_path / "a.jsonl"))}
    frame, card = build_preferences(settings(path), "refuse", 0)
    assert card["contradictions"] == 2 and len(frame) == card["rows"] == 60
    assert frame.index[contradictions(frame)].tolist() == [2, 3]
    kept, card = build_preferences(settings(path, contradictions="drop"), "refuse", 0)
    assert card["contradictions"] == 2 and card["rows"] == len(kept) == 58
    assert kept["chosen"].tolist() == frame["chosen"].drop([2, 3]).tolist()
    assert sum(card["splits"].values()) == 58
    none = write_rows([rows[2], rows[3]], tmp_path / "b.jsonl")
    with pytest.raises(InputError, match="found 2 pairs that contradict each other and no others"):
        build_preferences(settings({"path": str(none)}, contradictions="drop"), "refuse", 0)
