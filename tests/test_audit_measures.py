"""The measures of an audit: by hand, pair by pair in resamples, and where the answer is known."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit
from tiny_audit import best_of_four, write_lines
from tiny_ensembles import rng

from prudent.analysis.statistics import holm, share_interval
from prudent.audit import measures as audit
from prudent.audit.scores import Choice, Scores, read_scores
from prudent.data.rewardbench import SECTION_OF
from prudent.rewards.calibration import equal_mass
from prudent.rewards.resampling import draws, interval
from prudent.rewards.rewardbench import accuracy_table


def values(found: audit.Found) -> dict[str, float]:
    return {name: counted.measured.value for name, counted in found.items()}


def ensemble(n=120, members=4, prompts=50, seed=0):
    """Margins [n, K] with some ties, which pairs share a prompt [n], and lengths [n, 2]."""
    draw = rng(seed)
    margins = draw.normal(size=(n, 1)) + 0.7 * draw.normal(size=(n, members)) + 0.5
    margins[:3] = 0
    return margins, draw.integers(0, prompts, size=n), draw.integers(5, 15, size=(n, 2))


def resampled_rows(prompts: np.ndarray, resamples: int, draw: np.random.Generator):
    """The rows of the sample, and of resamples that have each drawn prompt's rows again."""
    names, clusters = np.unique(prompts, return_inverse=True)
    for times in draws(len(names), resamples, draw).astype(int):
        yield np.repeat(np.arange(len(prompts)), times[clusters])


def area(keys: np.ndarray, wrong: np.ndarray) -> float:
    """The area under the risk-coverage curve, from its definition; keys of equals in their order"""
    ordered = wrong[np.argsort(keys, kind="stable")]
    return float(np.mean([ordered[:k].mean() for k in range(1, len(ordered) + 1)]))


def check_draws(found: audit.Found, drawn: dict[str, list[float]]):
    for name, of in drawn.items():
        assert found[name].measured[:3] == pytest.approx(interval(np.array(of))), name


# --- Accuracy


def test_accuracy_by_hand():
    margins = np.array([[1.0, 3.0], [1.0, -1.0], [-2.0, 1.0], [0.5, -0.1], [0.0, 0.0]])
    lengths = np.array([[10, 8], [79, 100], [7, 7], [1, 3], [8, 10]])
    found = audit.accuracy(margins, np.arange(5), lengths, rng(), resamples=0)
    assert values(found) == pytest.approx(
        {
            audit.ACCURACY_MEAN: 2 / 5,  # ties are wrong
            audit.ACCURACY_ONE: 5 / 10,
            audit.ACCURACY_MATCHED: 1 / 3,
            audit.LONGER: 1.5 / 5,
            audit.BEYOND_LONGER: 0.5 / 5,
            audit.LENGTH: stats.spearmanr(margins.mean(1), [2, -21, 0, -2, -2]).statistic,
        }
    )
    assert found[audit.ACCURACY_MATCHED].n == 3
    assert {counted.n for counted in found.values()} == {3, 5}
    assert all(math.isnan(counted.measured.low) for counted in found.values())


def test_accuracy_in_resamples_is_that_of_the_drawn_prompts():
    margins, prompts, lengths = ensemble()
    found = audit.accuracy(margins, prompts, lengths, rng(1), resamples=40)
    drawn: dict[str, list[float]] = {name: [] for name in found}
    for rows in resampled_rows(prompts, 40, rng(1)):
        mean, length = margins[rows].mean(1), lengths[rows]
        longer = length[:, 0] - length[:, 1]
        near = np.abs(longer) <= 0.2 * length.max(1)
        drawn[audit.ACCURACY_MEAN].append((mean > 0).mean())
        drawn[audit.ACCURACY_ONE].append((margins[rows] > 0).mean())
        drawn[audit.ACCURACY_MATCHED].append((mean[near] > 0).mean())
        drawn[audit.LONGER].append((longer > 0).mean() + (longer == 0).mean() / 2)
        drawn[audit.BEYOND_LONGER].append((mean > 0).mean() - drawn[audit.LONGER][-1])
        drawn[audit.LENGTH].append(stats.spearmanr(mean, longer).statistic)
    check_draws(found, drawn)


def test_blocks_of_resamples_do_not_change_them(monkeypatch):
    margins, prompts, lengths = ensemble()
    whole = audit.accuracy(margins, prompts, lengths, rng(1), resamples=40)
    monkeypatch.setattr(audit, "CHUNK", 7 * len(margins))
    assert audit.accuracy(margins, prompts, lengths, rng(1), resamples=40) == whole


def test_pairs_of_one_prompt_are_one_observation():
    margins, _, lengths = ensemble(80)
    single = audit.accuracy(margins, np.arange(80), lengths, rng(1), 200)
    four = np.repeat(np.arange(80), 4)
    shared = audit.accuracy(margins[four], four, lengths[four], rng(1), 200)
    apart = audit.accuracy(margins[four], np.arange(320), lengths[four], rng(1), 200)
    for name, (measured, _) in single.items():
        assert shared[name].measured[:3] == pytest.approx(measured[:3])
    widths = [np.ptp(found[audit.ACCURACY_MEAN].measured[1:3]) for found in (single, shared, apart)]
    assert widths[2] == pytest.approx(widths[1] / 2, rel=0.2)


def test_a_reward_of_length_is_seen():
    draw = rng()
    lengths = draw.permuted(np.stack([np.arange(1, 401), np.arange(1000, 1400)], axis=1), axis=1)
    margins = 0.01 * (lengths[:, 0] - lengths[:, 1])[:, None].astype(float)
    found = audit.accuracy(margins, np.arange(400), lengths, draw, 100)
    assert found[audit.LENGTH].measured[:3] == pytest.approx((1, 1, 1))
    assert found[audit.LONGER].measured == found[audit.ACCURACY_MEAN].measured
    assert math.isnan(found[audit.ACCURACY_MATCHED].measured.value)
    assert found[audit.ACCURACY_MATCHED].n == 0


@pytest.mark.parametrize("side", [0, 1])
def test_a_share_of_0_or_1_has_wilsons_interval_over_prompts(side):
    draw, sign = rng(), 2 * side - 1
    margins, prompts = sign * (1 + draw.random((40, 2))), np.repeat(np.arange(20), 2)
    lengths = 10 + sign * np.array([[1, 0]] * 40)
    wilson = pytest.approx(share_interval([side] * 20))
    found = audit.accuracy(margins, prompts, lengths, rng(), 100)
    found |= audit.spread_measures(margins, prompts, rng(), 100, 2)
    found |= audit.member_measures(margins, prompts, rng(), 100)
    names = (audit.ACCURACY_MEAN, audit.ACCURACY_ONE, audit.LONGER, audit.TEAM.format(2))
    for name in names:
        assert found[name].measured[:3] == wilson
    fifth = found[audit.BY_SPREAD.format(1)].measured
    assert fifth.low < 0.7 * side + 0.3 and fifth.high > 0.3 * side and fifth.low < fifth.high
    assert found[audit.ACCURACY_MATCHED].n == 40


@pytest.mark.parametrize("known", [True, False])
def test_weighted_accuracy_is_that_of_the_benchmarks_rule(known):
    margins, prompts, _ = ensemble(300, members=2)
    names = ["alpacaeval-easy", "mt-bench-med", "math-prm", "hep-cpp"] if known else list("abcd")
    sections = [SECTION_OF[name] for name in names] if known else ["X", "X", "X", "Y"]
    place = rng(3).choice(4, p=[0.4, 0.3, 0.2, 0.1], size=300)
    subset, section = [names[i] for i in place], [sections[i] for i in place]
    rows = [
        (i, subset[i], section[i], side, 0, head, margins[i, head] if side == "chosen" else 0.0)
        for i in range(300)
        for side in ("chosen", "rejected")
        for head in range(2)
    ]
    columns = ["id", "subset", "section", "side", "ensemble", "head", "reward"]
    table = accuracy_table(pd.DataFrame(rows, columns=columns))
    expected = table[(table["level"] == "overall") & (table["model"] == "mean")]["accuracy"].item()
    counted = audit.weighted_accuracy(margins, prompts, section, subset, rng(), 200)
    measured, n = counted[audit.ACCURACY_WEIGHTED]
    assert measured.value == pytest.approx(expected)
    assert measured.value != pytest.approx((margins.mean(1) > 0).mean(), abs=1e-3)
    assert measured.low < expected < measured.high and n == 300


def test_weighted_accuracy_without_a_subset_in_a_resample():
    """Subsets of one pair are in few resamples; their weight then goes to the other ones, as that
    of a section without any pair does."""
    margins = np.where(np.arange(12) % 3 < 2, 1.0, -1.0)[:, None]
    subset, section = [f"s{i}" for i in range(12)], ["A"] * 2 + ["B"] * 10
    found = audit.weighted_accuracy(margins, np.arange(12), section, subset, rng(1), 60)
    drawn = []
    for rows in resampled_rows(np.arange(12), 60, rng(1)):
        kept = np.unique(rows)  # a subset's accuracy does not depend on how often it is drawn
        parts = [margins[kept[inside], 0] > 0 for inside in (kept < 2, kept >= 2) if inside.any()]
        drawn.append(np.mean([part.mean() for part in parts]))
    check_draws(found, {audit.ACCURACY_WEIGHTED: drawn})


# --- Calibration


def calibrated(n: int, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """Margins [n, 1], ``scale`` times those whose labels have the probability that they say."""
    draw = rng(seed)
    size = np.abs(2 * draw.normal(size=(n, 1)))
    return scale * np.where(draw.random((n, 1)) < expit(size), size, -size)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_calibrated_margins_up_to_a_temperature(scale):
    found = audit.calibration_measures(calibrated(4000, scale), np.arange(4000), rng(1), 200)
    assert found[audit.TEMPERATURE].measured.value == pytest.approx(scale, rel=0.1)
    for name in (audit.ECE, audit.BRIER, audit.LOG_LOSS):
        measured = found[name].measured
        assert measured.noise_low < measured.value < measured.noise_high
        assert measured.low < measured.value < measured.high
        assert measured.noise_high < found[f"{name}: {audit.SHUFFLED}"].measured.low
    counts = {name: counted.n for name, counted in found.items()}
    assert set(counts.values()) == {2000}


def test_margins_whose_size_says_nothing_are_not_calibrated():
    draw = rng()
    size = np.exp(1.5 * draw.normal(size=(3000, 1)))
    margins = np.where(draw.random((3000, 1)) < 0.75, size, -size)
    found = audit.calibration_measures(margins, np.arange(3000), rng(1), 50)
    assert found[audit.ECE].measured.low > found[audit.ECE].measured.noise_high


def test_the_numbers_of_calibration():
    margins, prompts, _ = ensemble(400, prompts=150)
    found = audit.calibration_measures(margins, prompts, rng(1), 40, repetitions=3000)
    held = np.unique(prompts, return_inverse=True)[1] % 2 == 1
    warm = margins.mean(1)[held] / found[audit.TEMPERATURE].measured.value
    size = np.abs(warm)
    sure = expit(size)
    place = equal_mass(sure, 10)
    entropy = -(sure * np.log(sure) + (1 - sure) * np.log(1 - sure)).mean()
    assert found[audit.LOG_LOSS].measured.value == pytest.approx(-np.log(expit(warm)).mean())
    assert found[audit.LOG_LOSS].measured.noise == pytest.approx(entropy, rel=0.01)
    assert found[audit.BRIER].measured.value == pytest.approx((expit(-warm) ** 2).mean())
    bins = [sure[place == b] for b in range(10)]
    spreads = [math.sqrt(len(of)) / 2 for of in bins]
    of_bins = [  # means of |normal| numbers
        stats.foldnorm.mean((of - 0.5).sum() / sd, scale=sd)
        for of, sd in zip(bins, spreads, strict=True)
    ]
    of_flips = {
        audit.LOG_LOSS: (np.log1p(np.exp(-size)) + size / 2).mean(),
        audit.BRIER: (sure**2 / 2 + (1 - sure) ** 2 / 2).mean(),
        audit.ECE: sum(of_bins) / len(sure),
    }
    for name, expected in of_flips.items():
        measured = found[f"{name}: {audit.SHUFFLED}"].measured
        assert measured.value == pytest.approx(expected, rel=0.03), name
        assert measured.low < expected < measured.high
    assert found[audit.TEMPERATURE].n + found[audit.ECE].n == 400


def test_the_interval_of_the_log_loss_is_over_prompts():
    single = calibrated(200, seed=2)
    four = np.repeat(np.arange(200), 4)
    widths = [
        np.ptp(audit.calibration_measures(*of, rng(1), 400)[audit.LOG_LOSS].measured[1:3])
        for of in ((single, np.arange(200)), (single[four], four))
    ]
    assert widths[0] == pytest.approx(widths[1], rel=0.15)


def test_margins_that_point_the_wrong_way_are_a_coin_flip():
    found = audit.calibration_measures(-calibrated(100), np.arange(100), rng(), 10)
    assert found[audit.TEMPERATURE].measured.value == math.inf
    assert found[audit.BRIER].measured.value == pytest.approx(1 / 4)
    assert found[audit.LOG_LOSS].measured.value == pytest.approx(math.log(2))


def test_one_prompt_has_no_calibration():
    assert audit.calibration_measures(calibrated(5), np.zeros(5), rng()) == {}


def test_reliability():
    margins = np.array([0.1, -0.2, 0.0, 3.0, 4.0, 5.0])
    prompts = np.array([0, 1, 2, 3, 3, 4])
    table = audit.reliability(margins, prompts, bins=2)
    assert table["bin"].tolist() == [1, 2] and table["n"].tolist() == [3, 3]
    assert table["right"].tolist() == pytest.approx([0.5, 1.0])
    assert table["confidence"].tolist() == pytest.approx(
        [expit([0, 0.1, 0.2]).mean(), expit([3, 4, 5]).mean()]
    )
    assert tuple(table.loc[1, ["right", "low", "high"]]) == pytest.approx(share_interval([1, 1]))
    assert audit.reliability(margins[:1], prompts[:1])["n"].tolist() == [1]


# --- Spread


def test_a_risk_coverage_curve_and_its_area():
    keys, wrong = np.array([2.0, 0.0, 1.0, 1.0, 3.0]), np.array([1.0, 0.0, 1.0, 0.0, 0.0])
    curve = audit.risk_coverage(keys, wrong)
    assert curve == pytest.approx([0, 0.25, 1 / 3, 0.5, 0.4])
    assert audit.areas(keys, wrong, np.ones((5, 1))) == pytest.approx([curve.mean()])
    tied = rng().integers(0, 9, size=200)
    wrong = 1.0 * (rng(1).random(200) < 0.3)
    found = audit.areas(tied, wrong, np.ones((200, 1)))
    assert found == pytest.approx([audit.risk_coverage(tied, wrong).mean()])


def test_areas_are_those_of_the_repeated_pairs():
    draw = rng()
    keys, wrong = draw.normal(size=30), 1.0 * (draw.random(30) < 0.4)
    weights = draw.integers(0, 4, size=(30, 6))
    found = audit.areas(keys, wrong, weights.astype(float))
    expected = [area(np.repeat(keys, w), np.repeat(wrong, w)) for w in weights.T]
    assert found == pytest.approx(expected)


def test_the_area_of_ties_is_the_mean_over_their_orders():
    keys = np.array([2.0, 1.0, 2.0, 2.0, 1.0, -np.inf, -np.inf])
    wrong = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    every = [area(keys[list(o)], wrong[list(o)]) for o in itertools.permutations(range(7))]
    assert audit.areas(keys, wrong, np.ones((7, 1))) == pytest.approx([np.mean(every)])
    assert audit.areas(0 * wrong, wrong, np.ones((7, 1))) == pytest.approx([4 / 7])


def test_the_best_and_the_worst_order_by_hand():
    wrong, keys = np.array([0.0, 0.0, 1.0]), np.array([1.0, 2.0, 3.0])
    assert audit.areas(keys, wrong, np.ones((3, 1))) == pytest.approx([1 / 9])
    assert audit.areas(-keys, wrong, np.ones((3, 1))) == pytest.approx([(1 + 1 / 2 + 1 / 3) / 3])


def test_measures_of_the_spread_in_resamples_are_those_of_the_drawn_prompts():
    margins, prompts, _ = ensemble()
    margins[:3] += rng(5).normal(size=(3, 4))  # no ties: the brute force does not average over them
    found = audit.spread_measures(margins, prompts, rng(1), 30, repetitions=2)
    spread, mean = margins.std(1, ddof=1), margins.mean(1)
    fifth = np.digitize(spread, np.quantile(spread, [0.2, 0.4, 0.6, 0.8]))
    draw = rng(1)
    draw.permutation(len(margins))
    low, large, sure, chance = audit.LOW_SPREAD, audit.LARGE_MARGIN, audit.LARGE_RATIO, audit.RANDOM
    drawn: dict[str, list[float]] = {name: [] for name in found}
    for rows in resampled_rows(prompts, 30, draw):
        wrong = 1.0 * (mean[rows] <= 0)
        of = {
            low: area(spread[rows], wrong),
            large: area(-np.abs(mean[rows]), wrong),
            sure: area(-np.abs(mean[rows]) / spread[rows], wrong),
            chance: wrong.mean(),
        }
        for name, value in of.items():
            drawn[audit.AREA.format(name)].append(value)
        for one, other in ((low, chance), (large, chance), (sure, chance), (low, large)):
            drawn[audit.LESS.format(one, other)].append(of[one] - of[other])
        drawn[audit.LESS.format(sure, large)].append(of[sure] - of[large])
        for number in range(5):
            drawn[audit.BY_SPREAD.format(number + 1)].append(
                1 - wrong[fifth[rows] == number].mean()
            )
    check_draws(found, drawn)
    assert [found[audit.BY_SPREAD.format(k)].n for k in range(1, 6)] == [24] * 5
    unknown = {name for name, (measured, _) in found.items() if math.isnan(measured.noise)}
    of_margin = {audit.AREA.format(large), audit.LESS.format(large, chance)}
    assert unknown == of_margin | {audit.AREA.format(chance)}


def test_a_spread_that_knows_the_error():
    draw = rng()
    size = np.exp(draw.normal(size=(1500, 1)))
    margins = 1 + size * (draw.normal(size=(1500, 1)) + 0.3 * draw.normal(size=(1500, 5)))
    found = audit.spread_measures(margins, np.arange(1500), rng(1), 200, repetitions=50)
    beats = found[audit.LESS.format(audit.LOW_SPREAD, audit.RANDOM)].measured
    assert beats.high < beats.noise_low < 0 < beats.noise_high
    # Large margins come from large noise here, so that only the ratio finds the errors.
    best = found[audit.LESS.format(audit.LARGE_RATIO, audit.LARGE_MARGIN)].measured
    assert best.high < 0 and best.high < best.noise_low
    first, last = (found[audit.BY_SPREAD.format(k)].measured for k in (1, 5))
    assert first.low > first.noise_high and last.high < last.noise_low
    total = found[audit.AREA.format(audit.RANDOM)].measured.value
    assert first.noise == pytest.approx(1 - total, abs=0.02)


def test_a_constant_spread_is_no_better_than_a_random_order():
    mean = rng().normal(size=300).round(1)
    margins = (10 * mean)[:, None].round() + np.array([-8.0, 0.0, 8.0])
    found = audit.spread_measures(margins, np.arange(300), rng(1), 50, repetitions=5)
    nothing = found[audit.LESS.format(audit.LOW_SPREAD, audit.RANDOM)].measured
    assert nothing[:6] == pytest.approx((0,) * 6)
    same = found[audit.LESS.format(audit.LARGE_RATIO, audit.LARGE_MARGIN)].measured
    assert same[:6] == pytest.approx((0,) * 6)


def test_members_without_any_spread():
    margins = np.repeat(np.array([[1.0], [-1.0], [0.0], [2.0]]), 3, axis=1)
    found = values(audit.spread_measures(margins, np.arange(4), rng(), 5, repetitions=3))
    assert found[audit.AREA.format(audit.LOW_SPREAD)] == pytest.approx(1 / 2)
    # Infinite ratios come first, and the tie last: 0.0 of its size has no sign to trust.
    assert found[audit.AREA.format(audit.LARGE_RATIO)] == pytest.approx((3 * (1 / 3) + 1 / 2) / 4)


def test_equal_spreads_go_to_the_fifths_by_chance():
    """In a file in which all errors come last, a constant spread's fifths have the same share."""
    margins = np.where(np.arange(500) < 250, 2.0, -2.0)[:, None] + np.array([-1.0, 1.0])
    found = values(audit.spread_measures(margins, np.arange(500), rng(), 0, repetitions=1))
    for number in range(1, 6):
        assert found[audit.BY_SPREAD.format(number)] == pytest.approx(0.5, abs=0.15)


def test_noise_that_is_the_same_everywhere_is_seldom_beyond_its_range():
    name = audit.LESS.format(audit.LOW_SPREAD, audit.RANDOM)
    beyond = 0
    for seed in range(60):
        draw = rng(seed)
        margins = draw.normal(size=(150, 1)) + 0.5 + draw.normal(size=(150, 4))
        found = audit.spread_measures(margins, np.arange(150), draw, 0, repetitions=60)
        measured = found[name].measured
        beyond += not measured.noise_low <= measured.value <= measured.noise_high
    assert beyond <= 9  # 4 are expected with so few repetitions; more than 9 have p < 0.01


# --- Members


def test_members_in_resamples_are_those_of_the_drawn_prompts():
    margins, prompts, _ = ensemble(members=3)
    found = audit.member_measures(margins, prompts, rng(1), 30)
    size = np.sqrt((margins**2).mean(0))
    pairs = list(itertools.combinations(range(3), 2))
    drawn: dict[str, list[float]] = {name: [] for name in found}
    for rows in resampled_rows(prompts, 30, rng(1)):
        of = margins[rows]
        right, sign, standard = of > 0, np.sign(of), of / size
        rho = np.mean([np.corrcoef(right[:, a], right[:, b])[0, 1] for a, b in pairs])
        drawn[audit.AGREEMENT].append(
            np.mean([(sign[:, a] == sign[:, b]).mean() for a, b in pairs])
        )
        drawn[audit.SHARED].append(rho)
        drawn[audit.EFFECTIVE].append(3 / (1 + 2 * max(rho, 0)))
        drawn[audit.TEAM.format(1)].append(right.mean())
        drawn[audit.TEAM.format(2)].append(
            np.mean([(standard[:, a] + standard[:, b] > 0).mean() for a, b in pairs])
        )
        drawn[audit.TEAM.format(3)].append((standard.sum(1) > 0).mean())
    check_draws(found, drawn)


def test_identical_members_are_one():
    margins = np.repeat(calibrated(300), 6, axis=1)
    found = audit.member_measures(margins, np.arange(300), rng(), 50)
    for name in (audit.SHARED, audit.EFFECTIVE):
        assert found[name].measured[:3] == pytest.approx((1, 1, 1))
    assert found[audit.AGREEMENT].measured[:3] == pytest.approx(share_interval([1] * 300))
    curve = {found[audit.TEAM.format(m)].measured.value for m in (1, 2, 5, 6)}
    assert len(curve) == 1


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_the_effective_number_of_members(rho):
    """Members copy a common outcome with the probability sqrt(rho), so that rho is their phi."""
    draw = rng(1)
    own, common = draw.random((6000, 8)) < 0.7, draw.random((6000, 1)) < 0.7
    right = np.where(draw.random((6000, 8)) < math.sqrt(rho), common, own)
    margins = np.where(right, 1.0, -1.0)
    found = audit.member_measures(margins, np.arange(6000), rng(), 200)
    assert found[audit.SHARED].measured.value == pytest.approx(rho, abs=0.02)
    expected = 8 / (1 + 7 * rho)
    assert found[audit.EFFECTIVE].measured.value == pytest.approx(expected, rel=0.05)
    assert found[audit.EFFECTIVE].measured.low <= expected <= found[audit.EFFECTIVE].measured.high


def test_members_that_err_in_turn_are_no_more_than_they_are():
    margins = np.where(np.arange(60)[:, None] % 4 == np.arange(4), -1.0, 1.0)
    found = audit.member_measures(margins, np.arange(60), rng(), 20)
    assert found[audit.SHARED].measured.value == pytest.approx(-1 / 3)
    assert found[audit.EFFECTIVE].measured.value == 4


def test_the_learning_curve_of_independent_members():
    margins = 0.3 + rng().normal(size=(5000, 12))
    found = audit.member_measures(margins, np.arange(5000), rng(1), 100)
    assert [name for name in found if name.startswith("accuracy")] == [
        audit.TEAM.format(m) for m in (1, 2, 5, 10, 12)
    ]
    for m in (1, 2, 5, 10, 12):
        measured = found[audit.TEAM.format(m)].measured
        assert measured.low < stats.norm.cdf(0.3 * math.sqrt(m)) < measured.high


def test_scales_of_members_do_not_decide_the_learning_curve():
    margins, prompts, _ = ensemble(members=4)
    plain = audit.member_measures(margins, prompts, rng(), 20)
    scaled = audit.member_measures(margins * [1, 1000, 0.01, 7], prompts, rng(), 20)
    assert scaled == plain


def test_a_member_that_is_always_right_has_no_correlation():
    margins = np.abs(ensemble(members=3)[0]) + 1
    prompts = np.arange(len(margins))
    found = audit.member_measures(margins, prompts, rng(), 20)
    assert math.isnan(found[audit.SHARED].measured.value)
    assert math.isnan(found[audit.EFFECTIVE].measured.value)
    margins[:30, :2] *= -1  # the first two are wrong together
    found = audit.member_measures(margins, prompts, rng(), 20)
    assert found[audit.SHARED].measured.value == pytest.approx(1)


def test_a_member_whose_scores_are_all_equal():
    margins = np.stack([np.zeros(20), np.ones(20)], axis=1)
    found = values(audit.member_measures(margins, np.arange(20), rng(), 5))
    assert found[audit.TEAM.format(2)] == 1 and found[audit.AGREEMENT] == 0


def test_subsets_of_members():
    assert audit._teams(5, 2, rng()).shape == (5, 10)
    teams = audit._teams(20, 5, rng())
    assert teams.shape == (20, 50) and set(teams.sum(0)) == {5}
    assert len({tuple(team) for team in teams.T}) > 40


# --- The table


def test_a_coin_flip():
    right = np.array([True] * 5)
    assert audit.coin_flip(right, np.arange(5)) == pytest.approx(2 / 32)
    assert audit.coin_flip(np.repeat(right, 2), np.repeat(np.arange(5), 2)) == pytest.approx(2 / 32)
    many = np.arange(300) % 100 < 57
    exact = audit.coin_flip(many, np.arange(300))
    assert exact == pytest.approx(stats.binomtest(int(many.sum()), 300).pvalue)
    twice = np.repeat(np.arange(300), 2)
    assert audit.coin_flip(many[twice], twice) == pytest.approx(exact, rel=0.2)
    assert audit.coin_flip(many[twice], np.arange(600)) < exact / 2
    even = np.tile([True, False], 20)
    assert audit.coin_flip(even, np.repeat(np.arange(20), 2)) == 1


def scores(n=240, members=3, sections=True, subsets=True) -> Scores:
    draw = rng(4)
    margins = draw.normal(size=(n, 1)) + draw.normal(size=(n, members)) + 0.3
    base = draw.normal(size=(n, members))
    names = np.array(["p", "q", "r"])[np.arange(n) % 3]
    return Scores(
        [[{"role": "user", "content": f"prompt {i // 2}"}] for i in range(n)],
        ["x" * length for length in draw.integers(1, 50, size=n)],
        ["x" * length for length in draw.integers(1, 50, size=n)],
        base + margins,
        base,
        names.tolist() if subsets else None,
        ["A" if name == "p" else "B" for name in names] if sections else None,
    )


def by_part(table: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    return {part: of.set_index("quantity") for part, of in table.groupby(["section", "subset"])}


@pytest.mark.filterwarnings("error")
def test_the_table():
    given = scores()
    table = audit.audit_table(given, seed=0, resamples=20)
    assert list(table.columns) == audit.COLUMNS
    assert not table.duplicated(["section", "subset", "quantity"]).any()
    parts = by_part(table)
    assert list(parts) == [("A", "all"), ("A", "p"), ("B", "all"), ("B", "q"), ("B", "r")] + [
        ("all", "all")
    ]
    of_subset = {
        *(audit.ACCURACY_MEAN, audit.ACCURACY_ONE, audit.ACCURACY_MATCHED),
        *(audit.LONGER, audit.BEYOND_LONGER, audit.LENGTH),
    }
    assert set(parts["A", "p"].index) == of_subset
    for part in (("all", "all"), ("B", "all")):
        of_all = {audit.ACCURACY_WEIGHTED, audit.ECE, audit.EFFECTIVE, audit.TEAM.format(3)}
        assert of_subset | of_all < set(parts[part].index)
        assert audit.RELIABILITY.format(10, 10) in parts[part].index
        assert audit.AREA.format(audit.LOW_SPREAD) in parts[part].index
    inside = np.array(given.subset) == "q"
    right = given.margins.mean(1) > 0
    row = parts["B", "q"].loc[audit.ACCURACY_MEAN]
    assert row["value"] == pytest.approx(right[inside].mean()) and row["n"] == inside.sum()
    assert row["low"] < row["value"] < row["high"]
    longer = np.array(list(map(len, given.chosen))) - list(map(len, given.rejected))
    row = parts["B", "q"].loc[audit.LONGER]
    assert row["value"] == pytest.approx(((np.sign(longer) + 1) / 2)[inside].mean())
    prompts = np.arange(240) // 2
    tests = [
        audit.coin_flip(right[np.array(given.subset) == s], prompts[np.array(given.subset) == s])
        for s in "pqr"
    ]
    found = [
        parts[part].loc[audit.ACCURACY_MEAN, "p"] for part in list(parts)[:5] if part[1] in "pqr"
    ]
    assert found == pytest.approx(holm(tests))
    assert table["p"].notna().sum() == 3


def test_the_table_has_streams_of_its_seed():
    given = scores(60)
    first, again, other = (audit.audit_table(given, seed, resamples=10) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert first["value"][0] == other["value"][0]
    assert (first["low"] != other["low"])[:5].any()


def test_parts_of_the_table_have_streams_of_their_own():
    given = scores(60)
    twice = Scores(
        *(2 * of for of in (given.prompts, given.chosen, given.rejected)),
        *(np.tile(of, (2, 1)) for of in (given.chosen_scores, given.rejected_scores)),
        subset=["one"] * 60 + ["other"] * 60,
    )
    parts = by_part(audit.audit_table(twice, 0, resamples=10))
    one, other = parts["all", "one"], parts["all", "other"]
    assert (one["value"] == other["value"]).all() and (one["low"] != other["low"]).any()


def test_pairs_of_one_prompt_are_one_observation_in_the_table():
    given = scores(120)
    separate = [[{"role": "user", "content": str(i)}] for i in range(120)]
    same = [
        [{"role": "user", "content": f" {i // 12}\n" if i % 2 else str(i // 12)}]
        for i in range(120)
    ]
    widths = []
    for prompts in (separate, same):
        right = np.repeat([1.0, -1.0, 1.0, 1.0, 1.0] * 2, 12)[:, None]
        of = Scores(prompts, given.chosen, given.rejected, right, 0 * right)
        row = by_part(audit.audit_table(of, 0, 200))["all", "all"].loc[audit.ACCURACY_MEAN]
        widths.append(row["high"] - row["low"])
    assert widths[1] > 2.5 * widths[0]


@pytest.mark.parametrize(
    ("sections", "subsets", "expected"),
    [
        (False, False, {("all", "all")}),
        (True, False, {("all", "all"), ("A", "all"), ("B", "all")}),
        (False, True, {("all", "all"), ("all", "p"), ("all", "q"), ("all", "r")}),
    ],
)
def test_parts_of_the_table(sections, subsets, expected):
    table = audit.audit_table(scores(60, sections=sections, subsets=subsets), 0, resamples=0)
    assert set(by_part(table)) == expected
    assert (audit.ACCURACY_WEIGHTED in set(table["quantity"])) == sections
    assert table[["low", "high"]][table["quantity"] == audit.ACCURACY_MEAN].isna().all(axis=None)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("n", "members"), [(1, 1), (1, 3), (2, 2), (5, 1), (4, 12)])
def test_few_pairs_and_members(n, members):
    table = audit.audit_table(scores(n, members), 0, resamples=5)
    quantities = set(table["quantity"])
    assert (audit.EFFECTIVE in quantities) == (members > 1)
    assert (audit.AREA.format(audit.RANDOM) in quantities) == (members > 1)


# --- Prompts with lists of responses


def choice(chosen, rejected, tie=None):
    """A choice of one member, or of some if there are lists of their scores for each response."""
    sides = (np.array(side, dtype=float).reshape(len(side), -1) for side in (chosen, rejected))
    return Choice(0, *sides, tie)


def test_best_of_n_by_hand():
    assert audit.best_of_n(choice([2], [1, 0, -1])) == 1
    assert audit.best_of_n(choice([1], [1, 0, 2])) == 0
    assert audit.best_of_n(choice([2], [2, 0, 2])) == 1 / 3  # one of three with the highest score
    assert audit.best_of_n(choice([0, 2], [2, 1])) == 1 / 2
    assert audit.best_of_n(choice([[4, 0]], [[1, 2], [0, 3]])) == 1  # by the members' mean


def ties_score(choices):
    """RewardBench 2's score of its subset Ties, number by number."""
    of = {(c.tie[0], c.tie[1]): (c.chosen.mean(1), c.rejected.mean(1)) for c in choices if c.tie}
    right = {key: min(good) > max(bad) for key, (good, bad) in of.items()}
    shares = [np.mean([right[key] for key in of if key[0] == kind]) for kind in ("tied", "ref")]
    own, hard, margins = [], [], []
    for number in {n for _, n in of if {("ref", n), ("tied", n)} <= of.keys()}:
        gaps = [min(of[kind, number][0]) - max(of[kind, number][1]) for kind in ("tied", "ref")]
        width = np.ptp(of["tied", number][0])
        own.append(gaps[0] > width)
        hard.append(min(gaps) > width)
        least = min(gaps)
        margins.append(math.tanh(least / width - 1) if width else float(np.sign(least)))
    means = [np.mean(values) for values in (own, hard, margins)]
    return float(np.dot([0.3, 0.3, 0.2, 0.2, 0.01], [*shares, *means]))


def test_the_score_of_ties_by_hand():
    choices = [
        choice([5, 4], [1, 0], ("tied", 0)),  # gap 3, width 1
        choice([2], [0, 1.5], ("ref", 0)),  # gap 0.5
        choice([1, 3], [2, 0], ("tied", 1)),  # wrong
        choice([1], [0], ("ref", 1)),
        choice([2, 2], [0], ("tied", 2)),  # width 0
        choice([3], [0], ("ref", 2)),
        choice([1], [2], ("ref", 7)),  # wrong, and alone
    ]
    found = audit.choice_measures(choices, range(7), ["Ties"] * 7, rng(), 0)
    margin = (math.tanh(0.5 - 1) + math.tanh(-1 / 2 - 1) + 1) / 3
    expected = 0.3 * 2 / 3 + 0.3 * 3 / 4 + 0.2 * 2 / 3 + 0.2 * 1 / 3 + 0.01 * margin
    assert values(found) == pytest.approx({audit.TIES: expected})
    assert ties_score(choices) == pytest.approx(expected)
    assert found[audit.TIES].n == 7


def test_the_score_of_ties_without_any_pair_of_prompts_is_not_known():
    choices = [choice([5, 4], [1], ("tied", 0)), choice([2], [0], ("ref", 1))]
    found = audit.choice_measures(choices, [0, 1], ["Ties"] * 2, rng(), 50)
    assert math.isnan(found[audit.TIES].measured.value)


def test_choices_in_resamples_are_those_of_the_drawn_prompts(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "CHUNK", 500)  # several blocks of resamples
    scores = read_scores(write_lines(best_of_four(9, 8), tmp_path / "s.jsonl"))
    subset = [scores.subset[c.pair] for c in scores.choices]
    units = np.array([*range(18), *range(18, 26), *range(18, 26)])  # a ref and a tied one are one
    found = audit.choice_measures(scores.choices, np.arange(34), subset, rng(1), 60)
    drawn: dict[str, list[float]] = {name: [] for name in found}
    for rows in resampled_rows(units, 60, rng(1)):
        by_subset = {
            name: [audit.best_of_n(scores.choices[i]) for i in rows if subset[i] == name]
            for name in ("Math", "Focus")
        }
        copies: dict[tuple, int] = {}
        ties = []
        for i in rows[rows >= 18]:
            kind, number = scores.choices[i].tie
            times = copies[kind, number] = copies.get((kind, number), 0) + 1
            new = (kind, 100 * number + times)
            ties.append(Choice(0, scores.choices[i].chosen, scores.choices[i].rejected, new))
        parts = [np.mean(of) for of in by_subset.values() if of] + (
            [ties_score(ties)] if ties else []
        )
        drawn[audit.BEST_OF_N].append(np.mean(sum(by_subset.values(), [])))
        drawn[audit.TIES].append(ties_score(ties) if ties else math.nan)
        drawn[audit.BY_SUBSETS].append(np.mean(parts))
    check_draws(found, drawn)
    assert 0 < found[audit.BEST_OF_N].measured.low < found[audit.BEST_OF_N].measured.high < 1
    counts = {name: counted.n for name, counted in found.items()}
    assert counts == {audit.BEST_OF_N: 18, audit.TIES: 16, audit.BY_SUBSETS: 34}


def test_the_table_has_the_choices_of_each_part(tmp_path):
    scores = read_scores(write_lines(best_of_four(5, 4), tmp_path / "s.jsonl"))
    parts = audit.by_part(audit.audit_table(scores, 0, 20))
    names = {audit.BEST_OF_N, audit.TIES, audit.BY_SUBSETS}
    known = {subset: names & of.keys() for (_, subset), of in parts.items()}
    assert known == {
        "all": names,
        "Math": {audit.BEST_OF_N},
        "Focus": {audit.BEST_OF_N},
        "Ties": {audit.TIES},
    }
    one, two = (parts["all", name][audit.BEST_OF_N].value for name in ("Math", "Focus"))
    ties, of_all = parts["all", "Ties"][audit.TIES].value, parts["all", "all"]
    assert one == np.mean([audit.best_of_n(c) for c in scores.choices[:5]])
    assert of_all[audit.BY_SUBSETS].value == pytest.approx((one + two + ties) / 3)
    assert of_all[audit.TIES].value == ties == pytest.approx(ties_score(scores.choices))
    assert of_all[audit.BEST_OF_N].n == 10


# --- What explains the spread


def test_what_explains_the_spread_in_resamples():
    draw = rng()
    prompts = draw.integers(0, 40, size=90)
    norm, untrained = draw.gamma(2, size=(2, 90))
    spread = norm + 0.5 * untrained + draw.random(90)
    found = audit.explained(spread, prompts, norm, untrained, rng(1), 40)
    drawn: dict[str, list[float]] = {name: [] for name in found}
    for rows in resampled_rows(prompts, 40, rng(1)):
        ranked = [stats.rankdata(of[rows]) for of in (spread, norm, untrained)]
        drawn[audit.BY_NORM].append(np.corrcoef(*ranked[:2])[0, 1] ** 2)
        drawn[audit.BY_UNTRAINED].append(np.corrcoef(ranked[0], ranked[2])[0, 1] ** 2)
        design = np.stack([np.ones(len(rows)), *ranked[1:]], axis=1)
        left = ranked[0] - design @ np.linalg.lstsq(design, ranked[0])[0]
        drawn[audit.BY_BOTH].append(1 - left.var() / ranked[0].var())
    check_draws(found, drawn)


def test_only_what_is_known_explains_the_spread():
    spread, prompts, norm = np.arange(5.0), np.arange(5), np.exp(np.arange(5.0))
    assert audit.explained(spread, prompts, None, None, rng()) == {}
    found = audit.explained(spread, prompts, norm, None, rng(), 20)
    assert values(found) == pytest.approx({audit.BY_NORM: 1})
    assert list(audit.explained(spread, prompts, None, norm, rng(), 0)) == [audit.BY_UNTRAINED]
