"""Settings that are written once: each key with its type, default, bounds and meaning.

Every settings class is a pydantic model whose fields carry all of that. The configuration's check,
its schema file and the documentation's table come from these classes, and so do the library's
arguments. A mistake is one ``InputError`` that names the key, what was found and what is expected.
"""

from __future__ import annotations

import copy
import difflib
import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from prudent.errors import InputError, cut, quoted

Form = dict[str, Any]
"""A piece of a JSON schema."""

Count = Annotated[int, Field(ge=1)]
Amount = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Nonnegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Proportion = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Text = Annotated[str, Field(min_length=1)]


def _no_number(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError  # which pydantic would take for true or false
    return value


Automatic = Annotated[Literal[False, True, "auto"], BeforeValidator(_no_number)]
"""True or false, or `auto`, which leaves it to the machine."""


class Settings(BaseModel):
    """Base of all settings: closed, frozen, and strict about types.

    ``1.0`` is not a whole number, and neither ``true`` nor an infinity is a number. Raises
    ``InputError`` for keys or values that do not fit.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    def __init__(self, /, **values: Any) -> None:
        try:
            self.__pydantic_validator__.validate_python(values, self_instance=self)
        except ValidationError as error:
            raise InputError(f"{type(self).__name__}: {complaint(error, type(self))}") from None

    # Pydantic then checks settings inside others itself, and knows their place.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def rules(self) -> Iterable[tuple[str, str]]:
        """What does not fit across keys: pairs of a key and what there is to say of it."""
        return ()

    def replace(self, **changes: Any) -> Self:
        """The same settings with some changes, checked."""
        return type(self)(**self.model_dump() | changes)

    @model_validator(mode="after")
    def _follow_rules(self) -> Self:
        for key, says in itertools.chain(self._huge(), self.rules()):
            raise PydanticCustomError("rule", "{says}", {"key": key, "says": says})
        return self

    def _huge(self) -> Iterable[tuple[str, str]]:
        """Whole numbers that no file format, tensor or float can hold."""
        for key, value in self:
            if isinstance(value, int) and value.bit_length() > 63:
                yield key, f"is {shown(value)}; expected one of at most 18 digits"


class Composed(Settings):
    """Base of settings that are put together from parts, each of which brings its meaning.

    Pydantic would look for their docstrings in vain: in every file of the call stack, which takes
    it half a second where many modules are loaded.
    """

    model_config = ConfigDict(use_attribute_docstrings=False)


def partial(model: type[Settings], name: str) -> type[Settings]:
    """The same settings with every key optional and unset, for what overrides others."""
    fields = {}
    for key, field in model.model_fields.items():
        fields[key] = (field.annotation, unset := copy.copy(field))
        unset.default = None
    return create_model(name, __base__=Composed, __doc__=model.__doc__, **fields)


NUMBER, SECTION = "(number)", "(section)"
"""What pydantic adds to the place of a value that ``number_or`` describes."""


def number_or(model: type[Settings]) -> Any:
    """The type of a key that has a number, not negative, or a section."""

    def form(value: Any) -> str:
        return SECTION if isinstance(value, dict | Settings) else NUMBER

    either = Annotated[Nonnegative, Tag(NUMBER)] | Annotated[model, Tag(SECTION)]
    return Annotated[either, Discriminator(form)]


@functools.cache
def schema_of(model: type[Settings]) -> Form:
    """The JSON schema of settings, which takes pydantic 80 ms to make for the configuration."""
    return model.model_json_schema()


def read(model: type[Settings], values: Any) -> Any:
    """``values`` as settings; ``InputError`` with the complaint alone."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(complaint(error, model)) from None


# --- What is wrong, in words --------------------------------------------------------------------


def complaint(error: ValidationError, model: type[Settings]) -> str:
    """One sentence on the first mistake: the key, what was found, what is expected."""
    key, says = _fault(error, model)
    return f"`{key}` {says}" if key else says


def fault(model: type[Settings], values: dict[str, Any]) -> tuple[str, str] | None:
    """The key of the first mistake in ``values``, and the rest of the sentence; None without one.

    The key is empty where the sentence begins otherwise.
    """
    try:
        model.model_validate(values)
    except ValidationError as error:
        return _fault(error, model)
    return None


def _fault(error: ValidationError, model: type[Settings]) -> tuple[str, str]:
    schema = schema_of(model)
    found = error.errors(include_url=False)
    # Unknown keys come first: a misspelt key is often also a missing one.
    first = min(found, key=lambda detail: detail["type"] != "extra_forbidden")
    path, kind = first["loc"], first["type"]
    path = path[:-1] if path[-1:] in ((NUMBER,), (SECTION,)) else path
    if kind in ("extra_forbidden", "invalid_key"):
        *owner, unknown = path
        known = list(form_at(schema, owner).get("properties", {}))
        where = f"`{key_of(owner)}`" if owner else "the configuration"
        keys = _keys(where, known)
        if kind == "invalid_key":  # a number, null, or a word like `on`, which YAML takes for true
            return "", f"a key in {where} is {shown(first['input'])}; {keys}"
        return "", f"unknown key `{key_of(path)}`{suggest(str(unknown), known)}; {keys}"
    if kind == "rule":
        return key_of((*path, first["ctx"]["key"])), first["ctx"]["says"]
    if kind == "missing":
        return key_of(path), f"is missing; expected {expected(form_at(schema, path), schema)}"
    if path and path[-1] == "[key]":
        names = form_at(schema, path[:-2]).get("propertyNames", {}).get("enum")
        owner, name = key_of(path[:-2]), quoted(first["input"])
        if names:
            return "", f"unknown name {name} in `{owner}`; expected one of {listed(names)}"
        return "", f"the name {name} in `{owner}` does not fit; expected {NAME_FORM}"
    form, value, hint = form_at(schema, path), first["input"], ""
    if isinstance(value, str):
        if "enum" in form:
            hint = suggest(value, [str(choice) for choice in form["enum"]])
        elif kind.endswith("_type") and _reads_as_number(value):
            hint = _number_hint(value)
    return key_of(path), f"is {shown(value)}; expected {expected(form, schema)}{hint}"


NAME_FORM = (
    "at most 100 lower-case letters, digits and _, a letter first, and no word that means nothing "
    "or all"
)


def key_of(path: Iterable[str | int]) -> str:
    """A path into settings, as ``texts.sources[0].path``."""
    text = ""
    for part in path:
        if part in (NUMBER, SECTION):
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def form_at(schema: Form, path: Iterable[str | int]) -> Form:
    """The piece of a schema that describes the value at a path."""
    form = resolved(schema, schema)
    for part in path:
        if isinstance(part, int):
            form = form.get("items", {})
        elif part in (NUMBER, SECTION):
            form = form["oneOf"][(NUMBER, SECTION).index(part)]
        elif part in form.get("properties", {}):
            form = form["properties"][part]
        else:
            patterns = list(form.get("patternProperties", {}).values())
            others = form.get("additionalProperties")
            form = (patterns or [others if isinstance(others, dict) else {}])[0]
        form = resolved(form, schema)
    return form


def resolved(form: Form, schema: Form) -> Form:
    """A form without references, and with ``x | null`` as one form of two types."""
    while "$ref" in form:
        form = schema["$defs"][form["$ref"].rsplit("/", 1)[1]] | {
            key: value for key, value in form.items() if key != "$ref"
        }
    if "anyOf" in form and {"type": "null"} in form["anyOf"]:
        (inner,) = [resolved(part, schema) for part in form["anyOf"] if part != {"type": "null"}]
        own = {key: value for key, value in form.items() if key != "anyOf"}
        form = inner | own | {"nullable": True}
    if "const" in form:
        form = form | {"enum": [form["const"]]}
    return form


TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "object": "a section",
    "array": "a list",
}


def expected(form: Form, schema: Form) -> str:
    """A form in words: 'a whole number >= 1'."""
    form = resolved(form, schema)
    if "enum" in form:
        words = "one of " + listed(
            str(choice).lower() if isinstance(choice, bool) else choice for choice in form["enum"]
        )
    elif "oneOf" in form:
        number, section = (resolved(part, schema) for part in form["oneOf"])
        words = f"{expected(number, schema)}, or a section with {listed(section['properties'])}"
    else:
        words = TYPES.get(form.get("type", "object"), "a value")
        signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
        bounds = [f"{sign} {_number(form[name])}" for name, sign in signs.items() if name in form]
        if bounds:
            words += " " + " and ".join(bounds)
        if form.get("minItems") or form.get("minProperties"):
            words += " with at least one entry"
        if form.get("minLength"):
            words += " that is not empty"
        if "pattern" in form:
            words += f" of the form {form['pattern']}"
    return words + (" or null" if form.get("nullable") else "")


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def shown(value: Any) -> str:
    """What was found, in words; long values are cut."""
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    if isinstance(value, dict):
        return "a section" if value else "an empty section"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if value is None:
        return "empty (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    plain = isinstance(value, int | float)
    # Python refuses to write out whole numbers of thousands of digits.
    text = f"{value:.3e}" if isinstance(value, float) and abs(value) > 1e15 else _digits(value)
    return cut(text) if plain else f"{cut(text)} ({type(value).__name__})"


def _digits(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a whole number of about {int(value.bit_length() * math.log10(2))} digits"
    return str(value)


def listed(names: Iterable[Any]) -> str:
    """Names, as they stand in a message."""
    return ", ".join(str(name) for name in names)


def suggest(word: str, choices: Sequence[str]) -> str:
    """', did you mean ...?' where a choice is close to the word."""
    close = difflib.get_close_matches(word, choices, n=1)
    return f", did you mean `{close[0]}`?" if close else ""


def _keys(where: str, known: Sequence[str]) -> str:
    return f"{where} has the keys {listed(known)}" if known else f"{where} has no keys"


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number_hint(text: str) -> str:
    try:
        read = yaml.safe_load(text)
    except ValueError:  # of thousands of digits
        return ""
    if isinstance(read, str):
        return f" (YAML reads {text} as text: write {_with_point(text)})"
    return " (without quotes)"


def _with_point(text: str) -> str:
    """A number as YAML reads it: 1e-6 as 1.0e-6."""
    mantissa, letter, exponent = text.lower().partition("e")
    if letter and "." not in mantissa:
        mantissa += ".0"
    if letter and exponent[:1] not in "+-":
        exponent = "+" + exponent
    return mantissa + letter + exponent
