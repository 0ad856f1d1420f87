"""Chat templates: how a reward model's prompt and response become one text.

The configuration has a template's name, the reward model's checkpoint its text. The continuation
ends in EOS, so that a decoder's last state is always taken at the same token, one that can look
back at all others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime
from typing import Any

from prudent.errors import cut

TEMPLATES = {
    "continuation": "{% for m in messages %}{{ m['content'] }}{% endfor %}{{ eos_token }}",
    "dialogue": (
        "{% for m in messages %}{{ '\n\nHuman: ' if m['role'] == 'user' else '\n\nAssistant: ' "
        "if m['role'] == 'assistant' else '\n\nSystem: ' }}{{ m['content'] | trim }}{% endfor %}"
    ),
}

Render = Callable[[list[dict[str, str]]], str]

DATE = datetime(2024, 7, 26)
"""Today's date for every template that prints it, as Llama 3.1's does: a reward must not change
overnight. It is also that template's own fallback."""

MOST_TURNS = 100_000
"""The largest number in a template, and the most iterations of nested loops over numbers."""


def dated(template: str) -> str:
    """A template in which today is always ``DATE``; one that does not use the date is unchanged.

    ``strftime_now`` of transformers becomes a macro that writes the parts of that date.
    """
    if "strftime_now" not in template:
        return template
    codes = ["%" + code for code in (*"aAbBcdeHIjmMpSuwxXyY", "-d", "-m")]
    parts = "".join(f" | replace('{code}', '{DATE.strftime(code)}')" for code in codes)
    macro = f"{{% macro strftime_now(form) %}}{{{{ form{parts} }}}}{{% endmacro %}}"
    return f"{macro}\n{template}"  # a line break after a block is not rendered


def without_end(template: str) -> str | None:
    """Why rendering a template may take forever or fill the memory; None if no reason is found.

    Jinja's sandbox limits each ``range``, but neither nested loops nor ``'a' * 10**9``.
    """
    import jinja2

    environment = jinja2.Environment()
    try:
        tokens = [text for _, kind, text in environment.lex(template) if kind == "integer"]
        numbers = [text.replace("_", "") for text in tokens]
        most = len(str(MOST_TURNS))
        for text in numbers:
            if len(text) > most or int(text, 0) > MOST_TURNS:
                return f"has the number {cut(text)}; expected at most {MOST_TURNS}"
        if _turns(environment.parse(template)) > MOST_TURNS:
            return f"has loops with more than {MOST_TURNS} turns, inside each other"
    except jinja2.TemplateError:  # rendering will report it
        pass
    return None


def _turns(node: Any, above: int = 1) -> int:
    """The most iterations of nested loops over constant ranges below a node."""
    from jinja2 import nodes

    most = above
    for child in node.iter_child_nodes():
        turns = above
        match child:
            case nodes.For(iter=nodes.Call(node=nodes.Name(name="range"), args=bounds)):
                values = [bound.value for bound in bounds if isinstance(bound, nodes.Const)]
                turns *= max([1, *(value for value in values if isinstance(value, int))])
        most = max(most, _turns(child, turns))
    return most


def fault(template: str, render: Render) -> str | None:
    """What is wrong with a template, tried on probe pairs; None if nothing is.

    ``render`` turns a conversation into a text. A template that does not show the response would
    give every response the same reward; it may show it for short dialogues only. One that refuses
    longer dialogues or, like Gemma's, a system message fails later, on the data.
    """
    if reason := without_end(template):
        return reason
    for system, turns in itertools.product((False, True), (1, 2, 3)):
        texts = []
        for response in ("It is good.", "That was bad!"):
            try:
                texts.append(render(_probe(system, turns, response)))
            except Exception as error:  # of jinja2, or of whatever the template does
                if not system and turns == 1:
                    return f"cannot be rendered: {type(error).__name__}: {error}".replace("\n", " ")
                break
        if len(texts) == 2 and texts[0] == texts[1]:
            roles = ", ".join(message["role"] for message in _probe(system, turns, ""))
            return (
                "does not show the response: two responses to a prompt give the same text "
                f"(in a dialogue of {roles})"
            )
    return None


def _probe(system: bool, turns: int, response: str) -> list[dict[str, str]]:
    """A dialogue with ``turns`` user messages, the last one answered by the response."""
    dialogue = [{"role": "system", "content": "Be short."}] if system else []
    for turn in range(turns):
        dialogue += [
            {"role": "user", "content": f"How is film {turn}?"},
            {"role": "assistant", "content": f"I have not seen film {turn}."},
        ]
    return [*dialogue[:-1], {"role": "assistant", "content": response}]


def plain_fault(template: str) -> str | None:
    """``fault`` of a template without a tokenizer, rendered as transformers would."""
    from transformers.utils.chat_template_utils import render_jinja_template

    special: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}

    def render(messages: list[dict[str, str]]) -> str:
        return render_jinja_template([messages], chat_template=dated(template), **special)[0][0]

    return fault(template, render)
