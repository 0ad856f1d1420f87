"""Rows of data: every form of a dialogue, and what is refused."""

import numpy as np
import pytest
from tiny_data import said

from prudent.data.rows import BadRow, to_messages, to_pair

# One dialogue of three turns and its two answers, in every form that is read.
DIALOGUE = [
    {"role": "user", "content": "Which films are good?"},
    {"role": "assistant", "content": "Which ones do you like?\n\nOld ones?"},
    {"role": "user", "content": "New ones."},
]
CHOSEN, REJECTED = "Try a comedy.", "I do not know."
HH = (
    "\n\nHuman: Which films are good?\n\nAssistant: Which ones do you like?\n\nOld ones?"
    "\n\nHuman: New ones.\n\nAssistant:"
)
SHAREGPT = [
    {"from": "human", "value": DIALOGUE[0]["content"]},
    {"from": "gpt", "value": DIALOGUE[1]["content"]},
    {"from": "human", "value": DIALOGUE[2]["content"]},
]


FORMS = {
    "messages, texts": (DIALOGUE, CHOSEN, REJECTED),
    "messages, messages": (DIALOGUE, [said(CHOSEN)], [said(REJECTED)]),
    "messages, whole": (DIALOGUE, [*DIALOGUE, said(CHOSEN)], [*DIALOGUE, said(REJECTED)]),
    "from/value": (SHAREGPT, CHOSEN, [{"from": "gpt", "value": REJECTED}]),
    "all four keys": (
        [DIALOGUE[0] | {"from": None, "value": None}, SHAREGPT[1] | {"role": None, "content": None}]
        + [DIALOGUE[2] | SHAREGPT[2]],
        [{"role": None, "content": None, "from": "gpt", "value": CHOSEN}],
        REJECTED,
    ),
    "open turn of four keys": (
        [*DIALOGUE, {"role": None, "content": None, "from": "gpt", "value": None}],
        CHOSEN,
        REJECTED,
    ),
    "no tool called": ([m | {"tool_calls": None} for m in DIALOGUE], CHOSEN, REJECTED),
    "open turn": ([*DIALOGUE, said("")], CHOSEN, REJECTED),
    "null open turn": ([*DIALOGUE, said(None)], CHOSEN, REJECTED),
    "array": (np.array(DIALOGUE, dtype=object), CHOSEN, REJECTED),
    "HH, texts": (HH, f" {CHOSEN}", f"{REJECTED}\n"),
    "HH without its first breaks": (HH.lstrip(), CHOSEN, REJECTED),
    "HH, whole": (HH, f"{HH} {CHOSEN}", f"{HH} {REJECTED}"),
    "whole messages alone": (None, [*DIALOGUE, said(CHOSEN)], [*DIALOGUE, said(REJECTED)]),
    "whole HH alone": (None, f"{HH} {CHOSEN}", f"{HH} {REJECTED}"),
    "turn in two messages": (
        [
            DIALOGUE[0],
            said("Which ones do you like?"),
            said("Old ones?"),
            DIALOGUE[2],
        ],
        CHOSEN,
        REJECTED,
    ),
}


def row_of(form):
    prompt, chosen, rejected = FORMS[form]
    row = {"chosen": chosen, "rejected": rejected}
    return row if prompt is None else {"prompt": prompt, **row}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_dialogue_gives_the_same_messages(form):
    assert to_pair(row_of(form)) == (DIALOGUE, CHOSEN, REJECTED)


def test_a_bare_prompt_is_one_user_message_and_keeps_its_white_space():
    # RewardBench's code rows: indentation belongs to the response.
    row = {"prompt": "def f(x):\n", "chosen": "    return x\n", "rejected": "    pass\n"}
    prompt, chosen, rejected = to_pair(row)
    assert prompt == [{"role": "user", "content": "def f(x):\n"}]
    assert (chosen, rejected) == ("    return x\n", "    pass\n")


def test_words_like_turns_inside_bare_texts_are_text():
    prompt = "Explain this log.\n\nHuman: hi\n\nAssistant: hello"
    assert to_messages(prompt) == [{"role": "user", "content": prompt}]
    answer = "\n\nHuman: another question"
    row = {"prompt": "Say it.", "chosen": answer, "rejected": "No."}
    assert to_pair(row)[1] == answer


def test_a_system_message_stays_and_an_empty_turn_in_the_middle_is_no_error():
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert to_messages(messages) == messages
    text = "\n\nHuman: Hi\n\nAssistant: \n\nHuman: Hello?\n\nAssistant:"
    assert [m["content"] for m in to_messages(text)] == ["Hi", "", "Hello?"]


BAD = {
    "missing prompt": ({"prompt": None}, "missing", "prompt"),
    "missing response": ({"chosen": None}, "missing", "chosen"),
    "nan response": ({"rejected": float("nan")}, "missing", "rejected"),
    "number": ({"rejected": 3}, "not_text", "rejected"),
    "bytes": ({"prompt": b"x"}, "not_text", "prompt"),
    "empty response": ({"chosen": " \n"}, "empty_response", "chosen"),
    "empty message": ({"chosen": [said("")]}, "empty_response", "chosen"),
    "equal": ({"chosen": "A. ", "rejected": "A."}, "equal_responses", "rejected"),
    "empty prompt": ({"prompt": "  "}, "empty_prompt", "prompt"),
    "no messages": ({"prompt": []}, "empty_prompt", "prompt"),
    "last turn empty": ({"prompt": "\n\nHuman: \n\nAssistant:"}, "empty_prompt", "prompt"),
    "assistant last": ({"prompt": [*DIALOGUE[:2]]}, "not_users_turn", "prompt"),
    "HH answered": ({"prompt": HH + " Fine."}, "not_users_turn", "prompt"),
    "unknown role": ({"prompt": [{"role": "tool", "content": "x"}]}, "unknown_role", "prompt"),
    "no content": ({"prompt": [{"role": "user"}]}, "not_messages", "prompt"),
    "parts": ({"prompt": [{"role": "user", "content": ["x"]}]}, "not_text", "prompt"),
    "null in the middle": (
        {"prompt": [DIALOGUE[0], said(None), DIALOGUE[2]]},
        "missing",
        "prompt",
    ),
    "tool call": (
        {"prompt": [DIALOGUE[0], said(None) | {"tool_calls": [{"name": "w"}]}, DIALOGUE[2]]},
        "tool_call",
        "prompt",
    ),
    "tool call with a text": (
        {"prompt": [DIALOGUE[0], said("Wait.") | {"tool_calls": [{"name": "w"}]}, DIALOGUE[2]]},
        "tool_call",
        "prompt",
    ),
    "tool call as a response": (
        {"chosen": [said(None) | {"function_call": {"name": "w"}}]},
        "tool_call",
        "chosen",
    ),
    "two forms that differ": (
        {"prompt": [{"role": "user", "content": "Q?", "from": "human", "value": "R?"}]},
        "not_messages",
        "prompt",
    ),
    "two halves of forms": (
        {"prompt": [{"role": "user", "content": None, "from": None, "value": "Q?"}]},
        "not_messages",
        "prompt",
    ),
    "several responses": ({"rejected": ["B.", "C.", "D."]}, "several_texts", "rejected"),
    "half a character": ({"prompt": "a \ud83d film"}, "not_unicode", "prompt"),
    "half in a response": ({"chosen": "\udc00"}, "not_unicode", "chosen"),
    "half in a message": (
        {"prompt": [{"role": "user", "content": "\ud800"}]},
        "not_unicode",
        "prompt",
    ),
    "other dialogue": (
        {"chosen": [{"role": "user", "content": "Other"}, said("A.")]},
        "different_prompts",
        "chosen",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_says_why_and_where(case):
    change, reason, column = BAD[case]
    good = {"prompt": "Q?", "chosen": "A.", "rejected": "B."}
    assert to_pair(good)
    with pytest.raises(BadRow) as caught:
        to_pair({**good, **change})
    assert caught.value.reason == reason
    assert f"column {column!r}: found " in str(caught.value)
    assert ", expected " in str(caught.value)


def test_whole_dialogues_have_to_share_their_prompt():
    other = [{"role": "user", "content": "Other?"}, said("B.")]
    with pytest.raises(BadRow) as caught:
        to_pair({"chosen": [*DIALOGUE, said("A.")], "rejected": other})
    assert caught.value.reason == "different_prompts"
    with pytest.raises(BadRow) as caught:
        to_pair({"chosen": "just an answer", "rejected": "another"})
    assert caught.value.reason == "not_a_dialogue"


Q = {"role": "user", "content": "Q?"}
FAR = "word " * 100


def test_a_dialogue_as_text_whose_prompt_differs_by_a_blank_is_no_response():
    row = {"prompt": "Q? ", "chosen": "\n\nHuman: Q?\n\nAssistant: A.", "rejected": "B."}
    with pytest.raises(BadRow, match="found 'Q[?]' as the content of message 1, expected 'Q[?] '"):
        to_pair(row)


@pytest.mark.parametrize(
    ("prompt", "turns", "says"),
    [
        ("Q? ", [Q], "found 'Q?' as the content of message 1, expected 'Q? ' as the content of"),
        (
            "Q?",
            [Q | {"content": "Q?\n"}],
            r"found 'Q?\n' as the content of message 1, expected 'Q?'",
        ),
        (
            FAR + "end",
            [Q | {"content": FAR + " end"}],
            "found ...'word word word word \\x20end' as the content of message 1, expected "
            "...'word word word word end'",
        ),
        (
            [Q],
            [Q | {"role": "system"}, Q],
            "found 'system' as the role of message 1, expected 'user",
        ),
        ([Q | {"role": "system"}, Q], [Q | {"role": "system"}], "found 1 message(s) before the"),
    ],
)
def test_turns_that_are_not_the_prompts_show_the_difference(prompt, turns, says):
    row = {"prompt": prompt, "chosen": [*turns, said("A.")], "rejected": "B."}
    with pytest.raises(BadRow) as caught:
        to_pair(row)
    assert caught.value.reason == "different_prompts"
    assert says in str(caught.value) and str(caught.value).endswith(", as in the prompt")


def test_dialogues_whose_prompts_differ_by_a_blank_show_it():
    other = [*DIALOGUE[:2], DIALOGUE[2] | {"content": "New ones. "}, said("B.")]
    with pytest.raises(BadRow) as caught:
        to_pair({"chosen": [*DIALOGUE, said("A.")], "rejected": other})
    message = "column 'rejected': found 'New ones. ' as the content of message 3, expected 'New o"
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("as in 'chosen'")


def test_a_list_of_responses_is_named():
    with pytest.raises(BadRow) as caught:
        to_pair({"prompt": "2+2?", "chosen": ["4"], "rejected": ["5", "6", "7"]})
    assert "found a list of 1 text(s), the first '4' (RewardBench 2's" in str(caught.value)
    assert str(caught.value).endswith("expected one text or one list of messages a row")
