"""Jobs of one machine keep off each other's GPUs."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prudent.workflow import launch
from prudent.workflow.gpus import take, visible

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


def test_slurm_gives_out_its_own(job):
    jobs = [job(1, SLURM_JOB_ID="1") for _ in range(3)]
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


GPU, PART = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "MIG-4b4b9b5e-3a8b-5d1f-9d1b-0a4f7f1c2e3d"


@pytest.mark.parametrize(
    ("given", "devices"),
    [
        ("", []),
        ("-1", []),
        ("-1,0", []),
        ("NoDevFiles", []),
        ("0,1", ["0", "1"]),
        (" 2, 0", ["2", "0"]),
        ("1,-1,0", ["1"]),
        ("0,,1", ["0"]),
        ("0,0", []),
        (GPU, [GPU]),
        (f"{PART},x,{GPU}", [PART]),
        ("MIG-GPU-8932f937/1/0", ["MIG-GPU-8932f937/1/0"]),
    ],
)
def test_devices_are_those_that_cuda_would_take(monkeypatch, given, devices):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible() == devices


@pytest.mark.parametrize("names", [GPU, PART, "MIG-GPU-8932f937/1/0"])
def test_devices_with_names_are_taken_as_others_are(job, names):
    assert job(1, CUDA_VISIBLE_DEVICES=names).stdout.readline() == f"['{names}']\n"
    assert job(1, CUDA_VISIBLE_DEVICES=f"{names},7").stdout.readline() == "['7']\n"


@pytest.mark.parametrize(
    ("given", "count"), [("", 1), ("-1", 1), ("0,1,2", 3), (f"{GPU},1", 2), (f"{PART},MIG-7", 1)]
)
def test_processes_are_as_many_as_gpus(monkeypatch, given, count):
    """CUDA gives a process one part of a GPU at most, so that several are of no use to one job."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert launch.processes() == count


BROKEN = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running."
)


@pytest.mark.parametrize(
    ("answer", "status", "devices", "said"),
    [
        ("0\n1\n", 0, ["0", "1"], ""),
        (" 0\n", 0, ["0"], ""),
        (BROKEN, 9, [], 'nvidia-smi ended with status 9 and said "NVIDIA-SMI has failed'),
        (BROKEN, 0, [], 'status 0 and said "NVIDIA-SMI has'),
        ("No devices were found", 6, [], "said 'No devices were found', expected an index"),
        ("0\n1\nUnable to determine the device handle", 15, [], "ended with status 15"),
        (
            "0\n[Unknown Error]\n",
            0,
            ["0"],
            "said '0\\n[Unknown Error]', expected an index in each line: this counts as 1 GPUs",
        ),
        ("", 0, [], ""),
    ],
)
def test_what_nvidia_smi_says(tmp_path, monkeypatch, caplog, answer, status, devices, said):
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{answer}\nEND\nexit {status}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible() == visible() == devices
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == bool(said) and said in "".join(lines)


def test_an_nvidia_smi_that_cannot_run(tmp_path, monkeypatch, caplog):
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/nowhere/sh\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible() == [] and "no GPU is used: nvidia-smi cannot be asked" in caplog.text


PROBE = """
import os

names = ("CUDA_VISIBLE_DEVICES", "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION", "FSDP_VERSION")
line = " ".join(["probe", *(str(os.environ.get(name)) for name in names)])
# In one piece, since two processes write to one pipe.
os.write(1, f"{line}\\n".encode())
"""
HOSTILE = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config: {fsdp_version: 2}
gpu_ids: "5"
num_processes: 3
num_machines: 2
machine_rank: 1
main_process_ip: 10.0.0.1
mixed_precision: fp16
use_cpu: true
debug: true
"""


@dataclasses.dataclass
class Args:
    threads: int = 2


def test_a_users_settings_of_accelerate_change_no_training(tmp_path, monkeypatch, capfd):
    settings = tmp_path / "accelerate/default_config.yaml"
    settings.parent.mkdir()
    settings.write_text(HOSTILE)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("ACCELERATE_CONFIG_FILE", str(settings))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    (tmp_path / "probe.py").write_text(PROBE)
    monkeypatch.setattr(launch.entry, "__file__", str(tmp_path / "prudent/workflow/entry.py"))
    launch.launch("probe", Args(), 2)
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("probe")]
    assert lines == ["probe 0,1 2 no None"] * 2
