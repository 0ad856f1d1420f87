"""What trainings with a Hugging Face trainer share: arguments, recorded losses, processes."""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import TrainerCallback

from prudent import entry, gpus
from prudent.errors import InputError

logger = logging.getLogger(__name__)


def common_arguments(seed: int, bfloat16: bool) -> dict[str, Any]:
    """Arguments of every Hugging Face training here: quiet, local, nothing pickled to disk."""
    cuda = torch.cuda.is_available()
    return {
        "seed": seed,
        "data_seed": seed,
        "bf16": bfloat16,
        "use_cpu": not cuda,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": cuda,
    }


def processes() -> int:
    """How many processes a training is to start: one for each GPU that the job was given.

    1 where there is nothing to start, as in the processes that ``launch`` started.
    """
    return 1 if "LOCAL_RANK" in os.environ else max(1, len(gpus.visible()))


def is_first() -> bool:
    """Whether this process is the one of its training that reports and writes."""
    return os.environ.get("RANK", "0") == "0"


def launch(script: str, args: Any, processes: int) -> None:
    """Runs a script in several processes under ``accelerate launch``, and prints what they print.

    script: its name. args: its arguments; the processes share the threads. They meet at a free
    port, so two jobs on one machine do not collide. Raises InputError if one fails; it has said why
    by then.
    """
    path = Path(entry.__file__).parents[1] / f"{script}.py"
    share = dataclasses.replace(args, threads=max(1, args.threads // processes))
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"),
        *("--num_machines", "1", "--num_processes", str(processes)),
        *("--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"),
        *(str(path), *entry.to_command_line(share)),
    ]
    logger.info("training in %d processes", processes)
    # What a process prints itself would not reach the job's log.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
    if process.returncode:
        raise InputError(f"one of the training's {processes} processes failed, as said above")


class LossRecorder(TrainerCallback):
    """Keeps a trainer's losses and accuracies as rows, and prints them as progress."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.started = time.monotonic()

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        for prefix, split in (("", "train"), ("eval_", "validation")):
            if f"{prefix}loss" in (logs or {}):
                row = {
                    "step": state.global_step,
                    "split": split,
                    "loss": float(logs[f"{prefix}loss"]),
                    "accuracy": float(logs.get(f"{prefix}accuracy", float("nan"))),
                }
                self.rows.append(row)
                if is_first():
                    logger.info(
                        "step %d of %d: %s loss %.4f, %.0f s",
                        row["step"],
                        state.max_steps,
                        split,
                        row["loss"],
                        time.monotonic() - self.started,
                    )

    def frame(self) -> pd.DataFrame:
        """The rows as a table: step, split, loss, accuracy."""
        return pd.DataFrame(self.rows, columns=["step", "split", "loss", "accuracy"])
