"""Checkpoints of a run that may be stopped at any moment, and started again anywhere.

One file holds everything that the rest of the run depends on. It is replaced in one step, so a
killed run leaves the last good one. It is loaded completely and into the same run, or not at all.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from prudent.errors import InputError, cut, disk_is_full
from prudent.ppo.lock import Lock
from prudent.schemas import CSV_SCHEMAS, NUMBER

logger = logging.getLogger(__name__)

Log = list[dict[str, float]]
State = dict[str, Tensor] | None

LOG_COLUMNS = CSV_SCHEMAS["training_log"]

STATE = "objective."
"""The prefix of the names of an objective's tensors."""


class CheckpointFolder:
    """The folder of one run's checkpoint, held by one process between entering and leaving.

    ``fingerprint`` holds everything that the run's outcome depends on: a nested dictionary of JSON
    values, readable enough to tell a user what differs. Entering raises InputError where another
    process holds the folder.
    """

    def __init__(self, folder: Path, fingerprint: dict[str, Any]) -> None:
        self.folder, self.path = folder, folder / "checkpoint.safetensors"
        # Through JSON, so that it equals what will be read back (tuples become lists).
        self.fingerprint = _flat(json.loads(json.dumps(fingerprint)))
        self.lock = Lock(folder)

    def __enter__(self) -> Self:
        self.lock.acquire()
        for leftover in self.folder.glob(".*.tmp"):  # from a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def save(self, tensors: dict[str, Tensor], log: Log, state: State = None) -> None:
        """Replaces the checkpoint, in one step and durably; ``state`` is the objective's.

        Raises InputError, and keeps the last checkpoint, where a tensor or the log is not finite
        (the log's ``sigma`` and the objective's metrics may be NaN), the disk is full or the lock
        was lost.
        """
        self._check(tensors, log)
        kept = state or {}
        metadata = {"fingerprint": json.dumps(self.fingerprint), "log": json.dumps(log)}
        # A folder, because safetensors puts its own temporary files next to its output.
        temporary = self.folder / f".{self.lock.token}.tmp"
        try:
            self.lock.require()
            temporary.mkdir()
            save_file(
                {
                    # Copies, because an objective may keep parts of one tensor.
                    **{name: tensor.detach().contiguous() for name, tensor in tensors.items()},
                    **{STATE + name: tensor.detach().clone() for name, tensor in kept.items()},
                },
                temporary / self.path.name,
                metadata=metadata,
            )
            _sync(temporary / self.path.name)
            self.lock.require()
            os.replace(temporary / self.path.name, self.path)
        except (OSError, SafetensorError) as error:
            full = "no space left: " if disk_is_full(error) else ""
            raise InputError(
                f"{self.path}: the checkpoint could not be written: {full}{error}; the last one "
                "that was, if any, is kept, and the same command goes on from it"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
            _sync(self.folder)

    def load(self, tensors: dict[str, Tensor], state: State = None) -> Log:
        """Copies the checkpoint into ``tensors`` and returns its log; [] where there is none.

        All tensors of the objective are put into ``state``.

        Raises InputError, and changes no tensor, where the checkpoint cannot be read, has another
        fingerprint, holds other tensors than these (names, shapes or types) or some that are not
        finite, or its log is not one of this run.
        """
        if not self.path.exists():
            return []
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                found = {name: file.get_tensor(name) for name in file.keys()}
        except (OSError, SafetensorError) as error:
            raise self._refusal(
                "expected a whole safetensors file, found one that cannot be read", [str(error)]
            ) from error
        try:
            fingerprint = dict(json.loads(metadata["fingerprint"]))
            log = json.loads(metadata["log"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise self._refusal(
                "expected this trainer's fingerprint and log in its metadata, found",
                [", ".join(f"{name} {_short(text)}" for name, text in metadata.items()) or "none"],
            ) from error
        differences = _differences(fingerprint, self.fingerprint)
        if differences:
            raise self._refusal("it is of other settings, code or inputs", differences)
        kept = {name: found.pop(name) for name in list(found) if name.startswith(STATE)}
        differences = _differences(
            {name: _form(tensor) for name, tensor in found.items()},
            {name: _form(tensor) for name, tensor in tensors.items()},
        )
        if differences:
            raise self._refusal("its tensors are not this run's", differences)
        self._check(found, log)
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(found[name])
        if state is not None:
            device = next(iter(tensors.values())).device
            state.update({name.removeprefix(STATE): kept[name].to(device) for name in kept})
        logger.info("%s: going on after step %d", self.path, len(log))
        return log

    def _check(self, tensors: dict[str, Tensor], log: Any) -> None:
        """InputError where a run could not go on from these, because they are not valid."""
        faults = _log_faults(log, self.fingerprint.get("ppo.steps"))
        if faults:
            raise self._refusal("its log is not of this run's steps", faults)
        bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
        if bad:
            raise self._refusal("its tensors hold infinities or NaN", bad)

    def _refusal(self, what: str, details: list[str]) -> InputError:
        rest = f"; and {len(details) - 10} more" if len(details) > 10 else ""
        return InputError(
            f"{self.path}: the checkpoint is not taken: {what}: {'; '.join(details[:10])}{rest}; "
            f"to start afresh, delete the folder {self.folder}"
        )


class Termination:
    """While entered, turns SIGTERM, which preemption sends, into a flag; a second one kills.

    Python allows handlers only in the main thread; in others, SIGTERM keeps its effect.
    """

    asked = False

    def __enter__(self) -> Self:
        self.main = threading.current_thread() is threading.main_thread()
        if self.main:
            self.before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self.main:
            signal.signal(signal.SIGTERM, self.before or signal.SIG_DFL)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _log_faults(log: Any, steps: int | None) -> list[str]:
    """The faults of a log; a run writes one row per step, and has ``steps`` steps, if known.

    The log has at least one row: nothing is saved before the first step.
    """
    if not isinstance(log, list) or not log:
        return [f"found {_short(log)}, expected a list of rows"]
    if steps is not None and len(log) > steps:
        return [f"found {len(log)} rows, expected at most {steps}"]
    return [fault for step, row in enumerate(log) if (fault := _row_fault(step, row))]


def _row_fault(step: int, row: Any) -> str | None:
    if not isinstance(row, dict):
        return f"row {step}: found {_short(row)}, expected numbers by name"
    if "step" not in row:
        return f"row {step}: found no step, expected {step}"
    for name, value in row.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # The spread of one member, and an objective's metrics, may be unknown.
        unknown = LOG_COLUMNS.get(name) != NUMBER and number and value != value
        # Integers too large for a float are not results of a computation, either.
        if not number or not (unknown or abs(value) <= sys.float_info.max):
            return f"row {step}: {name}: found {_short(value)}, expected a finite number"
    if row["step"] != step:
        return f"row {step}: found the step {_short(row['step'])}, expected {step}"
    return None


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dictionary as a flat one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, part in value.items():
        flat |= _flat(part, f"{prefix}{key}.") if isinstance(part, dict) else {prefix + key: part}
    return flat


def _differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The differences between a checkpoint and the run, one phrase per key."""
    phrases = []
    for key in sorted(found.keys() | expected.keys()):
        there, now = (
            _short(values[key]) if key in values else "nothing" for values in (found, expected)
        )
        if found.get(key) != expected.get(key) or (key in found) != (key in expected):
            phrases.append(f"{key}: {there} in the checkpoint, {now} now")
    return phrases


def _short(value: Any) -> str:
    return cut(value if isinstance(value, str) else json.dumps(value, default=repr), 40)


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _sync(path: Path) -> None:
    """Flushes a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
