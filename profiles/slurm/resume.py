"""Go on after Snakemake itself was killed on a cluster, or its machine went down.

The jobs that it left still run, and nobody waits for them; a second Snakemake would submit them
again, and both would write the same files. So: find them, wait for them (or with --cancel end them;
policies go on from their checkpoints), remove the lock, and start Snakemake.

Usage, from the repository's root: python profiles/slurm/resume.py [--cancel] [SNAKEMAKE'S OPTIONS]
"""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

PREFIX = "prudent_"  # slurm-jobname-prefix in config.yaml
CONTROLLER = Path(".snakemake/controller")  # written by the Snakefile


def main(arguments: list[str]) -> None:
    cancel = "--cancel" in arguments
    options = [argument for argument in arguments if argument != "--cancel"]
    snakemake = [sys.executable, "-m", "snakemake", "--profile", "slurm"]
    refusal = why_not()
    if refusal:
        sys.exit(refusal)
    jobs = orphans()
    if jobs and cancel:
        print(f"cancelling {len(jobs)} jobs: {' '.join(jobs)}", flush=True)
        subprocess.run(["scancel", *jobs], check=True)
    while jobs:
        print(f"waiting for {len(jobs)} jobs: {' '.join(jobs)}", flush=True)
        time.sleep(10)
        jobs = orphans()
    subprocess.run([*snakemake, "--unlock", *options], check=True)
    os.execv(snakemake[0], [*snakemake, "--rerun-incomplete", *options])


def why_not() -> str | None:
    """Why Snakemake must not be started here: another one runs, or may run."""
    if not CONTROLLER.exists():
        return None
    host, process = CONTROLLER.read_text().split()
    if host != socket.gethostname():
        return (
            f"Snakemake was started here on {host}, process {process}. If it does not run any "
            f"more, delete {CONTROLLER}, and try again."
        )
    try:
        runs = b"snakemake" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return None
    return f"Snakemake still runs here, process {process}: nothing to resume." if runs else None


def orphans() -> list[str]:
    """The ids of this folder's jobs that wait or run."""
    command = ["squeue", "--user", getpass.getuser(), "--noheader", "--format=%i|%j|%Z"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    jobs = [line.split("|", 2) for line in lines]
    here = os.path.realpath(".")
    return [
        number
        for number, name, folder in jobs
        if name.startswith(PREFIX) and os.path.realpath(folder) == here
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
