"""Files in the forms of known data sets, read with the keys that docs/real-data.md has for them.

The texts are made up; columns and nesting are those of the data sets.
"""

import re

import pytest
import yaml
from tiny_data import ROOT, benchmark_of, said, settings, write_rows

from prudent.data.preferences import build_preferences
from prudent.errors import InputError

QUESTION, GOOD, BAD = "Which films are good?", "Comedies.", "None."
ASKED = {"role": "user", "content": QUESTION}


def human(text, answer):
    return [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]


def two(names, label, values):
    """A row in which the first response is better, one in which the second is, and a tie."""
    first, second = names
    found = [{first: GOOD, second: BAD}, {first: BAD, second: GOOD}, {first: GOOD, second: BAD}]
    return [row | {label: value} for row, value in zip(found, values, strict=False)]


# Rows of each data set; every pair of them is GOOD against BAD.
FORMS = {
    "HH-RLHF": [
        {
            "chosen": f"\n\nHuman: {QUESTION}\n\nAssistant: {GOOD}",
            "rejected": f"\n\nHuman: {QUESTION}\n\nAssistant: {BAD}",
        }
    ],
    "UltraFeedback, binarized": [
        {
            "prompt": QUESTION,
            "prompt_id": "a1",
            "chosen": [ASKED, said(GOOD)],
            "rejected": [ASKED, said(BAD)],
            "messages": [ASKED, said(GOOD)],
            "score_chosen": 8.0,
            "score_rejected": 3.0,
        }
    ],
    "Skywork Reward Preference": [
        {"chosen": [ASKED, said(GOOD)], "rejected": [ASKED, said(BAD)], "source": "magpie"}
    ],
    "pairs of `from`, `value` (ShareGPT)": [
        {"chosen": human(QUESTION, GOOD), "rejected": human(QUESTION, BAD)}
    ],
    "messages of both forms in one file": [
        {"chosen": human(QUESTION, GOOD), "rejected": human(QUESTION, BAD)},
        {"chosen": [ASKED, said(GOOD)], "rejected": [ASKED, said(BAD)]},
    ],
    "PKU-SafeRLHF": [
        {"prompt": QUESTION, "is_response_0_safe": True, "safer_response_id": 0, **row}
        for row in two(("response_0", "response_1"), "better_response_id", (0, 1))
    ],
    "SHP": [
        {"history": QUESTION, "score_A": 2, "score_B": 1, **row}
        for row in two(("human_ref_A", "human_ref_B"), "labels", (1, 0))
    ],
    "HelpSteer2, preferences": [
        {"split": "train", "prompt": QUESTION, "preference_statement": None, **row}
        for row in two(("response_1", "response_2"), "preference_strength", (-2, 3, 0))
    ],
    "JudgeBench": [
        {"pair_id": f"p{n}", "original_id": "7", "source": "mmlu-pro-math", "question": QUESTION}
        | row
        for n, row in enumerate(two(("response_A", "response_B"), "label", ("A>B", "B>A")))
    ],
    "RewardBench": [
        {"id": 31, "prompt": QUESTION, "chosen": GOOD, "rejected": BAD, "subset": "donotanswer"}
    ],
    "RewardBench 2": [
        {
            "id": "0",
            "prompt": QUESTION,
            "chosen": [GOOD],
            "rejected": [BAD, BAD, BAD],
            "num_correct": 1,
            "subset": "Math",
        }
    ],
    "dialogues with tool calls": [
        {
            "prompt": [ASKED, said(None) | {"tool_calls": [{"name": "search"}]}, ASKED],
            "chosen": GOOD,
            "rejected": BAD,
        }
    ],
}
REFUSED = {
    "RewardBench 2": "row 1, column 'chosen': found a list of 1 text.s.*RewardBench 2's form",
    "dialogues with tool calls": "row 1, column 'prompt': found a message with the key 'tool_call",
}


def documented():
    """The cells of the documentation's table, by data set."""
    text = (ROOT / "docs" / "real-data.md").read_text(encoding="utf-8")
    table = text.split("| data set | section |", 1)[1].split("\n\n", 1)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]
    ]
    return {name: cells for name, *cells in rows}


def test_the_documentation_has_the_forms_that_are_tested():
    assert documented().keys() == FORMS.keys()
    for name, (*_, columns, _) in documented().items():
        assert columns.startswith("refused") == (name in REFUSED)


@pytest.mark.parametrize("name", FORMS)
def test_a_data_set_is_read_with_the_keys_of_the_documentation(tmp_path, name):
    section, ending, columns, label = documented()[name]
    source = {"path": str(write_rows(FORMS[name], tmp_path / f"a.{ending}"))}
    for key, cell in (("columns", columns), ("label", label)):
        if found := re.fullmatch("`(.*)`", cell):
            source[key] = yaml.safe_load(found[1])

    def build():
        if section == "benchmark":
            return benchmark_of(source)
        return build_preferences(settings(source, validation=0), "refuse", 0)

    if name in REFUSED:
        with pytest.raises(InputError, match=REFUSED[name]):
            build()
        return
    frame, card = build()
    pairs = {(p[-1]["content"], a, b) for p, a, b in frame[["prompt", "chosen", "rejected"]].values}
    assert pairs == {(QUESTION, GOOD, BAD)}
    ties = {"tie": 1} if len(FORMS[name]) == 3 else {}
    assert card["sources"][0]["dropped"] == ties
