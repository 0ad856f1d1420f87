"""Nothing is lost: whatever happens to a cluster, policies end with the same bits.

Each test disturbs policies while they train on a real SLURM cluster, under the profile, and
compares weights and training logs with those of an undisturbed run on this machine.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from cluster import Cluster, wait_for
from conftest import ROOT, TINY, environment, finish, snakemake, start

pytestmark = pytest.mark.slow

LONG = ("--configfile", TINY, str(ROOT / "tests/faults.yaml"))
POLICIES = [f"{method}/seed{seed}" for method in ("vanilla", "variance_aware") for seed in (0, 1)]
PATIENCE = 300
"""Seconds; this machine may be a busy one."""


def targets(*policies: str) -> tuple[str, ...]:
    return ("--", *(f"results/tiny/policies/{policy}" for policy in policies))


@pytest.fixture(scope="module")
def prepared(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has all that policies need, and no policies."""
    folder = tmp_path_factory.mktemp("prepared") / "project"
    shutil.copytree(finished, folder, symlinks=True)
    shutil.rmtree(folder / ".snakemake")
    shutil.rmtree(folder / "results/tiny/policies")
    return folder


@pytest.fixture
def project(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "project", symlinks=True))


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What every policy comes to."""
    folder = tmp_path_factory.mktemp("undisturbed") / "project"
    shutil.copytree(prepared, folder, symlinks=True)
    output = snakemake(folder, "--cores", "2", *LONG, *targets(*POLICIES))
    assert output.returncode == 0, output.stdout + output.stderr
    outcomes = {policy: outcome(folder, policy) for policy in POLICIES}
    assert len(set(outcomes.values())) == len(POLICIES)
    return outcomes


def outcome(folder: Path, policy: str) -> str:
    """A policy's weights and training log, without the seconds that a step took, as a digest."""
    path = folder / f"results/tiny/policies/{policy}"
    digest = hashlib.sha256((path / "model.safetensors").read_bytes())
    log = pd.read_csv(f"{path}.csv", dtype=str)
    assert len(log) == 200
    digest.update(log.drop(columns="seconds").to_csv().encode())
    return digest.hexdigest()


def owner(folder: Path, policy: str) -> dict[str, str | int]:
    """The process that trains a policy, once it has written a checkpoint."""
    checkpoints = folder / f"checkpoints/tiny/policies/{policy}"
    found: list[Path] = []

    def written() -> bool:
        found[:] = checkpoints.glob("*/lock/*.json")
        return bool(found and list(checkpoints.glob("*/checkpoint.safetensors")))

    wait_for(written, f"a checkpoint of {policy}", PATIENCE)
    return json.loads(found[0].read_text())


def assert_resumed(folder: Path, policy: str, undisturbed: dict[str, str]) -> None:
    log = (folder / f"results/tiny/logs/train_policy/{policy}.log").read_text()
    assert "going on after step" in log
    assert outcome(folder, policy) == undisturbed[policy]


def last_job(cluster: Cluster, folder: Path, policy: str) -> dict[str, str]:
    name = f"rule_train_policy_wildcards_{policy.replace('/seed', '_')}"
    return [job for job in cluster.jobs(folder) if job["Comment"] == name][-1]


# --- One policy is hit --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def struck(
    cluster: Cluster, prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, dict[str, str]]]:
    """Three policies of one run, each hit by another blow; the folder and their last jobs."""
    folder = tmp_path_factory.mktemp("struck") / "project"
    shutil.copytree(prepared, folder, symlinks=True)
    process = start(cluster, folder, *LONG, *targets(*POLICIES[:3]))
    cluster.run("scancel", str(owner(folder, POLICIES[0])["job"]))
    os.kill(int(owner(folder, POLICIES[1])["pid"]), signal.SIGKILL)
    cluster.run("scontrol", "requeue", str(owner(folder, POLICIES[2])["job"]))
    finish(process, folder)
    return folder, {policy: last_job(cluster, folder, policy) for policy in POLICIES[:3]}


@pytest.mark.parametrize(
    ("policy", "restarts"),
    [(POLICIES[0], "0"), (POLICIES[1], "0"), (POLICIES[2], "1")],
    ids=["scancel", "kill -9", "scontrol requeue"],
)
def test_a_policy_survives(struck, undisturbed, policy, restarts):
    folder, jobs = struck
    assert_resumed(folder, policy, undisturbed)
    assert jobs[policy]["JobState"] == "COMPLETED" and jobs[policy]["Restarts"] == restarts


@pytest.mark.slow
def test_a_policy_survives_preemption(cluster, project, undisturbed):
    """A job of a partition with priority takes all GPUs of the node; the policy is requeued."""
    process = start(cluster, project, *LONG, *targets(POLICIES[0]))
    owner(project, POLICIES[0])
    node = last_job(cluster, project, POLICIES[0])["NodeList"]
    urgent = cluster.run(
        *("sbatch", "--parsable", "--partition=urgent", f"--nodelist={node}", "--gpus=a40:4"),
        *("--output=/dev/null", "--wrap=sleep 5"),
    )
    finish(process, project)
    assert_resumed(project, POLICIES[0], undisturbed)
    assert last_job(cluster, project, POLICIES[0])["Restarts"] == "1"
    state = cluster.run("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={urgent}")
    assert state.strip() == "COMPLETED"


@pytest.mark.slow
def test_a_policy_survives_its_time_limit(cluster, project, undisturbed):
    """A process that hangs runs into the limit; the second attempt has twice the time."""
    rule = project / "rules/policy.smk"
    text = rule.read_text()
    assert "runtime=lambda wildcards, attempt: 480 * attempt" in text
    rule.write_text(text.replace("480 * attempt", "1 * attempt"))  # minutes, SLURM's unit
    process = start(cluster, project, *LONG, *targets(POLICIES[0]))
    os.kill(int(owner(project, POLICIES[0])["pid"]), signal.SIGSTOP)
    first = last_job(cluster, project, POLICIES[0])
    finish(process, project)
    assert_resumed(project, POLICIES[0], undisturbed)
    states = {job["JobId"]: job["JobState"] for job in cluster.jobs(project)}
    assert states[first["JobId"]] == "TIMEOUT" and first["TimeLimit"] == "00:01:00"
    assert last_job(cluster, project, POLICIES[0])["TimeLimit"] > "00:01:00"


# --- The cluster is hit -------------------------------------------------------------------------


def test_policies_survive_the_loss_of_their_node(cluster, project, undisturbed):
    process = start(cluster, project, *LONG, *targets(POLICIES[0]))
    owner(project, POLICIES[0])
    node = last_job(cluster, project, POLICIES[0])["NodeList"]
    cluster.crash(node)
    try:
        finish(process, project)
    finally:
        cluster.start_slurmd(node)
        wait_for(lambda: node in cluster.idle_nodes(), f"{node}'s return", 60)
    assert_resumed(project, POLICIES[0], undisturbed)
    job = last_job(cluster, project, POLICIES[0])
    assert job["Restarts"] == "1" and job["NodeList"] != node


@pytest.mark.slow
def test_policies_survive_half_a_minute_without_slurmctld(cluster, project, undisturbed):
    process = start(cluster, project, *LONG, *targets(POLICIES[0]))
    owner(project, POLICIES[0])
    cluster.crash_slurmctld()
    try:
        time.sleep(30)
        assert process.poll() is None
    finally:
        cluster.start_slurmctld()
    finish(process, project)
    assert outcome(project, POLICIES[0]) == undisturbed[POLICIES[0]]


# --- Snakemake is hit ---------------------------------------------------------------------------


def resume(cluster: Cluster, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs what `make resume` runs."""
    options = ("--slurm-init-seconds-before-status-checks", "3")
    return subprocess.run(
        [sys.executable, "profiles/slurm/resume.py", *options, *arguments],
        cwd=folder,
        env=environment(folder) | cluster.variables,
        capture_output=True,
        text=True,
        timeout=400,
    )


def test_snakemake_killed_while_its_jobs_run(cluster, project, undisturbed):
    """Its jobs go on without it; the way back waits for them, and has nothing to do again."""
    policies = POLICIES[:2]
    arguments = (*LONG, *targets(*policies))
    process = start(cluster, project, *arguments)
    for policy in policies:
        owner(project, policy)
    process.kill()
    process.wait()
    resumed = resume(cluster, project, *arguments)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "waiting for 2 jobs" in resumed.stdout
    assert "Nothing to be done" in resumed.stdout + resumed.stderr
    for policy in policies:
        assert outcome(project, policy) == undisturbed[policy]


def test_two_at_once(cluster, project):
    """The second one is refused, and so is the way back while the first one lives."""
    arguments = (*LONG, *targets(POLICIES[0]))
    process = start(cluster, project, *arguments)
    wait_for((project / ".snakemake/controller").exists, "Snakemake's start", PATIENCE)
    output = finish(start(cluster, project, *arguments), project, status=1)
    assert "make sure that no other Snakemake process is trying to create the same files" in output
    refused = resume(cluster, project, *arguments)
    assert refused.returncode == 1
    assert f"Snakemake still runs here, process {process.pid}" in refused.stderr
    process.send_signal(signal.SIGINT)
    process.wait(timeout=PATIENCE)
    (project / ".snakemake/controller").write_text("elsewhere 1\n")
    refused = resume(cluster, project, *arguments)
    assert refused.returncode == 1 and "was started here on elsewhere" in refused.stderr


@pytest.mark.slow
def test_snakemake_killed_and_its_jobs_cancelled(cluster, project, undisturbed):
    arguments = (*LONG, *targets(POLICIES[0]))
    process = start(cluster, project, *arguments)
    owner(project, POLICIES[0])
    process.kill()
    process.wait()
    resumed = resume(cluster, project, "--cancel", *arguments)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "cancelling 1 jobs" in resumed.stdout
    assert_resumed(project, POLICIES[0], undisturbed)


# --- The disk is hit ----------------------------------------------------------------------------


@pytest.fixture
def small_disk(project: Path) -> Iterator[Callable[[str], Path]]:
    """A function that puts a disk of a megabyte in the place of a folder of the project."""
    places: list[Path] = []

    def mount(name: str) -> Path:
        place = project / name
        place.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all that is left of a disk."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as stream:
        try:
            while True:
                stream.write(b"0" * 4096)
        except OSError:
            return filler


@pytest.mark.slow
def test_a_full_disk_for_the_checkpoints(cluster, project, undisturbed, small_disk):
    disk = small_disk("checkpoints")
    arguments = (*LONG, "--retries", "0", *targets(POLICIES[0]))
    process = start(cluster, project, *arguments)
    owner(project, POLICIES[0])
    filler = fill(disk)
    log = project / f"results/tiny/logs/train_policy/{POLICIES[0]}.log"

    def refused() -> bool:
        fill(disk)  # again, where a checkpoint under way has left some space
        return "no space left" in log.read_text()

    wait_for(refused, "the trainer's message", PATIENCE)
    finish(process, project, status=1)
    filler.unlink()
    finish(start(cluster, project, *arguments), project)
    assert_resumed(project, POLICIES[0], undisturbed)


@pytest.mark.slow
def test_a_full_disk_for_the_policy(cluster, project, undisturbed, small_disk):
    disk = small_disk("results/tiny/policies")
    filler = fill(disk)
    arguments = (*LONG, "--retries", "0", *targets(POLICIES[0]))
    finish(start(cluster, project, *arguments), project, status=1)
    assert not list(disk.rglob("*.safetensors")), "half a policy"
    filler.unlink()
    finish(start(cluster, project, *arguments), project)
    assert_resumed(project, POLICIES[0], undisturbed)
