"""Jobs of one machine keep off each other's GPUs."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prudent.workflow.gpus import take

JOB = "import sys; from prudent.workflow.gpus import take; "
JOB += "print(take(int(sys.argv[1]), 0.1), flush=True); sys.stdin.read()"


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process that takes so many of a machine's two GPUs, until its input ends."""
    processes = []
    root = Path(__file__).resolve().parents[1]

    def start(count: int, **variables: str) -> subprocess.Popen[str]:
        environment = {"CUDA_VISIBLE_DEVICES": "0,1", "TMPDIR": str(tmp_path)}
        process = subprocess.Popen(
            [sys.executable, "-c", JOB, str(count)],
            env=environment | {"PYTHONPATH": str(root / "workflow_scripts")} | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_two_jobs_never_share_one(job):
    first, second = job(1), job(1)
    got = {first.stdout.readline(), second.stdout.readline()}
    assert got == {"['0']\n", "['1']\n"}
    third = job(1)
    with pytest.raises(subprocess.TimeoutExpired):
        third.wait(1)
    first.kill()
    assert third.stdout.readline() in got


def test_a_job_of_two_waits_for_both(job):
    one, both = job(1), None
    one.stdout.readline()
    both = job(2)
    with pytest.raises(subprocess.TimeoutExpired):
        both.wait(1)
    one.kill()
    assert both.stdout.readline() == "['0', '1']\n"


def test_more_than_there_are_is_all_of_them(job):
    assert job(3).stdout.readline() == "['0', '1']\n"


@pytest.mark.parametrize("scheduler", ["SLURM_JOB_ID", "KUBERNETES_SERVICE_HOST"])
def test_a_scheduler_gives_out_its_own(job, scheduler):
    jobs = [job(1, **{scheduler: "1"}) for _ in range(3)]
    assert [process.stdout.readline() for process in jobs] == ["[]\n"] * 3


def test_jobs_without_gpus_take_none(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert take(0) == [] and os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert take(1) == []


def test_a_scheduled_job_that_sees_fewer_than_it_asked_for_is_warned(monkeypatch, caplog):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert take(2) == [] and "2 GPUs were asked for, and this job sees 1" in caplog.text
    caplog.clear()
    assert take(1) == [] and not caplog.text
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", "")
    assert take(1) == [] and "1 GPUs were asked for, and this job sees 0" in caplog.text
