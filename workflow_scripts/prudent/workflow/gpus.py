"""Jobs of one machine keep off each other's GPUs.

SLURM and Kubernetes show a job its own GPUs alone. On a plain machine every job sees all of them
and would take the first; here each takes as many as it asks for, of those that no other job has,
and waits while there are too few.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

SCHEDULERS = ("SLURM_JOB_ID", "KUBERNETES_SERVICE_HOST")
LOCKS = Path(tempfile.gettempdir()) / f"prudent-gpus-{os.getuid()}"

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
    scheduled = any(name in os.environ for name in SCHEDULERS)
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
    """The GPUs that this process may use: CUDA_VISIBLE_DEVICES, or else all."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [device for device in given.split(",") if device]
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=index", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.split()


def _lock(device: str) -> FileLock | None:
    """A lock on a GPU, or None where another process has it."""
    lock = FileLock(LOCKS / device)
    try:
        return lock.acquire(blocking=False).lock
    except Timeout:
        return None
