"""What ensembles know, against scipy's own functions, brute force, and answers known beforehand."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from prudent.rewards import calibration, disagreement, frequency, resampling
from prudent.rewards.diagnosis import (
    COLUMNS,
    KINDS,
    WORLD_TARGETS,
    Evidence,
    by_frequency,
    by_judge,
    diagnosis_table,
    kinds_table,
)
from prudent.rewards.disagreement import (
    LEAVE_ONE_OUT,
    Sample,
    constant_sigma,
    diagnose,
    measures,
    true_errors,
)
from prudent.schemas import CSV_SCHEMAS
from prudent.tables import read_csv, write_csv

P, R, K = 12, 6, 4


def rng(seed=0):
    return np.random.default_rng(seed)


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rewards [P, R, K] that know something of the truth [P, R]; prompts differ in level."""
    draw = rng(seed)
    truth = draw.normal(size=(P, R)) + 3 * draw.normal(size=(P, 1))
    noise = draw.normal(size=(P, R, K)) * draw.uniform(0.1, 2, size=(P, R, 1))
    return truth[:, :, None] * draw.uniform(0.5, 2, K) + noise + draw.normal(size=K), truth


def simulated(scale=1.0, shared=0.0, prompts=200, responses=6, members=10, seed=0):
    """Rewards with noise of sd ``scale`` (a number, or [P, R]), ``shared`` of its variance common
    to all members."""
    draw = rng(seed)
    truth = draw.normal(size=(prompts, responses))
    common = draw.normal(size=(prompts, responses, 1))
    own = draw.normal(size=(prompts, responses, members))
    noise = math.sqrt(shared) * common + math.sqrt(1 - shared) * own
    return truth[:, :, None] + np.asarray(scale)[..., None] * noise, truth


def scales(seed=5, prompts=200, responses=6):
    return np.exp(0.7 * rng(seed).normal(size=(prompts, responses)))


def one(rewards, truth, **given):
    """Every statistic of the sample itself."""
    found = measures(Sample(rewards, truth, **given), resampling.once(len(truth)))
    return {name: float(values[0]) for name, values in found.items()}


# --- resamples


def weighted(count=40, resamples=7, seed=0):
    """Values with ties, and how often each is drawn."""
    draw = rng(seed)
    values = draw.integers(0, 25, size=(3, count)) + draw.integers(0, 2, size=(3, count)) / 2
    return values.astype(float), draw.integers(0, 4, size=(count, resamples)).astype(float)


@pytest.mark.parametrize("tied", [True, False])
def test_ranks_of_all_resamples_are_those_of_each(tied):
    (values, *_), weights = weighted()
    values = values if tied else rng(1).normal(size=len(values))
    found = resampling.ranks(values, weights)
    for b, times in enumerate(weights.T.astype(int)):
        expected = stats.rankdata(np.repeat(values, times)) - 0.5
        np.testing.assert_allclose(np.repeat(found[:, b], times), expected)


def test_correlations_of_all_resamples_are_those_of_each():
    values, weights = weighted()
    found = resampling.correlations([resampling.ranks(v, weights) for v in values], weights)
    for b, times in enumerate(weights.T.astype(int)):
        expected = stats.spearmanr(np.repeat(values, times, axis=1), axis=1).statistic
        np.testing.assert_allclose(found[b], expected)
    constant = resampling.correlations([weights, np.ones_like(weights)], weights)
    assert np.isnan(constant[:, 0, 1]).all()


def test_quantiles_of_all_resamples_are_those_of_each():
    (values, *_), weights = weighted()
    found = resampling.quantiles(values, weights, [0.1, 0.5, 0.9])
    for b, times in enumerate(weights.T.astype(int)):
        drawn = np.repeat(values, times)
        expected = np.quantile(drawn, [0.1, 0.5, 0.9], method="inverted_cdf")
        np.testing.assert_array_equal(found[b], expected)


def test_a_partial_correlation_is_that_of_residuals():
    draw = rng()
    controls = draw.normal(size=(2, 300))
    x, y = draw.normal(size=(2, 300)) + np.array([[1, 2], [-1, 1]]) @ controls
    design = np.stack([np.ones(300), *controls], axis=1)
    left = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (x, y)]
    table = np.corrcoef([x, y, *controls])[None]
    assert resampling.partial(table)[0] == pytest.approx(np.corrcoef(left)[0, 1])
    # Controls that say the same, and one that leaves nothing.
    table = np.corrcoef([x, y, controls[0], controls[0]])[None]
    alone = np.corrcoef([x, y, controls[0]])[None]
    assert resampling.partial(table)[0] == pytest.approx(resampling.partial(alone)[0])
    assert np.isnan(resampling.partial(np.corrcoef([x, y, 2 * x])[None])[0])


def test_an_interval_over_prompts_is_as_wide_as_it_has_to_be():
    """Responses that share all with their prompt are one observation, not many."""
    values = rng().normal(size=60)
    few = resampling.draws(60, 4000, rng(1)) @ values / 60
    estimate, low, high = resampling.interval(few)
    assert estimate == pytest.approx(values.mean())
    half = 1.96 * values.std() / math.sqrt(60)
    assert (low, high) == pytest.approx((estimate - half, estimate + half), abs=0.1 * half)
    assert np.isnan(resampling.interval(np.array([np.nan, 1.0]))[1:]).all()


# --- correlations within prompts


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


# --- errors and sigma


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


# --- pairs


def pairs(n=2000, members=5, seed=0, scale=1.0):
    """Margins [n, K] whose signs follow the probability that ``scale`` 1 says."""
    draw = rng(seed)
    margins = np.abs(draw.normal(size=(n, 1))) + 0.0 * draw.normal(size=(1, members))
    right = draw.random((n, 1)) < 1 / (1 + np.exp(-margins))
    return scale * np.where(right, margins, -margins)


def calibration_error(margins: np.ndarray) -> float:
    """Guo et al.'s (2017) expected calibration error of sigmoid(margin), in bins of one size."""
    sure, right = 1 / (1 + np.exp(-np.abs(margins))), (np.sign(margins) + 1) / 2
    place = calibration.equal_mass(sure, calibration.BINS)
    bins = (place == b for b in range(calibration.BINS))
    return sum(b.mean() * abs(right[b].mean() - sure[b].mean()) for b in bins if b.any())


def brier_score(margins: np.ndarray) -> float:
    return float(np.mean([(1 - 1 / (1 + math.exp(-m))) ** 2 for m in margins]))


def test_bins_hold_as_many_pairs_each():
    values = rng().normal(size=103)
    place = calibration.equal_mass(values, 10)
    assert set(np.bincount(place)) == {10, 11}
    assert all(values[place == b].max() < values[place == b + 1].min() for b in range(9))


def test_the_numbers_of_pairs():
    draw = rng()
    margins, base = draw.normal(size=(300, 3)) + 0.4, draw.normal(size=300)
    margins[0] = base[0] = 0
    found = calibration.pair_measures(margins, rng(), resamples=50, repetitions=20)
    found |= calibration.base_accuracy(base, rng())
    mean = margins.mean(1)
    expected = {
        calibration.ACCURACY_ONE: np.mean([(column > 0).mean() for column in margins.T]),
        calibration.ACCURACY_MEAN: (mean > 0).mean(),
        calibration.ECE_ONE: np.mean([calibration_error(m) for m in margins.T]),
        calibration.ECE_MEAN: calibration_error(mean),
        calibration.BRIER_ONE: np.mean([brier_score(m) for m in margins.T]),
        calibration.BRIER_MEAN: brier_score(mean),
        calibration.ECE_SCALED: calibration_error(mean[1::2] / calibration.temperature(mean[::2])),
        calibration.ACCURACY_BASE: (base > 0).mean(),
    }
    assert {name: measured.value for name, measured in found.items()} == pytest.approx(expected)
    assert all(measured.low < measured.value < measured.high for measured in found.values())
    with_noise = {name for name, measured in found.items() if not math.isnan(measured.noise)}
    assert with_noise == {name for name in found if "calibration" in name or "Brier" in name}


def test_the_temperature_is_where_the_log_loss_is_least():
    margins = rng().normal(size=400) + 0.4

    def loss(warmth: float) -> float:
        return float(np.logaddexp(0, -margins / warmth).mean())

    best = calibration.temperature(margins)
    grid = best * np.exp(np.linspace(-0.5, 0.5, 201))
    assert min(map(loss, grid)) >= loss(best) - 1e-12
    for scale in (1e-3, 7.0, 1e4):  # of the margins' unit it is the unit
        assert calibration.temperature(margins * scale) == pytest.approx(best * scale)
    labels = rng(3).random(200_000)
    sure = np.abs(rng(4).normal(size=200_000))
    right = np.where(labels < 1 / (1 + np.exp(-sure)), sure, -sure)
    assert calibration.temperature(right) == pytest.approx(1, abs=0.03)
    assert calibration.temperature(right * 3) == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("margins", [[-1.0, -2.0], [0.0, 0.0], [1.0, -1.0]])
def test_where_nothing_beats_a_coin_the_temperature_is_infinite(margins):
    assert calibration.temperature(np.array(margins)) == math.inf


def test_where_all_are_right_the_temperature_is_small_and_finite():
    assert 0 < calibration.temperature(np.array([1.0, 2.0])) < 0.01


def test_one_temperature_mends_rewards_that_are_too_sure():
    found = calibration.pair_measures(pairs(scale=3.0), rng(1))
    scaled = found[calibration.ECE_SCALED]
    assert scaled.value < 0.5 * found[calibration.ECE_MEAN].value
    assert scaled.value < scaled.noise_high and scaled.low < scaled.value < scaled.high


def test_of_one_prompt_there_is_no_half_to_fit_a_temperature_on():
    margins, one = rng().normal(size=(30, 3)), np.zeros(30)
    assert calibration.ECE_SCALED not in calibration.pair_measures(margins, rng(), one)


def test_calibrated_rewards_and_rewards_that_are_too_sure():
    good = calibration.pair_measures(pairs(), rng(1))[calibration.ECE_MEAN]
    assert good.noise_low < good.value < good.noise_high
    sure = calibration.pair_measures(pairs(scale=3.0), rng(1))[calibration.ECE_MEAN]
    assert sure.low > 0.1 > 0.05 > sure.noise_high
    assert sure.low < sure.value < sure.high
    margins = pairs()[:, 0]
    sure = 1 / (1 + np.exp(-np.abs(margins)))
    errors, scores = calibration.calibrated(margins, 400, rng(2))
    assert scores.mean() == pytest.approx((sure * (1 - sure)).mean(), rel=0.01)
    drawn = [
        calibration_error(np.where(rng(s).random(2000) < sure, 1, -1) * np.abs(margins))
        for s in range(100)
    ]
    assert errors.mean() == pytest.approx(np.mean(drawn), rel=0.1)


def test_pairs_of_one_prompt_are_one_observation(monkeypatch):
    few = pairs(100)
    many, prompts = np.repeat(few, 9, axis=0), np.repeat(np.arange(100), 9)

    def width(margins, prompts=None):
        found = calibration.pair_measures(margins, rng(1), prompts)[calibration.ACCURACY_MEAN]
        return found.high - found.low

    assert width(many, prompts) == pytest.approx(width(few), rel=0.1)
    assert width(many) == pytest.approx(width(few) / 3, rel=0.15)
    monkeypatch.setattr(calibration, "CHUNK", 7 * 100)  # a few resamples at once
    assert width(few) == pytest.approx(width(many, prompts), rel=0.15)


# --- by frequency


def test_bins_of_counts():
    counts = np.array([[5.0, 1, np.nan, 7], [2, 9, 3, 4]])
    edges = frequency.count_edges(counts, 3)
    assert edges.tolist() == [2, 4, 9]
    assert frequency.bins_of(counts, edges).tolist() == [[2, 0, -1, 2], [0, 2, 1, 1]]
    assert frequency.count_edges(np.full((3, 3), 6.0)).tolist() == [6]
    assert len(frequency.count_edges(np.full((3, 3), np.nan))) == 0
    many = rng().normal(size=(100, 10))
    found = frequency.bins_of(many, frequency.count_edges(many))
    assert np.bincount(found.ravel()).tolist() == [200] * 5


def test_the_table_by_frequency_by_hand():
    rewards, truth = data()
    truth[0, 1] = truth[0, 0]  # no pair
    counts = rng(2).integers(1, 30, size=(P, R)).astype(float)
    counts[3, 2] = counts[4, 0] = counts[4, 1] = np.nan
    table = frequency.frequency_table("some", rewards, truth, counts, rng(), bins=3, resamples=200)
    assert list(table.columns) == frequency.COLUMNS == list(CSV_SCHEMAS["frequency"])
    assert table["n"].sum() == P * R - 3 and (table["ensemble"] == "some").all()
    flat = rewards.reshape(-1, K)
    errors = true_errors(flat, truth.ravel()).reshape(rewards.shape)
    mean_errors = true_errors(flat.mean(1)[:, None], truth.ravel()).reshape(P, R)
    for row in table.to_dict("records"):
        inside = (counts >= row["count_low"]) & (counts <= row["count_high"])
        assert row["n"] == inside.sum()
        right = []
        for p in range(P):
            for i in range(R):
                for j in range(i):
                    rarer = np.nanmin([counts[p, i], counts[p, j], np.inf])
                    if (
                        row["count_low"] <= rarer <= row["count_high"]
                        and truth[p, i] != truth[p, j]
                    ):
                        apart = np.sign(truth[p, i] - truth[p, j])
                        own = (rewards[p, i] - rewards[p, j]) * apart > 0
                        of_mean = (rewards[p, i].mean() - rewards[p, j].mean()) * apart > 0
                        right.append((own.mean(), of_mean))
        expected = {
            "accuracy_member": np.mean(right, axis=0)[0],
            "accuracy_mean": np.mean(right, axis=0)[1],
            "error_member": np.sqrt((errors[inside] ** 2).mean()),
            "error_mean": np.sqrt((mean_errors[inside] ** 2).mean()),
            "sigma": rewards[inside].std(1, ddof=1).mean(),
        }
        assert row["pairs"] == len(right)
        assert {name: row[name] for name in expected} == pytest.approx(expected)
        assert all(row[f"{name}_low"] < row[name] < row[f"{name}_high"] for name in expected)


def test_what_is_rare_and_known_less_well():
    counts = rng(3).permutation(np.repeat(np.arange(1.0, 101), 12)).reshape(200, 6)
    rewards, truth = simulated(3 / np.sqrt(counts))
    table = frequency.frequency_table("some", rewards, truth, counts, rng(), resamples=50)
    for name in ("error_member", "error_mean", "sigma"):
        assert table[name].is_monotonic_decreasing
    assert table["accuracy_mean_high"].iloc[0] < table["accuracy_mean_low"].iloc[-1]
    assert (table["n"] == 240).all()
    single = frequency.frequency_table("warm", rewards[:, :, :1], truth, counts, rng(), 2, 20)
    assert single["sigma"].isna().all() and single["accuracy_mean"].notna().all()


# --- tables


def evidence():
    rewards, truth = data()
    draw = rng(6)
    full = Evidence(rewards, draw.normal(size=(50, K)), draw.normal(size=rewards.shape), truth**2)
    one = Evidence(rewards[:, :, :1], draw.normal(size=(50, 1)))
    return {"heads": [full], "warm": [one]}, truth


def test_the_table_of_several_ensembles(tmp_path):
    ensembles, truth = evidence()
    grammatical = np.ones((P, R))
    base = rng(7).normal(size=50)
    given = {"base": base, "grammatical": grammatical, "promised": "heads"}
    table = diagnosis_table(ensembles, truth, 3, **given)
    assert list(table.columns) == COLUMNS == list(CSV_SCHEMAS["diagnosis"])
    assert list(dict.fromkeys(table["ensemble"])) == ["", "heads", "warm"]
    world = table[table["ensemble"] == ""].set_index("quantity")
    assert world.loc["grammatical responses", "value"] == 1
    expected = truth.std(1, ddof=1).mean()
    assert world.loc["sd of the true reward within prompts", "value"] == pytest.approx(expected)
    assert world.loc[calibration.ACCURACY_BASE, "value"] == (base > 0).mean()
    heads = table[table["ensemble"] == "heads"].set_index("quantity")
    (drawn,) = ensembles["heads"]
    found = one(drawn.rewards, truth, norm=truth**2, before=drawn.untrained)
    for name, value in found.items():
        assert heads.loc[name, "value"] == pytest.approx(value)
    assert heads.loc[calibration.ACCURACY_MEAN, "value"] == np.mean(drawn.margins.mean(1) > 0)
    # Promises are the world's and those of the ensemble that made them.
    promised = table.dropna(subset="promised_low")
    assert set(promised["ensemble"]) == {"", "heads"}
    for row in promised.to_dict("records"):
        low, high = WORLD_TARGETS[row["quantity"]]
        assert row["promised_low"] == (row["noise"] if low is None else low)
        assert row["promised_high"] == high
    assert set(promised["quantity"]) == set(WORLD_TARGETS)
    other = diagnosis_table(ensembles, truth, 3)
    assert other[["promised_low", "promised_high"]].isna().all(axis=None)
    write_csv(table, tmp_path / "diagnosis.csv")
    pd.testing.assert_frame_equal(read_csv(tmp_path / "diagnosis.csv", "diagnosis"), table)


def test_an_ensembles_numbers_depend_on_no_other():
    ensembles, truth = evidence()
    both = diagnosis_table(ensembles, truth, 3)
    alone = diagnosis_table({"warm": ensembles["warm"]}, truth, 3)
    part = both[both["ensemble"] != "heads"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, part)
    again = diagnosis_table({"warm": ensembles["warm"]}, truth, 4)
    assert (again["low"] != alone["low"])[alone["low"].notna()].any()


def test_without_resamples_the_values_stay_and_have_no_interval(capsys):
    ensembles, truth = evidence()
    given = {"base": ensembles["heads"][0].margins[:, 0]}
    table = diagnosis_table(ensembles, truth, 3, **given)
    plain = diagnosis_table(ensembles, truth, 3, **given, resamples=0, progress="checked")
    pd.testing.assert_series_equal(plain["value"], table["value"])
    assert plain[["low", "high"]].isna().all(axis=None)
    assert plain["noise"].notna().tolist() == table["noise"].notna().tolist()
    assert "checked: 100%" in capsys.readouterr().err


def test_numbers_are_averaged_over_an_ensembles_draws():
    ensembles, truth = evidence()
    (first,) = ensembles["heads"]
    second = first._replace(rewards=rng(8).normal(size=(P, R, K)) + truth[..., None])
    both = diagnosis_table({"heads": [first, second]}, truth, 3).set_index(["ensemble", "quantity"])
    parts = [one(draw.rewards, truth)[disagreement.WITHIN_MEAN] for draw in (first, second)]
    found = both.loc[("heads", disagreement.WITHIN_MEAN), "value"]
    assert found == pytest.approx(np.mean(parts)) and found != pytest.approx(parts[0])


def test_the_table_of_kinds(tmp_path):
    ensembles, truth = evidence()
    ensembles["normed"] = [one._replace(untrained=None) for one in ensembles["heads"]]
    table = diagnosis_table(ensembles, truth, 3)
    kinds = kinds_table(table)
    assert list(kinds.columns) == ["ensemble", *KINDS] == list(CSV_SCHEMAS["kinds"])
    assert kinds["ensemble"].tolist() == ["heads", "warm", "normed"]
    kinds = kinds.set_index("ensemble")
    rows = table.set_index(["ensemble", "quantity"])
    for column, (quantity, field) in KINDS.items():
        assert kinds.loc["heads", column] == rows.loc[("heads", quantity), field], column
    given = rows.loc[("normed", disagreement.GIVEN_NORM), "value"]
    assert kinds.loc["normed", "leave_one_out_beyond"] == given
    known = kinds.columns[kinds.loc["warm"].notna()]
    assert {name.split("_")[0] for name in known} == {"accuracy", "within", "ece"}
    write_csv(kinds.reset_index(), tmp_path / "kinds.csv")
    read = read_csv(tmp_path / "kinds.csv", "kinds").set_index("ensemble")
    pd.testing.assert_frame_equal(read, kinds)


def test_what_several_judges_say_of_the_ensembles(tmp_path):
    ensembles, truth = evidence()
    second = truth + rng(5).normal(size=truth.shape)
    table = by_judge(ensembles, {"world": truth, "trained": second}, 3)
    assert list(table.columns) == list(CSV_SCHEMAS["kinds_by_judge"])
    assert table["judge"].tolist() == ["world"] * 3 + ["trained"] * 3
    assert table["ensemble"].tolist() == [*ensembles, "trained judge", *ensembles, "world judge"]
    of_world = kinds_table(diagnosis_table(ensembles, truth, 3)).set_index("ensemble")
    found = table[table["judge"] == "world"].set_index("ensemble")
    known = [name for name in of_world if not name.startswith(("accuracy", "ece"))]
    pd.testing.assert_frame_equal(found.loc[list(ensembles), known], of_world[known], atol=0.05)
    assert found.loc[list(ensembles), "accuracy_mean"].isna().all()
    # A judge is as good a model of the other as the other is of it.
    agree = [table["within_mean"].iloc[2], table["within_mean"].iloc[5]]
    assert agree[0] == pytest.approx(agree[1]) and 0.3 < agree[0] < 1
    write_csv(table, tmp_path / "by_judge.csv", "kinds_by_judge")
    read = read_csv(tmp_path / "by_judge.csv", "kinds_by_judge")
    pd.testing.assert_frame_equal(read, table)


def test_the_table_by_frequency_of_several_ensembles():
    ensembles, truth = evidence()
    counts = rng(2).integers(1, 30, size=(P, R)).astype(float)
    table = by_frequency(ensembles, truth, counts, 3)
    assert list(dict.fromkeys(table["ensemble"])) == ["heads", "warm"]
    pd.testing.assert_frame_equal(
        table[table["ensemble"] == "heads"],
        by_frequency({"heads": ensembles["heads"]}, truth, counts, 3),
    )
