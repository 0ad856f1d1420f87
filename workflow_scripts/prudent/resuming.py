"""Trainings with a Hugging Face trainer that may be killed at any moment, and go on.

A checkpoint is a folder that holds all that the rest of the training depends on, as safetensors and
JSON: nothing is pickled. It is written under another name and renamed, so a half-written one is
never taken. It is taken into the same training, or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from prudent.errors import InputError, disk_is_full
from prudent.ppo.lock import Lock
from prudent.training import LossRecorder, is_first

logger = logging.getLogger(__name__)

SECONDS = 300.0
"""Between two checkpoints of a training; a shorter one writes none."""

SHARE = 0.05
"""Of a training's time that may go into writing them: of a large model there are fewer."""

MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
TRAINING, STATE = "training.json", "trainer_state.json"


class TrainingCheckpoints:
    """The folder of one training's checkpoints, held by one job between entering and leaving.

    It is a folder of its own in ``folder``, named after ``fingerprint``: JSON values that say all
    that the outcome depends on. After success it is deleted; after an error the last checkpoint
    stays. Of several processes of one training, the first one holds the lock and deletes. Entering
    raises InputError where another job holds the folder. ``seconds`` lie between two checkpoints;
    with 0 there is one after each step, for tests.
    """

    def __init__(self, folder: Path, fingerprint: dict[str, Any], seconds: float = SECONDS) -> None:
        # Through JSON, so that it equals what will be read back (tuples become lists).
        self.fingerprint = json.loads(json.dumps(fingerprint))
        text = json.dumps(self.fingerprint, sort_keys=True)
        self.folder = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        self.seconds = seconds
        self.lock = Lock(self.folder)

    def __enter__(self) -> Self:
        if is_first():
            self.lock.acquire()
            for leftover in self.folder.glob(".*.tmp"):  # from a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if not is_first():
            return
        if kind is None and self.lock.file.exists():
            # A network file system may still hold a file; that is not a failure.
            shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.release()
        for place in (self.folder, self.folder.parent):
            with contextlib.suppress(OSError):  # where something is in it
                place.rmdir()

    def part(self, name: str) -> TrainingCheckpoints:
        """Those of one of several trainings of a job, which are deleted with the job's."""
        return TrainingCheckpoints(self.folder, {"part": name}, self.seconds)

    def last(self, fingerprint: dict[str, Any]) -> Path | None:
        """The last checkpoint, if it is of this fingerprint; others are removed."""
        found = None
        for path in sorted(self.folder.glob("step-*"), reverse=True):
            fault = "an older one" if found else _fault(path, fingerprint)
            if fault is None:
                found = path
                continue
            logger.info("%s: the checkpoint is not taken, but removed: %s", path, fault)
            shutil.rmtree(path, ignore_errors=True)
        return found


class Resuming:
    """In front of a trainer's class: its checkpoints are this module's, and it goes on from them.

    It also restores what a trainer forgets: the losses since the last log, and the state of the
    random numbers by which an epoch that was interrupted had shuffled its rows.
    """

    checkpoints: TrainingCheckpoints

    def train_on(self, recorder: LossRecorder, checkpoints: TrainingCheckpoints | None) -> None:
        """Trains, from the last checkpoint if there is one; ``recorder`` is among the callbacks."""
        if checkpoints is None:
            self.train()
            return
        self.checkpoints, self.recorder = checkpoints, recorder
        self.fingerprint = checkpoints.fingerprint | {
            "processes": self.args.world_size,
            "device": self.args.device.type,
        }
        self.process: dict[str, Any] | None = None
        self.written, self.cost = time.monotonic(), 0.0
        self.add_callback(_When(self))
        found = checkpoints.last(self.fingerprint) if is_first() else None
        (path,) = broadcast_object_list([None if found is None else str(found)])
        if path is not None:
            self.process = _read(self._of_process(path))
            if is_first():
                logger.info("%s: going on from it", path)
        self.train(resume_from_checkpoint=path)

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint; the first process decides for all."""
        seconds = self.checkpoints.seconds
        wait = max(seconds, self.cost / SHARE) if seconds else 0.0
        return broadcast_object_list([time.monotonic() - self.written >= wait])[0]

    def begin(self) -> None:
        """Called as the training begins: the losses since the last log, and those before."""
        if self.process is None:
            return
        self._tr_loss.fill_(self.process["loss"])
        self._total_loss_scalar = self.process["total_loss"]
        self._globalstep_last_logged = self.process["logged"]
        if hasattr(self, "_metrics"):  # TRL's
            self._metrics["train"].update(self.process["metrics"])
            self._total_train_tokens = self.process["tokens"]

    def begin_epoch(self) -> None:
        """Called as an epoch begins: the random numbers with which it first began."""
        if self.process is not None:
            _set_random_state(self.process["epoch"])
            self.process = None
        self.epoch_state = _random_state()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step, start = self.state.global_step, time.monotonic()
        path = self.checkpoints.folder / f"step-{step:09d}"
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            if is_first():
                self.checkpoints.lock.require()
                temporary.mkdir()
            self.accelerator.wait_for_everyone()
            _write(self._state_of_process(), self._of_process(temporary))
            if is_first():
                self._write_shared(temporary)
            self.accelerator.wait_for_everyone()
            if is_first():
                for file in temporary.iterdir():
                    _sync(file)
                self.checkpoints.lock.require()
                os.rename(temporary, path)
                with contextlib.suppress(OSError):  # some network file systems cannot
                    _sync(path.parent)
                for other in path.parent.glob("step-*"):
                    if other != path:
                        shutil.rmtree(other, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            full = "no space left: " if disk_is_full(error) else ""
            raise InputError(
                f"{path}: the checkpoint could not be written: {full}{error}; the last one that "
                "was, if any, is kept, and the same command goes on from it"
            ) from error
        finally:
            if is_first():
                shutil.rmtree(temporary, ignore_errors=True)
        self.written = time.monotonic()
        self.cost = self.written - start

    def _write_shared(self, folder: Path) -> None:
        """What all processes have in common: in each the model and the optimizer are the same."""
        weights = {name: _plain(part) for name, part in _tensors(self.model).items()}
        save_file(weights, folder / MODEL)
        optimizer = self.optimizer.state_dict()
        moments = {
            f"{number}.{name}": _plain(part)
            for number, parts in optimizer["state"].items()
            for name, part in parts.items()
        }
        save_file(moments, folder / OPTIMIZER)
        training = {
            "fingerprint": self.fingerprint,
            "rows": self.recorder.rows,
            "groups": optimizer["param_groups"],
            "schedule": self.lr_scheduler.state_dict(),
        }
        _write(training, folder / TRAINING)
        self.state.save_to_json(str(folder / STATE))

    def _state_of_process(self) -> dict[str, Any]:
        now = _random_state()
        metrics = getattr(self, "_metrics", {}).get("train", {})
        return {
            "now": now,
            # After its last step, the next epoch begins from here.
            "epoch": now if _is_whole(self.state.epoch) else self.epoch_state,
            "loss": self._tr_loss.item(),
            "total_loss": self._total_loss_scalar,
            "logged": self._globalstep_last_logged,
            "metrics": dict(metrics),
            "tokens": getattr(self, "_total_train_tokens", 0),
        }

    def _of_process(self, folder: str | Path) -> Path:
        return Path(folder, f"process-{self.args.process_index}.json")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        found = load_file(Path(resume_from_checkpoint, MODEL))
        with torch.no_grad():
            for name, part in _tensors(self.model).items():
                part.copy_(found[name])
        self.recorder.rows[:] = _read(Path(resume_from_checkpoint, TRAINING))["rows"]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        training = _read(Path(checkpoint, TRAINING))
        state: dict[int, dict[str, Tensor]] = {}
        for key, part in load_file(Path(checkpoint, OPTIMIZER)).items():
            number, name = key.split(".", 1)
            state.setdefault(int(number), {})[name] = part
        self.optimizer.load_state_dict({"state": state, "param_groups": training["groups"]})
        self.lr_scheduler.load_state_dict(training["schedule"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        _set_random_state(_read(self._of_process(checkpoint))["now"])
        # What goes through the rest of an epoch does not know how full the last batch is.
        loader = self.accelerator.gradient_state.active_dataloader
        if loader is not None:
            shared = 1 if self.accelerator.split_batches else self.args.world_size
            loader.remainder = len(self.train_dataset) % (self.args.train_batch_size * shared)


class _When(TrainerCallback):
    """Says when a trainer writes a checkpoint, and restores what its own code does not."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.trainer.begin()

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:
        self.trainer.begin_epoch()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        # An epoch is judged after its last step, and a checkpoint has to come after that.
        if control.should_training_stop or _is_whole(state.epoch):
            return
        # Several processes wait for each other to log, so there agreeing costs nothing more.
        if (args.world_size == 1 or control.should_log) and self.trainer.is_due():
            control.should_save = True

    def on_epoch_end(self, args, state, control, **kwargs) -> None:
        if not control.should_training_stop and self.trainer.is_due():
            control.should_save = True


def _is_whole(epoch: float) -> bool:
    return epoch % 1 == 0


def _tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """A model's parameters and the buffers that belong to a checkpoint by name, tied ones once."""
    kept = model.state_dict().keys()
    buffers = {name: part for name, part in model.named_buffers() if name in kept}
    return dict(model.named_parameters()) | buffers


def _plain(tensor: Tensor) -> Tensor:
    """A tensor as safetensors takes it; on the CPU, as a GPU may have no room for a copy."""
    return tensor.detach().cpu().contiguous()


def _fault(path: Path, fingerprint: dict[str, Any]) -> str | None:
    """Why a checkpoint cannot be gone on from; None where it can."""
    try:
        found = _read(path / TRAINING)["fingerprint"]
        for name in (MODEL, OPTIMIZER):
            with safe_open(path / name, framework="pt"):
                pass
        for number in range(fingerprint["processes"]):
            _read(path / f"process-{number}.json")
        _read(path / STATE)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        return f"it cannot be read: {error}"
    other = [
        name
        for name in sorted(found.keys() | fingerprint.keys())
        if found.get(name) != fingerprint.get(name)
    ]
    return f"it is of another training: {', '.join(other)}" if other else None


def _random_state() -> dict[str, Any]:
    """The state of the global generators, as JSON values."""
    version, numbers, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state()
    cuda = torch.cuda.is_available()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, keys.tolist(), *rest],
        "torch": torch.get_rng_state().tolist(),
        "cuda": torch.cuda.get_rng_state().tolist() if cuda else None,
    }


def _set_random_state(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8))


def _write(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _sync(path: Path) -> None:
    """Flushes a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
