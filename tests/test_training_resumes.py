"""Trainings with a trainer of Hugging Face that are stopped and go on: bit for bit the same."""

import contextlib
import functools
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import train_members
from children import CHILDREN
from cluster import HANG
from tiny_material import REWARD, save_backbone, tiny_pairs

from prudent import resuming
from prudent.errors import InputError
from prudent.policies.reference import ReferenceSettings, make_reference
from prudent.resuming import Resuming, TrainingCheckpoints
from prudent.rewards.settings import KINDS
from prudent.rewards.training import train_reward_model
from prudent.tables import file_digest, write_parquet
from prudent.world.reviews import reviews

SETTINGS = ReferenceSettings(
    layers=1,
    width=16,
    heads=2,
    vocabulary=300,
    context=24,
    epochs=3,
    batch_size=8,
    learning_rate=1e-2,
)
FINGERPRINT = {"code": "a", "settings": {"epochs": 3}}

Training = Callable[[Path, TrainingCheckpoints | None], pd.DataFrame]


class Killed(BaseException):
    """What no code of a training catches."""


@pytest.fixture(autouse=True)
def without_flushing(monkeypatch) -> None:
    """A kill loses nothing that was written; on a busy disk a flush takes longer than a step."""
    monkeypatch.setattr(resuming, "_sync", lambda path: None)


def texts() -> pd.DataFrame:
    drawn = reviews(80, np.random.default_rng(0))
    short = [" ".join(text.split()[: 4 + row % 8]) for row, text in enumerate(drawn)]
    return pd.DataFrame({"text": short, "split": ["train"] * 68 + ["validation"] * 12})


def reference(output: Path, checkpoints: TrainingCheckpoints | None) -> pd.DataFrame:
    """27 steps, 9 of each epoch, after each of which it is judged."""
    return make_reference(texts(), SETTINGS, 0, output, checkpoints)


@pytest.fixture(scope="module")
def reward(tmp_path_factory) -> Training:
    """24 steps, 6 of each epoch, with a dropout; a low loss stops the training before its end."""
    backbone = save_backbone(tmp_path_factory.mktemp("backbone") / "backbone")
    settings = REWARD.replace(epochs=4, dropout=0.1, stop_loss=0.675, learning_rate=3e-3)

    def train(output: Path, checkpoints: TrainingCheckpoints | None) -> pd.DataFrame:
        return train_reward_model(tiny_pairs(), "train", backbone, settings, 0, output, checkpoints)

    return train


@pytest.fixture(scope="module")
def trainings(reward, tmp_path_factory) -> dict[str, tuple[Training, str, pd.DataFrame]]:
    """Each training, and the digest of its output and the losses where nothing happened to it."""
    folder, found = tmp_path_factory.mktemp("uninterrupted"), {}
    for name, train in (("reference", reference), ("reward", reward)):
        losses = train(folder / name, None)
        found[name] = train, file_digest(folder / name), losses
    return found


@pytest.fixture
def stop_after(monkeypatch) -> Callable[[int | None], None]:
    """Ends trainings after the checkpoint of a step; None lets them be."""
    save, stop = Resuming._save_checkpoint, [None]

    def saving(self, model, trial):
        save(self, model, trial)
        if self.state.global_step == stop[0]:
            raise Killed

    monkeypatch.setattr(Resuming, "_save_checkpoint", saving)
    return lambda step: stop.__setitem__(0, step)


def interrupt(train: Training, folder: Path, fingerprint=FINGERPRINT) -> Path:
    """The checkpoint that is left of a training."""
    with (
        pytest.raises(Killed),
        TrainingCheckpoints(folder / "checkpoints", fingerprint, seconds=0) as checkpoints,
    ):
        train(folder / "output", checkpoints)
    (left,) = checkpoints.folder.iterdir()
    return left


def go_on(train: Training, folder: Path, fingerprint=FINGERPRINT) -> tuple[str, pd.DataFrame]:
    with TrainingCheckpoints(folder / "checkpoints", fingerprint) as checkpoints:
        losses = train(folder / "output", checkpoints)
    assert not (folder / "checkpoints").exists()
    return file_digest(folder / "output"), losses


@pytest.mark.parametrize(
    ("name", "steps"),
    # At the end of an epoch, and in the middle of one and of what is logged as one.
    [("reference", [9, 14, 23]), ("reward", [6, 14])],
)
def test_an_interrupted_training_ends_bit_identical(trainings, tmp_path, stop_after, name, steps):
    """It is interrupted again and again."""
    train, digest, losses = trainings[name]
    for step in steps:
        stop_after(step)
        left = interrupt(train, tmp_path)
        assert left.name == f"step-{step:09d}"
        assert {file.suffix for file in left.iterdir()} == {".json", ".safetensors"}
    stop_after(None)
    found = go_on(train, tmp_path)
    assert found[0] == digest
    pd.testing.assert_frame_equal(found[1], losses, check_exact=True)


def test_the_training_that_goes_on_stops_at_a_low_loss_as_it_would_have(trainings):
    assert 14 < trainings["reward"][2]["step"].max() < 24, "the test above shows nothing of it"


def test_a_short_training_writes_none(reward, tmp_path, monkeypatch):
    monkeypatch.delattr(Resuming, "_save_checkpoint")
    monkeypatch.delattr(Resuming, "_write_shared")
    go_on(reward, tmp_path)


@pytest.mark.parametrize(
    ("cost", "since", "due"),
    [(0.1, 299.0, False), (0.1, 301.0, True), (60.0, 1199.0, False), (60.0, 1201.0, True)],
)
def test_writing_takes_a_twentieth_of_the_time_at_most(tmp_path, cost, since, due):
    trainer = Resuming()
    trainer.checkpoints = TrainingCheckpoints(tmp_path, FINGERPRINT)
    trainer.written, trainer.cost = time.monotonic() - since, cost
    assert trainer.is_due() is due


def test_a_checkpoint_of_another_training_is_not_taken(
    trainings, tmp_path, stop_after, monkeypatch, caplog
):
    train, digest, _ = trainings["reference"]
    stop_after(9)
    left = interrupt(train, tmp_path, FINGERPRINT | {"code": "b"})
    stop_after(None)
    with TrainingCheckpoints(tmp_path / "checkpoints", FINGERPRINT) as checkpoints:
        train(tmp_path / "output", checkpoints)
    assert file_digest(tmp_path / "output") == digest and left.is_dir()
    # The same job on other devices: its checkpoint would not end in the same bits.
    training = json.loads((left / "training.json").read_text())
    training["fingerprint"]["processes"] = 2
    (left / "training.json").write_text(json.dumps(training))
    with caplog.at_level("INFO"):
        assert go_on(train, tmp_path, FINGERPRINT | {"code": "b"})[0] == digest
    assert caplog.text.count("not taken, but removed: it is of another training: processes") == 1
    assert "going on from it" not in caplog.text


@pytest.mark.parametrize("damaged", ["model.safetensors", "process-0.json"])
def test_half_a_checkpoint_is_never_taken(trainings, tmp_path, stop_after, caplog, damaged):
    train, digest, losses = trainings["reference"]
    stop_after(9)
    left = interrupt(train, tmp_path)
    stop_after(None)
    half = shutil.copytree(left, left.with_name(".step-000000010.tmp"))
    later = shutil.copytree(left, left.with_name("step-000000011"))
    content = (later / damaged).read_bytes()
    (later / damaged).write_bytes(content[: len(content) // 2])
    with caplog.at_level("INFO"):
        found = go_on(train, tmp_path)
    assert f"{later}: the checkpoint is not taken, but removed: it cannot be read" in caplog.text
    assert f"{left}: going on from it" in caplog.text and str(half) not in caplog.text
    assert found[0] == digest
    pd.testing.assert_frame_equal(found[1], losses, check_exact=True)


def test_a_second_job_is_refused(tmp_path):
    with (
        TrainingCheckpoints(tmp_path, FINGERPRINT),
        pytest.raises(InputError, match="another process keeps its checkpoints there"),
        TrainingCheckpoints(tmp_path, FINGERPRINT),
    ):
        pass
    assert list(tmp_path.parent.glob(tmp_path.name)) == []


def test_members_that_were_done_are_not_trained_again(tmp_path, stop_after, monkeypatch):
    often = functools.partial(TrainingCheckpoints, seconds=0)
    monkeypatch.setattr(train_members, "TrainingCheckpoints", often)
    write_parquet(tiny_pairs(), tmp_path / "preferences.parquet", "preferences")
    args = train_members.Args(
        preferences=tmp_path / "preferences.parquet",
        backbone=save_backbone(tmp_path / "backbone"),
        checkpoints=tmp_path / "pool",
        settings=KINDS["members"](),
        reward=REWARD,
        members=[0, 1],
        resume=tmp_path / "resume",
        seed=0,
    )
    train_members.main(args)
    digest = file_digest(args.checkpoints)
    shutil.rmtree(args.checkpoints)
    begun, train = [], train_members.train_member

    def counting(material, settings, seed, member, path, **options):
        begun.append(member)
        stop_after(3 if len(begun) == 2 else None)
        return train(material, settings, seed, member, path, **options)

    monkeypatch.setattr(train_members, "train_member", counting)
    with pytest.raises(Killed):
        train_members.main(args)
    assert not args.checkpoints.exists()
    assert len(list(args.resume.rglob("step-000000003"))) == 1
    train_members.main(args)
    assert begun == [0, 1, 1] and not args.resume.exists()
    assert file_digest(args.checkpoints) == digest


def serve(pipe) -> None:
    """Forks of a process that has imported all: trains in one for each folder that it gets."""
    resuming._sync = lambda path: None
    while folder := pipe.recv():
        pid = os.fork()
        if pid == 0:
            with TrainingCheckpoints(folder / "checkpoints", FINGERPRINT, seconds=0) as checkpoints:
                reference(folder / "output", checkpoints)
            os._exit(0)
        pipe.send(pid)
        pipe.send(os.waitpid(pid, 0)[1])


def test_killed_at_five_moments_a_training_ends_bit_identical(trainings, tmp_path):
    """Some anywhere in the run, some while a checkpoint is written."""
    train, digest, losses = trainings["reference"]
    stream, kills, half = random.Random(0), 0, 0
    ours, theirs = CHILDREN.Pipe()
    server = CHILDREN.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    for case in range(20):
        folder = tmp_path / str(case)
        ours.send(folder)
        pid = ours.recv()
        wait_for(folder, f"step-{stream.randrange(1, 24):09d}", ours)
        if case % 2:
            time.sleep(stream.random() * 0.05)
        else:
            wait_for(folder, ".step-", ours)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        status = ours.recv()
        if status == 0:  # it was at its end
            continue
        assert status == signal.SIGKILL
        kills += 1
        half += any(folder.glob("checkpoints/*/.step-*"))
        found = go_on(train, folder)
        assert found[0] == digest
        pd.testing.assert_frame_equal(found[1], losses, check_exact=True)
        if kills == 5:
            break
    ours.send(None)
    server.join()
    assert kills == 5
    assert half, "no kill hit a checkpoint that was being written"


def wait_for(folder: Path, name: str, ended) -> None:
    """Until there is a checkpoint of this name, or of a later step, or the training has ended."""
    limit = time.monotonic() + HANG
    pattern = "checkpoints/*/" + (".step-*" if name.startswith(".") else "step-*")
    while max((path.name for path in folder.glob(pattern)), default="") < name:
        if ended.poll():
            return
        assert time.monotonic() < limit
        time.sleep(0.0005)
