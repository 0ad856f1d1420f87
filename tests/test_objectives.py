"""The objectives against their definitions."""

import inspect
import math
from pathlib import Path

import pytest
import torch

from prudent import settings
from prudent.errors import InputError
from prudent.objectives import signal
from prudent.objectives.controls import shuffled
from prudent.objectives.pessimistic import centred_spread, lower_confidence_bound
from prudent.objectives.signal import Run, Signal
from prudent.objectives.single import vanilla
from prudent.objectives.weighted import variance_aware
from prudent.rewards.interface import Rewards
from prudent.workflow.objectives import load, objectives


def rewards(*rows: list[float]) -> Rewards:
    return Rewards(torch.tensor(rows, dtype=torch.float64))


# 1, 2, 3 has the sample variance 1, and 4, 5, 9 has ((-2)^2 + (-1)^2 + 3^2) / 2 = 7.
TWO = rewards([1.0, 2.0, 3.0], [4.0, 5.0, 9.0])


def call(name: str, given: Rewards, head: int, beta: float, run: Run) -> Signal:
    objective = load(name)
    more = {"run": run} if "run" in inspect.signature(objective).parameters else {}
    return objective(given, head, beta, **more)


@pytest.mark.parametrize("name", objectives())
def test_every_objective_returns_a_signal_of_its_rewards_form(name):
    given = Rewards(torch.randn(5, 4, dtype=torch.float64))
    found = call(name, given, 2, 0.1, Run(0, 1))
    assert isinstance(found, Signal)
    assert found.score.shape == found.kl_coefficient.shape == (5,)
    assert found.score.dtype == found.kl_coefficient.dtype == torch.float64
    assert all(isinstance(value, float) for value in found.metrics.values())


@pytest.mark.parametrize("name", objectives())
def test_an_objective_is_a_function_of_what_it_is_given(name):
    """The same rewards, run and step give the same signal; every second step another one may be."""
    given = Rewards(torch.randn(5, 4, dtype=torch.float64))
    found = [call(name, given, 2, 0.1, Run(0, 1)) for _ in range(2)]
    assert torch.equal(found[0].score, found[1].score)
    assert torch.equal(found[0].kl_coefficient, found[1].kl_coefficient)


@pytest.mark.parametrize("name", [name for name in objectives() if name != "vanilla"])
def test_an_objective_of_a_spread_needs_two_members(name):
    with pytest.raises(InputError, match="a spread needs at least 2"):
        call(name, rewards([1.0], [2.0]), 0, 0.1, Run(0, 0))


def test_vanilla_is_the_own_heads_reward_at_one_coefficient():
    found = vanilla(TWO, 1, 0.2)
    assert found.score.tolist() == [2.0, 5.0]
    assert found.kl_coefficient.tolist() == pytest.approx([0.2, 0.2])


def test_variance_aware_multiplies_by_the_sample_standard_deviation():
    found = variance_aware(TWO, 0, 0.5)
    assert found.score.tolist() == [1.0, 4.0]
    assert found.kl_coefficient.tolist() == pytest.approx([0.5, 0.5 * 7**0.5])


def test_the_lower_confidence_bound_is_the_mean_less_standard_deviations():
    found = lower_confidence_bound(TWO, 0, 0.3, width=2.0)
    assert found.score.tolist() == pytest.approx([2 - 2, 6 - 2 * 7**0.5])
    assert found.kl_coefficient.tolist() == pytest.approx([0.3, 0.3])
    assert lower_confidence_bound(TWO, 0, 0.3, width=0.0).score.tolist() == [2.0, 6.0]


def test_centred_spread_moves_a_running_mean():
    run = Run(0, 0)
    level = mean = (1 + 7**0.5) / 2
    for spreads in (1.0, 3.0, 0.5):
        given = Rewards(TWO.mean * spreads)
        level = 0.9 * level + 0.1 * spreads * mean
        found = centred_spread(given, 0, 0.3, width=2.0, decay=0.9, run=run)
        expected = [
            spreads * 2 - 2 * (spreads - level),
            spreads * 6 - 2 * (spreads * 7**0.5 - level),
        ]
        assert found.score.tolist() == pytest.approx(expected)
        assert found.metrics == {"level": pytest.approx(level)}
        assert run.state["level"].item() == pytest.approx(level)


def test_shuffled_keeps_the_coefficients_and_not_their_places():
    given = Rewards(torch.randn(200, 4, dtype=torch.float64))
    aware, run = variance_aware(given, 1, 0.5), Run(0, 1)
    orders = []
    for run.step in range(3):
        found = shuffled(given, 1, 0.5, run=run)
        assert torch.equal(found.score, aware.score)
        coefficients = found.kl_coefficient
        assert torch.equal(coefficients.sort().values, aware.kl_coefficient.sort().values)
        correlation = torch.corrcoef(torch.stack([coefficients, aware.kl_coefficient]))[0, 1]
        assert abs(correlation) < 4 / math.sqrt(200)
        orders.append(coefficients)
    assert not torch.equal(orders[0], orders[1]) and not torch.equal(orders[1], orders[2])
    other = shuffled(given, 1, 0.5, run=Run(0, 2)).kl_coefficient
    assert not torch.equal(orders[0], other)


def test_rewards_go_to_another_type_whole():
    given = Rewards(torch.ones(2, 3), std=torch.ones(2, 3), features=torch.ones(2, 5))
    moved = given.to(torch.zeros((), dtype=torch.float64))
    assert {moved.mean.dtype, moved.std.dtype, moved.features.dtype} == {torch.float64}
    assert moved.members == 3 and Rewards(torch.ones(2, 3)).to(torch.ones(1)).std is None


def test_the_readmes_new_method_works_as_it_stands_there(tmp_path):
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (example,) = [part for part in readme.split("```python\n")[1:] if part.startswith("def ")]
    example = example.split("```")[0]
    names = {"Rewards": Rewards, **vars(settings), **vars(signal)}
    exec(example, names)
    found = names["worst_members"](TWO, 0, 0.3, share=0.7)
    assert found.score.tolist() == [1.5, 4.5]
    assert found.kl_coefficient.tolist() == pytest.approx([0.3, 0.3])
    (tmp_path / "family.py").write_text(example)
    parameters = objectives(tmp_path)["worst_members"].parameters
    assert parameters().share == 0.3
    with pytest.raises(InputError, match="`share` is 1.0; expected a number >= 0 and < 1"):
        parameters(share=1.0)
