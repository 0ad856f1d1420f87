"""The objectives, their files and their parameters, read without importing torch, which is slow."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, create_model

from prudent import settings
from prudent.errors import InputError, quoted
from prudent.settings import Composed, Settings

FOLDER = Path(__file__).parents[1] / "objectives"
GIVEN = ("head", "run", "spread", "reference_spread", "std", "last_layer")
"""What an objective is given where it asks for it, as in ``prudent.objectives.signal``."""
FORM = "signal.py"
"""The file that holds what objectives have in common, and none of them."""
CONTROLS = "controls"
"""The family of those that no claim is made for."""
FACTS = ("Score", "Coefficient", "Weight", "Penalty", "Source", "Control")
"""What lines of an objective's docstring may begin with."""
RESERVED = ("objective", "beta", "spread", "ppo")
"""Keys that every method has, so that no parameter can be named so."""
TYPES = {"Literal": Literal, "int": int, "float": float, "bool": bool, "str": str}
TYPES |= {name: getattr(settings, name) for name in ("Count", "Amount", "Positive", "Nonnegative")}
TYPES |= {name: getattr(settings, name) for name in ("Share", "Proportion", "Text")}


@dataclass(frozen=True)
class Objective:
    """A public function of a family's file."""

    name: str
    file: Path
    document: str
    parameters: type[Settings]
    """Its keyword parameters, with their types, defaults and bounds."""
    asks: tuple[str, ...]
    """What it is given."""

    @property
    def unit(self) -> Literal["member", "ensemble"]:
        """What its policies differ by: the own member if it asks for one, else the ensemble."""
        return "member" if "head" in self.asks else "ensemble"

    @property
    def spread(self) -> bool:
        """Whether it uses the spread of responses."""
        return bool({"spread", "reference_spread"} & {*self.asks})

    @property
    def facts(self) -> dict[str, str]:
        """The docstring's lines that begin with one of ``FACTS``."""
        form = rf"^({'|'.join(FACTS)}): (.*(?:\n    .*)*)"
        found = re.findall(form, inspect.cleandoc(self.document), re.M)
        return {name: " ".join(text.split()) for name, text in found}

    @property
    def control(self) -> bool:
        """Whether no claim is made for it: it is what a method is held against."""
        return self.file.stem == CONTROLS


def objectives(folder: Path = FOLDER) -> dict[str, Objective]:
    """All objectives by name, in the order of the files and of the functions in them."""
    found: dict[str, Objective] = {}
    for file in sorted(set(folder.glob("*.py")) - {folder / FORM}):
        for objective in _objectives_of(file, file.stat().st_mtime_ns):
            if objective.name in found:
                raise InputError(
                    f"{file}: the objective {objective.name} is also in "
                    f"{found[objective.name].file.name}; expected another name"
                )
            found[objective.name] = objective
    return found


@functools.cache
def _objectives_of(file: Path, stamp: int) -> tuple[Objective, ...]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise InputError(f"{file}: line {error.lineno}: {error.msg}") from error
    return tuple(
        Objective(
            node.name,
            file,
            ast.get_docstring(node) or "",
            _parameters(node, file),
            tuple(a.arg for a in node.args.kwonlyargs if a.arg in GIVEN),
        )
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    )


def _parameters(node: ast.FunctionDef, file: Path) -> type[Settings]:
    """The keyword-only arguments as settings; their meanings stand in the docstring."""
    place = f"{file}: line {node.lineno}: the objective {node.name}"
    if [argument.arg for argument in node.args.args] != ["rewards", "beta"]:
        raise InputError(
            f"{place} has to begin with (rewards, beta, and to name all else that it asks for "
            "behind a *"
        )
    meanings = dict(_meanings(ast.get_docstring(node) or ""))
    fields: dict[str, Any] = {}
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        name = argument.arg
        if name in GIVEN:
            continue
        if name in RESERVED or default is None or argument.annotation is None:
            raise InputError(
                f"{place}: expected the parameter {quoted(name)} to have a type and a default, and "
                f"to be named otherwise than {', '.join(RESERVED)}"
            )
        try:
            kind = eval(ast.unparse(argument.annotation), {"__builtins__": {}}, TYPES)
            value = ast.literal_eval(default)
        except (NameError, TypeError, ValueError) as error:
            raise InputError(
                f"{place}: the parameter {quoted(name)}: {error}; expected a type of "
                f"{', '.join(TYPES)}, and a plain value"
            ) from error
        fields[name] = (kind, Field(default=value, description=meanings.get(name, "")))
    parameters = create_model(node.name, __base__=Composed, **fields)
    try:
        parameters(**{name: field.default for name, (_, field) in fields.items()})
    except InputError as error:
        raise InputError(f"{place}: its defaults: {error}") from error
    return parameters


def _meanings(document: str) -> Iterator[tuple[str, str]]:
    """Names and meanings from a docstring's part ``Args:``."""
    part = re.search(r"^Args:\n((?:    .*\n?|\n)*)", inspect.cleandoc(document), re.M)
    for entry in re.findall(
        r"^    (\w+): ((?:.*\n?)(?:     +.*\n?)*)", part[1] if part else "", re.M
    ):
        yield entry[0], " ".join(entry[1].split())


def load(name: str) -> Any:
    """The objective's function; its file is imported now, and no other family's."""
    import importlib

    return getattr(
        importlib.import_module(f"prudent.objectives.{objectives()[name].file.stem}"), name
    )
