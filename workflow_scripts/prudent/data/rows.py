"""Rows in one form: texts, dialogues and pairs of responses, and the faults of bad rows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from prudent.errors import InputError, cut, quoted

Message = dict[str, str]
Pair = tuple[list[Message], str, str]
"""A prompt's messages, and the chosen and the rejected response."""

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}

CLEANING = "runs of HTML line breaks and the white space around them became one space"

_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)

_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


class BadRow(InputError):
    """One row that cannot be used: the reason to count in the card, and the message to the user."""

    def __init__(self, reason: str, column: str, found: str, expected: str) -> None:
        super().__init__(f"column {quoted(column)}: found {found}, expected {expected}")
        self.reason = reason


class Tie(BadRow):
    """A row that prefers neither response, which is not a fault, but does not give a pair."""


def clean(text: str) -> str:
    """A text without HTML line breaks (58% of the IMDB reviews hold ``<br />``), stripped."""
    # Split and joined: one expression for breaks with the white space around them would be
    # quadratic in runs of blanks.
    parts = (part.strip() for part in _LINE_BREAK.split(text))
    return " ".join(part for part in parts if part)


def to_messages(value: Any, column: str = "prompt") -> list[Message]:
    r"""A prompt as messages ``{"role": "system"|"user"|"assistant", "content": text}``.

    Reads a list of messages (keys role/content or from/value; human is user, gpt is assistant), an
    HH-RLHF dialogue (``\n\nHuman: ... \n\nAssistant:``, whose turns are stripped), or a bare text,
    which is one user message. Consecutive messages of one role are merged, because chat templates
    require alternating turns. An open, empty assistant turn at the end is dropped. ``BadRow`` where
    the prompt is missing, empty, not text, or does not end with the user's turn.
    """
    messages = _turns(value, column)
    if messages and messages[-1]["role"] == "assistant" and not messages[-1]["content"].strip():
        messages.pop()
    if not messages:
        raise BadRow("empty_prompt", column, "no message", "a prompt")
    if messages[-1]["role"] != "user":
        raise BadRow(
            "not_users_turn",
            column,
            f"a dialogue that ends with the {messages[-1]['role']}'s turn",
            "one that ends with the user's",
        )
    if not messages[-1]["content"].strip():
        raise BadRow("empty_prompt", column, "an empty prompt", "a text")
    return messages


def to_pair(row: Mapping[str, Any], sides: Sequence[str] = ("chosen", "rejected")) -> Pair:
    """The prompt's messages and the two responses of a preference row, in the order of ``sides``.

    With a ``prompt``, the columns ``sides`` are texts, or messages: the assistant's alone or the
    whole dialogue. Without one they are whole dialogues, as messages or in HH-RLHF's form, that
    share all but the last turn. ``BadRow`` where the row has another form, a response is empty, or
    both are the same.
    """
    if "prompt" in row:
        prompt = to_messages(row["prompt"])
        responses = [_response(row[side], prompt, side) for side in sides]
        if _is_dialogue(row["prompt"]):
            responses = [response.strip() for response in responses]
    else:
        whole = [_whole(row[side], side) for side in sides]
        _check_same(whole[1][:-1], whole[0][:-1], sides[1], f"as in {quoted(sides[0])}")
        prompt = to_messages(whole[0][:-1], sides[0])
        responses = [turns[-1]["content"] for turns in whole]
    for side, response in zip(sides, responses, strict=True):
        if not response.strip():
            raise BadRow("empty_response", side, f"the empty text {quoted(response)}", "a response")
    if responses[0].strip() == responses[1].strip():
        raise BadRow(
            "equal_responses",
            sides[1],
            f"the {sides[0]} response again, {shown(responses[1])}",
            "another one",
        )
    return prompt, responses[0], responses[1]


def _check_same(found: list[Message], expected: list[Message], column: str, where: str) -> None:
    """``BadRow`` with the first difference between messages that should be the same."""
    for number, (one, other) in enumerate(zip(found, expected, strict=False), 1):
        for key in ("role", "content"):
            if one[key] != other[key]:
                parts = [_around(one[key], other[key]), _around(other[key], one[key])]
                says = [f"{part} as the {key} of message {number}" for part in parts]
                raise BadRow("different_prompts", column, says[0], f"{says[1]}, {where}")
    if len(found) != len(expected):
        raise BadRow(
            "different_prompts",
            column,
            f"{len(found)} message(s) before the response",
            f"{len(expected)}, {where}",
        )


def _around(text: str, other: str) -> str:
    """An excerpt of a text where it differs from another, with white space made visible."""
    same = len(os.path.commonprefix([text, other]))
    start = max(0, same - 20)
    # Error messages keep single blanks only.
    part = quoted(cut(text[start:], 60)).replace("  ", r" \x20")
    return ("..." if start else "") + part


def _turns(value: Any, column: str) -> list[Message]:
    if isinstance(value, str):
        check_unicode(value, column)
        if not _is_dialogue(value):
            return [{"role": "user", "content": value}]
        parts = _TURN.split(value)
        roles, contents = parts[1::2], [text.strip() for text in parts[2::2]]
        return _merge(zip((r.lower() for r in roles), contents, strict=True), column)
    if isinstance(value, list | tuple | np.ndarray):
        if len(value) and all(isinstance(item, str) for item in value):
            raise BadRow(
                "several_texts",
                column,
                f"a list of {len(value)} text(s), the first {shown(value[0])} (RewardBench 2's "
                "form, the best of four, is not read)",
                "one text or one list of messages a row",
            )
        return _merge((_fields(message, column) for message in value), column)
    raise not_text(value, column, "a text or a list of messages")


def _is_dialogue(value: Any) -> bool:
    """Whether a text consists of HH-RLHF's turns; some copies lack the first line breaks."""
    if not isinstance(value, str):
        return False
    return value.startswith("\n\nHuman:") or (
        value.lstrip().startswith("Human:") and "\n\nAssistant:" in value
    )


def _fields(message: Any, column: str) -> tuple[Any, Any]:
    """A message's role and content.

    Parquet gives every message the keys of all messages, so only keys with values count.
    """
    fields = message if isinstance(message, dict) else {}
    forms = [
        (fields[role], fields[content])
        for role, content in (("role", "content"), ("from", "value"))
        if role in fields and content in fields
    ]
    said = [form for form in forms if form != (None, None)]
    meant = [(ROLES.get(str(role)), content) for role, content in said]
    if not forms or any(form != meant[0] for form in meant):
        raise BadRow(
            "not_messages",
            column,
            shown(message),
            "a message with role and content, or from, value",
        )
    for key in ("tool_calls", "function_call"):
        if fields.get(key):
            raise BadRow(
                "tool_call",
                column,
                f"a message with the key {quoted(key)}, {shown(fields[key])}",
                "messages of text alone, since no response here calls a tool",
            )
    return (said or forms)[0]


def _merge(turns: Iterable[tuple[Any, Any]], column: str) -> list[Message]:
    # The parts are joined at the end, because appending to a text turn by turn is quadratic.
    messages: list[tuple[str, list[str]]] = []
    turns = list(turns)
    for number, (role, content) in enumerate(turns, 1):
        if role in ("assistant", "gpt") and content is None and number == len(turns):
            content = ""  # an open turn
        if not isinstance(content, str):
            raise not_text(content, column, f"a text as the content of message {number}")
        check_unicode(content, column)
        if not isinstance(role, str) or role not in ROLES:
            raise BadRow(
                "unknown_role", column, f"the role {quoted(role)}", f"one of {', '.join(ROLES)}"
            )
        if messages and messages[-1][0] == ROLES[role]:
            messages[-1][1].append(content)
        else:
            messages.append((ROLES[role], [content]))
    return [{"role": role, "content": "\n\n".join(parts)} for role, parts in messages]


def _whole(value: Any, column: str) -> list[Message]:
    """A whole dialogue, which ends with the assistant's turn."""
    turns = _turns(value, column)
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        raise BadRow(
            "not_a_dialogue",
            column,
            shown(value),
            "a dialogue that ends with the assistant's turn, since there is no column named prompt",
        )
    return turns


def _response(value: Any, prompt: list[Message], column: str) -> str:
    if isinstance(value, str) and not _is_dialogue(value):
        check_unicode(value, column)
        return value
    turns = _turns(value, column)
    ended = bool(turns) and turns[-1]["role"] == "assistant"
    if ended and turns[:-1] in ([], prompt):
        return turns[-1]["content"]
    if isinstance(value, str) and not (ended and _stripped(turns[:-1]) == _stripped(prompt)):
        return value  # a response that happens to contain such turns
    if ended:
        _check_same(turns[:-1], prompt, column, "as in the prompt")
    raise BadRow(
        "different_prompts",
        column,
        shown(value),
        "the assistant's message, alone or after the messages of the prompt",
    )


def _stripped(messages: list[Message]) -> list[Message]:
    return [message | {"content": message["content"].strip()} for message in messages]


def to_text(value: Any, column: str = "text") -> str:
    """A cleaned text; ``BadRow`` where it is missing, not text, or empty."""
    if not isinstance(value, str):
        raise not_text(value, column, "a text")
    check_unicode(value, column)
    text = clean(value)
    if not text:
        raise BadRow("empty_text", column, f"the empty text {quoted(value)}", "a text")
    return text


def check_unicode(text: str, column: str) -> None:
    """``BadRow`` for a text with half a surrogate pair, which broken JSON escapes leave.

    No file or tokenizer accepts such a text.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise BadRow(
            "not_unicode", column, f"the half character {quoted(half)}", "Unicode text"
        ) from None


def not_text(value: Any, column: str, expected: str) -> BadRow:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return BadRow("missing", column, "no value", expected)
    return BadRow("not_text", column, shown(value), expected)


def shown(value: Any) -> str:
    text = cut(quoted(value), 60)
    return text if isinstance(value, str | None) else f"{text} ({type(value).__name__})"
