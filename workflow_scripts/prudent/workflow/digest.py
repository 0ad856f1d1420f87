"""The digest of a rule's code, given to its job as a parameter.

Snakemake does not see the modules that a script imports: an edit there would rerun nothing, and a
cached rule would even return its old result. The digest covers the syntax trees of the script and
of every module of this project that it imports, directly or not, and the installed versions of the
packages that these import. Comments, formatting, docstrings and the texts of messages do not count;
a change of behaviour, or another version of a package, reruns that stage and those below it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from prudent.errors import InputError

SCRIPTS = Path(__file__).resolve().parents[2]
OBJECTIVES = "prudent/objectives"
OTHER_NAMES = {*sys.stdlib_module_names, "prudent", "tqdm"}


Import = tuple[int, tuple[str, ...], tuple[str, ...]]
Reader = Callable[[Path], tuple[str, tuple[Import, ...]]]


def code_digest(
    script: str,
    folder: Path = SCRIPTS,
    objective: str | None = None,
    loads: Iterable[str] = (),
) -> str:
    """The digest of ``folder/script.py`` with all of ours that it imports, 16 hex digits.

    ``loads`` names files below ``folder`` that the script takes in without an import: modules that
    it finds by name, which count with all that they import, and others, which count byte by byte.

    With ``objective``, what that one needs counts too, of the files of the objectives' package what
    it names, directly or not: another objective that is added or edited there, with helpers and
    classes of its own, does not bring its policies back.
    """
    loads = tuple(loads)
    _there(folder / f"{script}.py", "script")
    stamps = [_stamp(_there(folder / name, "file")) for name in loads]
    stamps += [(file, *_stamp(file)) for file in _modules(folder)]
    return _code_digest(script, folder, objective, loads, tuple(stamps))


# A workflow asks once a policy and more; a look at the files takes a tenth of a digest's time.
@functools.cache
def _code_digest(
    script: str, folder: Path, objective: str | None, loads: tuple[str, ...], stamps: Any
) -> str:
    """As ``code_digest``; ``stamps`` are of all files that the digest may depend on."""
    path = folder / f"{script}.py"
    digest = hashlib.sha256()
    read: Reader = _read
    if objective is not None:
        family = _family(objective, folder)

        def read(file: Path) -> tuple[str, tuple[Import, ...]]:
            return _needed(file, _stamp(file), objective) if file == family else _read(file)

    there = _same(frozenset(file for file, *_ in stamps[len(loads) :]))
    modules = imported_files(path, folder, read, there)
    if objective is not None:
        modules |= imported_files(family, folder, read, there)
    loaded = [folder / name for name in loads]
    for file in loaded:
        if file.suffix == ".py":
            modules |= imported_files(file, folder, read, there)
    for module in sorted(modules):
        name = module.relative_to(folder).as_posix()
        digest.update(name.encode() + b"\0" + read(module)[0].encode() + b"\0")
    for file in sorted(set(loaded) - modules):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    digest.update(repr(sorted(package_versions(modules, read).items())).encode())
    return digest.hexdigest()[:16]


def _there(path: Path, what: str) -> Path:
    if not path.is_file():
        raise InputError(f"{path}: there is no such {what}")
    return path


def _read(file: Path) -> tuple[str, tuple[Import, ...]]:
    return _parsed(file, _stamp(file))


def _modules(folder: Path) -> list[str]:
    """The paths of all of Python's files below ``folder``."""
    return [
        os.path.join(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if name.endswith(".py")
    ]


@functools.cache
def _same(files: frozenset[str]) -> frozenset[str]:
    """The same object for the same files, so that what is cached by them is found at once."""
    return files


def imported_files(
    path: Path,
    folder: Path = SCRIPTS,
    read: Reader = _read,
    there: frozenset[str] | None = None,
) -> set[Path]:
    """``path`` and the files below ``folder`` that it imports, also inside functions.

    ``read`` gives a file's tree as text, and its imports; ``there`` are the paths of all files, by
    default as they are found now.
    """
    there = _same(frozenset(_modules(folder))) if there is None else there
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        waiting.extend(_imported_by(current.parent, read(current)[1], folder, there))
    return found


# Most scripts import most of the same modules, and a workflow asks for dozens of digests.
@functools.cache
def _imported_by(
    place: Path, imports: tuple[Import, ...], folder: Path, there: frozenset[str]
) -> frozenset[Path]:
    """The files that a file at ``place`` imports itself."""
    package = place.relative_to(folder).parts
    files: set[str] = set()
    for level, module, names in imports:
        base = package[: len(package) - level + 1] if level else ()
        files.update(_files_of((*base, *module), names, folder))
    return frozenset(map(Path, files & there))


def package_versions(files: Iterable[Path], read: Reader = _read) -> dict[str, str]:
    """The installed versions of the packages that some files import, by name.

    Those that are installed under the name by which they are imported, so not the standard
    library's; and neither ours, whose code counts, nor what only shows progress.
    """
    names = {module[0] for file in files for level, module, _ in read(file)[1] if level == 0}
    versions = {name: _version(name) for name in names - OTHER_NAMES}
    return {name: version for name, version in versions.items() if version is not None}


@functools.cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _files_of(module: tuple[str, ...], names: tuple[str, ...], folder: Path) -> list[str]:
    """What ``from module import names`` runs where it is there: packages, and submodules."""
    start = str(folder)
    files = [
        os.path.join(start, *module[:depth], "__init__.py") for depth in range(1, len(module) + 1)
    ]
    whole = os.path.join(start, *module)
    if module:
        files.append(f"{whole}.py")
    for name in names:
        files.append(os.path.join(whole, f"{name}.py"))
        files.append(os.path.join(whole, name, "__init__.py"))
    return files


def _stamp(path: Path | str) -> tuple[int, int]:
    """What tells one version of a file from another within a process."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


@functools.cache
def _parsed(path: Path, stamp: tuple[int, int]) -> tuple[str, tuple[Import, ...]]:
    """A file's tree as text, and its imports as (level, module, names)."""
    tree = _tree(path)
    return ast.dump(tree), _imports(tree)


def _imports(tree: ast.Module) -> tuple[Import, ...]:
    imports: list[Import] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(0, tuple(alias.name.split(".")), ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            imports.append((node.level, module, tuple(alias.name for alias in node.names)))
    return tuple(imports)


def _family(objective: str, folder: Path) -> Path:
    """The file of the objectives' package that defines an objective."""
    for file in sorted((folder / OBJECTIVES).glob("*.py")):
        if objective in _functions(file, _stamp(file)):
            return file
    raise InputError(f"{folder / OBJECTIVES}: no file has the objective {objective!r}")


@functools.cache
def _functions(path: Path, stamp: tuple[int, int]) -> frozenset[str]:
    """The names of the functions that a file defines."""
    return frozenset(node.name for node in _tree(path).body if isinstance(node, ast.FunctionDef))


@functools.cache
def _needed(path: Path, stamp: tuple[int, int], function: str) -> tuple[str, tuple[Import, ...]]:
    """As ``_parsed``, without the definitions that ``function`` does not need.

    Definitions are functions, classes, assigned and imported names; needed is what ``function``
    names, directly or not. What defines nothing always counts.
    """
    tree = _tree(path)
    parts = [part for node in tree.body for part in _one_name_each(node)]
    # All of a name's: the second may wrap the first, as in `f = functools.cache(f)`.
    definitions: dict[str, list[ast.stmt]] = {}
    for part in parts:
        for name in _defined(part):
            definitions.setdefault(name, []).append(part)
    needed = [part for part in parts if not _defined(part)]
    waiting = [function, *(name for part in needed for name in _names(part))]
    while waiting:
        for part in definitions.pop(waiting.pop(), []):
            needed.append(part)
            waiting.extend(_names(part))
    tree.body = [part for part in parts if part in needed]
    return ast.dump(tree), _imports(tree)


def _one_name_each(node: ast.stmt) -> list[ast.stmt]:
    """An import of several names as several imports."""
    if isinstance(node, ast.ImportFrom):
        return [ast.ImportFrom(node.module, [alias], node.level) for alias in node.names]
    if isinstance(node, ast.Import):
        return [ast.Import([alias]) for alias in node.names]
    return [node]


def _defined(node: ast.stmt) -> list[str]:
    """The names that a statement defines, if it does nothing else."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    return []


def _names(node: ast.AST) -> set[str]:
    """The plain names that a piece of code mentions."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _tree(path: Path) -> ast.Module:
    """A file's syntax tree without what runs nothing."""
    try:
        return _Behaviour().visit(ast.parse(path.read_text(encoding="utf-8")))
    except SyntaxError as error:
        raise InputError(f"{path}: line {error.lineno}: {error.msg}") from error


def _without_texts(call: ast.Call) -> ast.Call:
    """A call whose arguments have no texts of their own, joined ones or in parts."""
    call.args = [_Messages().visit(argument) for argument in call.args]
    return call


class _Messages(ast.NodeTransformer):
    """Empties texts, but not those that choose something: keys, and arguments of calls."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        values = [part for part in node.values if isinstance(part, ast.FormattedValue)]
        return ast.JoinedStr(values)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        return node


LOG_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


class _Behaviour(ast.NodeTransformer):
    """Leaves out what runs nothing: docstrings, imports for the type checker alone, messages.

    Of messages the texts alone, in what is raised and in the calls of ``logger``: what stands in
    their places is code, which may fail.
    """

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        # Of one argument: others, such as BadRow's kind, say more than a message.
        if isinstance(node.exc, ast.Call) and len(node.exc.args) == 1:
            node.exc = _without_texts(node.exc)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        match node.func:
            case ast.Attribute(ast.Name("logger"), level) if level in LOG_LEVELS:
                return _without_texts(node)
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        self.generic_visit(node)
        checker = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return node.orelse if checker else node
