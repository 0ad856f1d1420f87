"""Verdicts: by the rule that was stated before, with known answers."""

import json
import math
import re

import jsonschema
import numpy as np
import pandas as pd
import pytest
import yaml
from tiny_verdicts import BELOW, OPEN, optima, ratio, stated, trained, verdict_of

from prudent.analysis.preregistration import read_preregistration
from prudent.analysis.sentences import HEADLINES, verdicts
from prudent.analysis.verdict import (
    ANEW,
    GIVEN,
    TRAINED,
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
