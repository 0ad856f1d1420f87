"""Power before the run: against the tests themselves, closed forms and simulation."""

import math

import numpy as np
import power
import pytest
from scipy import stats

from prudent.analysis.power import (
    detectable_difference,
    detectable_ratio,
    draws_for_ratio,
    least_p,
    power_of_ratio,
    power_table,
    sentences,
)
from prudent.analysis.statistics import permutation_test, sign_flip_test
from prudent.tables import read_csv


@pytest.mark.parametrize("draws", [4, 6, 8])
def test_the_least_p_is_that_of_the_permutation_test(draws):
    rng = np.random.default_rng(0)
    narrow = rng.normal(size=draws)
    p = permutation_test(1e6 * narrow, narrow, np.arange(draws), 10, rng)
    assert p == least_p(draws) == 2 / 2**draws


def test_sign_flips_of_many_studies_are_those_of_each():
    rng = np.random.default_rng(1)
    differences = rng.normal(0.5, 1, size=(5, 6))
    together = sign_flip_test(differences, 10, rng)
    assert together.tolist() == [sign_flip_test(one, 10, rng) for one in differences]
    many = sign_flip_test(rng.normal(size=(400, 30)), 199, rng)
    assert 0.02 < (many < 0.05).mean() < 0.08 and many.min() >= 1 / 200


def test_without_an_effect_the_power_is_the_size():
    assert power_of_ratio(10, 1.0) == pytest.approx(0.05, abs=0.015)
    assert power_of_ratio(4, 100.0) == 0


def test_the_detectable_ratio_is_seen_in_four_of_five_studies():
    ratio = detectable_ratio(20)
    assert power_of_ratio(20, ratio) == pytest.approx(0.8, abs=0.01)
    assert detectable_ratio(40) < ratio
    assert math.isinf(detectable_ratio(4)) and math.isinf(detectable_ratio(1))


@pytest.mark.parametrize("draws", [3, 10, 100])
def test_the_detectable_difference_is_students(draws):
    rng = np.random.default_rng(2)
    found = rng.normal(detectable_difference(draws), 1, size=(20_000, draws))
    t = found.mean(1) / found.std(1, ddof=1) * math.sqrt(draws)
    rejected = np.abs(t) > stats.t.ppf(0.975, draws - 1)
    assert rejected.mean() == pytest.approx(0.8, abs=0.01)
    assert math.isinf(detectable_difference(1))


def test_the_papers_effects_take_so_many_draws():
    large, small = draws_for_ratio(5.0), draws_for_ratio(2.375)
    assert power_of_ratio(large, 5.0) >= 0.8 > power_of_ratio(large - 1, 5.0)
    assert 10 < large < small < 100
    assert math.isinf(draws_for_ratio(1.01))


def test_four_seeds_are_warned_of(tmp_path):
    power.main(
        power.Args(table=tmp_path / "power.csv", draws={"trained policies": 4, "optimal": 20})
    )
    table = read_csv(tmp_path / "power.csv", "power")
    assert table["least_p"][0] == 0.125 and math.isinf(table["ratio"][0])
    said = sentences(power_table({"trained policies": 4}))
    assert said[0].endswith("No difference in spread can be established: the least p is 0.125.")
    assert said[-1].startswith("The papers' ratio of 2.375 takes ")
