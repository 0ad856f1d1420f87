"""The forms of files of labelled responses: how each is recognised, and what bad ones are told."""

import math

import pandas as pd
import pytest
from tiny_audit import best_of_four, write_lines

from prudent.audit.forms import read_labelled
from prudent.errors import InputError

ASKED = [{"role": "user", "content": "ask"}]
DIALOGUE = [[*ASKED, {"role": "assistant", "content": text}] for text in ("good", "bad")]
HH = ["\n\nHuman: ask\n\nAssistant: good", "\n\nHuman: ask\n\nAssistant: bad"]
PAIRS = {
    "pairs": [{"prompt": "ask", "chosen": "good", "rejected": "bad", "num": 1}],
    "messages": [{"prompt": ASKED, "chosen": "good", "rejected": "bad"}],
    "whole dialogues": [{"prompt": "ask", "chosen": DIALOGUE[0], "rejected": DIALOGUE[1]}],
    "whole dialogues alone": [{"chosen": DIALOGUE[0], "rejected": DIALOGUE[1]}],
    "HH-RLHF": [{"chosen": HH[0], "rejected": HH[1]}],
    "RewardBench": [
        {"id": 3, "prompt": "ask", "chosen": "good", "rejected": "bad", "subset": "hep-go"}
    ],
    "JudgeBench": [
        {"question": "ask", "response_A": a, "response_B": b, "label": label, "response_model": "m"}
        for a, b, label in (("good", "bad", "A>B"), ("bad", "good", "B>A"))
    ],
}


@pytest.mark.parametrize("name", PAIRS)
def test_every_form_of_pairs(tmp_path, name):
    found = read_labelled(write_lines(PAIRS[name], tmp_path / "a.jsonl"))
    assert not found.lists and len(found.rows) == len(PAIRS[name])
    for number, row in enumerate(found.rows, 1):
        assert (row.number, row.prompt) == (number, ASKED)
        assert (row.chosen, row.rejected) == (["good"], ["bad"])


def test_names_of_rewardbench_and_judgebench(tmp_path):
    found = read_labelled(write_lines(PAIRS["RewardBench"], tmp_path / "a.jsonl"))
    assert set(found.names) == {"subset", "id"}
    assert (found.rows[0].subset, found.rows[0].id) == ("hep-go", 3)
    judged = [
        row | {"pair_id": f"p{i}", "source": "math"} for i, row in enumerate(PAIRS["JudgeBench"])
    ]
    pd.DataFrame(judged).to_csv(tmp_path / "a.csv", index=False)
    found = read_labelled(tmp_path / "a.csv")
    assert set(found.names) == {"subset", "id"}
    assert [(row.subset, row.id) for row in found.rows] == [("math", "p0"), ("math", "p1")]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "json"])
@pytest.mark.parametrize("counts", [True, False])
def test_rewardbench_2(tmp_path, kind, counts):
    records, path = best_of_four(), tmp_path / f"a.{kind}"
    if not counts:
        records = [
            {key: of for key, of in row.items() if not key.startswith(("num", "total"))}
            for row in records
        ]
    if kind == "parquet":
        pd.DataFrame(records).to_parquet(path)
    else:
        path = write_lines(records, path)
    found = read_labelled(path)
    assert found.lists
    for row, record in zip(found.rows, records, strict=True):
        assert row.prompt == [{"role": "user", "content": record["prompt"]}]
        for name in ("chosen", "rejected", "subset", "id"):
            assert getattr(row, name) == record[name]
    assert found.rows[0].tie is None
    assert [row.tie for row in found.rows[8:]] == [
        (kind, number) for kind in ("tied", "ref") for number in range(3)
    ]


LISTS = {"prompt": "ask", "chosen": ["good"], "rejected": ["bad"]}
TIES = LISTS | {"subset": "Ties", "chosen": ["good", "fine"], "id": "tied:1"}
JUDGED = PAIRS["JudgeBench"][0]
BAD = {
    "no form": ([{"question": "ask", "answer": "x"}], ["'chosen', 'rejected' are missing"]),
    "half of JudgeBench": (
        [{k: JUDGED[k] for k in ("question", "response_A", "response_B")}],
        ["JudgeBench's question, response_A, response_B, label"],
    ),
    "another label": (
        [JUDGED, JUDGED | {"label": "A"}],
        ["row 2, column 'label': found 'A', expected one of A>B"],
    ),
    "a tie": (
        [JUDGED | {"label": "A=B"}],
        ["row 1, column 'label': found 'A=B', expected 'A>B' or 'B>A'"],
    ),
    "no label": ([JUDGED | {"label": None}], ["row 1, column 'label': found no value"]),
    "no question": ([JUDGED | {"question": ""}], ["row 1, column 'question': found an empty"]),
    "an empty answer": ([JUDGED | {"response_B": " "}], ["row 1, column 'response_B': found the"]),
    "no rejected one": (
        [LISTS, LISTS | {"rejected": []}],
        ["row 2, column 'rejected': found an empty list, expected at least one response"],
    ),
    "a text in lists": (
        [LISTS, LISTS | {"chosen": "good"}],
        ["row 2, column 'chosen': found 'good', expected a list of texts"],
    ),
    "a list in texts": (
        [PAIRS["pairs"][0], LISTS],
        ["row 2, column 'chosen': found a list of 1 text(s)"],
    ),
    "a number in a list": (
        [LISTS, LISTS | {"chosen": ["a", 3]}],
        ["row 2, column 'chosen': found"],
    ),
    "an empty response": (
        [LISTS | {"rejected": ["bad", ""]}],
        ["row 1, column 'rejected'", "empty"],
    ),
    "the same response": ([LISTS | {"rejected": ["bad", "good"]}], ["row 1", "response again"]),
    "lists without a prompt": (
        [{"chosen": ["good"], "rejected": ["bad"]}],
        ["row 1, column 'prompt': found no such column"],
    ),
    "another number of right ones": (
        [LISTS | {"num_correct": 2}],
        ["row 1, column 'num_correct': found 2 (int), expected 1, as many as in chosen"],
    ),
    "another number of wrong ones": (
        [LISTS | {"num_correct": 1, "num_incorrect": 3}],
        ["row 1, column 'num_incorrect': found 3 (int), expected 1, as many as in rejected"],
    ),
    "another number of all": (
        [LISTS | {"total_completions": 4}],
        ["row 1, column 'total_completions': found 4 (int), expected 2, as many as in both"],
    ),
    "counts of texts": (
        [PAIRS["pairs"][0] | {"num_correct": 1}],
        ["row 1, column 'chosen': found 'good', expected a list of texts"],
    ),
    "ties with other ids": (
        [TIES, TIES | {"id": "7"}],
        ["row 2, column 'id': found '7', expected RewardBench 2's ids"],
    ),
    "ties without ids": (
        [{key: of for key, of in TIES.items() if key != "id"}],
        ["row 1, column 'id': found None"],
    ),
    "half a character": (
        [PAIRS["RewardBench"][0] | {"id": "\ud800"}],
        ["row 1, column 'id': found the half character"],
    ),
    "nothing tied": (
        [TIES | {"chosen": ["good"]}],
        ["row 1, column 'chosen': found one response, expected at least two"],
    ),
    "not a number of lists": (
        [LISTS | {"num_correct": math.nan}],
        ["row 1, column 'num_correct': found nan"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path, name):
    records, words = BAD[name]
    path = write_lines(records, tmp_path / "a.jsonl")
    with pytest.raises(InputError) as raised:
        read_labelled(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    for word in words:
        assert word in message


def test_an_id_stands_once_in_a_subset(tmp_path):
    records = [row | {"pair_id": "p"} for row in PAIRS["JudgeBench"]]
    with pytest.raises(
        InputError, match="row 2, column 'pair_id': found 'p', which is that of row 1"
    ):
        read_labelled(write_lines(records, tmp_path / "a.jsonl"))
