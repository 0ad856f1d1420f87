"""Reading configuration files strictly, and merging them.

Snakemake reads them, too, but takes the last of two equal keys without a word, and what stands on
its command line below the first level as text. Here duplicate keys are refused, and texts of the
command line take the types that the settings have.
"""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from prudent.errors import InputError
from prudent.settings import Settings, form_at, key_of, schema_of
from prudent.workflow.checks import check_folders

MOST_VALUES = 100_000
"""Values that a configuration may have, aliases counted each time."""


class _StrictLoader(yaml.SafeLoader):
    """Refuses duplicate keys, `<<` too, of which YAML would take the last in silence."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.checked: dict[int, yaml.Node] = {}

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # Once, before the keys of another mapping are merged into these: a mapping may be merged
        # into a third before it is constructed itself.
        if id(node) not in self.checked:
            self.checked[id(node)] = node  # which also keeps its number from another one
            self._check_keys(node)
        super().flatten_mapping(node)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen: dict[Any, yaml.Node] = {}
        for key, _ in node.value:
            merge = key.tag == "tag:yaml.org,2002:merge"
            name = key.value if merge else self.construct_object(key, deep=True)
            try:
                earlier = seen.setdefault(name, key)
            except TypeError:  # a list or a section as a key
                raise _at(key, "found a list or a section as a key, expected a name") from None
            if earlier is not key:
                raise _at(
                    key,
                    f"found the key `{name}` again, which stands in line "
                    f"{earlier.start_mark.line + 1} already; expected each key once",
                )


def _at(node: yaml.Node, says: str) -> InputError:
    return InputError(f"line {node.start_mark.line + 1}: {says}")


def read_config(path: str | Path) -> dict[str, Any]:
    """A configuration file's sections; ``InputError`` with the file and, where known, the line."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {line}: found bytes that are not UTF-8") from None
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise InputError(f"{path}: {reason}; expected a configuration file") from None
    try:
        values = yaml.load(text, _StrictLoader)
        _count(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise InputError(f"{path}: {where}not valid YAML: {error.problem or error}") from None
    except (yaml.YAMLError, ValueError) as error:  # such as a number of thousands of digits
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: not valid YAML: {first}") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be a configuration") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: found {type(values).__name__}, expected sections with keys")
    return values


def _count(value: Any, above: tuple[int, ...] = (), total: int = 0) -> int:
    """The number of values; refuses aliases of themselves, and bombs of aliases."""
    if id(value) in above:
        raise InputError("found an alias inside the value that it stands for (&name ... *name)")
    total += 1
    if total > MOST_VALUES:
        raise InputError(f"found more than {MOST_VALUES} values, expected a configuration")
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        for part in inner:
            total = _count(part, (*above, id(value)), total)
    return total


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` merged over ``base``: sections key by key, everything else replaced."""
    result = dict(copy.deepcopy(base))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def typed(values: Mapping[str, Any], model: type[Settings]) -> dict[str, Any]:
    """``--config`` values with the types that the settings have.

    Snakemake hands over sections like ``ppo={steps: 3}`` with every number as text.
    """
    schema = schema_of(model)

    def convert(value: Any, path: tuple[str | int, ...]) -> Any:
        if isinstance(value, Mapping):
            return {key: convert(part, (*path, key)) for key, part in value.items()}
        if isinstance(value, list):
            return [convert(part, (*path, index)) for index, part in enumerate(value)]
        if not isinstance(value, str):
            return value
        form = form_at(schema, path)
        # Also where the key takes texts alone: it is refused there, as in a file.
        if value == "null":
            return None
        if form.get("type") == "string" or ("enum" in form and True not in form["enum"]):
            return value
        return _scalar(value)

    return {key: convert(value, (key,)) for key, value in values.items()}


def _scalar(text: str) -> Any:
    """A number, true or false where the text is one."""
    try:
        value = yaml.safe_load(text)
        return float(text) if isinstance(value, str) else value
    except (yaml.YAMLError, ValueError):
        return text


def from_command_line(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """The configuration files, and the keys of ``--config``, that Snakemake's arguments name."""
    files: list[str] = []
    keys: list[str] = []
    taking: list[str] | None = None
    for argument in arguments:
        option, _, value = argument.partition("=")
        if option in ("--configfile", "--configfiles"):
            taking = files
        elif option in ("--config", "-C"):
            taking = keys
        elif argument.startswith("-"):
            taking = None
            continue
        elif taking is not None:
            taking.append(argument)
            continue
        else:
            continue
        if value:
            taking.append(value)
    return files, keys


def check_entries(entries: Iterable[str]) -> None:
    """Refuses keys that stand twice in ``--config``, of which Snakemake would take the last."""
    seen: dict[str, str] = {}
    for entry in entries:
        key, _, value = entry.partition("=")
        if key in seen:
            raise InputError(
                f"--config {entry}: the key `{key}` has the value {seen[key]} already; expected "
                "each key once"
            )
        seen[key] = value
        try:
            yaml.load(value, _StrictLoader)
        except InputError as error:
            raise InputError(f"--config {entry}: {error}") from None
        except (yaml.YAMLError, ValueError, RecursionError):
            pass  # a text


def check_command_line(arguments: Iterable[str]) -> None:
    """Refuses what Snakemake itself would answer with a traceback, before this workflow is read."""
    arguments = list(arguments)
    for argument, following in itertools.pairwise([*arguments, ""]):
        option, _, place = argument.partition("=")
        if option in ("--directory", "-d"):
            check_folders(place or following, write=True)
    files, keys = from_command_line(arguments)
    for file in files:
        read_config(file)
    check_entries(keys)
    for entry in keys:
        key, equals, value = entry.partition("=")
        if not equals:
            raise InputError(f"--config {entry}: expected KEY=VALUE, such as seeds=3")
        if "." in key:
            section = key_of(key.split("."))
            path, _, last = section.rpartition(".")
            nested = f"{{{last}: {value}}}"
            for part in reversed(path.split(".")[1:]):
                nested = f"{{{part}: {nested}}}"
            raise InputError(
                f"--config {entry}: a key has no points; write --config "
                f"'{path.split('.')[0]}={nested}'"
            )


if __name__ == "__main__":
    try:
        check_command_line(sys.argv[1:])
    except InputError as mistake:
        sys.exit(str(mistake))
