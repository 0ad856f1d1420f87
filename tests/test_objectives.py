"""The objectives against their definitions."""

import functools
import math
from pathlib import Path

import pytest
import torch

from prudent import settings
from prudent.errors import InputError
from prudent.objectives import signal
from prudent.objectives.advantages import advantage_weighted
from prudent.objectives.controls import random_head, scale_only
from prudent.objectives.pessimistic import (
    centred_spread,
    head_lower_confidence_bound,
    lower_confidence_bound,
    soft_minimum,
    uncertainty_weighted,
    worst_case,
)
from prudent.objectives.pooled import mean, median
from prudent.objectives.robust import adv_po, reward_robust
from prudent.objectives.shrunk import shrunk, shrunk_mean
from prudent.objectives.signal import GIVEN, NonFiniteSignal, Run, Signal, asks_for, evaluate
from prudent.objectives.single import vanilla
from prudent.objectives.weighted import exact_gradient, mean_variance_aware, variance_aware
from prudent.rewards.interface import Rewards, Unavailable
from prudent.rewards.last_layer import LastLayer
from prudent.rewards.settings import SpreadSettings
from prudent.workflow import objectives as registry
from prudent.workflow.objectives import load, objectives


def rewards(*rows: list[float]) -> Rewards:
    return Rewards(torch.tensor(rows, dtype=torch.float64))


# 1, 2, 3 has the sample variance 1, and 4, 5, 9 has ((-2)^2 + (-1)^2 + 3^2) / 2 = 7.
TWO = rewards([1.0, 2.0, 3.0], [4.0, 5.0, 9.0])


def whole(mean: torch.Tensor) -> Rewards:
    """Rewards with all that an objective may ask for."""
    draws = torch.Generator().manual_seed(len(mean))
    std = torch.rand(mean.shape, generator=draws, dtype=torch.float64) + 0.1
    features = torch.randn(len(mean), 6, generator=draws, dtype=torch.float64)
    return Rewards(mean, std, features)


def call(name: str, given: Rewards, head: int, beta: float, run: Run) -> Signal:
    run.sample_reference = lambda: given
    run.last_layer = LastLayer(torch.eye(6, dtype=torch.float64))
    return evaluate(load(name), given, beta, head=head, run=run)


@pytest.mark.parametrize("name", objectives())
def test_every_objective_returns_a_signal_of_its_rewards_form(name):
    found = call(name, whole(torch.randn(5, 4, dtype=torch.float64)), 2, 0.1, Run(0, 1))
    assert isinstance(found, Signal)
    assert found.score.shape == found.kl_coefficient.shape == (5,)
    assert found.score.dtype == found.kl_coefficient.dtype == torch.float64
    assert all(isinstance(value, float) for value in found.metrics.values())


@pytest.mark.parametrize("name", objectives())
def test_an_objective_is_a_function_of_what_it_is_given(name):
    """The same rewards, run and step give the same signal; every second step another one may be."""
    given = whole(torch.randn(5, 4, dtype=torch.float64))
    found = [call(name, given, 2, 0.1, Run(0, 1)) for _ in range(2)]
    assert torch.equal(found[0].score, found[1].score)
    assert torch.equal(found[0].kl_coefficient, found[1].kl_coefficient)


OF_NO_SPREAD = [name for name, objective in objectives().items() if not objective.spread]
CENTRED = ("reward_robust", "shrunk", "shrunk_mean")
"""Those whose scores are less what the reference's are on average."""


@pytest.mark.parametrize("name", [name for name in OF_NO_SPREAD if name not in CENTRED])
def test_one_member_is_its_own_ensemble(name):
    mean = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    given = Rewards(mean, mean, torch.ones(2, 6, dtype=torch.float64))
    found = call(name, given, 0, 0.1, Run(0, 0))
    assert found.score.tolist() == pytest.approx([1.0, 2.0])
    assert found.kl_coefficient.tolist() == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize("name", objectives())
@pytest.mark.parametrize("value", [0.0, 1e6])
def test_constant_rewards_give_their_value(name, value):
    given = Rewards(torch.full((3, 4), value, dtype=torch.float64))
    given = Rewards(given.mean, given.mean, torch.ones(3, 6, dtype=torch.float64))
    found = call(name, given, 2, 0.1, Run(0, 0))
    assert found.score.tolist() == pytest.approx([0.0 if name in CENTRED else value] * 3)


@pytest.mark.parametrize("name", objectives())
def test_one_huge_reward_makes_no_nan(name):
    mean = torch.randn(5, 4, dtype=torch.float64)
    mean[1, 2] = 1e30
    found = call(name, whole(mean), 2, 0.1, Run(0, 0))
    assert found.score.isfinite().all() and found.kl_coefficient.isfinite().all()


@pytest.mark.parametrize("name", [name for name in objectives() if name not in OF_NO_SPREAD])
def test_an_objective_of_a_spread_needs_two_members(name):
    with pytest.raises(InputError, match="a spread needs at least 2"):
        call(name, rewards([1.0], [2.0]), 0, 0.1, Run(0, 0))


def test_vanilla_is_the_own_heads_reward_at_one_coefficient():
    found = vanilla(TWO, 0.2, head=1)
    assert found.score.tolist() == [2.0, 5.0]
    assert found.kl_coefficient.tolist() == pytest.approx([0.2, 0.2])


def test_variance_aware_multiplies_by_the_sample_standard_deviation():
    found = variance_aware(TWO, 0.5, head=0, spread=TWO.spread())
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
        second = uncertainty_weighted(TWO, 0.1, spread=TWO.spread(), width=1 / (2 * temperature))
        # The third cumulant's term, at most (range)^3 / temperature^2.
        assert (warm - second.score).abs().max() < 5**3 / temperature**2


def test_scale_only_has_the_mean_of_the_reference_and_no_more():
    run = Run(0, 0, sample_reference=lambda: rewards([0.0, 2.0], [1.0, 5.0]))
    found = evaluate(scale_only, TWO, 0.5, head=1, run=run)
    assert found.score.tolist() == [2.0, 5.0]
    assert found.kl_coefficient.tolist() == pytest.approx([0.5 * (2**0.5 + 8**0.5) / 2] * 2)


def test_the_lower_confidence_bound_is_the_mean_less_standard_deviations():
    found = evaluate(functools.partial(lower_confidence_bound, width=2.0), TWO, 0.3)
    assert found.score.tolist() == pytest.approx([2 - 2, 6 - 2 * 7**0.5])
    assert found.kl_coefficient.tolist() == pytest.approx([0.3, 0.3])
    found = evaluate(functools.partial(lower_confidence_bound, width=0.0), TWO, 0.3)
    assert found.score.tolist() == [2.0, 6.0]


def test_centred_spread_moves_a_running_mean():
    run = Run(0, 0)
    level = mean = (1 + 7**0.5) / 2
    for spreads in (1.0, 3.0, 0.5):
        given = Rewards(TWO.mean * spreads)
        level = 0.9 * level + 0.1 * spreads * mean
        objective = functools.partial(centred_spread, width=2.0, decay=0.9)
        found = evaluate(objective, given, 0.3, run=run)
        expected = [
            spreads * 2 - 2 * (spreads - level),
            spreads * 6 - 2 * (spreads * 7**0.5 - level),
        ]
        assert found.score.tolist() == pytest.approx(expected)
        assert found.metrics == {"level": pytest.approx(level)}
        assert run.state["level"].item() == pytest.approx(level)


def test_a_shuffled_spread_keeps_the_coefficients_and_not_their_places():
    given = Rewards(torch.randn(200, 4, dtype=torch.float64))
    aware = evaluate(variance_aware, given, 0.5, head=1)
    run = Run(0, 1, spread=SpreadSettings(shuffled=True))
    orders = []
    for run.step in range(3):
        found = evaluate(variance_aware, given, 0.5, head=1, run=run)
        assert torch.equal(found.score, aware.score)
        coefficients = found.kl_coefficient
        assert torch.equal(coefficients.sort().values, aware.kl_coefficient.sort().values)
        correlation = torch.corrcoef(torch.stack([coefficients, aware.kl_coefficient]))[0, 1]
        assert abs(correlation) < 4 / math.sqrt(200)
        orders.append(coefficients)
    assert not torch.equal(orders[0], orders[1]) and not torch.equal(orders[1], orders[2])
    other = Run(0, 2, spread=SpreadSettings(shuffled=True))
    other = evaluate(variance_aware, given, 0.5, head=1, run=other).kl_coefficient
    assert not torch.equal(orders[0], other)


# --- By hand: four responses, three members ---------------------------------------------------

FOUR = Rewards(
    torch.tensor(
        [[1.0, 2.0, 3.0], [4.0, 5.0, 9.0], [0.0, 0.0, 3.0], [-1.0, 1.0, 3.0]], dtype=torch.float64
    ),
    torch.tensor(
        [[0.1, 0.2, 0.3], [0.3, 0.1, 0.2], [0.2, 0.3, 0.1], [0.1, 0.3, 0.2]], dtype=torch.float64
    ),
    torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0]], dtype=torch.float64),
)
# Means 2, 6, 1, 1 and variances 1, 7, 3, 4; the members' means over the responses 1, 2, 4.5.


def by_hand(objective, head: int = 0, **said) -> Signal:
    """Of the four responses, which also stand for the reference policy's."""
    run = Run(0, 0, sample_reference=lambda: FOUR, **said)
    return evaluate(objective, FOUR, 0.5, head=head, run=run)


def test_the_own_heads_bound_by_hand():
    found = by_hand(functools.partial(head_lower_confidence_bound, width=2.0), head=1)
    expected = [2 - 2, 5 - 2 * 7**0.5, 0 - 2 * 3**0.5, 1 - 4]
    assert found.score.tolist() == pytest.approx(expected)
    assert found.kl_coefficient.tolist() == [0.5] * 4


def test_reward_robust_by_hand():
    """Less the members' means 1, 2, 4.5 the rewards are 0 0 -1.5, 3 3 4.5, -1 -2 -1.5, -2 -1 -1.5;
    the surest members are 0, 1, 2, 0, and in the reference's batch all members have the mean 0."""
    nominal = [0.0, 3.0, -1.5, -2.0]
    found = by_hand(functools.partial(reward_robust, alpha=0.25, minimum="response"))
    worst = [-1.5, 3.0, -2.0, -2.0]
    expected = [0.25 * n + 0.75 * w for n, w in zip(nominal, worst, strict=True)]
    assert found.score.tolist() == pytest.approx(expected)
    assert not found.of_batch
    # A batch whose worst member is the last: it says 1 less of each response than the reference's.
    lower = Rewards(FOUR.mean - torch.tensor([0.0, 0.0, 1.0]), FOUR.std)
    run = Run(0, 0, sample_reference=lambda: FOUR)
    found = evaluate(functools.partial(reward_robust, alpha=0.25), lower, 0.5, run=run)
    nominal[2] -= 1
    worst = [-2.5, 3.5, -2.5, -2.5]
    expected = [0.25 * n + 0.75 * w for n, w in zip(nominal, worst, strict=True)]
    assert found.score.tolist() == pytest.approx(expected)
    assert found.of_batch
    assert evaluate(
        functools.partial(reward_robust, alpha=1.0), lower, 0.5, run=run
    ).score.tolist() == pytest.approx(nominal)
    with pytest.raises(Unavailable, match="no standard deviation of their own; .* gaussian"):
        evaluate(reward_robust, TWO, 0.5, run=run)


def test_adv_po_by_hand():
    """A = I + diag(1, 3) = diag(2, 4); the reference's mean features are 1, 0.5, and the batch's
    1.5, 0.5 more: g = (1.5, 0.5), |g|^2 = 1.125 + 0.0625."""
    pairs = torch.tensor([[1.0, 0.0], [0.0, 3**0.5]], dtype=torch.float64)
    moved = Rewards(FOUR.mean, FOUR.std, FOUR.features + torch.tensor([1.5, 0.5]))
    run = Run(0, 0, sample_reference=lambda: FOUR, last_layer=LastLayer(pairs))
    found = evaluate(functools.partial(adv_po, width=2.0), moved, 0.5, head=1, run=run)
    length = (1.5**2 / 2 + 0.5**2 / 4) ** 0.5
    expected = []
    for h, r in zip(moved.features.tolist(), [2.0, 5.0, 0.0, 1.0], strict=True):
        away = h[0] - 1, h[1] - 0.5
        expected.append(r - 2 * (away[0] * 1.5 / 2 + away[1] * 0.5 / 4) / length)
    assert found.score.tolist() == pytest.approx(expected)
    assert found.metrics == {"distance": pytest.approx(length)} and found.of_batch
    # The costs' mean is the penalty itself, 2 |g|.
    assert (2.0 - found.score.mean()).item() == pytest.approx(2 * length)
    with pytest.raises(Unavailable, match="features of the reward model's training pairs are not"):
        by_hand(adv_po)
    with pytest.raises(Unavailable, match="come without features; expected .* heads, last_l"):
        evaluate(adv_po, TWO, 0.5, run=run)


def test_shrinkage_by_hand():
    """The means less their mean, 2.5, are -.5, 3.5, -1.5, -1.5, with the variance 17 / 3; the
    variances of the means of three members are 1, 7, 3, 4 thirds, on average 1.25."""
    found = by_hand(shrunk_mean)
    tau2 = 17 / 3 - 1.25
    expected = [
        c * tau2 / (tau2 + v / 3)
        for c, v in zip([-0.5, 3.5, -1.5, -1.5], [1, 7, 3, 4], strict=True)
    ]
    assert found.score.tolist() == pytest.approx(expected)
    # Member 1 says 2, 5, 0, 1, of the mean 2 and the variance 14 / 3; the errors' is 3.75.
    found = by_hand(shrunk, head=1)
    tau2 = 14 / 3 - 3.75
    expected = [c * tau2 / (tau2 + v) for c, v in zip([0, 3, -2, -1], [1, 7, 3, 4], strict=True)]
    assert found.score.tolist() == pytest.approx(expected)


def test_shrinkage_to_the_prompts_mean():
    """The spread's centre is also that of the prior: two prompts of two responses each."""
    given = Rewards(FOUR.mean, prompt=torch.tensor([7, 7, 2, 2]))
    run = Run(0, 0, sample_reference=lambda: given, spread=SpreadSettings(center="prompt"))
    found = evaluate(shrunk_mean, given, 0.5, run=run)
    # Less the prompt's mean the members say of the responses -/+ 1.5, 1.5, 3 and +/- .5, -.5, 0.
    variance = [0.75 / 3, 0.75 / 3, 0.25 / 3, 0.25 / 3]
    c = [-2.0, 2.0, 0.0, 0.0]
    tau2 = 8 / 3 - sum(variance) / 4
    expected = [a * tau2 / (tau2 + v) for a, v in zip(c, variance, strict=True)]
    assert found.score.tolist() == pytest.approx(expected)


def test_advantage_weights_by_hand():
    """Medians 2, 5, 0, 1 of the variance 3.5 (ddof 0), less than the errors' 3.75: all is noise."""
    found = by_hand(functools.partial(advantage_weighted, floor=0.5))
    assert found.score.tolist() == [2.0, 5.0, 0.0, 1.0]
    assert found.weights.tolist() == pytest.approx([0.5 / 1.5, 0.5 / 7.5, 0.5 / 3.5, 0.5 / 4.5])
    halved = Rewards(torch.stack([FOUR.mean[:, 1] + e for e in (-1, 0, 1)], 1))
    found = evaluate(functools.partial(advantage_weighted, floor=0.5), halved, 0.5)
    assert found.weights.tolist() == pytest.approx([3 / 4] * 4), "s^2 = 3.5 - 1 + .5, sigma^2 = 1"


def test_squared_log_ratios_are_a_penalty():
    found = by_hand(functools.partial(centred_spread, squares=0.7))
    ratio = torch.tensor([-2.0, 3.0], requires_grad=True)
    assert found.penalty(ratio).tolist() == [4.0, 9.0]
    assert found.penalty_coefficient.tolist() == pytest.approx([0.7] * 4)
    assert by_hand(centred_spread).penalty is None


def test_a_random_head_is_one_of_the_runs_own():
    given = Rewards(torch.arange(12.0).reshape(2, 6))
    heads = []
    for seed in range(60):
        run = Run(0, seed)
        for run.step in range(3):
            found = evaluate(random_head, given, 0.5, run=run)
        heads.append(found.score[0].item())
        assert found.score[1] - found.score[0] == 6, "the same head of both, in each step"
        assert torch.equal(found.score, evaluate(random_head, given, 0.5, run=Run(0, seed)).score)
    assert set(heads) == {0, 1, 2, 3, 4, 5}


def test_scale_only_takes_the_power_and_the_spread_of_its_method():
    found = by_hand(functools.partial(scale_only, power=2))
    assert found.kl_coefficient.tolist() == pytest.approx([0.5 * 3.75] * 4)
    found = by_hand(functools.partial(scale_only, power=2), spread=SpreadSettings(high=2.0))
    assert found.kl_coefficient.tolist() == pytest.approx([0.5 * (1 + 4 + 3 + 4) / 4] * 4)


def test_what_objectives_are_given_is_known_without_importing_them():
    assert tuple(GIVEN) == registry.GIVEN
    for name, objective in objectives().items():
        assert list(objective.asks) == sorted(asks_for(load(name)), key=list(objective.asks).index)


def test_every_objective_says_what_it_is():
    for name, objective in objectives().items():
        needed = {"Score", "Coefficient", *([] if objective.control else ["Source"])}
        needed |= {"Control"} if name != "vanilla" and not objective.control else set()
        assert needed <= set(objective.facts), name
        if objective.spread and not objective.control:
            assert "shuffled spread" in objective.facts["Control"], name


def test_the_unit_follows_from_what_an_objective_asks_for():
    units = {name: objective.unit for name, objective in objectives().items()}
    assert units["vanilla"] == units["variance_aware"] == units["scale_only"] == "member"
    assert units["lower_confidence_bound"] == units["centred_spread"] == "ensemble"
    for name in objectives():
        assert (units[name] == "member") == ("head" in asks_for(load(name)))
    assert [name for name, objective in objectives().items() if objective.control] == [
        "scale_only",
        "random_head",
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
