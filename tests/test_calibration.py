"""Accuracy and calibration on pairs, by hand and in simulations with known answers."""

import math

import numpy as np
import pytest
from tiny_ensembles import rng

from prudent.rewards import calibration


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
