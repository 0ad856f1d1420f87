"""Checkpoints: taken whole or refused, kept by one process, and none the worse for a kill."""

import glob
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, tiny_prompts, tiny_tokenizer
from transformers import AutoModelForCausalLM

from prudent.errors import InputError
from prudent.objectives.weighted import variance_aware
from prudent.ppo import lock
from prudent.ppo.checkpoint import CheckpointFolder, Termination
from prudent.ppo.lock import Lock
from prudent.ppo.trainer import PPOSettings, PPOTrainer

FINGERPRINT = {"ppo": {"learning_rate": 0.01, "steps": 6}, "code": "a" * 64}
LOG = [{"step": 0, "kl": 0.1, "sigma": math.nan}, {"step": 1, "kl": 1 / 3, "sigma": 2.0}]

# Processes that can be killed: from a server that has imported what takes time, but has no threads.
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(
    [
        *("pandas", "pyarrow.parquet", "pytest", "transformers.models.gpt2.modeling_gpt2"),
        "transformers.tokenization_utils_tokenizers",
    ]
)


def some_tensors(factor: float = 1.0) -> dict[str, torch.Tensor]:
    return {
        "policy.weight": factor * torch.arange(6.0).reshape(2, 3).T,
        "policy.half": factor * torch.ones(4, dtype=torch.bfloat16),
        "adam.policy.weight.step": factor * torch.tensor(7.0),
    }


def save(folder: Path, factor: float = 1.0) -> Path:
    with CheckpointFolder(folder, FINGERPRINT) as checkpoints:
        checkpoints.save(some_tensors(factor), LOG)
    return folder / "checkpoint.safetensors"


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- The file -------------------------------------------------------------------------------------


def test_what_was_saved_comes_back_bit_for_bit(tmp_path):
    folder = tmp_path / "not" / "yet"
    with CheckpointFolder(folder, FINGERPRINT) as checkpoints:
        fresh = some_tensors(0.0)
        assert checkpoints.load(fresh) == []
        assert all(not tensor.any() for tensor in fresh.values())
        checkpoints.save(some_tensors(), LOG)
        checkpoints.save(some_tensors(3.0), LOG)
    assert names(folder) == ["checkpoint.safetensors"]
    with CheckpointFolder(folder, FINGERPRINT) as checkpoints:
        assert repr(checkpoints.load(fresh)) == repr(LOG)
    for name, tensor in some_tensors(3.0).items():
        assert torch.equal(fresh[name], tensor)


def test_what_a_killed_writer_left_is_cleaned(tmp_path):
    save(tmp_path)
    (tmp_path / ".0123.tmp").mkdir()
    (tmp_path / ".0123.tmp" / "checkpoint.safetensors").write_bytes(b"half")
    with CheckpointFolder(tmp_path, FINGERPRINT) as checkpoints:
        assert len(checkpoints.load(some_tensors(0.0))) == 2
    assert names(tmp_path) == ["checkpoint.safetensors"]


def rewritten(fingerprint: dict | None = None, metadata: dict | None = None, **changes):
    """A function that writes a checkpoint anew, with other metadata and tensors (None: without)."""

    def damage(file: Path) -> None:
        tensors = load_file(file) | {name.replace("__", "."): t for name, t in changes.items()}
        flat = fingerprint or {"ppo.learning_rate": 0.01, "ppo.steps": 6, "code": "a" * 64}
        full = {"fingerprint": json.dumps(flat), "log": json.dumps(LOG)}
        kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        save_file(kept, file, full if metadata is None else metadata)

    return damage


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), ["cannot be read", "incomplete"]),
        (lambda file: file.write_bytes(file.read_bytes()[:20]), ["cannot be read", "header"]),
        (lambda file: file.write_bytes(b""), ["cannot be read", "header too small"]),
        (lambda file: (file.unlink(), file.mkdir()), ["cannot be read"]),
        (rewritten(metadata={}), ["fingerprint and log", "none"]),
        (
            rewritten(metadata={"fingerprint": "0af3", "log": "[]"}),
            ["fingerprint and log", "fingerprint 0af3"],
        ),
        (
            rewritten({"ppo.learning_rate": 0.1, "code": "a" * 64, "old": True}),
            [
                "ppo.learning_rate: 0.1 in the checkpoint, 0.01 now",
                "ppo.steps: nothing in the checkpoint, 6 now",
                "old: true in the checkpoint, nothing now",
            ],
        ),
        (
            rewritten(policy__weight=None),
            ["policy.weight: nothing in the checkpoint, float32 [3, 2] now"],
        ),
        (
            rewritten(adam__policy__weight__step=None),
            ["adam.policy.weight.step: nothing in the checkpoint, float32 [] now"],
        ),
        (
            rewritten(policy__weight=torch.ones(2, 3)),
            ["policy.weight: float32 [2, 3] in the checkpoint, float32 [3, 2] now"],
        ),
        (
            rewritten(policy__half=torch.ones(4)),
            ["policy.half: float32 [4] in the checkpoint, bfloat16 [4] now"],
        ),
        (rewritten(more=torch.ones(1)), ["more: float32 [1] in the checkpoint, nothing now"]),
    ],
)
def test_another_or_a_damaged_checkpoint_is_refused_in_one_message(tmp_path, damage, found):
    file = save(tmp_path)
    damage(file)
    fresh = some_tensors(0.0)
    with (
        pytest.raises(InputError) as error,
        CheckpointFolder(tmp_path, FINGERPRINT) as checkpoints,
    ):
        checkpoints.load(fresh)
    for part in [str(file), *found, f"to start afresh, delete the folder {tmp_path}"]:
        assert part in str(error.value)
    assert all(not tensor.any() for tensor in fresh.values()), "nothing of it is taken"
    assert names(tmp_path) == ["checkpoint.safetensors"], "it stays, and the lock is given back"


def test_long_values_and_long_lists_of_differences_are_cut(tmp_path):
    fingerprint = {"code": "b" * 64, **{f"key{i:02}": i for i in range(20)}}
    save(tmp_path)
    with (
        pytest.raises(InputError) as error,
        CheckpointFolder(tmp_path, fingerprint) as checkpoints,
    ):
        checkpoints.load(some_tensors())
    assert f"code: {'a' * 40}... in the checkpoint, {'b' * 40}... now" in str(error.value)
    assert "key08" in str(error.value) and "key09" not in str(error.value)
    assert "; and 13 more;" in str(error.value)


def save_without_space(folder: Path, answers) -> None:
    with CheckpointFolder(folder, FINGERPRINT) as checkpoints:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
        try:
            checkpoints.save({"policy.weight": torch.ones(2**20)}, LOG)
        except InputError as error:
            answers.put(str(error))
        answers.put(names(folder))


def test_no_space_keeps_the_last_checkpoint(tmp_path):
    file = save(tmp_path)
    answers = CHILDREN.SimpleQueue()
    child = CHILDREN.Process(target=save_without_space, args=(tmp_path, answers))
    child.start()
    message, left = answers.get(), answers.get()
    child.join()
    assert str(file) in message and "no space left" in message and "is kept" in message
    assert not [name for name in left if "tmp" in name]
    with CheckpointFolder(tmp_path, FINGERPRINT) as checkpoints:
        assert len(checkpoints.load(some_tensors(0.0))) == 2


def test_a_checkpoint_is_replaced_and_not_overwritten(tmp_path):
    with save(tmp_path).open("rb") as old:
        content = old.read()
        save(tmp_path, 2.0)
        old.seek(0)
        assert old.read() == content


# --- The lock -------------------------------------------------------------------------------------


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
def test_the_lock_of_a_process_that_is_gone_is_taken_over_at_once(tmp_path, caplog, zombie, gone):
    changes = {
        "killed": {"pid": zombie, "started": started(zombie)},
        "killed long ago": {"pid": 2**22 + 1},
        "number used again": {"started": 1},
        "other boot": {"boot": "other"},
    }[gone]
    put_lock(tmp_path, **changes, job="77")
    start = time.monotonic()
    with caplog.at_level("INFO"), CheckpointFolder(tmp_path, FINGERPRINT) as checkpoints:
        checkpoints.save(some_tensors(), LOG)
    assert time.monotonic() < start + 5
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


def test_a_lock_that_is_released_while_it_is_watched_is_free(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.1)
    file = put_lock(tmp_path, host="elsewhere")
    timer = threading.Timer(0.5, file.unlink)
    timer.start()
    start = time.monotonic()
    with caplog.at_level("INFO"), CheckpointFolder(tmp_path, FINGERPRINT):
        assert time.monotonic() < start + 10
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
    found = [answers.get(timeout=60) for _ in range(processes * rounds)]
    for child in children:
        child.join()
    for number in range(rounds):
        outcomes = sorted(outcome for n, outcome in found if n == number)
        assert outcomes == ["got"] + ["refused"] * (processes - 1)


# --- SIGTERM --------------------------------------------------------------------------------------


def test_the_first_sigterm_asks_and_the_second_one_would_end():
    before = signal.getsignal(signal.SIGTERM)
    with Termination() as termination:
        assert not termination.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert termination.asked
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_the_main_thread_sigterm_does_what_it_did():
    def enter():
        with Termination() as termination:
            seen.append((termination.asked, signal.getsignal(signal.SIGTERM)))

    seen = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(False, signal.getsignal(signal.SIGTERM))]


# --- Killed runs ----------------------------------------------------------------------------------

STEPS = 6
SETTINGS = PPOSettings(
    batch_size=8,
    minibatch_size=4,
    epochs=2,
    steps=STEPS,
    learning_rate=1e-3,
    response_length=5,
    checkpoint_every=2,
    value_network="separate",
    schedule="cosine",
)


def train(folder: Path) -> None:
    """A run, big enough that writing a checkpoint takes time; counts its steps in a file."""

    def rewards(prompts: list[str], responses: list[str]) -> torch.Tensor:
        with (folder / "steps").open("a") as stream:
            stream.write(".")
        return torch.tensor([[math.sin(len(r) + k) for k in range(2)] for r in responses])

    torch.set_num_threads(1)
    config = type(CONFIGS["gpt2"])(**CONFIGS["gpt2"].to_dict() | {"n_embd": 64})
    torch.manual_seed(0)
    policy, reference = (AutoModelForCausalLM.from_config(config) for _ in range(2))
    trainer = PPOTrainer(
        policy,
        reference,
        tiny_tokenizer(),
        rewards,
        variance_aware,
        head=1,
        beta=0.3,
        settings=SETTINGS,
        seed=5,
        run_seed=3,
        checkpoints=folder / "checkpoints",
    )
    log = pd.DataFrame(trainer.train(tiny_prompts(30))).drop(columns="seconds")
    log.to_csv(folder / "log.csv")
    save_file({name: p.detach() for name, p in trainer.parameters.items()}, folder / "weights")


def start_run(folder: Path):
    folder.mkdir(exist_ok=True)
    (folder / "steps").write_text("")
    child = CHILDREN.Process(target=train, args=(folder,))
    child.start()
    return child


def wait_until(condition, child) -> None:
    """Waits for a moment of a run, or for its end."""
    limit = time.monotonic() + 60
    while child.is_alive() and not condition():
        assert time.monotonic() < limit
        time.sleep(0.0005)


def begun(folder: Path, step: int) -> bool:
    return (folder / "steps").stat().st_size > step


def writing(folder: Path) -> bool:
    half = f"{folder}/checkpoints/.*.tmp/"
    return bool(glob.glob(half + ".tmp*") or glob.glob(half + "*.safetensors"))


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory) -> tuple[Path, float]:
    """A run that nothing happened to, and how many seconds a step of it takes."""
    folder = tmp_path_factory.mktemp("unkilled")
    child = start_run(folder)
    wait_until(lambda: begun(folder, 0), child)
    start = time.monotonic()
    child.join()
    assert child.exitcode == 0
    return folder, (time.monotonic() - start) / STEPS


def test_killed_at_20_moments_a_run_ends_bit_identical(tmp_path, unkilled):
    """Some anywhere in the run, some while a checkpoint is written."""
    stream = random.Random(0)
    wanted, seconds = unkilled
    kills = hits = 0
    for case in range(40):
        folder = tmp_path / str(case)
        child, step = start_run(folder), stream.randrange(STEPS)
        wait_until(lambda: begun(folder, step), child)  # noqa: B023
        if case % 2:
            time.sleep(stream.random() * seconds)
        else:
            wait_until(lambda: writing(folder), child)  # noqa: B023
        child.kill()
        child.join()
        if child.exitcode == 0:  # it was at its end
            continue
        kills += 1
        hits += writing(folder)

        child = start_run(folder)
        child.join()
        assert child.exitcode == 0
        assert (folder / "log.csv").read_text() == (wanted / "log.csv").read_text()
        assert (folder / "weights").read_bytes() == (wanted / "weights").read_bytes()
        assert names(folder / "checkpoints") == ["checkpoint.safetensors"]
        if kills == 20:
            break
    assert kills == 20
    assert hits >= 3, "too few of the kills hit a checkpoint that was being written"
