"""What the configuration's tests share: keys that are set, and what is refused."""

from pathlib import Path

import pytest

from prudent.errors import InputError
from prudent.workflow.checks import effective_config
from prudent.workflow.remembered import Memory

MEMORY = Memory(Path("none"))


def set_key(config: dict, key: object, value: object) -> None:
    """Sets ``a.b.c``; a number is a place in a list."""
    *path, last = key.split(".") if isinstance(key, str) else [key]
    for part in path:
        config = config[int(part)] if part.isdigit() else config[part]
    config[int(last) if isinstance(config, list) else last] = value


def refusal(config: dict) -> str:
    """The message by which a configuration is refused."""
    with pytest.raises(InputError) as refused:
        effective_config(config, MEMORY)
    return str(refused.value)
