"""A lock on a folder that keeps a second process out while the first one lives.

It needs only atomic renames, which network file systems have too. `filelock` is not enough here:
on some of these file systems other nodes do not see its flock, and its soft lock does not tell a
dead owner on another machine from a living one. It is enough for the GPUs of one machine
(`workflow.gpus`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from prudent.errors import InputError

logger = logging.getLogger(__name__)

HEARTBEAT = 5.0
"""Seconds between an owner's signs of life."""

HEARTBEAT_TIMEOUT = 60.0
"""Seconds without one after which an owner whose process cannot be inspected counts as gone."""


class Lock:
    """A lock on a folder that works between processes and machines, and survives crashes.

    It is the folder ``lock`` with one file in it, ``<token>.json``, which names the owner. Both are
    created by renaming a folder prepared beside it. The rename fails while ``lock`` has a file in
    it, so exactly one of several processes gets the lock. Tokens are never used twice, so deleting
    the file of an owner that is gone can never remove the next owner's lock, however late it
    happens.

    An owner on the same machine is gone when its process is gone. Any other owner shows that it
    lives by touching its file. Others watch whether the file's time changes, so no two clocks are
    compared.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "lock"
        self.token = uuid.uuid4().hex
        self.file = self.folder / f"{self.token}.json"
        self.released = threading.Event()

    def acquire(self) -> None:
        """Takes the lock; InputError where a living process has it, or it cannot be created."""
        try:
            for _ in range(100):
                if self._create():
                    threading.Thread(target=self._beat, daemon=True).start()
                    return
                for file in self._files():
                    owner = _read(file)
                    gone = _why_gone(file, owner)
                    if gone is None:
                        raise InputError(
                            f"{self.folder.parent}: another process keeps its checkpoints there: "
                            f"{_name(owner)}; wait until it ends, or stop it"
                        )
                    logger.info("%s: taken over from %s: %s", self.folder, _name(owner), gone)
                    file.unlink(missing_ok=True)
                time.sleep(0.05)
        except OSError as error:
            raise InputError(f"{self.folder}: the lock cannot be made: {error}") from error
        raise InputError(
            f"{self.folder}: the lock cannot be made, there is something else in its place; "
            "delete it if no process uses it"
        )

    def require(self) -> None:
        """InputError where the lock is not this process's any more."""
        try:
            # Unlike reading its attributes, this asks the server even if they are cached.
            os.utime(self.file)
        except FileNotFoundError as error:
            owners = ", ".join(_name(_read(file)) for file in self._files()) or "nobody"
            raise InputError(
                f"{self.folder}: the lock on the checkpoints is not this process's any more, it is "
                f"held by {owners}; no checkpoint was written"
            ) from error

    def release(self) -> None:
        """Gives the lock back, if it is still this process's."""
        self.released.set()
        with contextlib.suppress(OSError):  # another process may have it by now
            self.file.unlink(missing_ok=True)
            self.folder.rmdir()

    def _create(self) -> bool:
        temporary = self.folder.with_name(f".{self.token}.tmp")
        try:
            temporary.mkdir(parents=True, exist_ok=True)
            with (temporary / self.file.name).open("w", encoding="utf-8") as stream:
                json.dump(_identity(), stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(temporary, self.folder)
        except OSError as error:
            # Not found: the owner is cleaning up. The next attempt finds out who it is.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT):
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        # A network file system may repeat a request, and report a failure of a rename that worked.
        return self.file.exists()

    def _files(self) -> list[Path]:
        try:
            return [
                self.folder / name for name in os.listdir(self.folder) if name.endswith(".json")
            ]
        except FileNotFoundError:
            return []

    def _beat(self) -> None:
        while not self.released.wait(HEARTBEAT):
            try:
                os.utime(self.file)
            except FileNotFoundError:
                return
            except OSError:
                pass  # a hiccup of the file system; the next beat may work


def _identity() -> dict[str, Any]:
    """The identity of this process, to find out later, on the same machine, whether it lives."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        pids = os.readlink("/proc/self/ns/pid")  # containers of one machine may share its name
    except OSError:
        boot = pids = None
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _start_time(os.getpid()),
        "boot": boot,
        "pids": pids,
        "job": os.environ.get("SLURM_JOB_ID"),
    }


def _start_time(pid: int) -> int | None:
    """When a process started, in clock ticks after the boot; None where it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _read(file: Path) -> dict[str, Any]:
    """A lock's owner; {} where the file cannot be read."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, TypeError, ValueError):
        return {}


def _why_gone(file: Path, owner: dict[str, Any]) -> str | None:
    """Why a lock's owner is gone, or None if it lives; may take a minute."""
    me = _identity()
    if me["boot"] and me["host"] == owner.get("host"):
        if me["boot"] != owner.get("boot"):
            return "the machine was started anew since"
        pid, since = owner.get("pid"), owner.get("started")
        # If a damaged file lacks these, its owner has to show that it lives.
        if me["pids"] == owner.get("pids") and isinstance(pid, int) and since is not None:
            started = _start_time(pid)
            lives = started is not None and started == since
            return None if lives else "the process has ended"
    logger.info("%s: held by %s; waiting for a sign of life", file.parent, _name(owner))
    before, start = _touched(file), time.monotonic()
    while time.monotonic() < start + HEARTBEAT_TIMEOUT:
        time.sleep(HEARTBEAT / 5)
        if _touched(file) != before:
            # No time means that the file is gone, so its owner released the lock.
            return "it was released" if _touched(file) is None else None
    return f"no sign of life in {HEARTBEAT_TIMEOUT:g} s"


def _touched(file: Path) -> int | None:
    """A file's modification time; opening the file avoids the cache of network file systems."""
    try:
        with file.open("rb") as stream:
            return os.fstat(stream.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _name(owner: dict[str, Any]) -> str:
    job = f" (SLURM job {owner['job']})" if owner.get("job") else ""
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}{job}"
