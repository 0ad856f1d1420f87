"""Statistics of many resamples at once, against scipy's own of each."""

import math

import numpy as np
import pytest
from scipy import stats
from tiny_ensembles import rng

from prudent.rewards import resampling


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
