"""Looks of methods and the words for numbers."""

import pytest
from tiny_results import TWO

from prudent.analysis.wording import number
from prudent.figures import looks


def test_a_methods_look_stays_when_methods_are_added():
    before = looks.looks([*TWO, "uwo"])
    after = looks.looks([*TWO, "uwo", "brme", "lcb"])
    assert all(before[method] == after[method] for method in before)
    assert looks.looks(["variance_aware"])["variance_aware"] == before["variance_aware"]


def test_looks_differ_and_the_papers_arms_have_their_own():
    found = looks.looks([f"method_{i}" for i in range(40)])
    assert len(set(found.values())) == 40
    assert not set(found.values()) & set(looks.looks(TWO).values())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.2345, "1.23"),
        (-0.00123456, "−0.00123"),
        (0.9996, "1.00"),
        (1234.6, "1235"),
        (0, "0"),
        (float("nan"), "–"),
        (float("-inf"), "−∞"),
        (1e-7, "1.00e−07"),
    ],
)
def test_number(value, text):
    assert number(value) == text
