"""Verdicts in sentences."""

import pytest
from tiny_verdicts import BELOW, OPEN, ratio, stated

from prudent.analysis.sentences import HEADLINES, headline, sentence
from prudent.analysis.verdict import (
    ANEW,
    GIVEN,
    TRAINED,
    Comparison,
)


def comparison(**changes):
    """A comparison with given numbers."""
    found = ratio() if "ratio" not in changes else changes["ratio"]
    risk = {"mean": 0.2, "sd": 0.01, "worse": 0.0, "worse_low": 0.0, "worse_high": 0.1}
    risk |= {"quantile05": 0.1, "cvar10": 0.09}
    order = {"advantage": 0.1, "advantage_p": 0.5, "shortfall": 0.1, "shortfall_p": 0.5}
    values = {"policies": GIVEN, "word": "reduces", "reason": "beyond its controls"}
    values |= {"control": None, "draws": 100, "unit": "ensemble", "draws_to_decide": None}
    values |= {"kl": 0.8, "baseline_kl": 0.8, "ratio": found, "controls": {}}
    values |= {"difference": {"estimate": 0.01, "low": 0.004, "high": 0.016}}
    values |= {"risk": risk, "baseline_risk": risk, "first_order": order, "second_order": order}
    return Comparison(**values | changes)


SHUFFLED = {"shuffled": ratio(1.8, 1.2, 2.7)}
FIRST = "Given the backbone (optimal policies of 100 ensembles, KL 0.800)"
GAIN = "Its mean gain is 0.0100 higher (0.00400 to 0.0160)."


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"controls": SHUFFLED},
            f"{FIRST}, the method reduces the variance: ratio to vanilla 2.00 (95% interval 1.40 "
            f"to 2.90); to shuffled 1.80 (1.20 to 2.70); p = 0.01. {GAIN}",
        ),
        (
            {"word": "does not", "reason": "bound", "ratio": BELOW},
            f"{FIRST}, the method does not reduce the variance 1.5 times or more: ratio to vanilla "
            f"1.00 (95% interval 0.800 to 1.25). {GAIN}",
        ),
        (
            {"word": "does not", "reason": "bound", "ratio": ratio(1.2, 1.1, 1.3)},
            f"{FIRST}, the method reduces the variance, but by less than 1.5 times: ratio to "
            f"vanilla 1.20 (95% interval 1.10 to 1.30). {GAIN}",
        ),
        (
            {"word": "does not", "reason": "bound", "ratio": ratio(0.5, 0.4, 0.7)},
            f"{FIRST}, the method raises the variance: ratio to vanilla 0.500 (95% interval 0.400 "
            f"to 0.700). {GAIN}",
        ),
        (
            {
                "word": "does not",
                "reason": "no more than a control",
                "control": "shuffled",
                "controls": {"shuffled": BELOW},
            },
            f"{FIRST}, the method does not reduce the variance more than its control shuffled "
            "does: ratio to vanilla 2.00 (95% interval 1.40 to 2.90); to shuffled 1.00 (0.800 to "
            f"1.25). {GAIN}",
        ),
        (
            {
                "word": "does not",
                "reason": "no more than a control",
                "control": "shuffled",
                "controls": {"shuffled": ratio(1.2, 1.1, 1.3)},
            },
            f"{FIRST}, the method reduces the variance more than its control shuffled does, but by "
            "less than 1.5 times: ratio to vanilla 2.00 (95% interval 1.40 to 2.90); to shuffled "
            f"1.20 (1.10 to 1.30). {GAIN}",
        ),
        (
            {"word": "undecided", "reason": "open", "ratio": OPEN, "draws_to_decide": 1234},
            f"{FIRST}, it is undecided whether the method reduces the variance: ratio to vanilla "
            f"1.20 (95% interval 0.700 to 2.10). About 1200 draws would decide it. {GAIN}",
        ),
        (
            {"word": "undecided", "reason": "another KL", "kl": 0.95},
            "Given the backbone (optimal policies of 100 ensembles, KL 0.950), it is undecided "
            "whether the method reduces the variance, since its KL is 0.950 and that of vanilla "
            "0.800: ratio to vanilla 2.00 (95% interval 1.40 to 2.90). The same KL would decide "
            f"it. {GAIN}",
        ),
        (
            {"word": "undecided", "reason": "too few draws", "draws": 1, "draws_to_decide": 6},
            "Given the backbone (optimal policies of 1 ensemble, KL 0.800), it is undecided "
            "whether the method reduces the variance: fewer than 6 draws cannot show a "
            f"difference. {GAIN}",
        ),
        (
            {"word": "undecided", "reason": "no control"},
            f"{FIRST}, the method has the lower variance, ratio to vanilla 2.00 (95% interval 1.40 "
            "to 2.90); p = 0.01. No control stands beside it, which would decide what that comes "
            f"from: scale only or shuffled spread. {GAIN}",
        ),
        (
            {
                "word": "undecided",
                "reason": "controls undecided",
                "control": "shuffled",
                "controls": {"shuffled": OPEN},
                "draws_to_decide": 200,
            },
            f"{FIRST}, the method has a lower variance than vanilla; whether it is lower than that "
            "of its control shuffled is undecided: ratio to vanilla 2.00 (95% interval 1.40 to "
            f"2.90); to shuffled 1.20 (0.700 to 2.10). About 200 draws would decide it. {GAIN}",
        ),
        (
            {"word": "undecided", "reason": "not confirmed", "ratio": ratio(p=0.2)},
            f"{FIRST}, it is undecided whether the method reduces the variance: ratio to vanilla "
            "2.00 (95% interval 1.40 to 2.90), which the permutation test does not confirm "
            f"(p = 0.2). {GAIN}",
        ),
    ],
)
def test_the_first_sentence(changes, expected):
    held = stated(
        {
            "the_method": {"controls": [], "missing": ["scale_only", "shuffled spread"]}
            | {"trained": False}
        }
    ).methods[0]
    assert sentence(held, [comparison(**changes)], stated()) == expected


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        ((0.01, 0.004, 0.016), "Its mean gain is 0.0100 higher (0.00400 to 0.0160)."),
        ((-0.01, -0.016, -0.004), "Its mean gain is 0.0100 lower (−0.0160 to −0.00400)."),
        ((0.01, -0.01, 0.03), "Its mean gain is not told apart from that of vanilla (−0.0100 to"),
        ((0.01, None, None), "Its mean gain differs by 0.0100."),
    ],
)
def test_the_cost_is_said(difference, said):
    found = dict(zip(("estimate", "low", "high"), difference, strict=True))
    text = sentence(stated().methods[0], [comparison(difference=found)], stated())
    assert said in text
    score = comparison(difference=found, policies=TRAINED, unit="member")
    assert said.replace("gain", "score") in sentence(stated().methods[0], [score], stated())


def test_dominance_is_said_in_the_strongest_order():
    yes = {"advantage": 0.1, "advantage_p": 0.001, "shortfall": 0.0, "shortfall_p": 0.9}
    held = stated().methods[0]
    for orders, said in (
        ({"second_order": yes}, "It dominates vanilla stochastically in second order (p = 0.001)."),
        ({"first_order": yes, "second_order": yes}, "stochastically in first order (p = 0.001)."),
        ({"first_order": yes | {"shortfall": 0.01}}, None),
        ({"first_order": yes | {"advantage_p": 0.06}}, None),
        ({"first_order": yes | {"advantage_p": None}}, None),
    ):
        text = sentence(held, [comparison(**orders)], stated())
        assert (said in text) if said else ("dominates" not in text)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"ratio": ratio(1.9, 1.2, 3.0)},
            "With all drawn anew (10 ensembles), it is reduced, too:",
        ),
        (
            {"reason": "open", "ratio": OPEN, "draws_to_decide": 75},
            "With all drawn anew (10 ensembles), it is undecided: 1.20 (95% interval 0.700 to "
            "2.10). About 75 draws would decide it.",
        ),
        ({"reason": "bound", "ratio": BELOW}, "it is not reduced by a factor that matters: 1.00"),
        (
            {"reason": "no more than a control", "control": "scale_only"},
            "it is not reduced more than by scale only, or not by a factor that matters: 2.00",
        ),
        ({"reason": "no control"}, "the variance is lower, too: 2.00"),
        (
            {"reason": "controls undecided"},
            "it is undecided whether it is lower than its controls'",
        ),
        ({"reason": "not confirmed"}, "the permutation test confirms no difference: 2.00"),
        ({"reason": "too few draws", "draws": 1}, "(1 ensemble), nothing is decided: there are"),
        (
            {"reason": "another KL", "kl": 0.9},
            "nothing is decided: its KL is 0.900, that of the baseline 0.800.",
        ),
        (
            {"policies": TRAINED, "unit": "member", "ratio": ratio(1.8, 1.1, 3.0)},
            "The trained policies (10 members) agree: 1.80 (95% interval 1.10 to 3.00).",
        ),
        (
            {"policies": TRAINED, "unit": "member", "ratio": ratio(1.0, 0.4, 2.5)},
            "The trained policies (10 members) leave it open: 1.00 (95% interval 0.400 to 2.50).",
        ),
        (
            {"policies": TRAINED, "unit": "member", "ratio": ratio(0.5, 0.3, 0.8)},
            "The trained policies (10 members) disagree: 0.500 (95% interval 0.300 to 0.800).",
        ),
        (
            {"policies": TRAINED, "unit": "member", "ratio": ratio(2.0, None, None)},
            "The trained policies (10 members) say nothing of it: 2.00 (no interval).",
        ),
        (
            {"policies": TRAINED, "unit": "member", "reason": "another KL", "kl": 1.2},
            "Among trained policies (10 members), nothing is decided: its KL is 1.20",
        ),
    ],
)
def test_what_other_comparisons_add(changes, said):
    other = comparison(**{"policies": ANEW, "draws": 10} | changes)
    text = sentence(stated().methods[0], [comparison(), other], stated())
    assert said in text, text


@pytest.mark.parametrize("reason", HEADLINES)
def test_a_headline_is_a_few_words_with_what_it_is_about(reason):
    text = headline(comparison(reason=reason))
    assert text.endswith(" (given the backbone)") and len(text) < 100
