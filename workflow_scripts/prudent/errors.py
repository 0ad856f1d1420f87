"""The one error that stands for a user's mistake, and the full disk, which is one, too."""

from __future__ import annotations

import errno
import re


class InputError(ValueError):
    """Bad input: config, data, checkpoint or resources.

    The message is complete by itself: it names the file, key or row, says what was found and what
    was expected. Scripts print it without a traceback and end with status 1.
    """


def disk_is_full(error: Exception) -> bool:
    """Whether that is what an error says; safetensors has the system's number in the text alone."""
    match = re.search(r"os error (\d+)", str(error))
    number = int(match[1]) if match else getattr(error, "errno", None)
    return number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
