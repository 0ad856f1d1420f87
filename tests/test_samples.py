"""The browser of samples: which are shown, in which order, with which numbers."""

import numpy as np
import pytest
from tiny_page import make_judged, make_samples

from prudent.figures.page_tables import Cell
from prudent.figures.samples import (
    LONGEST,
    PREVIEW,
    SAMPLES,
    Sample,
    both_ends,
    by_disagreement,
    by_spread,
    of_members,
)

THREE = {
    "vanilla": [[0, 5, 1], [0, 7, 1]],
    "mean": [[2, 6, 9], [2, 6, -9]],
    "worst": [[1, 0, 0]] * 2,
}


def texts_of(cells):
    return {(head.text, head.note): cell.text for head, cell in cells.items()}


def cells_of(table, row=0):
    return texts_of(dict(zip(table.head, table.rows[row], strict=True)))


def test_the_cells_of_members():
    found = texts_of(of_members(np.array([1.0, 2.0, 6.0])))
    assert list(found.values()) == ["3.00", "2.65", "1.00", "2.00", "6.00"]
    assert list(found)[:3] == [("mean", "of the members"), ("spread", ""), ("member 0", "")]
    assert texts_of(of_members(np.array([-0.5]))) == {("member 0", ""): "−0.500"}


@pytest.mark.parametrize(
    ("key", "count", "expected"),
    [
        ([1, 3, 2, 5, 4], 2, [[3, 4], [0, 2]]),
        ([1, 3, 2, 5, 4], 9, [[3, 4, 1], [0, 2]]),
        ([1, 3, 2], 1, [[1], [0]]),
        ([7], 4, [[0]]),
        ([2, 2, 2, 2], 1, [[0], [3]]),
    ],
)
def test_both_ends_share_no_row_and_begin_with_the_most_extreme(key, count, expected):
    def sample(row):
        return Sample(str(row), [], None)

    groups = both_ends(np.array(key, dtype=float), "key", "things", sample, count)
    assert [[int(one.title) for one in group.samples] for group in groups] == expected
    assert [group.title for group in groups] == ["Largest key", "Smallest key"][: len(groups)]
    assert groups[0].note.startswith(f"{len(expected[0])} of {len(key)} things, sorted by key,")


def test_texts_are_cut():
    sample = Sample.of("title", [("who", "x" * (LONGEST + 1)), ("else", "y" * LONGEST)], [])
    assert sample.texts == [("who", "x" * (LONGEST - 3) + "..."), ("else", "y" * LONGEST)]
    long = make_samples([[0.0, 1.0]], [("p", "z" * (PREVIEW + 1))])
    assert by_spread(long)[0].samples[0].title.endswith(": " + "z" * (PREVIEW - 3) + "...")


def test_responses_are_sorted_by_the_first_draws_spread():
    # Their spreads are 3, 1, 2, 4 times that of 0 and 1.
    groups = by_spread(make_samples([[0, 3], [5, 6], [2, 0], [-4, 0]]))
    assert [group.anchor for group in groups] == ["largest", "smallest"]
    shown = [[dict(one.texts)["response"] for one in group.samples] for group in groups]
    assert shown == [["answer 3", "answer 0"], ["answer 1", "answer 2"]]
    first = groups[0].samples[0]
    assert first.title == "spread 2.83, mean −2.00, judge 3.25: answer 3"
    assert first.texts == [("prompt", "ask 1"), ("response", "answer 3")]
    assert cells_of(first.table) == {
        ("draw", ""): "first",
        ("judge", ""): "3.25",
        ("mean", "of the members"): "−2.00",
        ("spread", ""): "2.83",
        ("member 0", ""): "−4.00",
        ("member 1", ""): "0",
    }


def test_a_response_that_was_sampled_twice_is_shown_once():
    texts = [("p", "same"), ("p", "other"), ("p", "same"), ("q", "same")]
    groups = by_spread(make_samples([[0, 9], [0, 1], [0, 9], [0, 5]], texts))
    shown = [tuple(text for _, text in one.texts) for group in groups for one in group.samples]
    assert shown == [("p", "same"), ("q", "same"), ("p", "other")]
    assert groups[0].note.startswith("2 of 3 different responses")


def test_responses_of_one_member_are_sorted_by_its_reward():
    groups = by_spread(make_samples([[1.0], [3.0], [-2.0]]))
    assert [group.title for group in groups] == ["Largest reward", "Smallest reward"]
    titles = [one.title for group in groups for one in group.samples]
    assert titles == [
        "reward 3.00, judge 1.25: answer 1",
        "reward 1.00, judge 0.250: answer 0",
        "reward −2.00, judge 2.25: answer 2",
    ]


def test_many_responses_have_twenty_at_each_end():
    groups = by_spread(make_samples(np.outer(np.arange(100), [0, 1])))
    assert [len(group.samples) for group in groups] == [SAMPLES, SAMPLES]
    assert groups[1].samples[0].title.startswith("spread 0, ")


def test_prompts_are_sorted_by_the_range_of_the_methods_means():
    """Over seeds the means are 0, 6, 1 and 2, 6, 0 and 1, 0, 0: the ranges are 2, 6, 1."""
    judged = make_judged(THREE | {"reference": [[9, 9, 9]]})
    (group,) = by_disagreement(*judged)
    shown = [one.texts[0][1] for one in group.samples]
    assert shown == ["question 1", "question 0", "question 2"]
    assert group.samples[0].title == "6.00 apart, vanilla 6.00, worst 0: question 1"
    assert "the policies with seed 0" in group.note and group.note.startswith("3 of the 3 test")


def test_each_method_has_its_first_policys_response_with_its_rewards():
    judged = make_judged(THREE | {"reference": [[9, 9, 9]]})
    # Rows in any order say the same.
    for tables in (judged, [table.sample(frac=1, random_state=3) for table in judged]):
        (group,) = by_disagreement(*tables)
        one = group.samples[0]
        said = dict(one.texts)
        assert set(said) == {"prompt", *THREE, "reference"}
        assert said["mean"] == "mean 0 says 1" and said["reference"] == "reference 0 says 1"
        rows = {row[0].text: number for number, row in enumerate(one.table.rows)}
        assert list(rows)[-1] == "reference"
        assert cells_of(one.table, rows["vanilla"]) == {
            ("method", ""): "vanilla",
            ("judge", "mean of the policies"): "6.00",
            ("judge", "this response"): "5.00",
            ("mean", "of the members"): "1.01",
            ("spread", ""): "1.00",
            ("member 0", ""): "0.0100",
            ("member 1", ""): "1.01",
            ("member 2", ""): "2.01",
        }
        notes = {row[0].text: row[0].note for row in one.table.rows}
        assert notes["vanilla"] == "2 policies" and notes["reference"] == "1 policy"


def test_one_member_says_nothing_of_spread_here_either():
    (group,) = by_disagreement(*make_judged(THREE, members=1))
    heads = [cell.text for cell in group.samples[0].table.head]
    assert heads == ["method", "judge", "judge", "member 0"]


@pytest.mark.parametrize(
    "scores",
    [
        {"vanilla": [[1, 2]], "reference": [[3, 4]]},
        {"vanilla": [[1, 2]], "mean": [[1, 2]], "reference": [[3, 4]]},
        {"vanilla": [[0.1], [0.2], [0.3]], "mean": [[0.3], [0.2], [0.1]]},
    ],
)
def test_there_is_no_disagreement_of_one_method_or_of_equal_ones(scores):
    assert by_disagreement(*make_judged(scores)) == []


def test_prompts_at_which_the_methods_agree_are_not_shown():
    (group,) = by_disagreement(*make_judged({"vanilla": [[1, 2, 3]], "mean": [[1, 4, 3]]}))
    assert [one.texts[0][1] for one in group.samples] == ["question 1"]
    assert Cell("method") in group.samples[0].table.head
