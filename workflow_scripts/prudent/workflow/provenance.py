"""What a run came from: configuration, code, versions and machine, for people to read."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
PACKAGES = ("torch", "transformers", "trl", "datasets", "numpy", "pandas", "scipy")
PACKAGES += ("matplotlib", "snakemake")


def provenance(scenario: str, seed: int, digest: str) -> list[tuple[str, str]]:
    """Names and values, in the order in which they are shown; ``digest`` is the configuration's.

    What is asked of the machine here is in no rule's parameters: it brings no job back.
    """
    return [
        ("scenario", scenario),
        ("seed of the study", str(seed)),
        ("configuration", f"SHA-256 {digest} of config.yaml, beside these results"),
        ("code", commit() or "the commit is not known: this is not a git checkout"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions().items())),
        ("machine that wrote this page", machine()),
    ]


def commit(checkout: Path = CHECKOUT) -> str | None:
    """The checkout's git commit, and whether its files have changed since; None without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        # A copy, or an installed package, may lie within a repository of something else.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != checkout.resolve():
            return None
        changed = git("status", "--porcelain", "--untracked-files=no")
        return f"git commit {git('rev-parse', 'HEAD')}" + (", with changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """The installed versions of Python and of the packages that results depend on."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def machine() -> str:
    """Processor, cores and system; not the machine's name, which is nobody else's business."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
                break
    cores = os.cpu_count() or 1
    plural = "" if cores == 1 else "s"
    return f"{processor}, {cores} core{plural}, {platform.system()} {platform.machine()}"
