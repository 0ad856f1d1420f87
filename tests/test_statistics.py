"""Statistics against closed forms, brute force, scipy, and simulation where the truth is known."""

import itertools

import numpy as np
import pytest
from scipy import stats
from tiny_studies import rng

from prudent.analysis.policies import (
    kl_mismatch,
)
from prudent.analysis.statistics import (
    brown_forsythe,
    dominance,
    holm,
    mcnemar,
    permutation_test,
    pitman_morgan,
    share_interval,
    t_interval,
    tail_mean,
    variance_ratio,
)


def test_t_interval_is_scipys_and_clusters_are_their_means():
    values = rng().normal(size=12)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values)[1:] == pytest.approx((expected.low, expected.high))
    clusters = np.repeat(np.arange(4), 3)
    means = values.reshape(4, 3).mean(axis=1)
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    found = t_interval(values, clusters)
    assert found == pytest.approx((values.mean(), expected.low, expected.high))
    assert np.isnan(t_interval([1.0])).tolist() == [False, True, True]
    assert np.isnan(t_interval([])).all()


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (1, 1), (39, 100)])
def test_wilson_interval_is_its_formula(k, n):
    z = stats.norm.ppf(0.975)
    share = k / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    outcomes = np.arange(n) < k
    found = share_interval(outcomes)
    assert found[1:] == pytest.approx(stats.binomtest(k, n).proportion_ci(method="wilson"))
    assert found == pytest.approx((share, max(middle - half, 0), min(middle + half, 1)), abs=1e-9)
    # Three trials a head that agree are one outcome each.
    thrice = share_interval(np.repeat(outcomes, 3), np.repeat(np.arange(n), 3))
    assert thrice == pytest.approx(found)
    assert np.isnan(share_interval([])).all()


def test_variance_ratio_agrees_with_a_jackknife_by_hand():
    draw = rng(2)
    clusters = np.repeat(np.arange(6), [1, 2, 3, 2, 2, 2])
    a, b = 5 + 2 * draw.normal(size=12), draw.normal(size=12)
    found = variance_ratio(a, b, clusters)
    log = np.log(np.var(a, ddof=1) / np.var(b, ddof=1))
    left = [clusters != cluster for cluster in range(6)]
    logs = np.array([np.log(np.var(a[k], ddof=1) / np.var(b[k], ddof=1)) for k in left])
    half = stats.t.ppf(0.975, 5) * np.sqrt(5 / 6 * ((logs - logs.mean()) ** 2).sum())
    assert found == pytest.approx(np.exp([log, log - half, log + half]))
    # Shifts change nothing, a scale changes the ratio by its square, and the arms' order inverts.
    other = variance_ratio(10 * a + 100, b, clusters)
    assert other == pytest.approx([100 * v for v in found])
    inverse = variance_ratio(b, a, clusters)
    assert inverse == pytest.approx([1 / found.estimate, 1 / found.high, 1 / found.low])
    assert variance_ratio(a, b) == variance_ratio(a, b, np.arange(12))


def test_the_jackknife_covers_the_ratio_with_ten_heads():
    draw, covered, runs = rng(4), 0, 2000
    for _ in range(runs):
        a, b = 2 * draw.normal(size=10), draw.normal(size=10)
        _, low, high = variance_ratio(a, b)
        covered += low < 4 < high
    assert 0.93 < covered / runs < 0.98


def test_an_interval_over_heads_is_wider_than_one_over_their_trials():
    draw = rng(5)
    heads = np.repeat(np.arange(10), 10)
    a = 2 * np.repeat(draw.normal(size=10), 10) + 0.1 * draw.normal(size=100)
    b = np.repeat(draw.normal(size=10), 10) + 0.1 * draw.normal(size=100)
    by_head, by_policy = variance_ratio(a, b, heads), variance_ratio(a, b)
    assert np.log(by_head.high / by_head.low) > 2 * np.log(by_policy.high / by_policy.low)


def test_pitman_and_morgans_test_is_their_t():
    """t = (F - 1) sqrt(n - 2) / (2 sqrt(F (1 - r^2))), with n - 2 degrees of freedom."""
    draw = rng(12)
    shared = draw.normal(size=15)
    a, b = 2 * shared + draw.normal(size=15), shared + draw.normal(size=15)
    f, r = np.var(a, ddof=1) / np.var(b, ddof=1), np.corrcoef(a, b)[0, 1]
    t = (f - 1) * np.sqrt(13) / (2 * np.sqrt(f * (1 - r**2)))
    assert pitman_morgan(a, b) == pytest.approx(2 * stats.t.sf(abs(t), 13))
    assert np.isnan(pitman_morgan(a, a)) and np.isnan(pitman_morgan(a[:2], b[:2]))


def test_holm_adjusts_as_published():
    """Holm's own example, with a p that is not known."""
    found = holm([0.01, np.nan, 0.04, 0.03, 0.005])
    assert found == pytest.approx([0.03, np.nan, 0.06, 0.06, 0.02], nan_ok=True)
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0] and len(holm([])) == 0
    draw = rng(13)
    p = draw.uniform(size=(3000, 4))
    assert np.mean([(holm(row) < 0.05).any() for row in p]) == pytest.approx(0.05, abs=0.012)


def test_brown_forsythe_is_levenes_test_on_medians():
    a, b = 3 * rng(6).normal(size=15), rng(7).normal(size=15)
    spread = [np.abs(v - np.median(v)) for v in (a, b)]
    assert brown_forsythe(a, b) == pytest.approx(stats.f_oneway(*spread).pvalue)


def test_the_permutation_test_agrees_with_enumeration():
    draw = rng(8)
    clusters = np.repeat(np.arange(5), 2)
    a, b = 2 * draw.normal(size=10) + 3, draw.normal(size=10)
    apart = np.abs(a - np.median(a)), np.abs(b - np.median(b))
    sizes = []
    for swaps in itertools.product([0, 1], repeat=5):
        swapped = np.repeat(np.array(swaps, dtype=bool), 2)
        first = np.where(swapped, apart[1], apart[0])
        second = np.where(swapped, apart[0], apart[1])
        sizes.append(abs(np.log(first.mean() / second.mean())))
    expected = np.mean([size >= sizes[0] - 1e-12 for size in sizes])
    assert permutation_test(a, b, clusters, 10, rng()) == pytest.approx(expected)
    # Above the limit of enumeration random swaps are drawn; both see a plain difference.
    wide, narrow = 5 * draw.normal(size=20), draw.normal(size=20)
    assert permutation_test(wide, narrow, np.arange(20), 2000, rng()) < 0.01
    assert permutation_test(wide[:12], narrow[:12], np.arange(12), 1, rng()) < 0.05


def test_dominance_agrees_with_distribution_functions_and_enumeration():
    draw = rng(3)
    a, b = draw.normal(size=6), draw.normal(0.3, 0.5, size=6)
    clusters = [0, 0, 1, 2, 3, 4]
    points = np.sort([*a, *b])

    def integral(values, z, order):
        if order == 1:
            return (values <= z).mean()
        return np.maximum(z - values, 0).mean()

    for order in (1, 2):
        signs = np.array(list(itertools.product([1, -1], repeat=5)))[:, clusters]
        ahead, behind = [], []
        for sign in signs:
            first, second = np.where(sign > 0, a, b), np.where(sign > 0, b, a)
            gaps = [integral(first, z, order) - integral(second, z, order) for z in points]
            ahead.append(max(gaps))
            behind.append(-min(gaps))
        found = dominance(a, b, clusters, order, 10, rng())
        assert found.advantage == pytest.approx(ahead[0])
        assert found.shortfall == pytest.approx(behind[0])
        assert found.advantage_p == pytest.approx(np.mean(np.array(ahead) >= ahead[0] - 1e-12))
        assert found.shortfall_p == pytest.approx(np.mean(np.array(behind) >= behind[0] - 1e-12))
        # With the roles exchanged, the two change places.
        back = dominance(b, a, clusters, order, 10, rng())
        assert back == pytest.approx((found[2], found[3], found[0], found[1]))


def test_dominance_knows_a_shift_from_a_spread():
    draw = rng(4)
    a = draw.normal(size=80)
    ids = np.arange(80)
    shifted, narrow = a + 0.5, 0.3 * draw.normal(size=80)
    for order in (1, 2):
        found = dominance(a, shifted, ids, order, 500, rng())
        assert found.advantage_p < 0.05 < found.shortfall_p and found.shortfall == pytest.approx(0)
    first, second = (dominance(a, narrow, ids, order, 500, rng()) for order in (1, 2))
    assert first.advantage_p < 0.05 and first.shortfall_p < 0.05, "its best scores are lower"
    assert second.advantage_p < 0.05 < second.shortfall_p
    many = draw.normal(size=(2, 700))
    assert np.isfinite(dominance(*many, np.arange(700), 2, 50, rng())).all()
    assert np.isnan(dominance(a[:2], a[:2], ids[:2], 1, 50, rng())).all()


def test_the_test_of_dominance_keeps_its_level():
    draw = rng(5)
    rejected = np.zeros(2)
    for _ in range(300):
        shared, a, b = draw.normal(size=(3, 12))
        found = dominance(np.exp(shared + a), np.exp(shared + b), np.arange(12), 2, 300, draw)
        rejected += found.advantage_p < 0.05, found.shortfall_p < 0.05
    assert (rejected <= 300 * 0.05 + 3 * np.sqrt(300 * 0.05 * 0.95)).all(), rejected


@pytest.mark.parametrize("count", [1, 5, 10, 17, 200])
def test_the_tails_mean_is_that_of_the_quantile_function(count):
    values = rng(count).normal(size=count)
    steps = (np.arange(10**5) + 0.5) / 10**6  # of the lowest tenth
    quantiles = np.sort(values)[np.floor(steps * count).astype(int)]
    assert tail_mean(values) == pytest.approx(quantiles.mean(), abs=1e-3)
    assert np.isnan(tail_mean([])) and tail_mean([3.0]) == pytest.approx(3)


def test_the_permutation_test_keeps_its_level():
    for skewed in (False, True):
        draw, rejected, runs = rng(9), 0, 1000
        for _ in range(runs):
            shared, a, b = draw.normal(size=(3, 10))
            a, b = shared + a, shared + b + 3
            if skewed:
                a, b = np.exp(a), np.exp(b - 3) + 3
            rejected += permutation_test(a, b, np.arange(10), 100, draw) < 0.05
        assert 0.03 < rejected / runs < 0.07


def test_mcnemar_counts_the_pairs_that_differ():
    first = np.array([True] * 8 + [False] * 4)
    second = np.array([True] * 2 + [False] * 9 + [True])
    # Six pairs are worse in the first only, one in the second only.
    expected = 2 * sum(stats.binom.pmf(k, 7, 0.5) for k in (0, 1))
    assert mcnemar(first, second) == pytest.approx(expected)
    assert np.isnan(mcnemar(first, first))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(1.0, 1.15, 0.15), (1.15, 1.0, 0.15), (2.0, 1.0, 1.0), (0.0, 1.0, np.nan), (-1, 1, np.nan)],
)
def test_kl_mismatch(first, second, expected):
    assert kl_mismatch(first, second) == pytest.approx(expected, nan_ok=True)
