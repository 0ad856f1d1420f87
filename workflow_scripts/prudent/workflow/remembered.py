"""Digests and sizes of data files and checkpoints, computed once for each version of a file.

Snakemake compares times: a file that was replaced by one with an older time of modification (cp -p,
tar, rsync -a) goes unseen. So what the files hold is among the rules' parameters, as a digest. As
every job of a cluster reads the workflow anew, digests are remembered with what tells one version
of a file from another: its size, both of its times, and its inode.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from prudent.paths import folder_files

BLOCK = 1 << 20


class Facts(NamedTuple):
    """What a file holds: the SHA-256 of its bytes, and the number of its lines."""

    sha256: str
    lines: int


class Memory:
    """Facts of files, kept in one JSON file; it is only ever a shortcut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, list[Any]] = {}
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            self.known = known if isinstance(known, dict) else {}
        except (OSError, ValueError):
            pass
        self.changed = False

    def of(self, path: str | Path) -> Facts:
        """A file's facts; OSError where it cannot be read."""
        name = os.path.abspath(path)
        stamp = _stamp(path)
        entry = self.known.get(name)
        if isinstance(entry, list) and len(entry) == 3 and entry[0] == stamp:
            return Facts(*entry[1:])
        digest, lines, last = hashlib.sha256(), 0, b"\n"
        with open(path, "rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
                lines += block.count(b"\n")
                last = block[-1:]
        facts = Facts(digest.hexdigest(), lines + (last != b"\n"))
        self.known[name] = [stamp, *facts]
        self.changed = True
        return facts

    def digest(self, path: str | Path) -> str | None:
        """The digest of a file, or of a folder's files with their names; None if it is absent."""
        path = Path(path)
        if path.is_file():
            return self.of(path).sha256
        if not path.is_dir():
            return None
        parts = [f"{file.relative_to(path)}\0{self.of(file).sha256}" for file in folder_files(path)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def save(self) -> None:
        """Writes what is new; where that is not possible, it is computed again next time."""
        if not self.changed:
            return
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self.known), encoding="utf-8")
            os.replace(temporary, self.path)
            self.changed = False
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _stamp(path: str | Path) -> list[int]:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
