"""Trainings in several processes, one for each GPU of the job."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from prudent.errors import InputError
from prudent.workflow import entry, gpus
from prudent.workflow.gpus import logger

CONFIG = "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\nmixed_precision: 'no'\n"
"""All that accelerate is told besides its options."""


def processes() -> int:
    """How many processes a training is to start: one for each GPU that the job was given.

    1 where there is nothing to start, as in the processes that ``launch`` started, and on parts of
    a GPU (MIG), of which CUDA gives a process no more than one.
    """
    devices = gpus.visible()
    if "LOCAL_RANK" in os.environ or any(device.startswith("MIG-") for device in devices):
        return 1
    return max(1, len(devices))


def launch(script: str, args: Any, processes: int) -> None:
    """Runs a script in several processes under ``accelerate launch``, and prints what they print.

    script: its name. args: its arguments; the processes share the threads. They meet at a free
    port, so two jobs on one machine do not collide. Nothing of the user's own settings of
    accelerate, which may name other cards, reaches them. Raises InputError if one fails; it has
    said why by then.
    """
    path = Path(entry.__file__).parents[2] / f"{script}.py"
    share = dataclasses.replace(args, threads=max(1, args.threads // processes))
    logger.info("training in %d processes", processes)
    with tempfile.TemporaryDirectory() as folder:
        # In place of the user's, which `accelerate config` has put below HF_HOME.
        config = Path(folder, "accelerate.yaml")
        config.write_text(CONFIG, encoding="utf-8")
        command = [
            *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)),
            *("--multi_gpu", "--gpu_ids", "all"),
            *("--num_machines", "1", "--num_processes", str(processes)),
            *("--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"),
            *(str(path), *entry.to_command_line(share)),
        ]
        # What a process prints itself would not reach the job's log.
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env={
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("ACCELERATE_", "FSDP_"))
            },
        ) as process:
            for line in process.stdout:
                print(line, end="", flush=True)
    if process.returncode:
        raise InputError(f"one of the training's {processes} processes failed, as said above")
