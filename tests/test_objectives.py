"""The objectives against their definitions."""

import functools
import math
from pathlib import Path

import pytest
import torch

from prudent import settings
from prudent.errors import InputError
from prudent.objectives import signal
from prudent.objectives.controls import scale_only, shuffled
from prudent.objectives.pessimistic import (
    centred_spread,
    lower_confidence_bound,
    soft_minimum,
    uncertainty_weighted,
    worst_case,
)
from prudent.objectives.pooled import mean, median
from prudent.objectives.signal import NonFiniteSignal, Run, Signal, asks_for, evaluate
from prudent.objectives.single import vanilla
from prudent.objectives.weighted import exact_gradient, mean_variance_aware, variance_aware
from prudent.rewards.interface import Rewards
from prudent.workflow.objectives import load, objectives


def rewards(*rows: list[float]) -> Rewards:
    return Rewards(torch.tensor(rows, dtype=torch.float64))


# 1, 2, 3 has the sample variance 1, and 4, 5, 9 has ((-2)^2 + (-1)^2 + 3^2) / 2 = 7.
TWO = rewards([1.0, 2.0, 3.0], [4.0, 5.0, 9.0])


def call(name: str, given: Rewards, head: int, beta: float, run: Run) -> Signal:
    run.sample_reference = lambda: given
    return evaluate(load(name), given, beta, head=head, run=run)


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


OF_NO_SPREAD = ("vanilla", "mean", "median", "worst_case", "soft_minimum")


@pytest.mark.parametrize("name", OF_NO_SPREAD)
def test_one_member_is_its_own_ensemble(name):
    found = call(name, rewards([1.0], [2.0]), 0, 0.1, Run(0, 0))
    assert found.score.tolist() == pytest.approx([1.0, 2.0])
    assert found.kl_coefficient.tolist() == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize("name", objectives())
@pytest.mark.parametrize("value", [0.0, 1e6])
def test_constant_rewards_give_their_value(name, value):
    found = call(name, Rewards(torch.full((3, 4), value, dtype=torch.float64)), 2, 0.1, Run(0, 0))
    assert found.score.tolist() == pytest.approx([value] * 3)


@pytest.mark.parametrize("name", [name for name in objectives() if name not in OF_NO_SPREAD])
def test_an_objective_of_a_spread_needs_two_members(name):
    with pytest.raises(InputError, match="a spread needs at least 2"):
        call(name, rewards([1.0], [2.0]), 0, 0.1, Run(0, 0))


def test_vanilla_is_the_own_heads_reward_at_one_coefficient():
    found = vanilla(TWO, 0.2, head=1)
    assert found.score.tolist() == [2.0, 5.0]
    assert found.kl_coefficient.tolist() == pytest.approx([0.2, 0.2])


def test_variance_aware_multiplies_by_the_sample_standard_deviation():
    found = variance_aware(TWO, 0.5, head=0)
    assert found.score.tolist() == [1.0, 4.0]
    assert found.kl_coefficient.tolist() == pytest.approx([0.5, 0.5 * 7**0.5])


@pytest.mark.parametrize(
    ("objective", "score", "coefficient"),
    [
        (functools.partial(variance_aware, power=2), [1.0, 4.0], [0.5, 3.5]),
        (exact_gradient, [1 - 0.5, 4 - 3.5], [0.5, 3.5]),
        (mean_variance_aware, [2.0, 6.0], [0.5, 0.5 * 7**0.5]),
        (functools.partial(mean_variance_aware, power=2), [2.0, 6.0], [0.5, 3.5]),
        (mean, [2.0, 6.0], [0.5, 0.5]),
        (median, [2.0, 5.0], [0.5, 0.5]),
        (worst_case, [1.0, 4.0], [0.5, 0.5]),
        (functools.partial(uncertainty_weighted, width=3.0), [2 - 2, 6 - 14], [0.5, 0.5]),
        (
            functools.partial(soft_minimum, temperature=2.0),
            [
                -2 * math.log((math.exp(-0.5) + math.exp(-1) + math.exp(-1.5)) / 3),
                -2 * math.log((math.exp(-2) + math.exp(-2.5) + math.exp(-4.5)) / 3),
            ],
            [0.5, 0.5],
        ),
    ],
)
def test_objectives_on_two_responses_by_hand(objective, score, coefficient):
    found = evaluate(objective, TWO, 0.5, head=0)
    assert found.score.tolist() == pytest.approx(score)
    assert found.kl_coefficient.tolist() == pytest.approx(coefficient)


def test_the_median_of_an_even_number_is_in_the_middle():
    assert median(rewards([4.0, 1.0, 2.0, 9.0]), 0.5).score.tolist() == [3.0]


def test_the_soft_minimum_lies_between_its_limits():
    """One huge reward too: nothing overflows."""
    given = Rewards(torch.cat([TWO.mean, torch.tensor([[1e300, 0.0, 1.0]], dtype=torch.float64)]))
    cold = soft_minimum(given, 0.1, temperature=1e-3).score
    assert cold.tolist() == pytest.approx(worst_case(given, 0.1).score.tolist(), abs=0.01)
    for temperature in (1e3, 1e4):
        warm = soft_minimum(TWO, 0.1, temperature=temperature).score
        second = uncertainty_weighted(TWO, 0.1, width=1 / (2 * temperature)).score
        # The third cumulant's term, at most (range)^3 / temperature^2.
        assert (warm - second).abs().max() < 5**3 / temperature**2


def test_scale_only_has_the_mean_of_the_reference_and_no_more():
    run = Run(0, 0, sample_reference=lambda: rewards([0.0, 2.0], [1.0, 5.0]))
    found = evaluate(scale_only, TWO, 0.5, head=1, run=run)
    assert found.score.tolist() == [2.0, 5.0]
    assert found.kl_coefficient.tolist() == pytest.approx([0.5 * (2**0.5 + 8**0.5) / 2] * 2)


def test_the_lower_confidence_bound_is_the_mean_less_standard_deviations():
    found = lower_confidence_bound(TWO, 0.3, width=2.0)
    assert found.score.tolist() == pytest.approx([2 - 2, 6 - 2 * 7**0.5])
    assert found.kl_coefficient.tolist() == pytest.approx([0.3, 0.3])
    assert lower_confidence_bound(TWO, 0.3, width=0.0).score.tolist() == [2.0, 6.0]


def test_centred_spread_moves_a_running_mean():
    run = Run(0, 0)
    level = mean = (1 + 7**0.5) / 2
    for spreads in (1.0, 3.0, 0.5):
        given = Rewards(TWO.mean * spreads)
        level = 0.9 * level + 0.1 * spreads * mean
        found = centred_spread(given, 0.3, width=2.0, decay=0.9, run=run)
        expected = [
            spreads * 2 - 2 * (spreads - level),
            spreads * 6 - 2 * (spreads * 7**0.5 - level),
        ]
        assert found.score.tolist() == pytest.approx(expected)
        assert found.metrics == {"level": pytest.approx(level)}
        assert run.state["level"].item() == pytest.approx(level)


def test_shuffled_keeps_the_coefficients_and_not_their_places():
    given = Rewards(torch.randn(200, 4, dtype=torch.float64))
    aware, run = variance_aware(given, 0.5, head=1), Run(0, 1)
    orders = []
    for run.step in range(3):
        found = shuffled(given, 0.5, head=1, run=run)
        assert torch.equal(found.score, aware.score)
        coefficients = found.kl_coefficient
        assert torch.equal(coefficients.sort().values, aware.kl_coefficient.sort().values)
        correlation = torch.corrcoef(torch.stack([coefficients, aware.kl_coefficient]))[0, 1]
        assert abs(correlation) < 4 / math.sqrt(200)
        orders.append(coefficients)
    assert not torch.equal(orders[0], orders[1]) and not torch.equal(orders[1], orders[2])
    other = shuffled(given, 0.5, head=1, run=Run(0, 2)).kl_coefficient
    assert not torch.equal(orders[0], other)


def test_the_unit_follows_from_what_an_objective_asks_for():
    units = {name: objective.unit for name, objective in objectives().items()}
    assert units["vanilla"] == units["variance_aware"] == units["shuffled"] == "member"
    assert units["lower_confidence_bound"] == units["centred_spread"] == "ensemble"
    for name in objectives():
        assert (units[name] == "member") == ("head" in asks_for(load(name)))
    assert [name for name, objective in objectives().items() if objective.control] == [
        "shuffled",
        "scale_only",
    ]


ONES = torch.ones(2, dtype=torch.float64)


def spoil(rewards, beta):
    rewards.mean[0, 0] = 7.0
    return Signal(ONES, ONES)


def remember(rewards, beta, *, run):
    run.state["level"] = 1.0
    return Signal(ONES, ONES)


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        (None, "objective: found NoneType, expected a function of rewards, beta"),
        (
            lambda rewards, head, beta: Signal(ONES, ONES),
            "expected a function of rewards, beta, an",
        ),
        (lambda rewards: Signal(ONES, ONES), "too many positional arguments"),
        (functools.partial(lower_confidence_bound, width=-1.0), "`width` is -1.0; expected a numb"),
        (functools.partial(lower_confidence_bound, width="2"), "`width` is the text '2'; expected"),
        (lambda rewards, beta: (ONES, ONES), "returned tuple; expected a Signal"),
        (
            lambda rewards, beta: Signal(ONES[:1], ONES),
            r"a score of shape \(1,\); expected a tensor",
        ),
        (lambda rewards, beta: Signal(ONES, 0.1), "a KL coefficient of float; expected a tensor"),
        (lambda rewards, beta: Signal(ONES.long(), ONES), "a score of torch.int64; expected float"),
        (lambda rewards, beta: Signal(1j * ONES, ONES), "a score of torch.complex128; expected fl"),
        (lambda rewards, beta: Signal(ONES, -ONES), "the KL coefficient -1; expected none below 0"),
        (
            lambda rewards, beta: Signal(ONES, ONES, weights=ONES[:, None]),
            r"a weight of shape \(2, 1",
        ),
        (
            lambda rewards, beta: Signal(ONES, ONES, metrics={"a": "b"}),
            "its metric 'a' is 'b'; exp",
        ),
        (
            lambda rewards, beta: Signal(ONES, ONES, metrics={1: 1.0}),
            "its metric 1 is 1.0; expecte",
        ),
        (lambda rewards, beta: Signal(ONES, ONES, metrics={"a": ONES}), "its metric 'a' is tensor"),
        (lambda rewards, beta: Signal(ONES, ONES, metrics=[1.0]), "found list as its metric"),
        (spoil, "the objective spoil changed the rewards that it was given"),
        (remember, "its memory 'level' is 1.0; expected a tensor"),
    ],
)
def test_what_an_objective_returns_is_checked(objective, says):
    with pytest.raises(InputError, match=says):
        evaluate(objective, Rewards(TWO.mean.clone()), 0.1, head=0, run=Run(0, 0))


@pytest.mark.parametrize(
    ("penalty", "says"),
    [
        (lambda ratio: (ratio**2).mean(), r"of 3 log-ratios is of shape \(\); expected a function"),
        (lambda ratio: ratio[:, None] ** 2, r"of 3 log-ratios is of shape \(3, 1\)"),
        (lambda ratio: 0.5, "of 3 log-ratios is of float"),
        (lambda ratio: ratio.detach() ** 2, "its penalty has no gradient"),
        (lambda ratio, other: ratio, "its penalty fails"),
    ],
)
def test_a_penalty_is_tried(penalty, says):
    signal = Signal(ONES, ONES, penalty=penalty, penalty_coefficient=ONES)
    with pytest.raises(InputError, match=says):
        evaluate(lambda rewards, beta: signal, TWO, 0.1)
    right = Signal(ONES, ONES, penalty=torch.square, penalty_coefficient=ONES)
    assert evaluate(lambda rewards, beta: right, TWO, 0.1) is right


def test_what_is_not_finite_is_named_by_its_rows():
    signal = Signal(ONES, ONES / torch.tensor([1.0, 0.0], dtype=torch.float64))
    with pytest.raises(NonFiniteSignal, match="KL coefficient that is not finite for 1 of 2") as e:
        evaluate(lambda rewards, beta: signal, TWO, 0.1)
    assert e.value.rows == [1]


def test_the_references_responses_are_drawn_once_and_where_asked_for():
    def normalised(rewards, beta, *, run):
        mean = rewards.mean.mean(dim=1)
        scale = run.reference.mean.mean(dim=1).std()
        return Signal(mean / scale, beta * ONES)

    drawn = []
    run = Run(0, 0, sample_reference=lambda: drawn.append(1) or rewards([1.0, 3.0], [5.0, 7.0]))
    assert evaluate(vanilla, TWO, 0.1, run=run) and not drawn
    for _ in range(2):
        found = evaluate(normalised, TWO, 0.1, run=run)
        assert found.score.tolist() == pytest.approx([2 / 8**0.5, 6 / 8**0.5])
    assert drawn == [1]
    with pytest.raises(InputError, match="asks for the reference's responses, and there are none"):
        evaluate(normalised, TWO, 0.1)


def test_rewards_are_joined():
    parts = [Rewards(torch.full((n, 2), n), prompt=torch.arange(n)) for n in (1, 2)]
    joined = Rewards.joined(parts)
    assert joined.mean.tolist() == [[1, 1], [2, 2], [2, 2]] and joined.prompt.tolist() == [0, 0, 1]
    assert joined.std is None and joined.features is None


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
    found = names["worst_members"](TWO, 0.3, share=0.7)
    assert found.score.tolist() == [1.5, 4.5]
    assert found.kl_coefficient.tolist() == pytest.approx([0.3, 0.3])
    (tmp_path / "family.py").write_text(example)
    parameters = objectives(tmp_path)["worst_members"].parameters
    assert parameters().share == 0.3
    with pytest.raises(InputError, match="`share` is 1.0; expected a number >= 0 and < 1"):
        parameters(share=1.0)
