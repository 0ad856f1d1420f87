"""Processes that tests start often, or kill: forks of a server that imported what takes time."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from subprocess import CompletedProcess

CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(
    [
        *("pandas", "pyarrow.parquet", "pytest"),
        *("transformers.models.gpt2.modeling_gpt2", "transformers.tokenization_utils_tokenizers"),
        # Nothing of this project: each copy of it that a test makes has modules of its own.
        *("snakemake.cli", "snakemake.report", "snakemake_executor_plugin_slurm", "pydantic"),
    ]
)


def run_snakemake(
    folder: Path, arguments: tuple[str, ...], environment: dict[str, str]
) -> CompletedProcess[str]:
    """Runs Snakemake as ``python -m snakemake`` would, without the seconds of its imports."""
    with tempfile.TemporaryDirectory() as place:
        outputs = [Path(place, name) for name in ("stdout", "stderr")]
        child = CHILDREN.Process(
            target=_snakemake, args=(folder, arguments, environment, outputs), daemon=False
        )
        child.start()
        child.join()
        texts = [path.read_text(encoding="utf-8") for path in outputs]
    return CompletedProcess(["snakemake", *arguments], child.exitcode, *texts)


def _snakemake(
    folder: Path, arguments: tuple[str, ...], environment: dict[str, str], outputs: list[Path]
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # As at an interpreter's start.
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = (
        open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2)
    )
    sys.argv = ["snakemake", *arguments]

    from snakemake.cli import main

    try:
        main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
