"""The identity of a function by its content: two different lambdas have the same name.

A run that goes on from its checkpoint has to be the same run, and its objective is code. The
digest covers a function's compiled code, defaults and closure, the arguments of a partial, and a
callable object's attributes, methods and class constants, inherited ones too. It does not follow
the functions and globals that the code uses; a caller who may change those puts them into the
trainer's ``fingerprint``.
"""

from __future__ import annotations

import functools
import hashlib
import types
from typing import Any

import numpy as np
import torch

Plain = bool | int | float | str
Wrapped = staticmethod | classmethod | property

NO_CODE = ("__module__", "__qualname__", "__doc__")
"""Attributes of a class that do not change its behaviour."""


def digest_of(function: Any) -> str:
    """16 hexadecimal digits that identify a function."""
    return hashlib.sha256(repr(_parts(function, ())).encode()).hexdigest()[:16]


def _parts(value: Any, above: tuple[int, ...]) -> Any:
    """A value as nested tuples of texts and numbers; ``above`` are the ids of its containers."""
    if id(value) in above:
        return "itself"
    above = (*above, id(value))

    def parts(values: Any) -> tuple[Any, ...]:
        return tuple(_parts(item, above) for item in values)

    if value is None or isinstance(value, bool | int | float | complex | str | bytes | range):
        return (type(value).__name__, repr(value))
    if isinstance(value, list | tuple):
        return (type(value).__name__, *parts(value))
    if isinstance(value, set | frozenset):
        return (type(value).__name__, *sorted(map(repr, parts(value))))
    if isinstance(value, dict):
        return ("dict", *parts(value.items()))
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().float().numpy() if value.is_floating_point() else value.numpy()
    if isinstance(value, np.ndarray | np.generic):
        array = np.ascontiguousarray(value)
        return ("array", str(array.dtype), array.shape, hashlib.sha256(array.data).hexdigest())
    if isinstance(value, types.CodeType):
        return ("code", value.co_code.hex(), value.co_names, *parts(value.co_consts))
    if isinstance(value, functools.partial):
        return ("partial", *parts((value.func, value.args, value.keywords)))
    if isinstance(value, types.MethodType):
        return ("method", *parts((value.__func__, value.__self__)))
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if not _is_empty(cell)]
        whole = (value.__defaults__, value.__kwdefaults__, cells)
        return ("function", value.__qualname__, *parts((value.__code__, *whole)))
    if isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
        return (type(value).__name__, getattr(value, "__qualname__", value.__name__))
    kind = type(value)
    code = {} if id(kind) in above else _members(kind, types.FunctionType | Plain | Wrapped)
    slots = [name for name in _members(kind, types.MemberDescriptorType) if hasattr(value, name)]
    state = ({name: getattr(value, name) for name in slots}, getattr(value, "__dict__", {}))
    # Digested at once, because each layer of a model has a thousand methods.
    methods = hashlib.sha256(repr(_parts(code, (*above, id(kind)))).encode()).hexdigest()
    return ("object", kind.__qualname__, methods, *parts(state))


def _members(kind: type, form: Any) -> dict[str, Any]:
    """The attributes of this form of a class and its bases, by name; the nearest one counts."""
    return {
        name: part
        for base in reversed(kind.__mro__)
        for name, part in vars(base).items()
        if isinstance(part, form) and name not in NO_CODE
    }


def _is_empty(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018, an empty cell raises here
    except ValueError:
        return True
    return False
