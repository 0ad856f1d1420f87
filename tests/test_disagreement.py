"""What sigma knows of the error, by brute force and in simulations with known answers."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats
from tiny_ensembles import K, P, R, data, one, rng, scales, simulated

from prudent.rewards import disagreement, resampling
from prudent.rewards.disagreement import (
    LEAVE_ONE_OUT,
    Sample,
    constant_sigma,
    diagnose,
    measures,
    true_errors,
)


def within_prompt_correlation(rewards: np.ndarray, truth: np.ndarray) -> float:
    """The mean over prompts, of rewards [P, R]."""
    members = disagreement.prompt_correlations(rewards[:, :, None], truth)
    return float(np.nanmean(members)) if np.isfinite(members).any() else math.nan


def test_the_correlation_is_the_mean_of_the_prompts_own():
    rewards, truth = data()
    expected = [np.corrcoef(rewards[p, :, 0], truth[p])[0, 1] for p in range(P)]
    assert within_prompt_correlation(rewards[:, :, 0], truth) == pytest.approx(np.mean(expected))
    pooled = np.corrcoef(rewards[:, :, 0].ravel(), truth.ravel())[0, 1]
    assert abs(pooled - np.mean(expected)) > 0.05


def test_prompts_without_variation_are_left_out():
    rewards, truth = data()
    rewards = rewards[:, :, 0]
    rewards[2], truth[5] = 0.1, -7.3
    expected = [np.corrcoef(rewards[p], truth[p])[0, 1] for p in range(P) if p not in (2, 5)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert within_prompt_correlation(rewards, truth) == pytest.approx(np.mean(expected))
        assert math.isnan(within_prompt_correlation(np.full((P, R), 0.1), truth))


def test_the_correlation_knows_no_scale_and_no_level_of_a_prompt():
    rewards, truth = data()
    moved = 5 * rewards[:, :, 0] + np.arange(P)[:, None]
    expected = within_prompt_correlation(rewards[:, :, 0], truth)
    assert within_prompt_correlation(moved, truth) == pytest.approx(expected)
    assert within_prompt_correlation(-truth, truth) == pytest.approx(-1)


def test_errors_are_the_residuals_of_each_members_line():
    rewards, truth = data()
    flat, true = rewards.reshape(-1, K), truth.ravel()
    lines = [stats.linregress(true, column) for column in flat.T]
    expected = [c - line.intercept - line.slope * true for c, line in zip(flat.T, lines, strict=1)]
    np.testing.assert_allclose(true_errors(flat, true), np.transpose(expected), atol=1e-12)
    exact = np.stack([2 * true + 1, -0.3 * true, np.full_like(true, 4.0)], axis=1)
    np.testing.assert_allclose(true_errors(exact, true), 0, atol=1e-12)


def sampling_ratio(members: int) -> float:
    """p90 / p10 of the sample standard deviation of normal draws with one sigma."""
    low, high = stats.chi2.ppf([0.1, 0.9], members - 1)
    return math.sqrt(high / low)


def test_every_number_of_an_ensemble_by_hand():
    rewards, truth = data()
    draw = rng(3)
    norm, before = draw.uniform(size=(P, R)), draw.normal(size=(P, R, K))
    flat, true = rewards.reshape(-1, K), truth.ravel()
    errors = true_errors(flat, true)
    sigma = np.array([np.sqrt(np.var(row, ddof=1)) for row in flat])
    deciles = np.quantile(sigma, [0.1, 0.5, 0.9], method="inverted_cdf")
    within = [
        np.mean([np.corrcoef(values[p], truth[p])[0, 1] for p in range(P)])
        for values in [*(rewards[:, :, k] for k in range(K)), rewards.mean(2)]
    ]
    left: dict[str, list[float]] = {"alone": [], "norm": [], "before": [], "both": []}
    for k in range(K):
        rest = [j for j in range(K) if j != k]
        start = before.reshape(-1, K)[:, rest].std(1, ddof=1)
        ranked = stats.rankdata(
            [flat[:, rest].std(1, ddof=1), abs(errors[:, k]), norm.ravel(), start], axis=1
        )
        for name, controls in {"alone": [], "norm": [2], "before": [3], "both": [2, 3]}.items():
            design = np.stack([np.ones(P * R), *ranked[controls]], axis=1)
            rest_of = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in ranked[:2]]
            left[name].append(np.corrcoef(rest_of)[0, 1])
    mean = flat.mean(1)

    def spearman(other):
        return stats.spearmanr(sigma, other).statistic

    between = np.corrcoef(errors.T)[~np.eye(K, dtype=bool)]
    expected = {
        disagreement.WITHIN_ONE: np.mean(within[:K]),
        disagreement.WITHIN_LOWEST: min(within[:K]),
        disagreement.WITHIN_MEAN: within[K],
        disagreement.MEDIAN: deciles[1],
        disagreement.RATIO: deciles[2] / deciles[0],
        LEAVE_ONE_OUT: np.mean(left["alone"]),
        disagreement.GIVEN_NORM: np.mean(left["norm"]),
        disagreement.GIVEN_BEFORE: np.mean(left["before"]),
        disagreement.GIVEN_BOTH: np.mean(left["both"]),
        disagreement.MEAN_ERROR: spearman(abs(true_errors(mean[:, None], true)[:, 0])),
        disagreement.MEAN_REWARD: spearman(abs(mean)),
        disagreement.BY_NORM: spearman(norm.ravel()) ** 2,
        disagreement.BY_BEFORE: spearman(before.reshape(-1, K).std(1, ddof=1)) ** 2,
        disagreement.SHARED: between.mean(),
    }
    assert one(rewards, truth, norm=norm, before=before) == pytest.approx(expected)
    without = {disagreement.GIVEN_BEFORE, disagreement.GIVEN_BOTH, disagreement.BY_BEFORE}
    assert set(one(rewards, truth, norm=norm)) == set(expected) - without


def test_a_resample_of_prompts_is_a_sample_of_its_own(monkeypatch):
    rewards, truth = data()
    draw = rng(4)
    sample = Sample(rewards, truth, draw.uniform(size=(P, R)), draw.normal(size=(P, R, K)))
    times = resampling.draws(P, 30, rng(1))
    monkeypatch.setattr(disagreement, "CHUNK", 7 * P * R)
    found = measures(sample, times)
    fixed = (disagreement.WITHIN_ONE, disagreement.WITHIN_MEAN, disagreement.MEDIAN)
    fixed += (disagreement.RATIO, disagreement.MEAN_REWARD, disagreement.BY_NORM)
    fixed += (disagreement.BY_BEFORE,)
    for b, row in enumerate(times.astype(int)):
        parts = [None if part is None else np.repeat(part, row, axis=0) for part in sample]
        drawn = one(parts[0], parts[1], norm=parts[2], before=parts[3])
        for name, values in found.items():
            # Its line on the truth would be another, which moves errors a little.
            tolerance = 1e-9 if name in fixed else 0.25
            if name != disagreement.WITHIN_LOWEST:
                assert values[b] == pytest.approx(drawn[name], abs=tolerance), name


def test_sigma_that_knows_the_error():
    found = diagnose(Sample(*simulated(scales())), rng(1), 200, 40)
    for name, least in ((LEAVE_ONE_OUT, 0.3), (disagreement.MEAN_ERROR, 0.3)):
        known = found[name]
        assert known.low < known.value < known.high
        assert known.low > least > known.noise_high
        assert abs(known.noise) < 0.02
    spread = found[disagreement.RATIO]
    assert spread.low > 4 > 2 > spread.noise_high > sampling_ratio(10) > spread.noise_low


@pytest.mark.parametrize("shared", [0.0, 0.7])
def test_constant_sigma_knows_nothing(shared):
    rewards, truth = simulated(1.0, shared)
    found = diagnose(Sample(rewards, truth), rng(1), 200, 100)
    for name in (LEAVE_ONE_OUT, disagreement.MEAN_ERROR):
        assert found[name].low < 0 < found[name].high
        assert abs(found[name].value - found[name].noise) < 0.06
    spread = found[disagreement.RATIO]
    assert spread.noise == pytest.approx(sampling_ratio(10), rel=0.02)
    assert spread.noise_low < spread.value < spread.noise_high
    # Held against the errors of the same members, constant sigma would seem to know a lot.
    flat = rewards.reshape(-1, 10)
    errors = np.abs(true_errors(flat, truth.ravel())).mean(1)
    if not shared:
        assert stats.spearmanr(flat.std(1, ddof=1), errors).statistic > 0.5


def test_the_noise_of_members_that_are_unlike():
    """A member that is noisier than others makes sigma vary more, and means nothing either."""
    sd = np.array([3.0, *[1.0] * 9])
    draw = rng()
    truth = draw.normal(size=(400, 8))
    rewards = truth[:, :, None] + sd * draw.normal(size=(400, 8, 10)) + np.arange(10) / 10
    found = diagnose(Sample(rewards, truth), rng(1), 20, 40)[disagreement.RATIO]
    assert found.value > 2.3 > sampling_ratio(10)
    assert found.noise_low < found.value < found.noise_high
    again = constant_sigma(rewards, rng(2))
    np.testing.assert_allclose((again - rewards.mean(2, keepdims=True)).std((0, 1)), sd, rtol=0.06)
    np.testing.assert_allclose(again.mean((0, 1)), rewards.mean((0, 1)), atol=0.15)
    two = constant_sigma(rewards[:, :, :2], rng(3))
    assert np.ptp(two, axis=2).mean() == pytest.approx(
        np.ptp(rewards[:, :, :2], axis=2).mean(), rel=0.1
    )


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_noise_that_responses_to_one_prompt_share(share):
    draw = rng()
    own, common = draw.normal(size=(500, 8, 10)), draw.normal(size=(500, 1, 10))
    noise = math.sqrt(share) * common + math.sqrt(1 - share) * own
    assert disagreement.prompt_share(noise) == pytest.approx(share, abs=0.03)
    again = constant_sigma(draw.normal(size=(500, 8, 1)) + noise, rng(1))
    again -= again.mean(2, keepdims=True)
    assert disagreement.prompt_share(again) == pytest.approx(share, abs=0.03)
    assert disagreement.prompt_share(noise[:, :1]) == disagreement.prompt_share(0 * noise) == 0


@pytest.mark.parametrize("shared", [0.0, 0.3, 0.9])
def test_errors_that_members_share(shared):
    found = diagnose(Sample(*simulated(0.7, shared, prompts=400)), rng(1), 200, 2)
    measured = found[disagreement.SHARED]
    assert measured.value == pytest.approx(shared, abs=0.04)
    assert measured.low - 0.02 < shared < measured.high + 0.02
    assert math.isnan(measured.noise)


def test_sigma_that_is_the_feature_norm_knows_nothing_beyond_it():
    scale = scales()
    rewards, truth = simulated(scale)
    before = scale[:, :, None] * rng(8).normal(size=rewards.shape)
    found = diagnose(Sample(rewards, truth, scale**2, before), rng(1), 100, 10)
    assert found[LEAVE_ONE_OUT].low > 0.3
    for name in (disagreement.GIVEN_NORM, disagreement.GIVEN_BOTH):
        assert abs(found[name].value) < 0.03
    # Sigma before training is the norm, blurred by ten members' sampling.
    assert 0.03 < found[disagreement.GIVEN_BEFORE].value < 0.6 * found[LEAVE_ONE_OUT].value
    assert found[disagreement.BY_NORM].low > 0.7 > 0.1 > found[disagreement.BY_NORM].noise_high
    assert found[disagreement.BY_BEFORE].low > 0.5
    assert found[LEAVE_ONE_OUT].untrained == pytest.approx(found[LEAVE_ONE_OUT].value, abs=0.1)
    assert abs(found[disagreement.GIVEN_NORM].untrained) < 0.03
    assert math.isnan(found[disagreement.GIVEN_BEFORE].untrained)


def test_sigma_that_has_not_moved_is_explained_by_what_it_was():
    rewards, truth = simulated(scales())
    found = one(rewards, truth, before=rewards)
    assert found[disagreement.BY_BEFORE] == pytest.approx(1)
    assert math.isnan(found[disagreement.GIVEN_BEFORE])


def test_a_members_own_std():
    scale = scales()
    rewards, truth = simulated(scale, members=3)
    knowing = np.repeat(scale[:, :, None], 3, axis=2)
    found = diagnose(Sample(rewards, truth, std=knowing), rng(1), 100, 40)[disagreement.OWN_STD]
    errors = np.abs(true_errors(rewards.reshape(-1, 3), truth.ravel()))
    expected = [stats.spearmanr(scale.ravel(), column).statistic for column in errors.T]
    assert found.value == pytest.approx(np.mean(expected))
    assert found.low > 0.3 > 0.1 > found.noise_high > 0 > found.noise_low
    assert disagreement.OWN_STD not in diagnose(Sample(rewards, truth), rng(1), 2, 2)


@pytest.mark.parametrize("members", [1, 2])
def test_few_members(members):
    rewards, truth = data()
    before = rng(1).normal(size=rewards.shape)[:, :, :members]
    sample = Sample(rewards[:, :, :members], truth, truth**2, before, before**2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = diagnose(sample, rng(), 20, 3)
    full = diagnose(Sample(rewards, truth, truth**2, rewards, rewards**2), rng(), 2, 2)
    assert list(found) == list(full)
    unknown = {name for name, measured in found.items() if math.isnan(measured.value)}
    lacking = {name for name in found if "leave-one-out" in name}
    if members == 1:
        lacking |= {name for name in found if "sigma" in name} | {disagreement.SHARED}
    assert unknown == lacking
