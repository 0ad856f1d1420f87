"""What SLURM and Snakemake add to a run: python tests/bench/cluster_cost.py, as root.

On the tests' own cluster, under the profile: a chain of jobs one after the other, and forty
policies of twenty seconds on eight GPUs, for which a hundred seconds are ideal. The policies sleep,
since this machine has no eight GPUs; all else is real. Writes results/bench/cluster.csv.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
from cluster import Cluster, why_not
from conftest import copy_project, environment

POLICIES, SECONDS, GPUS, CHAIN = 40, 20, 8, 5
IDEAL = POLICIES * SECONDS / GPUS
RESULTS = Path("results/bench")

RULES = f"""
rule link:
    input: lambda wildcards: f"chain/{{int(wildcards.n) - 1}}" if wildcards.n > "1" else []
    output: "chain/{{n}}"
    wildcard_constraints: n="[1-9]"
    shell: "date +%s.%N > {{output}}; sleep 1; date +%s.%N >> {{output}}"

rule train_policy:
    output: "policies/{{n}}"
    resources: gpu=1, turn=1
    shell: "sleep {SECONDS}; touch {{output}}"
"""

# When the executor first looks at the jobs; it waits 10 s longer after each look in vain.
LOOKS = {
    "the profile": (),
    "first look after 3 s": ("--slurm-init-seconds-before-status-checks", "3"),
    "first look after 40 s": ("--slurm-init-seconds-before-status-checks", "40"),
}
GROUPS = {
    "five policies a job": (
        *("--groups", "train_policy=policy", "--group-components", "policy=5"),
        *("--set-resource-scopes", "turn=local"),
    )
}


def measure(
    cluster: Cluster, folder: Path, options: tuple[str, ...], targets: list[str]
) -> tuple[float, dict[str, float], list[dict[str, str]]]:
    """Runs Snakemake; returns its seconds, when it saw each output's end, and SLURM's jobs."""
    start = time.time()
    process = subprocess.Popen(
        [
            *(sys.executable, "-u", "-m", "snakemake", "--profile", "slurm", "--snakefile"),
            *("cost.smk", "--resources", f"gpu={GPUS}", "turn=1", *options, "--", *targets),
        ],
        cwd=folder,
        env=environment(folder) | cluster.variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seen, names, printed, output = {}, {}, [], ""
    for line in process.stdout:
        printed.append(line)
        if found := re.match(r"\s+output: (\S+)", line):
            output = found[1]
        if found := re.match(r"\s+jobid: (\d+)", line):
            names[found[1]] = output
        if found := re.match(r"Finished jobid: (\d+)", line):
            seen[names[found[1]]] = time.time()
    if process.wait():
        raise SystemExit("".join(printed))
    return time.time() - start, seen, cluster.jobs(folder)


def clock(text: str) -> float:
    """A time as SLURM writes it, in whole seconds."""
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def chain(cluster: Cluster, folder: Path, options: tuple[str, ...]) -> pd.DataFrame:
    """The waits of jobs that wait for each other, one row each."""
    _, seen, jobs = measure(cluster, folder, options, [f"chain/{CHAIN}"])
    rows, ready = [], None
    for job, number in zip(jobs, range(1, CHAIN + 1), strict=True):
        name = f"chain/{number}"
        begin, end = map(float, (folder / name).read_text().split())
        submitted, started = clock(job["SubmitTime"]), clock(job["StartTime"])
        rows.append(
            {
                "submitted to started": started - submitted,
                "started to its command": begin - started,
                "its end to seen": seen[name] - end,
                "whole": seen[name] - ready if ready else float("nan"),
            }
        )
        ready = seen[name]
    return pd.DataFrame(rows)


def policies(cluster: Cluster, folder: Path, options: tuple[str, ...]) -> dict[str, float]:
    """The time of all policies on all GPUs."""
    targets = [f"policies/{n}" for n in range(POLICIES)]
    seconds, _, jobs = measure(cluster, folder, options, targets)
    lasted = [clock(job["EndTime"]) - clock(job["StartTime"]) for job in jobs]
    return {
        "jobs": len(lasted),
        "seconds": seconds,
        "over ideal": seconds / IDEAL,
        "seconds of a job": float(np.median(lasted)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["chain", "policies"])
    only = parser.parse_args().only
    if reason := why_not():
        raise SystemExit(reason)
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, Cluster() as cluster:

        def project(*names: str) -> Path:
            folder = copy_project(Path(temporary, "-".join(names).replace(" ", "-")))
            (folder / "cost.smk").write_text(RULES)
            return folder

        if only != "policies":
            print("Jobs that do a second of work one after the other, seconds (median):")
            for name, options in LOOKS.items():
                waits = chain(cluster, project("chain", name), options).median()
                print(f"{name}: {', '.join(f'{k} {v:.1f}' for k, v in waits.items())}", flush=True)
        if only != "chain":
            print(f"{POLICIES} policies of {SECONDS} s on {GPUS} GPUs; ideal {IDEAL:g} s:")
            rows = {}
            for name, options in (LOOKS | GROUPS).items():
                rows[name] = row = policies(cluster, project("policies", name), options)
                print(
                    f"{name}: {row['seconds']:.0f} s, {row['over ideal']:.2f} times the ideal; "
                    f"{row['jobs']} jobs of {row['seconds of a job']:.0f} s",
                    flush=True,
                )
            pd.DataFrame(rows).T.to_csv(RESULTS / "cluster.csv", index_label="setting")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
