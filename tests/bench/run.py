"""Prudent's PPO beside TRL 1.12.0's, and the costs of its parts: ``make bench``.

Each part is measured alone and kept in results/bench/PART.csv. A part that is run again replaces
what it measures again; the table and the figure are drawn from all that is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import pandas as pd
from common import Work

HERE = Path(__file__).parent
RESULTS = Path("results/bench")
TRAINERS = ("prudent", "trl")

Rows = Iterator[dict[str, Any]]


class Worker:
    """Another process that does a step when it is told to, and nothing in between."""

    def __init__(
        self, trainer: str, work: Work, threads: int, log: IO[str], without: str = ""
    ) -> None:
        self.trainer, self.log = trainer, log
        self.process = subprocess.Popen(
            [sys.executable, HERE / f"{trainer}_worker.py", json.dumps(dataclasses.asdict(work))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment(threads, work.dtype) | {"WITHOUT": without},
        )

    def __enter__(self) -> Worker:
        while self._line() != "ready":
            pass
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.stdin.close()
        self.process.wait()

    def begin(self) -> None:
        self.process.stdin.write("step\n")
        self.process.stdin.flush()

    def end(self) -> dict[str, float]:
        return json.loads(self._line())

    def step(self) -> dict[str, float]:
        """One step: its seconds, CPU seconds and the process's peak memory so far."""
        self.begin()
        return self.end()

    def _line(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the {self.trainer} worker ended; see {self.log.name}")
        return line.strip()


def environment(threads: int, dtype: str = "float32") -> dict[str, str]:
    """The threads that torch takes, and what `accelerate launch --mixed_precision` tells TRL."""
    count = str(threads)
    precision = {"float32": "no", "bfloat16": "bf16"}[dtype]
    return os.environ | {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "ACCELERATE_MIXED_PRECISION": precision,
    }


def alone(part: str, threads: int, **options: Any) -> list[dict[str, Any]]:
    """What one of the functions of alone.py measures, in a process of its own."""
    output = subprocess.run(
        [sys.executable, HERE / "alone.py", part, json.dumps(options)],
        env=environment(threads),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(output.stdout.splitlines()[-1])


def side_by_side(works: Sequence[Work], repeats: int, threads: int, log: IO[str]) -> Rows:
    """Steps of both trainers and the machine's peak in turn, after a step of each to warm up."""
    for work in works:
        with ExitStack() as stack:
            workers = [stack.enter_context(Worker(name, work, threads, log)) for name in TRAINERS]
            for worker in workers:
                worker.step()
            for repeat in range(repeats):
                products = alone("matmul", threads, dtype=work.dtype)
                for worker in workers:
                    yield {
                        **dataclasses.asdict(work),
                        "threads": threads,
                        "trainer": worker.trainer,
                        "repeat": repeat,
                        **worker.step(),
                        "least_gflop": work.least_flops() / 1e9,
                        "peak_gflops": max(row["gflops"] for row in products),
                    }


def steps(options: argparse.Namespace, log: IO[str]) -> Rows:
    """A step at each size and in each precision."""
    works = [Work(size=size, dtype=dtype) for dtype in options.dtypes for size in options.sizes]
    yield from side_by_side(works, options.repeats, options.threads, log)


def length(options: argparse.Namespace, log: IO[str]) -> Rows:
    """A step against the responses' length, with a quarter of the batch: TRL needs the memory."""
    works = [Work(batch=32, response=tokens) for tokens in (10, 32, 128)]
    yield from side_by_side(works, min(options.repeats, 3), options.threads, log)


def batch(options: argparse.Namespace, log: IO[str]) -> Rows:
    """A step against the batch."""
    works = [Work(batch=rows) for rows in (32, 128, 256)]
    yield from side_by_side(works, min(options.repeats, 3), options.threads, log)


def heads(options: argparse.Namespace, log: IO[str]) -> Rows:
    """Rewards of ten heads and of one, in turn."""
    yield from alone("heads", options.threads, repeats=20 * options.repeats)


def tokenizer(options: argparse.Namespace, log: IO[str]) -> Rows:
    """From the policy's tokens to the reward model's, beside a whole step."""
    yield from alone("tokenizer", options.threads, repeats=10 * options.repeats)
    with Worker("prudent", Work(), options.threads, log) as worker:
        for repeat in range(-1, options.repeats):
            seconds = worker.step()["seconds"]
            if repeat >= 0:
                yield {"what": "step", "repeat": repeat, "seconds": seconds}


def jobs(options: argparse.Namespace, log: IO[str]) -> Rows:
    """Two policies at once with a thread each, and one after the other with all threads."""
    with ExitStack() as stack:
        narrow, wide = (
            [stack.enter_context(Worker("prudent", Work(), threads, log)) for _ in range(2)]
            for threads in (1, options.threads)
        )
        for repeat in range(-1, options.repeats):
            start = time.perf_counter()
            for worker in narrow:
                worker.begin()
            for worker in narrow:
                worker.end()
            middle = time.perf_counter()
            for worker in wide:
                worker.step()
            end = time.perf_counter()
            if repeat >= 0:
                yield {"what": "at once", "repeat": repeat, "seconds": middle - start}
                yield {"what": "in turn", "repeat": repeat, "seconds": end - middle}


def changes(options: argparse.Namespace, log: IO[str]) -> Rows:
    """A step as it is, and with one of the things taken away that make it fast, in turn."""
    for without in WITHOUT:
        with ExitStack() as stack:
            workers = {
                name: stack.enter_context(Worker("prudent", Work(), options.threads, log, name))
                for name in ("", without)
            }
            for repeat in range(-1, options.repeats):
                for name, worker in workers.items():
                    seconds = worker.step()["seconds"]
                    if repeat >= 0:
                        side = "without" if name else "with"
                        yield {"what": without, "side": side, "repeat": repeat, "seconds": seconds}


WITHOUT = (
    "the fused loss",
    "large chunks",
    "torch's GELU",
    "keeping freed memory",
    "sums of blocks in the sampler",
    "eager attention",
)
PARTS = (steps, length, batch, changes, heads, tokenizer, jobs)
CONFIGURATION = ["size", "dtype", "batch", "response"]


def keep(part: str, rows: list[dict[str, Any]]) -> None:
    """Writes a part's rows, beside the earlier rows of other configurations."""
    path, new = RESULTS / f"{part}.csv", pd.DataFrame(rows)
    keys = [name for name in CONFIGURATION if name in new]
    if keys and path.exists():
        old = pd.read_csv(path)
        again = pd.MultiIndex.from_frame(old[keys]).isin(pd.MultiIndex.from_frame(new[keys]))
        new = pd.concat([old[~again], new])
    new.to_csv(path, index=False)


def machine(threads: int) -> dict[str, str]:
    """What the numbers hold for."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "?")
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    extensions = [f for f in flags if f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")]
    return {
        "processor": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "threads": str(threads),
        "instructions": " ".join(extensions)
        + ("" if {"avx512_bf16", "amx_bf16"} & {*extensions} else " (none for bfloat16)"),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "trl")},
    }


def main() -> None:
    names = [part.__name__ for part in PARTS]

    def some(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=some, default=["2x64", "4x256"])
    parser.add_argument("--dtypes", type=some, default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", type=some, default=names, help=f"of {','.join(names)}")
    options = parser.parse_args()
    if unknown := set(options.only) - set(names):
        parser.error(f"no such part: {', '.join(unknown)}")

    RESULTS.mkdir(parents=True, exist_ok=True)
    path, now = RESULTS / "machine.json", machine(options.threads)
    if path.exists() and json.loads(path.read_text()) != now:
        raise SystemExit(f"{RESULTS} was measured on {path.read_text()}, and this is {now}")
    path.write_text(json.dumps(now, indent=2) + "\n")

    with (RESULTS / "workers.log").open("w") as log:
        for part in PARTS:
            if part.__name__ in options.only:
                start, rows = time.perf_counter(), []
                for row in part(options, log):
                    rows.append(row)
                    print(json.dumps(row), flush=True)
                keep(part.__name__, rows)
                print(f"{part.__name__}: {time.perf_counter() - start:.0f} s", flush=True)
    subprocess.run([sys.executable, HERE / "report.py"], check=True)


if __name__ == "__main__":
    main()
