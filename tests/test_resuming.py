"""Runs that are stopped and go on: bit for bit the same, or refused."""

import functools
import logging
import os
import re
import signal

import pytest
import torch
from tiny_runs import (
    PROMPTS,
    CountingRewards,
    Preempted,
    constant,
    make,
    rewards,
    same_log,
    weights,
)

from prudent.errors import InputError
from prudent.objectives.pessimistic import centred_spread
from prudent.objectives.signal import Signal
from prudent.objectives.single import vanilla
from prudent.objectives.weighted import variance_aware
from prudent.ppo.checkpoint import CheckpointFolder
from prudent.ppo.checks import NonFiniteError
from prudent.rewards.settings import SpreadSettings


@pytest.fixture(scope="module")
def uninterrupted():
    trainer = make()
    log = trainer.train(PROMPTS)
    return weights(trainer), log


@pytest.mark.parametrize(("stop_at", "left"), [(1, 6), (2, 6), (4, 4), (6, 2)])
def test_an_interrupted_run_ends_bit_identical(tmp_path, uninterrupted, stop_at, left):
    folder = tmp_path / "checkpoints"
    with pytest.raises(Preempted):
        make(CountingRewards(stop_at), checkpoints=folder).train(PROMPTS)
    again = CountingRewards()
    trainer = make(again, checkpoints=folder)
    log = trainer.train(PROMPTS)
    assert again.calls == left
    assert same_log(log, uninterrupted[1])
    assert [row["step"] for row in log] == list(range(6))
    found = weights(trainer)
    assert all(torch.equal(found[name], wanted) for name, wanted in uninterrupted[0].items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": {"clip_range": 0.1}}, "ppo.clip_range: 0.2 in the checkpoint, 0.1 now"),
        ({"objective": vanilla}, "objective.name: variance_aware in the checkpoint, v"),
        ({"beta": 0.4}, "beta: 0.3 in the checkpoint, 0.4 now"),
        ({"run_seed": 4}, "run_seed: 3 in the checkpoint, 4 now"),
        ({"fingerprint": {"code": "a"}}, "code: nothing in the checkpoint, a now"),
        ({"prompts": PROMPTS[::-1]}, "prompts: "),
        ({"damage": True}, "found one that cannot be read"),
    ],
)
def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(tmp_path, options, message):
    folder = tmp_path / "checkpoints"
    with pytest.raises(Preempted):
        make(CountingRewards(4), checkpoints=folder).train(PROMPTS)
    file = folder / "checkpoint.safetensors"
    options = dict(options)
    prompts = options.pop("prompts", PROMPTS)
    if options.pop("damage", False):
        file.write_bytes(file.read_bytes()[:-100])
    content = file.read_bytes()
    again = CountingRewards()
    with pytest.raises(InputError, match=re.escape(message)) as error:
        make(again, checkpoints=folder, **options).train(prompts)
    assert str(file) in str(error.value) and f"delete the folder {folder}" in str(error.value)
    assert again.calls == 0
    assert [path.name for path in folder.iterdir()] == [file.name]
    assert file.read_bytes() == content


@pytest.mark.parametrize("call", [3, 4])
def test_sigterm_ends_the_run_after_the_step_and_a_checkpoint(
    tmp_path, caplog, uninterrupted, call
):
    def terminated(prompts, responses):
        if counting.calls + 1 == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return counting(prompts, responses)

    counting = CountingRewards()
    trainer = make(terminated, checkpoints=tmp_path)
    saved = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.INFO):
        save = CheckpointFolder.save
        patch.setattr(
            CheckpointFolder, "save", lambda *args: saved.append(len(args[2])) or save(*args)
        )
        with pytest.raises(SystemExit) as end:
            trainer.train(PROMPTS)
    assert end.value.code == 143
    assert f"SIGTERM: checkpoint written after step {call}" in caplog.text
    assert saved == [2, call], "one each, also where the step has one anyway"
    assert signal.getsignal(signal.SIGTERM) == before
    again = CountingRewards()
    trainer = make(again, checkpoints=tmp_path)
    log = trainer.train(PROMPTS)
    assert again.calls == 6 - call
    assert same_log(log, uninterrupted[1])
    found = weights(trainer)
    assert all(torch.equal(found[name], wanted) for name, wanted in uninterrupted[0].items())


def test_sigterm_in_the_last_step_lets_the_run_finish(tmp_path):
    def terminated(prompts, responses):
        if counting.calls == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return counting(prompts, responses)

    counting = CountingRewards()
    assert len(make(terminated, checkpoints=tmp_path).train(PROMPTS)) == 6


def test_without_checkpoints_sigterm_does_what_it_did():
    def looking(prompts, responses):
        seen.add(signal.getsignal(signal.SIGTERM))
        return rewards(prompts, responses)

    seen = set()
    make(looking).train(PROMPTS)
    assert seen == {signal.getsignal(signal.SIGTERM)}


def test_what_is_not_finite_leaves_the_last_checkpoint(tmp_path, uninterrupted):
    def broken(prompts, responses):
        values = counting(prompts, responses)
        return values * float("nan") if counting.calls == 4 else values

    counting = CountingRewards()
    with pytest.raises(NonFiniteError, match="step 3: the reward"):
        make(broken, checkpoints=tmp_path).train(PROMPTS)
    again = CountingRewards()
    assert same_log(make(again, checkpoints=tmp_path).train(PROMPTS), uninterrupted[1])
    assert again.calls == 4


@pytest.mark.parametrize(
    ("objective", "spread"),
    [
        (centred_spread, SpreadSettings()),
        (variance_aware, SpreadSettings(shuffled=True, scale="reference")),
    ],
)
def test_a_memory_and_draws_are_resumed_bit_for_bit(tmp_path, objective, spread):
    expected = make(objective=objective, spread=spread)
    log = expected.train(PROMPTS)
    with pytest.raises(Preempted):
        stopped = make(CountingRewards(4), objective, spread=spread, checkpoints=tmp_path)
        stopped.train(PROMPTS)
    resumed = make(objective=objective, spread=spread, checkpoints=tmp_path)
    for row, wanted in zip(resumed.train(PROMPTS), log, strict=True):
        assert {**row, "seconds": 0} == {**wanted, "seconds": 0}
    before, after = weights(expected), weights(resumed)
    assert all(torch.equal(after[name], part) for name, part in before.items())
    assert resumed.run.state.keys() == expected.run.state.keys()
    for name, part in expected.run.state.items():
        assert torch.equal(resumed.run.state[name], part)


class Weighted:
    """A callable object, with a state of its own."""

    def __init__(self, weight):
        self.weight = weight

    def __call__(self, rewards, beta, *, head):
        return Signal(rewards.mean[:, head] * self.weight, beta * rewards.spread())


class Slotted:
    """One whose state is in slots."""

    __slots__ = ("weight",)

    def __init__(self, weight):
        self.weight = weight

    def __call__(self, rewards, beta, *, head):
        return constant(rewards, beta * self.weight)


class Template:
    """What does the work stands in the classes below it, which have one name."""

    def __call__(self, rewards, beta, *, head):
        return self.signal(rewards, beta)


def doubling():
    class Filled(Template):
        def signal(self, rewards, beta):
            return constant(rewards, 2 * beta)

    return Filled()


def tripling():
    class Filled(Template):
        @staticmethod
        def signal(rewards, beta):
            return constant(rewards, 3 * beta)

    Filled.__qualname__ = "doubling.<locals>.Filled"
    return Filled()


def of_class_constant(value):
    class Filled(Template):
        weight = value

        def signal(self, rewards, beta):
            return constant(rewards, self.weight * beta)

    return Filled()


def weighted(rewards, beta, *, head, weight=1.0):
    return Weighted(weight)(rewards, beta, head=head)


def closing_over(weight):
    return lambda rewards, beta, *, head: weighted(rewards, beta, head=head, weight=weight)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda r, b: constant(r, b), lambda r, b: constant(r, 2 * b)),
        (functools.partial(weighted, weight=1.0), functools.partial(weighted, weight=2.0)),
        (Weighted(1.0), Weighted(2.0)),
        (Weighted(torch.ones(8)), Weighted(2 * torch.ones(8))),
        (Weighted(1.0).__call__, Weighted(2.0).__call__),
        (Slotted(1.0), Slotted(2.0)),
        (doubling(), tripling()),
        (of_class_constant(1.0), of_class_constant(2.0)),
        (closing_over(1.0), closing_over(2.0)),
    ],
)
def test_a_run_is_not_resumed_with_another_objective_of_the_same_name(tmp_path, first, second):
    with pytest.raises(Preempted):
        make(CountingRewards(4), first, checkpoints=tmp_path).train(PROMPTS)
    with pytest.raises(InputError, match=r"objective.digest: \w{16} in the checkpoint, \w{16} now"):
        make(objective=second, checkpoints=tmp_path).train(PROMPTS)
    assert len(make(objective=first, checkpoints=tmp_path).train(PROMPTS)) == 6
