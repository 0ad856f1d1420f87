"""The findings follow the numbers, whichever way they point."""

import numpy as np
import pytest
from tiny_page import make_tables

from prudent.analysis.findings import findings
from prudent.figures.page_tables import methods_table


def sentences(**numbers):
    """What is said of the method, as one text."""
    (found,) = findings(*make_tables(**numbers)).values()
    return " ".join(found)


def test_the_ratio_at_one_kl_decides_where_it_is_known():
    """A ratio that the KLs' difference explains is no finding."""
    nan = float("nan")
    text = sentences(elasticity=2.6, corrected=(1.9, 0.95, 3.8, nan))
    assert "3.00, 1.90 at one KL (the optima's variance grows with KL^2.6) (95%" in text
    assert "interval 0.950 to 3.80" in text and "not established, the interval includes 1" in text
    text = sentences(elasticity=2.6, corrected=(2.9, 1.4, 5.8, nan))
    assert "lower for variance aware, the interval excludes 1" in text


def test_a_method_that_misses_its_kl_is_named():
    assert "variance aware was to end at 1.20 and does not" in sentences(target="missed")
    # Two methods that are both where they were to be may be a little further apart.
    assert "8.0% apart: matched" in sentences(target="reached", mismatch=0.08)
    assert "was to end" not in sentences() + sentences(target="fixed")
    summary, tests = make_tables(target="missed")
    cells = [cell.note for row in methods_table(summary, tests).rows for cell in row]
    assert cells.count("sd 0.10\ntarget 1.20, missed") == 2
    cells = [cell.note for row in methods_table(*make_tables(target="fixed")).rows for cell in row]
    assert not any("target" in note for note in cells)


def test_a_comparison_whose_unit_has_one_draw_says_so():
    nan = float("nan")
    numbers = {"low": nan, "high": nan, "difference": (-0.01, nan, nan, nan)}
    text = sentences(**numbers, unit="ensemble", units=1)
    assert text.count("no interval: 1 ensemble") == 2 and "not established" in text


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({}, "lower for variance aware, the interval excludes 1"),
        ({"low": 0.9}, "not established, the interval includes 1"),
        ({"swap": 0.2}, "excludes 1 but the permutation test does not confirm it"),
        ({"mismatch": 0.3}, "30.0% apart: NOT matched"),
        ({"mismatch": np.nan}, "not both positive, so not comparable"),
        ({"ratio": 0.3, "low": 0.1, "high": 0.7}, "higher for variance aware, the interval"),
        ({"ratio": 0.8, "low": 0.3, "high": 2.0}, "not established, the interval includes 1"),
        ({"low": np.nan, "high": np.nan, "swap": np.nan}, "not established (paired"),
        ({"ratio": np.nan, "low": np.nan, "high": np.nan}, "not comparable with 10 and 10"),
        ({}, "5.0% apart: matched (5% of each other, or of one target, counts"),
        ({}, "ratio vanilla over variance aware 3.00 (95% interval 1.50 to 6.00"),
        ({}, "10 members, 10 pairs"),
        ({}, "1 of 10 (2% to 40%) for variance aware, 4 of 10 (17% to 69%) for vanilla"),
        ({}, "fewer for variance aware, not established (McNemar p = 0.25)"),
        ({}, "5% of the variance of variance aware and 2% of that of vanilla"),
        ({"worse": (9, 1), "mcnemar": 0.008}, "more for variance aware, established"),
        ({"difference": (-0.2, -0.3, -0.1, np.nan)}, "lower, established"),
        ({"difference": (0.2, 0.1, 0.3, np.nan)}, "higher, established"),
        ({}, "a difference is not established"),
    ],
)
def test_the_sentences_follow_the_numbers(numbers, said):
    assert said in sentences(**numbers)
