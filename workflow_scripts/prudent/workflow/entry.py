"""Runs a script's ``main`` under Snakemake or from the command line."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import resource
import shlex
import sys
import time
import types
import typing
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prudent import settings
from prudent.errors import InputError, cut, quoted, tolerate_any_text
from prudent.paths import resolve
from prudent.settings import Settings
from prudent.workflow import gpus


def run(main: Callable[[Any], None], args_class: type, snakemake: Any = None) -> None:
    """Builds the arguments, sets up logging, threads and GPUs, and calls ``main``.

    Under Snakemake each field of the dataclass is looked up by name among the rule's input, output,
    params, wildcards and threads, and everything printed also goes to the rule's log. On the
    command line each field is an option; settings and dictionaries are JSON. An ``InputError`` is
    printed as one message, without a traceback, and ends the process with status 1.
    """
    tolerate_any_text()
    args = (
        from_snakemake(args_class, snakemake)
        if snakemake is not None
        else from_command_line(args_class, main)
    )
    log = Path(snakemake.log[0]) if snakemake is not None and snakemake.log else None
    by_hand = f"by hand: {command_line(main, args)}" if log else ""
    with _Tee(log, by_hand):
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
        if snakemake is not None:
            gpus.take(snakemake.resources.get("gpu", 0))
        threads = getattr(args, "threads", None)
        if threads:
            set_threads(threads)
        quieten()
        start = time.monotonic()
        try:
            main(args)
            logging.info("%s", used(time.monotonic() - start))
        except InputError as error:
            logging.error("error: %s", error)
            sys.exit(1)


def used(seconds: float) -> str:
    """What a job has taken, as the last line of its log; ``logged_use`` reads it."""
    # In kB; macOS counts bytes.
    unit = 1e9 if sys.platform == "darwin" else 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    text = f"took {seconds:.1f} s and at most {peak:.2f} GB of memory"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        text += f" and {torch.cuda.max_memory_allocated() / 1e9:.2f} GB of GPU memory"
    return text


def logged_use(log: Path) -> tuple[float, float] | None:
    """The seconds and the GB of memory, of the GPU if it had one, that a job's log says it took;
    None where the log does not say."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.findall(r"took ([\d.]+) s and at most ([\d.]+) GB of memory(?: and ([\d.]+))?", text)
    if not found:
        return None
    seconds, memory, of_gpu = found[-1]
    return float(seconds), float(of_gpu or memory)


def command_line(main: Callable[[Any], None], args: Any) -> str:
    """The command that repeats a job by hand, from the folder that it runs in."""
    # Snakemake may run a copy of the script, tmpabc.NAME.py.
    name = Path(sys.modules[main.__module__].__file__).stem.rpartition(".")[2]
    script = Path(__file__).parents[2] / f"{name}.py"
    return shlex.join([sys.executable, str(script), *to_command_line(args)])


def set_threads(threads: int) -> None:
    """Gives the numerical libraries that many threads, so that parallel jobs do not fight."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def quieten() -> None:
    """Leaves out what transformers says of each model that it loads, and matplotlib of each font in
    a PDF; errors are ours to give."""
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    if "transformers" in sys.modules:
        logs = sys.modules["transformers"].utils.logging
        logs.set_verbosity_error()
        logs.disable_progress_bar()
    else:  # for a script that imports it only when it needs it
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def from_snakemake(args_class: type, snakemake: Any) -> Any:
    """The arguments of a job; a field without a value and without a default is an error.

    Settings are parameters with ``{data_root}`` in their paths, which is resolved here.
    """
    values: dict[str, Any] = {}
    types_of = typing.get_type_hints(args_class)
    for field in dataclasses.fields(args_class):
        for part in (snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards):
            if field.name in part.keys():
                value = resolve(getattr(part, field.name), snakemake.config.get("data_root", ""))
                given = part is snakemake.input
                values[field.name] = _convert(value, types_of[field.name], given)
                break
        else:
            if field.name == "threads":
                values["threads"] = snakemake.threads
    return args_class(**values)


def from_command_line(
    args_class: type, main: Callable[[Any], None], argv: list[str] | None = None
) -> Any:
    """The arguments of a script that is run by hand, one option a field; settings are JSON.

    A field's help is its docstring.
    """
    import tyro  # takes a tenth of a second, which jobs under Snakemake can do without

    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def json_object(info: Any) -> Any:
        kind = next((leaf for leaf in _leaves(info.type) if _is_json(leaf)), None)
        if kind is None:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="JSON",
            instance_from_str=lambda texts: _read(kind, texts[0]),
            is_instance=lambda value: value is None or isinstance(value, dict | Settings),
            str_from_instance=lambda value: [_text(value)],
        )

    with registry:
        return tyro.cli(
            args_class,
            prog=Path(sys.argv[0]).name,
            description=sys.modules[main.__module__].__doc__,
            args=argv,
        )


def _is_settings(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Settings)


def _is_json(kind: Any) -> bool:
    return typing.get_origin(kind) is dict or _is_settings(kind)


def _read(kind: Any, text: str) -> Any:
    """A JSON object, as settings where ``kind`` is a class of them; ValueError where it is none."""
    value = _object(text)
    try:
        return settings.read(kind, value) if _is_settings(kind) else value
    except InputError as error:
        raise ValueError(str(error)) from None


def _object(text: str) -> dict[str, Any]:
    """A JSON object; ValueError for another value, a key that stands twice, or a NaN."""

    def refuse(word: str) -> None:
        raise ValueError(f"found {word}, expected a finite number")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, count in Counter(name for name, _ in pairs).items():
            if count > 1:
                raise ValueError(f"found the key {quoted(name)} twice, expected each key once")
        return dict(pairs)

    value = json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    if not isinstance(value, dict):
        raise ValueError(f"found {cut(text)}, expected a JSON object")
    return value


def to_command_line(args: Any) -> list[str]:
    """The options that give a script these arguments: what ``from_command_line`` undoes."""
    options: list[str] = []
    for field in dataclasses.fields(args):
        value, option = getattr(args, field.name), f"--{field.name.replace('_', '-')}"
        if isinstance(value, list):
            options += [option, *map(_text, value)]
        elif isinstance(value, bool):
            options.append(option if value else f"--no-{option.removeprefix('--')}")
        elif value is not None:
            options.append(f"{option}={_text(value)}")
    return options


def _text(value: Any) -> str:
    value = value.model_dump() if isinstance(value, Settings) else value
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _leaves(kind: Any) -> set[Any]:
    """The plain types of an annotation: {Path, NoneType} for ``Path | None``."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return set().union(*(_leaves(part) for part in typing.get_args(kind)))
    return {kind}


def _convert(value: Any, kind: Any, given: bool = False) -> Any:
    """A value as the field's type: paths, lists of paths, numbers from wildcards; or an input."""
    leaves = _leaves(kind)
    if list[Path] in leaves and not isinstance(value, str):
        return [Path(item) for item in value]
    if list[Path] in leaves:
        return [Path(value)]
    if Path in leaves:
        # Snakemake hands over an optional input that is absent as an empty list.
        if value is None or value == [] or value == "":
            return None
        # The cache takes no folders. One that no rule made is given as its files, a checkpoint that
        # a rule made as the digest beside it.
        path = Path(value if isinstance(value, str) else os.path.commonpath(value))
        return path.with_suffix("") if given and path.suffix == ".sha256" else path
    if isinstance(value, dict) and (found := next(filter(_is_settings, leaves), None)):
        return settings.read(found, value)
    if int in leaves and isinstance(value, str):
        return int(value)
    if float in leaves and isinstance(value, str | int) and not isinstance(value, bool):
        return float(value)
    return value


class _Tee:
    """Sends standard output and error to the log file as well, tracebacks included."""

    def __init__(self, path: Path | None, first: str = "") -> None:
        self.path, self.first = path, first

    def __enter__(self) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.path.open("w", encoding="utf-8", errors="backslashreplace", buffering=1)
        print(self.first, file=self.file)
        self.streams = sys.stdout, sys.stderr
        sys.stdout = _Both(sys.stdout, self.file)
        sys.stderr = _Both(sys.stderr, self.file)

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if self.path is None:
            return
        if error is not None and not isinstance(error, SystemExit):
            import traceback as tracebacks

            tracebacks.print_exception(error, file=self.file)
        sys.stdout, sys.stderr = self.streams
        self.file.close()


class _Both:
    """A text stream that writes to two others."""

    def __init__(self, first: Any, second: Any) -> None:
        self.first, self.second = first, second

    def write(self, text: str) -> int:
        if not self.second.closed:  # libraries go on logging after the job
            self.second.write(text)
        return self.first.write(text)

    def flush(self) -> None:
        self.first.flush()
        if not self.second.closed:
            self.second.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.first, name)
