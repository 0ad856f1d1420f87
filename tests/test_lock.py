"""The lock of a run's folder: one process has it, and one that is gone loses it."""

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
from children import CHILDREN
from cluster import HANG
from tiny_checkpoints import FINGERPRINT, LOG, names, some_tensors

from prudent.errors import InputError
from prudent.ppo import lock
from prudent.ppo.checkpoint import CheckpointFolder
from prudent.ppo.lock import Lock


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.05)
    monkeypatch.setattr(lock, "HEARTBEAT_TIMEOUT", 1.0)


def put_lock(folder: Path, **changes) -> Path:
    """A lock of somebody like this process."""
    (folder / "lock").mkdir(parents=True)
    file = folder / "lock" / "0123.json"
    file.write_text(json.dumps(lock._identity() | changes))
    return file


@pytest.fixture
def zombie():
    """The number of a process that was killed, but is still in the system's table."""
    process = subprocess.Popen(["sleep", "60"])
    process.kill()
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    yield process.pid
    process.wait()


def started(pid: int) -> int:
    """When a process started, also of one that is dead."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def test_a_second_writer_is_refused_while_the_first_one_lives(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    owner = f"process {os.getpid()} on {socket.gethostname()} (SLURM job 77)"
    with CheckpointFolder(tmp_path, FINGERPRINT) as first:
        with pytest.raises(InputError) as error, CheckpointFolder(tmp_path, FINGERPRINT):
            pass
        assert str(tmp_path) in str(error.value) and owner in str(error.value)
        first.save(some_tensors(), LOG)
    with CheckpointFolder(tmp_path, FINGERPRINT) as second:
        assert len(second.load(some_tensors())) == 2


def test_an_error_gives_the_lock_back(tmp_path):
    with pytest.raises(KeyError), CheckpointFolder(tmp_path, FINGERPRINT):
        raise KeyError
    with CheckpointFolder(tmp_path, FINGERPRINT):
        pass


@pytest.mark.parametrize("gone", ["killed", "killed long ago", "number used again", "other boot"])
def test_the_lock_of_a_process_that_is_gone_is_taken_over_at_once(
    tmp_path, caplog, zombie, monkeypatch, gone
):
    changes = {
        "killed": {"pid": zombie, "started": started(zombie)},
        "killed long ago": {"pid": 2**22 + 1},
        "number used again": {"started": 1},
        "other boot": {"boot": "other"},
    }[gone]
    put_lock(tmp_path, **changes, job="77")
    monkeypatch.setattr(lock, "HEARTBEAT_TIMEOUT", HANG)
    start = time.monotonic()
    with caplog.at_level("INFO"), CheckpointFolder(tmp_path, FINGERPRINT) as checkpoints:
        checkpoints.save(some_tensors(), LOG)
    assert time.monotonic() < start + HANG
    assert "taken over from process" in caplog.text and "(SLURM job 77)" in caplog.text


ELSEWHERE = [{"host": "elsewhere"}, {"pids": "pid:[1]"}, {"boot": None, "host": "elsewhere"}]


@pytest.mark.parametrize("owner", ELSEWHERE)
def test_the_lock_of_another_machine_holds_while_it_is_touched(tmp_path, impatient, owner):
    file = put_lock(tmp_path, **owner)
    ended = threading.Event()

    def touch():
        while not ended.wait(0.05):
            os.utime(file)

    thread = threading.Thread(target=touch)
    thread.start()
    host = owner.get("host", socket.gethostname())
    with (
        pytest.raises(InputError, match=f"on {host}"),
        CheckpointFolder(tmp_path, FINGERPRINT),
    ):
        pass
    ended.set()
    thread.join()


@pytest.mark.parametrize("owner", ELSEWHERE)
def test_the_lock_of_another_machine_is_taken_over_when_it_is_not(
    tmp_path, impatient, caplog, owner
):
    put_lock(tmp_path, **owner)
    start = time.monotonic()
    with caplog.at_level("INFO"), CheckpointFolder(tmp_path, FINGERPRINT):
        assert time.monotonic() > start + 1.0
    assert "no sign of life in 1 s" in caplog.text


def test_an_illegible_lock_is_watched_too(tmp_path, impatient):
    put_lock(tmp_path).write_text("")
    with CheckpointFolder(tmp_path, FINGERPRINT):
        pass


@pytest.mark.parametrize("owner", [{"pid": None}, {"pid": "7"}, {"started": None}])
def test_a_lock_that_does_not_say_whose_it_is_is_watched_too(tmp_path, impatient, caplog, owner):
    put_lock(tmp_path, **owner)
    with caplog.at_level("INFO"), CheckpointFolder(tmp_path, FINGERPRINT):
        pass
    assert "no sign of life in 1 s" in caplog.text


def test_a_lock_that_is_released_while_it_is_watched_is_free(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.1)
    monkeypatch.setattr(lock, "HEARTBEAT_TIMEOUT", HANG)
    file = put_lock(tmp_path, host="elsewhere")
    timer = threading.Timer(0.5, file.unlink)
    timer.start()
    start = time.monotonic()
    with caplog.at_level("INFO"), CheckpointFolder(tmp_path, FINGERPRINT):
        assert time.monotonic() < start + HANG
    assert "it was released" in caplog.text


def test_the_owner_touches_its_lock(tmp_path, impatient):
    with CheckpointFolder(tmp_path, FINGERPRINT) as checkpoints:
        seen = set()
        for _ in range(20):
            seen.add(checkpoints.lock.file.stat().st_mtime_ns)
            time.sleep(0.05)
        assert len(seen) > 3


def test_who_lost_the_lock_does_not_write(tmp_path):
    with CheckpointFolder(tmp_path, FINGERPRINT) as first:
        first.save(some_tensors(), LOG)
        shutil.rmtree(tmp_path / "lock")
        with CheckpointFolder(tmp_path, FINGERPRINT) as second:
            with pytest.raises(InputError, match=rf"held by process {os.getpid()} on .*; no check"):
                first.save(some_tensors(5.0), LOG)
            first.lock.release()
            again = some_tensors(0.0)
            second.load(again)
            assert torch.equal(again["policy.weight"], some_tensors()["policy.weight"])
            second.save(some_tensors(2.0), LOG)
    assert names(tmp_path) == ["checkpoint.safetensors"]


def test_something_else_in_the_place_of_the_lock_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="something else in its place"):
        Lock(tmp_path).acquire()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="the lock cannot be made: .*Not a directory"):
        Lock(tmp_path / "file").acquire()


def race(folder: Path, rounds: int, barrier, answers) -> None:
    lock.HEARTBEAT, lock.HEARTBEAT_TIMEOUT = 0.05, 0.1
    for number in range(rounds):
        held = Lock(folder / str(number))
        barrier.wait()
        try:
            held.acquire()
            answers.put((number, "got"))
        except InputError as error:
            answers.put((number, "refused" if "another process keeps" in str(error) else error))
        barrier.wait()
        held.release()


def test_one_of_several_that_want_a_stale_lock_gets_it(tmp_path, zombie):
    """Free, left by a process that is gone, and left by a machine that is silent, in turn."""
    processes, rounds = 6, 30
    for number in range(rounds):
        if number % 3:
            owner = {"pid": zombie} if number % 3 == 1 else {"host": "elsewhere"}
            put_lock(tmp_path / str(number), **owner)
    barrier, answers = CHILDREN.Barrier(processes), CHILDREN.Queue()
    arguments = (tmp_path, rounds, barrier, answers)
    children = [CHILDREN.Process(target=race, args=arguments) for _ in range(processes)]
    for child in children:
        child.start()
    found = [answers.get(timeout=HANG) for _ in range(processes * rounds)]
    for child in children:
        child.join()
    for number in range(rounds):
        outcomes = sorted(outcome for n, outcome in found if n == number)
        assert outcomes == ["got"] + ["refused"] * (processes - 1)
