"""The page's sentences follow the numbers, whichever way they point."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from prudent.analysis.findings import findings
from prudent.analysis.statistics import wilson_interval
from prudent.figures import page

VOID = {"br", "meta", "line", "circle"}


def make_tables(ratio=3.0, low=1.5, high=6.0, swap=0.01, mismatch=0.05, **changes):
    """A summary and tests with given numbers; worse: counts of (method, baseline)."""
    worse = changes.get("worse", (1, 4))
    rows = []
    for method, count, variance in (
        ("vanilla", worse[1], 0.06),
        ("variance_aware", worse[0], 0.06 / ratio),
    ):
        share = wilson_interval(count, 10)
        row = {"method": method, "policies": 10, "heads": 10, "score": 0.3}
        row |= {"score_low": 0.2, "score_high": 0.4, "score_variance": variance}
        row |= {"score_sd": variance**0.5, "noise_variance": 0.001, "worse": count}
        row |= {"worse_share": share.estimate, "worse_low": share.low, "worse_high": share.high}
        row |= {"kl": 1.25, "kl_sd": 0.1, "reference_score": 0.19, "reference_se": 0.02}
        rows.append(row)
    nan = float("nan")
    quantities = {
        "score_difference": changes.get("difference", (-0.01, -0.1, 0.08, nan)),
        "variance_ratio": (ratio, low, high, nan),
        "brown_forsythe": (nan, nan, nan, 0.02),
        "swap_test": (nan, nan, nan, swap),
        "worse_difference": ((worse[0] - worse[1]) / 10, nan, nan, changes.get("mcnemar", 0.25)),
        "kl_mismatch": (mismatch, nan, nan, nan),
    }
    common = {"method": "variance_aware", "baseline": "vanilla", "pairs": 10, "heads": 10}
    tests = [
        {**common, "quantity": name} | dict(zip(("estimate", "low", "high", "p"), v, strict=True))
        for name, v in quantities.items()
    ]
    return pd.DataFrame(rows), pd.DataFrame(tests)


def finding(**numbers):
    (found,) = findings(*make_tables(**numbers))
    return found


@pytest.mark.parametrize(
    ("numbers", "status", "headline"),
    [
        ({}, "for", "lower variance at the same KL, as claimed: established"),
        ({"low": 0.9}, "open", "variance lower in these policies, but not established"),
        ({"swap": 0.2}, "open", "not established"),
        ({"mismatch": 0.3}, "open", "not at the same KL"),
        ({"mismatch": np.nan}, "open", "not at the same KL"),
        (
            {"ratio": 0.3, "low": 0.1, "high": 0.7},
            "against",
            "higher variance, against the claim: established here",
        ),
        ({"ratio": 0.8, "low": 0.3, "high": 2.0}, "open", "variance not lower in these policies"),
        ({"low": np.nan, "high": np.nan, "swap": np.nan}, "open", "not established"),
        ({"ratio": np.nan, "low": np.nan, "high": np.nan}, "open", "too few policies"),
    ],
)
def test_the_headline_follows_the_numbers(numbers, status, headline):
    found = finding(**numbers)
    assert found.status == status
    assert headline in found.headline


def test_the_sentences_hold_the_numbers():
    text = " ".join(finding().sentences)
    assert "5.0% apart: matched (at most 15% counts as matched)" in text
    assert "ratio vanilla over variance aware 3.00 (95% interval 1.50 to 6.00" in text
    assert "10 reward heads, 10 pairs" in text
    assert "1 of 10 (2% to 40%) for variance aware, 4 of 10 (17% to 69%) for vanilla" in text
    assert "fewer for variance aware, not established (McNemar p = 0.25)" in text
    assert "5% of the variance of variance aware and 2% of that of vanilla" in text


def test_sentences_that_go_against_the_claim():
    text = " ".join(finding(worse=(9, 1), mcnemar=0.008).sentences)
    assert "more for variance aware, established, against the claim" in text
    text = " ".join(finding(difference=(-0.2, -0.3, -0.1, np.nan)).sentences)
    assert "lower, established" in text
    text = " ".join(finding(low=1.2, swap=0.2).sentences)
    assert "the interval excludes 1 but the swap test does not confirm it" in text
    assert "NOT matched" in " ".join(finding(mismatch=0.4).sentences)


class Checker(HTMLParser):
    """Every tag is closed by its own end, and nothing comes from outside."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        assert not {"src", "href"} & {name for name, _ in attrs}
        assert tag != "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in VOID:  # written as <line/> inside of the picture
            return
        assert self.open.pop() == tag
        self.text += " "

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


def render(summary, tests, **changes):
    policies = pd.DataFrame(
        [(m, s, 0.1 * s) for m in summary["method"] for s in range(10)],
        columns=["method", "seed", "score"],
    )
    diagnosis = pd.DataFrame(
        [
            ("grammatical responses", 0.9, 0.8, 1.0),
            ("base accuracy", 0.95, 0.6, 0.85),
            ("sigma spread", 2.5, 2.0, np.inf),
            ("no target", 1.0, np.nan, np.nan),
        ],
        columns=["quantity", "value", "low", "high"],
    )
    accuracy = pd.DataFrame(
        [
            (subset, section, level, model, 0, head, value, 0.01, 1, 50)
            for subset, section, level in (("all", "easy", "section"), ("all", "all", "overall"))
            for model, head, value in (("base", -1, 0.7), ("mean", -1, 0.75), ("head", 0, 0.65))
        ],
        columns="subset section level model ensemble head accuracy se ties rows".split(),
    )
    variance = pd.DataFrame(
        [("easy", "all", side, 0, 50, 1.5, 1.2, 9.0) for side in ("accepted", "difference")],
        columns="section subset side ensemble rows mean median max".split(),
    )
    checker = Checker()
    checker.feed(page.render(policies, summary, tests, diagnosis, accuracy, variance))
    assert checker.open == []
    return " ".join(checker.text.split())


def test_the_page_is_whole_and_holds_all_tables():
    text = render(*make_tables())
    assert "lower variance at the same KL" in text
    assert "grammatical responses 0.900 0.8 to 1 inside" in text
    assert "OUTSIDE" in text and text.count("inside") == 3  # two rows and the head
    assert "at least 2" in text
    assert "70.0%" in text and "75.0%" in text
    assert "9.00" in text


def test_names_are_escaped():
    summary, tests = make_tables()
    rename = {"variance_aware": "<b>&odd"}
    text = render(summary.replace({"method": rename}), tests.replace({"method": rename}))
    assert "<b>&odd" in text


def test_one_method_alone_gets_its_page():
    summary, tests = make_tables()
    text = render(summary.head(1), tests.head(0))
    assert "nothing to compare" in text
