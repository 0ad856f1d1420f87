"""The one error that stands for a user's mistake, and the full disk, which is one, too."""

from __future__ import annotations

import errno
import io
import re
import sys
from typing import Any

LONGEST = 1500
"""Characters of a message."""


class InputError(ValueError):
    """Bad input: config, data, checkpoint or resources.

    The message is complete by itself: it names the file, key or row, says what was found and what
    was expected. Scripts print it without a traceback and end with status 1.

    It is one line of printable text, whatever stands in the names, values and errors that it
    quotes, and its middle is cut where it is longer than a screen.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
        half = LONGEST // 2
        super().__init__(
            plain if len(plain) <= LONGEST else f"{plain[:half]} ... {plain[-half + 5 :]}"
        )


def tolerate_any_text() -> None:
    """Lets this process print any text, whatever its locale: a message is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def disk_is_full(error: Exception) -> bool:
    """Whether that is what an error says; safetensors has the system's number in the text alone."""
    match = re.search(r"os error (\d+)", str(error))
    number = int(match[1]) if match else getattr(error, "errno", None)
    return number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def quoted(value: Any) -> str:
    """A value as it stands in a message: in quotes if it is a text, and cut if it is long."""
    try:
        return cut(repr(value))
    except ValueError:  # Python does not write out whole numbers of thousands of digits
        return f"a {type(value).__name__} too long to show"


def cut(text: str, length: int = 200) -> str:
    """The text, or its beginning and three dots."""
    return text if len(text) <= length else f"{text[: length - 3]}..."
