"""Nothing is lost: whatever happens to a cluster, policies end with the same bits.

Each test disturbs policies while they train on a real SLURM cluster, under the profile, and
compares weights and training logs with those of an undisturbed run on this machine.
"""

import functools
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
from cluster import HANG, Cluster, wait_for
from conftest import ROOT, TINY, Make, environment, finish, snakemake
from conftest import start as start_with

LONG = ("--configfile", TINY, str(ROOT / "tests/faults.yaml"))
# What is killed, suspended and named here are processes, each with a Python of its own.
start = functools.partial(start_with, executable=sys.executable)
POLICIES = [f"{method}/seed{seed}" for method in ("vanilla", "variance_aware") for seed in range(3)]
STEPS = 120


def targets(*policies: str) -> tuple[str, ...]:
    return ("--", *(f"results/tiny/policies/{policy}" for policy in policies))


@pytest.fixture(scope="module")
def prepared(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has all that policies need, and no policies."""
    return without_policies(finished, tmp_path_factory.mktemp("prepared") / "project")


def without_policies(finished: Path, folder: Path) -> Path:
    shutil.copytree(finished, folder, symlinks=True)
    shutil.rmtree(folder / ".snakemake")
    shutil.rmtree(folder / "results/tiny/policies")
    return folder


@pytest.fixture(scope="module")
def undisturbed(finished: Path, made_once: Callable[[str, Make], Path]) -> dict[str, str]:
    """What every policy comes to."""

    def run(folder: Path) -> None:
        without_policies(finished, folder)
        output = snakemake(folder, "--cores", "2", *LONG, *targets(*POLICIES))
        assert output.returncode == 0, output.stdout + output.stderr

    folder = made_once("undisturbed", run)
    outcomes = {policy: outcome(folder, policy) for policy in POLICIES}
    assert len(set(outcomes.values())) == len(POLICIES)
    return outcomes


@pytest.fixture
def project(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(prepared, tmp_path_factory)


def copied(prepared: Path, factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(prepared, factory.mktemp("faults") / "project", symlinks=True))


def outcome(folder: Path, policy: str) -> str:
    """A policy's weights and training log, without the seconds that a step took, as a digest."""
    path = folder / f"results/tiny/policies/{policy}"
    digest = hashlib.sha256((path / "model.safetensors").read_bytes())
    log = pd.read_csv(f"{path}.csv", dtype=str)
    assert len(log) == STEPS
    digest.update(log.drop(columns="seconds").to_csv().encode())
    return digest.hexdigest()


def has_checkpoint(folder: Path, policy: str) -> bool:
    checkpoints = folder / f"checkpoints/tiny/policies/{policy}"
    return bool(list(checkpoints.glob("*/checkpoint.safetensors")))


def owner(process: subprocess.Popen[str], folder: Path, policy: str) -> dict[str, str | int]:
    """The process that trains a policy, once it has written a checkpoint."""
    wait_for(lambda: has_checkpoint(folder, policy), f"a checkpoint of {policy}", process)
    locks = (folder / f"checkpoints/tiny/policies/{policy}").glob("*/lock/*.json")
    return json.loads(next(locks).read_text())


def assert_resumed(folder: Path, policy: str, undisturbed: dict[str, str]) -> None:
    log = (folder / f"results/tiny/logs/train_policy/{policy}.log").read_text()
    assert "going on after step" in log
    assert outcome(folder, policy) == undisturbed[policy]


def jobs_of(cluster: Cluster, folder: Path, policy: str) -> list[dict[str, str]]:
    """A policy's jobs as SLURM knows them, the oldest first."""
    name = f"rule_train_policy_wildcards_{policy.replace('/seed', '_')}"
    return [job for job in cluster.jobs(folder) if job["Comment"] == name]


# --- Policies are hit ---------------------------------------------------------------------------

BLOWS = ("scancel", "kill -9", "scontrol requeue", "time limit", "preemption")


def strike(cluster: Cluster, blow: str, held: dict[str, str | int], node: str) -> None:
    """Hits the process that holds a policy's checkpoints, or its job on that node."""
    if blow == "scancel":
        cluster.run("scancel", str(held["job"]))
    elif blow == "kill -9":
        os.kill(int(held["pid"]), signal.SIGKILL)
    elif blow == "scontrol requeue":
        cluster.run("scontrol", "requeue", str(held["job"]))
    elif blow == "time limit":  # of a process that hangs
        os.kill(int(held["pid"]), signal.SIGSTOP)
        cluster.run("scontrol", "update", f"JobId={held['job']}", "TimeLimit=1")
    else:
        urgent = ("sbatch", "--partition=urgent", "--gpus=a40:4", "--output=/dev/null")
        cluster.run(*urgent, f"--nodelist={node}", "--wrap=sleep 5")


@pytest.fixture(scope="module")
def struck(
    cluster: Cluster, prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """Policies of one run, each hit by another blow; the folder, and which was hit by which."""
    folder = copied(prepared, tmp_path_factory)
    chosen = POLICIES[: len(BLOWS)]
    process = start(cluster, folder, *LONG, *targets(*chosen))

    def nodes() -> dict[str, str]:
        jobs = {policy: jobs_of(cluster, folder, policy) for policy in chosen}
        return {policy: job[0]["NodeList"] for policy, job in jobs.items() if job}

    wait_for(lambda: sum(map(bool, nodes().values())) == len(chosen), "the jobs", process)
    placed = nodes()
    # Four share a node; the one that is alone on its own is preempted there.
    order = sorted(chosen, key=lambda policy: list(placed.values()).count(placed[policy]))[::-1]
    hit = dict(zip(BLOWS, order, strict=True))
    waiting = dict(hit)
    while waiting:  # each at its own first checkpoint
        wait_for(lambda: any(has_checkpoint(folder, p) for p in waiting.values()), "one", process)
        for blow, policy in list(waiting.items()):
            if has_checkpoint(folder, policy):
                strike(cluster, blow, owner(process, folder, policy), placed[policy])
                del waiting[blow]
    finish(process, folder)
    return folder, hit


DONE = ("COMPLETED", "0")


@pytest.mark.parametrize(
    ("blow", "jobs"),
    [
        ("scancel", [("CANCELLED", "0"), DONE]),
        ("kill -9", [("FAILED", "0"), DONE]),
        ("scontrol requeue", [("COMPLETED", "1")]),
        ("time limit", [("TIMEOUT", "0"), DONE]),
        ("preemption", [("COMPLETED", "1")]),
    ],
)
def test_a_policy_survives(cluster, struck, undisturbed, blow, jobs):
    """In a job that Snakemake submits again, or in the same one, requeued by SLURM."""
    folder, hit = struck
    assert_resumed(folder, hit[blow], undisturbed)
    seen = jobs_of(cluster, folder, hit[blow])
    assert [(job["JobState"], job["Restarts"]) for job in seen] == jobs
    if blow == "time limit":  # the second one has twice the profile's time
        assert [job["TimeLimit"] for job in seen] == ["00:01:00", "16:00:00"]


# --- The cluster is hit -------------------------------------------------------------------------


def test_policies_survive_the_loss_of_their_node(cluster, project, undisturbed):
    process = start(cluster, project, *LONG, *targets(POLICIES[0]))
    owner(process, project, POLICIES[0])
    (job,) = jobs_of(cluster, project, POLICIES[0])
    cluster.crash(job["NodeList"])
    try:
        finish(process, project)
    finally:
        cluster.start_slurmd(job["NodeList"])
        wait_for(lambda: job["NodeList"] in cluster.idle_nodes(), "the node's return")
    assert_resumed(project, POLICIES[0], undisturbed)
    (again,) = jobs_of(cluster, project, POLICIES[0])
    assert again["Restarts"] == "1" and again["NodeList"] != job["NodeList"]


def test_policies_survive_half_a_minute_without_slurmctld(cluster, project, undisturbed):
    process = start(cluster, project, *LONG, *targets(POLICIES[0]))
    owner(process, project, POLICIES[0])
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
    options = ("--slurm-init-seconds-before-status-checks", "5")
    return subprocess.run(
        [sys.executable, "profiles/slurm/resume.py", *options, *arguments],
        cwd=folder,
        env=environment(folder) | cluster.variables,
        capture_output=True,
        text=True,
        timeout=HANG,
    )


def test_two_at_once_and_snakemake_killed_while_its_jobs_run(cluster, project, undisturbed):
    """A second one is refused. The jobs of a dead one go on, and the way back waits for them."""
    policies = POLICIES[:2]
    arguments = (*LONG, *targets(*policies))
    process = start(cluster, project, *arguments)
    wait_for((project / ".snakemake/controller").exists, "Snakemake's start", process)
    for policy in policies:
        owner(process, project, policy)
    # They are held while others start, which on a busy machine takes as long as they do.
    held = [jobs_of(cluster, project, policy)[0]["JobId"] for policy in policies]
    cluster.run("scontrol", "suspend", ",".join(held))
    try:
        refused = resume(cluster, project, *arguments)
        assert refused.returncode == 1
        assert f"Snakemake still runs here, process {process.pid}" in refused.stderr
        output = finish(start(cluster, project, *arguments), project, status=1)
        told = "make sure that no other Snakemake process is trying to create the same files"
        assert told in output
    finally:  # whoever waits for them would wait for ever
        cluster.run("scontrol", "resume", ",".join(held))
    process.kill()
    process.wait()
    resumed = resume(cluster, project, *arguments)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "waiting for 2 jobs" in resumed.stdout
    assert "Nothing to be done" in resumed.stdout + resumed.stderr
    for policy in policies:
        assert outcome(project, policy) == undisturbed[policy]
        assert len(jobs_of(cluster, project, policy)) == 1


def test_snakemake_killed_and_its_jobs_cancelled(cluster, project, undisturbed):
    arguments = (*LONG, *targets(POLICIES[0]))
    process = start(cluster, project, *arguments)
    owner(process, project, POLICIES[0])
    process.kill()
    process.wait()
    resumed = resume(cluster, project, "--cancel", *arguments)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "cancelling 1 jobs" in resumed.stdout
    assert_resumed(project, POLICIES[0], undisturbed)


def test_no_way_back_beside_a_snakemake_on_another_machine(cluster, tmp_path):
    (tmp_path / "profiles").symlink_to(ROOT / "profiles")
    (tmp_path / ".snakemake").mkdir()
    (tmp_path / ".snakemake/controller").write_text("elsewhere 1\n")
    refused = resume(cluster, tmp_path)
    assert refused.returncode == 1 and "was started here on elsewhere" in refused.stderr


# --- The disk is hit ----------------------------------------------------------------------------


@pytest.fixture
def small_disk(project: Path) -> Iterator[Callable[[Path], Path]]:
    """A function that puts a disk of a megabyte in the place of a folder of the project."""
    places: list[Path] = []

    def mount(folder: Path) -> Path:
        place = project / folder
        place.mkdir(parents=True, exist_ok=True)
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


def test_full_disks(cluster, project, undisturbed, small_disk):
    """One policy's checkpoints and another's end find no place, until somebody makes some."""
    saving, ending = POLICIES[0], POLICIES[-1]
    checkpoints = small_disk(Path("checkpoints/tiny/policies", saving).parent)
    policies = small_disk(Path("results/tiny/policies", ending).parent)
    filler = fill(policies)
    process = start(cluster, project, *LONG, *targets(saving, ending))
    owner(process, project, saving)

    def has_failed(policy: str) -> bool:
        return jobs_of(cluster, project, policy)[0]["JobState"] == "FAILED"

    def saving_has_failed() -> bool:
        fill(checkpoints)  # again, where a checkpoint under way has left some space
        return has_failed(saving)

    for policy, condition in ((saving, saving_has_failed), (ending, lambda: has_failed(ending))):
        wait_for(condition, f"the end of {policy}'s job", process)
        log = (project / f"results/tiny/logs/train_policy/{policy}.log").read_text()
        assert "no space left" in log and "Traceback" not in log, log
        if policy == ending:
            assert not list(policies.rglob("*.safetensors")), "half a policy"
            filler.unlink()
        else:
            (checkpoints / filler.name).unlink()
    finish(process, project)  # with the second attempts
    for policy in (saving, ending):
        assert_resumed(project, policy, undisturbed)
