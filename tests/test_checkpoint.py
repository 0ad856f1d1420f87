"""Checkpoints: taken whole or refused, kept by one process, and none the worse for a kill."""

import glob
import json
import math
import os
import random
import resource
import signal
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from children import CHILDREN
from cluster import HANG
from safetensors.torch import load_file, save_file
from tiny_checkpoints import FINGERPRINT, LOG, names, save, some_tensors
from tiny_models import CONFIGS, tiny_prompts, tiny_tokenizer
from transformers import AutoModelForCausalLM

from prudent.errors import InputError
from prudent.objectives.weighted import variance_aware
from prudent.ppo.checkpoint import CheckpointFolder, Termination
from prudent.ppo.trainer import PPOSettings, PPOTrainer

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


def with_log(log: object) -> dict[str, str]:
    flat = {"ppo.learning_rate": 0.01, "ppo.steps": 6, "code": "a" * 64}
    return {"fingerprint": json.dumps(flat), "log": json.dumps(log)}


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


NO_LOGS = [
    ([], "found [], expected a list of rows"),
    ("abc", "found abc, expected a list of rows"),
    ({"step": 0}, 'found {"step": 0}, expected a list of rows'),
    ([1, 2], "row 0: found 1, expected numbers by name; row 1: found 2"),
    ([LOG[0], "b"], "row 1: found b, expected numbers by name"),
    ([LOG[0], {"kl": 0.1}], "row 1: found no step, expected 1"),
    ([LOG[1]], "row 0: found the step 1, expected 0"),
    ([LOG[0], LOG[0]], "row 1: found the step 0, expected 1"),
    ([{"step": True}], "row 0: step: found true, expected a finite number"),
    ([LOG[0] | {"kl": math.nan}], "row 0: kl: found NaN, expected a finite number"),
    ([LOG[0] | {"kl": "0.1"}], "row 0: kl: found 0.1, expected a finite number"),
    ([LOG[0] | {"mine": -math.inf}], "row 0: mine: found -Infinity, expected a finite number"),
    ([LOG[0] | {"mine": [1]}], "row 0: mine: found [1], expected a finite number"),
    ([LOG[0] | {"tokens": 10**400}], "row 0: tokens: found 1000"),
    ([{"step": step} for step in range(7)], "found 7 rows, expected at most 6"),
]


@pytest.mark.parametrize(("log", "found"), NO_LOGS)
def test_a_log_that_is_none_of_the_run_is_neither_taken_nor_saved(tmp_path, log, found):
    file = save(tmp_path)
    content = file.read_bytes()
    with (
        pytest.raises(InputError) as error,
        CheckpointFolder(tmp_path, FINGERPRINT) as checkpoints,
    ):
        checkpoints.save(some_tensors(2.0), log)
    assert str(file) in str(error.value) and found in str(error.value)
    assert file.read_bytes() == content
    rewritten(metadata=with_log(log))(file)
    fresh = some_tensors(0.0)
    with (
        pytest.raises(InputError) as error,
        CheckpointFolder(tmp_path, FINGERPRINT) as checkpoints,
    ):
        checkpoints.load(fresh)
    assert str(file) in str(error.value) and found in str(error.value)
    assert all(not tensor.any() for tensor in fresh.values())


def test_what_may_be_unknown_in_a_log_may_be_nan(tmp_path):
    log = [{"step": 0, "kl": 0.1, "sigma": math.nan, "mine": math.nan}]
    with CheckpointFolder(tmp_path, {"code": "a"}) as checkpoints:
        checkpoints.save(some_tensors(), log)
        assert repr(checkpoints.load(some_tensors())) == repr(log)


@pytest.mark.parametrize("name", some_tensors())
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_tensors_that_are_not_finite_are_neither_taken_nor_saved(tmp_path, name, value):
    bad = some_tensors()
    bad[name] = bad[name].contiguous()
    bad[name].view(-1)[0] = value
    file = save(tmp_path)
    content = file.read_bytes()
    says = rf"its tensors hold infinities or NaN: {name}; to start afresh"
    with CheckpointFolder(tmp_path, FINGERPRINT) as checkpoints:
        with pytest.raises(InputError, match=says):
            checkpoints.save(bad, LOG)
        assert file.read_bytes() == content
        save_file({key: bad[key].contiguous() for key in bad}, file, with_log(LOG))
        fresh = some_tensors(0.0)
        with pytest.raises(InputError, match=says):
            checkpoints.load(fresh)
    assert all(not tensor.any() for tensor in fresh.values())


def test_long_values_and_long_lists_of_differences_are_cut(tmp_path):
    fingerprint = {"code": "b" * 64, **{f"key{i:02}": i for i in range(20)}}
    save(tmp_path)
    with (
        pytest.raises(InputError) as error,
        CheckpointFolder(tmp_path, fingerprint) as checkpoints,
    ):
        checkpoints.load(some_tensors())
    assert f"code: {'a' * 37}... in the checkpoint, {'b' * 37}... now" in str(error.value)
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
    limit = time.monotonic() + HANG
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
