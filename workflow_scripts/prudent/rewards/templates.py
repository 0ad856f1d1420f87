"""Chat templates: how a reward model's prompt and response become one text.

The name stands in the configuration, the text is stored in the reward model's checkpoint. The
continuation ends in EOS so that a decoder's last state is always taken at the same token, one that
can look back at all others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

TEMPLATES = {
    "continuation": "{% for m in messages %}{{ m['content'] }}{% endfor %}{{ eos_token }}",
    "dialogue": (
        "{% for m in messages %}{{ '\n\nHuman: ' if m['role'] == 'user' else '\n\nAssistant: ' "
        "if m['role'] == 'assistant' else '\n\nSystem: ' }}{{ m['content'] | trim }}{% endfor %}"
    ),
}

Render = Callable[[list[dict[str, str]]], str]


def fault(render: Render) -> str | None:
    """What is wrong with a template, tried on a probe pair: None for nothing.

    ``render`` turns a conversation into a text. A template that does not show the response would
    give every response the same reward.
    """
    texts = []
    for response in ("It is good.", "That was bad!"):
        probe = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": response}]
        try:
            texts.append(render(probe))
        except Exception as error:  # of jinja2, or of whatever the template does
            return f"cannot be rendered: {type(error).__name__}: {error}".replace("\n", " ")
    if texts[0] == texts[1]:
        return "does not show the response: two responses to a prompt give the same text"
    return None


def plain_fault(template: str) -> str | None:
    """The same for a template alone, without a tokenizer, as transformers would render it."""
    from transformers.utils.chat_template_utils import render_jinja_template

    special: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}

    def render(messages: list[dict[str, str]]) -> str:
        return render_jinja_template([messages], chat_template=template, **special)[0][0]

    return fault(render)
