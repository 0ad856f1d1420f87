"""Verdicts: by the rule that was stated before, with known answers, and in sentences."""

import json
import math
import re

import jsonschema
import numpy as np
import pandas as pd
import pytest
import yaml

from prudent.analysis.preregistration import preregistration, read_preregistration
from prudent.analysis.sentences import HEADLINES, headline, sentence, verdicts
from prudent.analysis.verdict import (
    ANEW,
    GIVEN,
    TRAINED,
    Comparison,
    Ratio,
    comparisons,
    decide,
    draws_to_decide,
    of_optima,
    of_trained,
    read_verdicts,
)
from prudent.errors import InputError
from prudent.tables import write_json
from prudent.workflow.config_docs import VERDICT_SCHEMA

HELD = {"method": {"controls": ["control"], "missing": [], "trained": True}}


def stated(methods=HELD, permutations=2000, margin=1.5):
    return preregistration(methods, "vanilla", 0.8, 0.05, margin, permutations, 0)


def optima(gains, level=GIVEN, kl=0.8):
    """A table of optimal policies with these gains of each method."""
    parts = [
        pd.DataFrame({"method": name, "replicate": range(len(values)), "gain": values})
        for name, values in gains.items()
    ]
    return pd.concat(parts).assign(level=level, kl_target=kl, kl=kl)


def verdict_of(gains, methods=HELD, **settings):
    """The verdict on optimal policies."""
    rule = stated(methods, **settings)
    found = comparisons(of_optima(optima(gains), GIVEN, 0.8), GIVEN, rule, seed=3)
    return verdicts(rule, [found], "before the policies").methods


def trained(scores, kls, unit="member", target="fixed"):
    """A table of trained policies, one a head."""
    parts = []
    for name, values in scores.items():
        seeds = np.arange(len(values))
        part = pd.DataFrame({"method": name, "seed": seeds, "ensemble": 0, "head": seeds})
        parts.append(part.assign(score=values, kl=kls[name], unit=unit, target=target))
    return pd.concat(parts, ignore_index=True).assign(kl_target=0.8)


# --- Known answers ----------------------------------------------------------------------------


def test_vanilla_with_its_scores_halved_around_their_mean_has_ratio_4():
    draws = np.random.default_rng(0)
    vanilla = draws.normal(0.2, 0.1, size=30)
    halved = vanilla.mean() + (vanilla - vanilla.mean()) / 2
    gains = {"vanilla": vanilla, "method": halved, "control": draws.permutation(vanilla)}
    (found,) = verdict_of(gains)
    (one,) = found.comparisons
    assert one.ratio.estimate == pytest.approx(4) and one.ratio.p < 0.001
    assert one.ratio.low == pytest.approx(4) == one.ratio.high
    assert one.difference.estimate == pytest.approx(0)
    assert found.word == one.word == "reduces" and one.reason == "beyond its controls"
    assert one.second_order.dominates and not one.first_order.dominates
    assert one.risk.sd == pytest.approx(vanilla.std(ddof=1) / 2)


def test_identical_methods_are_undecided_with_ten_draws_and_decided_with_four_hundred():
    words = []
    for count in (10, 400):
        draws = np.random.default_rng(5)
        gains = {name: draws.normal(size=count) for name in ("vanilla", "method", "control")}
        (found,) = verdict_of(gains)
        words.append(found.word)
        (one,) = found.comparisons
    assert words == ["undecided", "does not"]
    assert one.reason == "bound" and one.ratio.high < 1.5
    assert f"{one.ratio.low:.3f} to {one.ratio.high:.2f}" in found.sentence


def test_a_control_that_does_as_much_takes_the_claim_away():
    draws = np.random.default_rng(1)
    vanilla, method = draws.normal(size=200), draws.normal(size=200) / 2
    gains = {
        "vanilla": vanilla,
        "method": method,
        "control": method + 1e-3 * draws.normal(size=200),
    }
    (found,) = verdict_of(gains)
    assert found.word == "does not" and found.comparisons[0].reason == "no more than a control"
    assert "does not reduce the variance more than its control control does" in found.sentence
    without = {"method": {"controls": [], "missing": ["scale_only"], "trained": False}}
    (found,) = verdict_of(gains, without)
    assert found.word == "undecided" and found.comparisons[0].reason == "no control"
    # The baseline is a control of what pools the members.
    beside = {"method": {"controls": ["vanilla"], "missing": [], "trained": False}}
    assert verdict_of(gains, beside)[0].word == "reduces"


def test_a_method_at_another_kl_is_marked_whatever_its_variance_is():
    draws = np.random.default_rng(2)
    scores = {"vanilla": draws.normal(size=20), "method": 0.1 * draws.normal(size=20)}
    methods = {"method": {"controls": ["vanilla"], "missing": [], "trained": True}}
    rule = stated(methods)

    def one(kl, **settings):
        policies = trained(scores, {"vanilla": 0.8, "method": kl}, **settings)
        found = of_trained(policies, -9.0, settings.pop("elasticity", math.nan))
        return comparisons(found, TRAINED, rule, seed=0)["method"]

    assert (one(0.8).word, one(0.9).word) == ("reduces", "undecided")
    assert one(0.9).reason == "another KL" and one(0.9).kl == pytest.approx(0.9)
    # Both where they were to be count as one, a little apart; those that missed it do not.
    assert one(0.86, target="reached").word == "reduces"
    assert one(0.86, target="missed").reason == "another KL"


def test_a_ratio_is_brought_to_one_kl_by_the_elasticity():
    draws = np.random.default_rng(2)
    scores = {"vanilla": draws.normal(size=20), "method": draws.normal(size=20)}
    policies = trained(scores, {"vanilla": 0.8, "method": 0.82})
    plain, brought = (
        of_trained(policies, 0.0, elasticity).ratio("vanilla", "method", 10, "x", 0)
        for elasticity in (math.nan, 2.0)
    )
    assert brought.estimate == pytest.approx(plain.estimate * (0.82 / 0.8) ** 2)
    assert brought.high == pytest.approx(plain.high * (0.82 / 0.8) ** 2)


def test_policies_that_differ_by_their_ensemble_are_no_draws_by_member():
    draws = np.random.default_rng(2)
    scores = {"vanilla": draws.normal(size=20), "method": draws.normal(size=20)}
    policies = trained(scores, dict.fromkeys(scores, 0.8))
    policies.loc[policies["method"] == "method", "unit"] = "ensemble"
    found = comparisons(of_trained(policies, 0.0, math.nan), TRAINED, stated(), seed=0)["method"]
    assert (found.unit, found.draws, found.reason) == ("ensemble", 1, "too few draws")
    assert found.ratio.low is None


def test_two_hundred_studies_without_an_effect_give_few_wrong_claims():
    """Three methods with a control each; a claim is wrong where any of them reduces variance."""
    names = ("first", "second", "third")
    methods = {
        name: {"controls": [f"{name}_control"], "missing": [], "trained": False} for name in names
    }
    wrong = {"normal": 0, "skewed": 0}
    for shape, number in [(shape, n) for shape in wrong for n in range(100)]:
        draws = np.random.default_rng([number, len(shape)])
        shared = draws.normal(size=20)
        gains = {}
        for name in ("vanilla", *names, *(f"{name}_control" for name in names)):
            values = np.sqrt(0.5) * (shared + draws.normal(size=20))
            gains[name] = np.exp(0.7 * values) if shape == "skewed" else values
        found = verdict_of(gains, methods, permutations=300)
        wrong[shape] += any(method.word == "reduces" for method in found)
    assert sum(wrong.values()) <= 10, wrong


def test_holms_adjustment_is_over_the_methods():
    draws = np.random.default_rng(4)
    gains = {"vanilla": draws.normal(size=12), "method": 0.4 * draws.normal(size=12)}
    gains |= {f"other{n}": draws.normal(size=12) for n in range(5)}
    held = {"controls": [], "missing": [], "trained": False}
    alone, among = (
        verdict_of(gains, dict.fromkeys(names, held))[0].comparisons[0].ratio
        for names in (["method"], ["method", *(f"other{n}" for n in range(5))])
    )
    assert alone.estimate == among.estimate
    assert alone.p < among.p <= 6 * alone.p + 1e-12


def test_levels_and_trained_policies_stand_in_order_and_the_first_speaks():
    draws = np.random.default_rng(0)
    names = ("vanilla", "method", "control")
    rule, found = stated(), []
    table = pd.concat(
        [
            optima({name: draws.normal(size=100) for name in names}),
            optima({name: draws.normal(size=8) for name in names}, ANEW),
        ]
    )
    for level in (GIVEN, ANEW):
        found.append(comparisons(of_optima(table, level, 0.8), level, rule, seed=0))
    scores = {name: draws.normal(size=10) for name in names[:2]}
    policies = trained(scores, dict.fromkeys(names, 0.8))
    found.append(comparisons(of_trained(policies, 0.0, math.nan), TRAINED, rule, seed=0))
    (one,) = verdicts(rule, found, "before the policies").methods
    assert [part.policies for part in one.comparisons] == [GIVEN, ANEW, TRAINED]
    assert one.word == one.comparisons[0].word
    assert one.comparisons[2].controls == {}, "none of them is trained"
    assert of_optima(table, GIVEN, 0.3) is None
    # Without the baseline nothing is compared.
    assert comparisons(of_optima(optima({"method": [1.0]}), GIVEN, 0.8), GIVEN, rule, 0) == {}


# --- The rule ---------------------------------------------------------------------------------


def ratio(estimate=2.0, low=1.4, high=2.9, p=0.01):
    return Ratio(estimate=estimate, low=low, high=high, p=p)


OPEN = ratio(1.2, 0.7, 2.1, 0.4)
BELOW = ratio(1.0, 0.8, 1.25, 0.9)


@pytest.mark.parametrize(
    ("found", "controls", "settings", "word", "reason"),
    [
        (ratio(), {"a": ratio()}, {}, "reduces", "beyond its controls"),
        (ratio(), {}, {}, "reduces", "beyond its controls"),
        (ratio(), {}, {"beyond": False}, "undecided", "no control"),
        (ratio(), {"a": ratio()}, {"same_kl": False}, "undecided", "another KL"),
        (BELOW, {}, {"same_kl": False}, "undecided", "another KL"),
        (ratio(), {"a": ratio()}, {"draws": 5}, "undecided", "too few draws"),
        (ratio(low=None, high=None), {}, {}, "undecided", "too few draws"),
        (BELOW, {"a": ratio()}, {}, "does not", "bound"),
        (ratio(1.2, 1.1, 1.3), {"a": ratio()}, {}, "does not", "bound"),
        (ratio(), {"a": ratio(), "b": BELOW}, {}, "does not", "no more than a control"),
        (OPEN, {"a": BELOW}, {}, "does not", "no more than a control"),
        (OPEN, {"a": ratio()}, {}, "undecided", "open"),
        (ratio(p=0.2), {"a": ratio()}, {}, "undecided", "not confirmed"),
        (ratio(p=None), {"a": ratio()}, {}, "undecided", "not confirmed"),
        (ratio(), {"a": OPEN}, {}, "undecided", "controls undecided"),
        (ratio(), {"a": ratio(p=0.3)}, {}, "undecided", "controls undecided"),
        (ratio(), {"a": ratio(low=None, high=None)}, {}, "undecided", "controls undecided"),
    ],
)
def test_a_verdict_follows_the_rule(found, controls, settings, word, reason):
    settings = {"beyond": True, "same_kl": True, "draws": 50, "margin": 1.5} | settings
    assert decide(found, controls, **settings)[:2] == (word, reason)
    assert reason in HEADLINES


def test_the_draws_that_would_decide_are_those_that_narrow_the_interval_enough():
    half = math.log(2.0)
    found = ratio(1.1, 1.1 / 2, 1.1 * 2)
    needed = draws_to_decide(found, 10, 1.5)
    narrow = half * math.sqrt(10 / needed)
    assert math.log(1.1) + narrow <= math.log(1.5) < math.log(1.1) + half
    assert math.log(1.1) + half * math.sqrt(10 / (needed - 1)) > math.log(1.5)
    # A large ratio is decided by lying above 1.
    found = ratio(3.0, 3 / 4, 12.0)
    assert draws_to_decide(found, 10, 1.5) == math.ceil(10 * (math.log(4) / math.log(3)) ** 2)
    assert draws_to_decide(ratio(low=None), 10, 1.5) is None


# --- Sentences --------------------------------------------------------------------------------


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


# --- Files ------------------------------------------------------------------------------------


def test_what_was_found_and_the_rule_are_read_as_they_were_written(tmp_path):
    draws = np.random.default_rng(0)
    names = ("vanilla", "method", "control")
    rule = stated()
    table = optima({name: draws.normal(size=30) for name in names})
    found = comparisons(of_optima(table, GIVEN, 0.8), GIVEN, rule, seed=0)
    result = verdicts(rule, [found], "after the policies")
    write_json(result.model_dump(), tmp_path / "verdict.json")
    write_json(rule.model_dump(), tmp_path / "rule.json")
    assert read_verdicts(tmp_path / "verdict.json") == result
    assert read_preregistration(tmp_path / "rule.json") == rule
    schema = yaml.safe_load(VERDICT_SCHEMA.read_text(encoding="utf-8"))
    content = json.loads((tmp_path / "verdict.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(content)
    content["methods"][0]["word"] = "maybe"
    write_json(content, tmp_path / "verdict.json")
    with pytest.raises(InputError, match=r"verdict.json: `methods\[0\].word` is the text 'maybe'"):
        read_verdicts(tmp_path / "verdict.json")
    with pytest.raises(InputError, match="rule.json: unknown key `methods"):
        write_json(rule.model_dump() | {"methods": [{"names": "x"}]}, tmp_path / "rule.json")
        read_preregistration(tmp_path / "rule.json")


def test_the_rule_in_words_holds_its_numbers():
    text = " ".join(stated(margin=1.7).rule)
    assert "below the margin 1.7" in text and "within 5% of each other" in text
    assert re.match("reduces: the 95% interval of the variance ratio, vanilla over method", text)
