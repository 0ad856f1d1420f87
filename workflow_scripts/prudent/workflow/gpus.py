"""Jobs of one machine keep off each other's GPUs.

SLURM shows a job its own GPUs alone. On a plain machine every job sees all of them
and would take the first; here each takes as many as it asks for, of those that no other job has,
and waits while there are too few.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

from prudent.errors import quoted

logger = logging.getLogger(__name__)

LOCKS = Path(tempfile.gettempdir()) / f"prudent-gpus-{os.getuid()}"

DEVICE = re.compile(r"\d+|GPU-[\w-]+|MIG-[\w/-]+")
"""An entry of CUDA_VISIBLE_DEVICES."""

_held: list[FileLock] = []  # for the life of the process, however it ends


def take(count: int, seconds: float = 2.0) -> list[str]:
    """Makes ``count`` free GPUs of this machine the only ones that CUDA will show this process.

    Returns them: none where a scheduler gives them out, or where there are none. Warns where there
    are fewer than asked for: SLURM's executor has lost a part of a request before (its issue 459).
    Looks every so many seconds. To be called before CUDA is used.
    """
    if count < 1:
        return []
    devices = visible()
    scheduled = "SLURM_JOB_ID" in os.environ
    if count > len(devices) and (devices or scheduled):
        logger.warning("%d GPUs were asked for, and this job sees %d", count, len(devices))
    if scheduled or not devices:
        return []
    LOCKS.mkdir(exist_ok=True)
    while True:
        taken = {device: lock for device in devices if (lock := _lock(device))}
        if len(taken) >= min(count, len(devices)):
            break
        for lock in taken.values():
            lock.release()
        logger.info("waiting for a GPU: all are taken by other jobs")
        time.sleep(seconds)
    chosen = list(taken)[:count]
    for device, lock in taken.items():
        if device in chosen:
            _held.append(lock)
        else:
            lock.release()
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
    return chosen


def visible() -> list[str]:
    """The GPUs that this process may use: CUDA_VISIBLE_DEVICES, or else all.

    Indices, or names of GPUs and of their parts (MIG). As for CUDA, the list ends before its first
    entry that is none of them, such as -1, and one that repeats an entry is empty.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        command = shutil.which("nvidia-smi")
        return list(_all(command)) if command else []
    entries = (entry.strip() for entry in given.split(","))
    devices = list(itertools.takewhile(DEVICE.fullmatch, entries))
    return devices if len(set(devices)) == len(devices) else []


@functools.cache  # asked once, so that what is wrong is said once
def _all(command: str) -> tuple[str, ...]:
    """The indices of all GPUs, as nvidia-smi says; what else it says is no GPU."""
    query = [command, "--query-gpu=index", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            query, capture_output=True, encoding="utf-8", errors="replace", timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("no GPU is used: nvidia-smi cannot be asked: %s", error)
        return ()
    lines = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    found = [line for line in lines if line.isdecimal()] if answer.returncode == 0 else []
    if answer.returncode or len(found) < len(lines):
        said = quoted((answer.stdout or answer.stderr).strip())
        logger.warning(
            "nvidia-smi ended with status %d and said %s, expected an index in each line: this "
            "counts as %d GPUs",
            *(answer.returncode, said, len(found)),
        )
    return tuple(found)


def _lock(device: str) -> FileLock | None:
    """A lock on a GPU, or None where another process has it."""
    lock = FileLock(LOCKS / device.replace("/", "_"))  # MIG-GPU-.../1/0
    try:
        return lock.acquire(blocking=False).lock
    except Timeout:
        return None
