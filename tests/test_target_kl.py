"""The search for a coefficient: known curves with noise, and the estimate of a mean KL."""

import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from prudent.errors import InputError
from prudent.policies.pilots import Pilots
from prudent.policies.target_kl import (
    EVALUATIONS,
    KL_TOLERANCE,
    Estimate,
    find_beta,
    mean_of,
    read_calibration,
)


def square(beta):
    """Near the reference the KL falls with the square of the coefficient."""
    return 0.5 / beta**2


def saturating(beta):
    """Training ends before the optimum is reached where the coefficient is small."""
    return 1.5 / (0.25 + beta**1.8)


@pytest.mark.parametrize("curve", [square, saturating])
@pytest.mark.parametrize("target", [0.05, 0.8, 2.0])
@pytest.mark.parametrize("start", [0.15, 0.5, 3.0])
def test_a_smooth_curve_is_solved_within_six_evaluations(curve, target, start):
    search = find_beta(curve, target, start)
    assert len(search.betas) <= EVALUATIONS
    assert search.kls[search.nearest] == pytest.approx(target, rel=KL_TOLERANCE)
    # What is taken is the crossing of the last secant.
    assert curve(search.beta) == pytest.approx(target, rel=0.03)


def test_a_good_start_needs_no_second_evaluation():
    search = find_beta(square, 0.5, 1.0)
    assert search.betas == [1.0] and search.beta == 1.0


def test_what_is_enclosed_stays_enclosed():
    search = find_beta(saturating, 0.8, 0.1)
    kls = np.array(search.kls)
    for place in range(2, len(kls)):
        before, betas = kls[:place], np.array(search.betas[:place])
        if (before > 0.8).any() and (before <= 0.8).any():
            low, high = betas[before > 0.8].max(), betas[before <= 0.8].min()
            assert low < search.betas[place] < high


def test_noise_leaves_the_answer_near():
    """With 2% of noise on each evaluation, what is taken is off by as much."""
    errors = []
    for seed in range(200):
        rng = np.random.default_rng(seed)

        def noisy(beta, rng=rng):
            return saturating(beta) * math.exp(0.02 * rng.standard_normal())

        search = find_beta(noisy, 1.0, 0.3)
        assert search.kls[search.nearest] == pytest.approx(1, rel=KL_TOLERANCE)
        errors.append(math.log(saturating(search.beta)))
    # Of the noise of the evaluations that were near, and no more.
    assert np.std(errors) < 0.025 and abs(np.mean(errors)) < 0.01


def test_noise_that_turns_the_order_around_does_not_lose_the_target():
    kls = iter([1.10, 0.90, 1.06, 0.93, 1.07, 1.06])
    search = find_beta(lambda beta: next(kls), 1.0, 1.0)
    assert min(search.betas) > 0.5 and max(search.betas) < 2
    assert search.nearest == 2 and search.beta == search.betas[2]


@pytest.mark.parametrize(("kl", "direction"), [(0.01, -1), (50.0, 1)])
def test_a_kl_that_no_coefficient_reaches_ends_at_the_nearest(kl, direction):
    """Training moves the policy just so far: each step goes on, none is tried twice."""
    tried = []

    def flat(beta):
        tried.append(beta)
        return kl * (1 + 1e-3 * len(tried))

    search = find_beta(flat, 1.0, 1.0)
    assert len(tried) == EVALUATIONS == len(set(tried))
    assert (np.diff(np.log(tried)) * direction > 0).all()
    assert search.nearest == (EVALUATIONS - 1 if kl < 1 else 0)
    assert search.beta == search.betas[search.nearest]


def test_policies_that_do_not_move_end_the_search():
    search = find_beta(lambda beta: 0.0, 1.0, 1.0)
    assert len(search.betas) == EVALUATIONS and search.beta == search.betas[search.nearest]


def test_a_mean_has_its_standard_error_unless_there_is_one():
    values = np.random.default_rng(1).normal(1, 0.1, 8)
    assert mean_of(values) == pytest.approx((values.mean(), stats.sem(values)))
    assert math.isnan(mean_of([1.0]).se)


def test_pilots_are_trained_once_and_remembered(tmp_path):
    trained = []

    def train(beta, pilot, folder):
        trained.append((beta, pilot, folder.name))
        folder.mkdir(parents=True)
        return Estimate(beta + pilot, 0.1)

    first = Pilots(train, tmp_path / "memory")
    assert first.at([0.1, 0.2]) == [Estimate(0.1, 0.1), Estimate(1.2, 0.1)]
    again = Pilots(train, tmp_path / "memory")
    assert again.at([0.1, 0.2]) == first.at([0.1, 0.2])
    again.at([1 / 3, 0.2])
    assert trained == [(0.1, 0, "0"), (0.2, 1, "1"), (1 / 3, 0, "2")]
    assert [path.name for path in (tmp_path / "memory").iterdir()] == ["pilots.json"]


KILLED = """
import os, signal, sys
from pathlib import Path
from prudent.policies.pilots import Pilots
from prudent.policies.target_kl import Estimate, find_beta

def train(beta, pilot, folder):
    with open(sys.argv[1] + "/trained", "a") as file:
        print(beta, pilot, file=file)
    if sum(1 for _ in open(sys.argv[1] + "/trained")) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return Estimate(1.2 / (0.2 + beta**1.7), 0.0)

pilots = Pilots(train, Path(sys.argv[1]) / "memory")
search = find_beta(lambda beta: sum(one.mean for one in pilots.at([beta, beta])) / 2, 1.0, 0.2)
print(*search.betas)
"""


def test_a_search_that_is_killed_goes_on_with_the_same_pilots(tmp_path):
    def run(folder, dies_at):
        (tmp_path / folder).mkdir(exist_ok=True)
        command = [sys.executable, "-c", KILLED, str(tmp_path / folder), str(dies_at)]
        return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))

    whole = run("whole", 0)
    assert whole.returncode == 0, whole.stderr
    assert run("killed", 4).returncode == -signal.SIGKILL
    resumed = run("killed", 0)
    assert resumed.stdout == whole.stdout, resumed.stderr
    tried = (tmp_path / "whole/trained").read_text().splitlines()
    again = (tmp_path / "killed/trained").read_text().splitlines()
    # The pilot that was killed is trained again, and none that had ended.
    assert again == [*tried[:4], *tried[3:]]


def test_a_pilot_that_diverges_is_named(tmp_path):
    def diverges(beta, pilot, folder):
        raise InputError("step 3: the policy loss is nan")

    with pytest.raises(InputError, match=r"pilot 0 at the coefficient 0.25: step 3: the policy"):
        Pilots(diverges, tmp_path).at([0.25])


def test_a_memory_of_something_else_is_refused(tmp_path):
    (tmp_path / "pilots.json").write_text('{"pilots": [{"beta": 1}]}')
    with pytest.raises(InputError, match="found no pilots; to start afresh, delete it"):
        Pilots(lambda *_: None, tmp_path)


def test_another_file_is_no_calibration(tmp_path):
    path = tmp_path / "found.json"
    path.write_text(json.dumps({"found": {"beta": 1.0}}))
    with pytest.raises(InputError, match="found no calibration"):
        read_calibration(path)
