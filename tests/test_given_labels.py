"""Two responses and a label which of them is better: its forms, and what is refused."""

import math

import pytest
from tiny_data import benchmark_of, settings, texts_of, write_rows

from prudent.data.preferences import build_preferences
from prudent.errors import InputError

COLUMNS = {"first": "response_0", "second": "response_1"}


def rows_of(labels, name="better"):
    return [
        {"prompt": f"Q{i}?", "response_0": f"zero {i}", "response_1": f"one {i}", name: label}
        for i, label in enumerate(labels)
    ]


def built(path, labels, first, bad_rows="refuse", **changes):
    """The preferred side of each pair that is kept, and the data card's counts of the others."""
    source = {"path": str(write_rows(rows_of(labels), path)), "columns": COLUMNS}
    source |= {"label": {"column": "better", "first": first}} | changes
    frame, card = build_preferences(settings(source, validation=0), bad_rows, 0)
    for _, row in frame.iterrows():
        number = int(row["id"].split(":")[1]) - 1
        assert {row["chosen"], row["rejected"]} == {f"zero {number}", f"one {number}"}
        assert row["prompt"][0]["content"] == f"Q{number}?"
    return [chosen.split()[0] for chosen in frame["chosen"]], card["sources"][0]["dropped"]


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "json", "csv"])
@pytest.mark.parametrize(
    ("first", "labels", "better", "ties"),
    [
        (0, [0, 1, 0], ["zero", "one", "zero"], 0),
        (1, [1, 0, 0], ["zero", "one", "one"], 0),
        (1, [1, 2, 1], ["zero", "one", "zero"], 0),
        (1, [1, 1], ["zero", "zero"], 0),
        (0, [0.0, 1.0], ["zero", "one"], 0),
        ("negative", [-3, -1, 0, 1, 3], ["zero", "zero", "one", "one"], 1),
        ("positive", [-0.5, 0.25, 0.0], ["one", "zero"], 1),
        (
            "A>B",
            ["A>B", "A>>B", "B>A", "B>>A", "A=B", "[[B > A]]"],
            ["zero", "zero", "one", "one", "one"],
            1,
        ),
    ],
)
def test_a_label_puts_the_better_response_first(tmp_path, ending, first, labels, better, ties):
    expected = (better, {"tie": ties} if ties else {})
    assert built(tmp_path / f"a.{ending}", labels, first) == expected


@pytest.mark.parametrize(
    ("first", "label", "says"),
    [
        (0, 2, "found 2 .int., expected one of 0, 1 "),
        (1, 3, "found 3 .int., expected one of 1, 0, 2 "),
        (0, True, "found True .bool., expected one of 0, 1 "),
        (0, "first", "found 'first', expected one of 0, 1 "),
        (0, [1], "found .1. .list., expected one of"),
        (0, None, "found no value, expected a label"),
        (0, "", "found no value, expected a label"),
        (0, math.nan, "found no value, expected a label"),
        (0, 10**400, r"found 10+\.\.\. .int., expected one of"),
        ("negative", "A>B", "found 'A>B', expected a number"),
        ("A>B", "A", "found 'A', expected one of A>B, A>>B, B>A, B>>A, A=B "),
        ("A>B", 1, "found 1 .int., expected one of A>B"),
    ],
)
def test_a_label_of_another_form_is_a_bad_row(tmp_path, first, label, says):
    good = {0: [0, 1], 1: [1], "negative": [-1, 1], "A>B": ["A>B"]}[first]
    with pytest.raises(InputError, match=f"a.jsonl: row 1, column 'better': {says}") as error:
        built(tmp_path / "a.jsonl", [label, *good], first)
    assert "(1 bad row(s) in all" in str(error.value)
    _, dropped = built(tmp_path / "a.jsonl", [label, *good], first, "drop")
    assert sum(dropped.values()) == 1


def test_ties_are_no_bad_rows(tmp_path):
    labels = ["A=B", "A>B", "?", "A=B"]
    with pytest.raises(InputError, match=r"row 3, .*found '\?'.*\(1 bad row\(s\) in all"):
        built(tmp_path / "a.jsonl", labels, "A>B")
    kept, dropped = built(tmp_path / "a.jsonl", labels, "A>B", "drop")
    assert kept == ["zero"] and dropped == {"unknown_label": 1, "tie": 2}
    with pytest.raises(InputError, match="no row to keep.*'tie': 1"):
        built(tmp_path / "a.jsonl", ["A=B"], "A>B")


@pytest.mark.parametrize(
    ("first", "labels", "says"),
    [
        (1, [1, 0, 2], "found both 0 and 2, expected 1 with 0, or 1 with 2"),
        ("positive", [0, 1, 0], "found numbers from 0 to 1, expected negative and positive ones"),
        ("negative", [1, 2], "found numbers from 1 to 2, expected negative and positive ones"),
        ("negative", [-1, -3], "found numbers from -3 to -1, expected negative and positive"),
    ],
)
def test_labels_whose_form_was_mistaken_are_refused_as_a_whole(tmp_path, first, labels, says):
    with pytest.raises(InputError, match=f"a.csv: column 'better': {says}"):
        built(tmp_path / "a.csv", labels, first)


def test_a_bad_response_is_named_by_its_place(tmp_path):
    rows = rows_of([1, 0])
    rows[1]["response_1"] = rows[1]["response_0"]
    path = str(write_rows(rows, tmp_path / "a.jsonl"))
    source = {"path": path, "columns": COLUMNS, "label": {"column": "better", "first": 0}}
    with pytest.raises(InputError, match="row 2, column 'second': found the first response again"):
        build_preferences(settings(source), "refuse", 0)


def test_whole_dialogues_may_have_a_label(tmp_path):
    def dialogue(answer):
        return [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": answer}]

    rows = [{"first": dialogue("A."), "second": dialogue("B."), "winner": 1}]
    source = {"path": str(write_rows(rows, tmp_path / "a.parquet"))}
    source |= {"label": {"column": "winner", "first": 0}}
    frame, _ = build_preferences(settings(source, validation=0), "refuse", 0)
    assert frame[["chosen", "rejected"]].values.tolist() == [["B.", "A."]]


def test_responses_named_by_their_place_are_not_taken_for_chosen_and_rejected(tmp_path):
    """Their better one changes from row to row: half of the pairs would be reversed."""
    path = str(write_rows(rows_of([0, 1], "better_response_id"), tmp_path / "a.jsonl"))
    hint = "label: {column: better_response_id, first: ...}"
    mapped = {"path": path, "columns": {"chosen": "response_0", "rejected": "response_1"}}
    for source, says in (
        (mapped, "found 'response_0' for chosen and 'response_1' for rejected, and the column"),
        ({"path": path}, "the column(s) chosen, rejected are missing"),
    ):
        with pytest.raises(InputError) as error:
            build_preferences(settings(source), "refuse", 0)
        assert says in str(error.value) and hint in str(error.value)
    # A labeller says itself which is better.
    frame, _ = build_preferences(
        settings(mapped | {"relabel": True}, validation=0),
        "refuse",
        0,
        gold=lambda prompts, responses: [len(text) for text in responses],
    )
    assert len(frame) == 2


@pytest.mark.parametrize(
    ("names", "other", "refused"),
    [
        (("response_A", "response_B"), "label", True),
        (("human_ref_B", "human_ref_A"), "labels", True),
        (("response_1", "response_2"), "preference_strength", True),
        (("a_text", "b_text"), "Winner", True),
        (("response_1", "response_2"), "model", False),
        (("good", "bad"), "label", False),
        (("answer_b", "answer_c"), "label", False),
        (("text1", "text10"), "label", False),
    ],
)
def test_which_names_say_nothing_but_a_place(tmp_path, names, other, refused):
    chosen, rejected = names
    rows = [{"prompt": "Q?", chosen: "A.", rejected: "B.", other: "x"}]
    source = {"path": str(write_rows(rows, tmp_path / "a.csv"))}
    source |= {"columns": {"chosen": chosen, "rejected": rejected}}
    if refused:
        with pytest.raises(InputError, match=f"and the column '{other}', which may say"):
            build_preferences(settings(source), "refuse", 0)
    else:
        assert len(build_preferences(settings(source, validation=0), "refuse", 0)[0]) == 1


def test_a_benchmark_takes_labels(tmp_path):
    rows = [row | {"id": n, "subset": "math"} for n, row in enumerate(rows_of(["B>A", "A=B"]))]
    source = {"path": str(write_rows(rows, tmp_path / "a.csv"))}
    source |= {"columns": COLUMNS | {"section": "subset"}}
    source |= {"label": {"column": "better", "first": "A>B"}}
    frame, card = benchmark_of(source)
    assert frame[["chosen", "rejected"]].values.tolist() == [["one 0", "zero 0"]]
    assert card["sources"][0]["dropped"] == {"tie": 1}


LABEL = {"column": "better", "first": 0}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"label": {"column": "better"}}, r"label.first` is missing; expected one of 0, 1, nega"),
        ({"label": {"column": "better", "first": 2}}, "label.first` is 2; expected one of 0, 1"),
        ({"label": {"column": "better", "first": True}}, "label.first` is true; expected one of 0"),
        ({"label": {"column": "better", "first": 1.0}}, "label.first` is 1.0; expected one of 0"),
        ({"label": {"first": 0}}, "label.column` is missing; expected text"),
        ({"label": "better"}, "label` is the text 'better'; expected a section"),
        ({"label": LABEL, "relabel": True}, "label` does not go with `relabel`"),
        ({"columns": COLUMNS}, "columns.first` needs `label`"),
        ({"label": LABEL, "columns": {"chosen": "x"}}, "chosen` does not go with `label`"),
        ({"label": LABEL, "columns": {"text": "x"}}, "columns.text` is not a column"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys, says):
    with pytest.raises(InputError, match=says):
        settings({"path": "a.csv", **keys})


def test_only_pairs_have_labels(tmp_path):
    with pytest.raises(InputError, match="label` does not go with `path` in `texts`"):
        texts_of(0.1, {"path": "a.csv", "label": LABEL})
    with pytest.raises(InputError, match="label` does not go with `sampled`"):
        settings({"sampled": 3, "label": LABEL})
    path = str(write_rows(rows_of([0]), tmp_path / "a.csv"))
    label = {"column": "best", "first": 0}
    with pytest.raises(InputError, match=r"a.csv: the column\(s\) best are missing; found"):
        build_preferences(settings({"path": path, "columns": COLUMNS, "label": label}), "refuse", 0)
