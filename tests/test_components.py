"""Variance components against closed forms, statsmodels' REML, and simulation."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest

from prudent.analysis.components import (
    MeanSquare,
    balanced,
    component_table,
    difference_of_squares,
)
from prudent.analysis.statistics import evaluation_noise


def make_policies(ensembles=1, heads=10, trials=1, sds=(0, 1, 0), seed=0, unit="member"):
    """Policies whose ensembles, members and trials have these standard deviations."""
    draws = np.random.default_rng(seed)
    of_ensemble = sds[0] * draws.normal(size=ensembles)
    of_head = sds[1] * draws.normal(size=(ensembles, heads))
    rows = []
    order = itertools.product(range(trials), range(heads), range(ensembles))
    for number, (trial, head, ensemble) in enumerate(order):
        score = of_ensemble[ensemble] + of_head[ensemble, head] + sds[2] * draws.normal()
        rows.append(("method", unit, number, ensemble, head, trial, score))
    columns = ["method", "unit", "seed", "ensemble", "head", "trial", "score"]
    return pd.DataFrame(rows, columns=columns)


def with_prompts(policies, prompts=8, noise=0.5, seed=1):
    """Scores of each policy on prompts, and the policies with the means of these."""
    draws = np.random.default_rng(seed)
    scores = policies["score"].to_numpy()[:, None] + draws.normal(size=prompts)
    scores = scores + noise * draws.normal(size=scores.shape)
    return scores, policies.assign(score=scores.mean(axis=1))


def table_of(policies, noise=0.0, df=90):
    return component_table(policies, {"method": (noise, df)}).set_index("component")


def test_the_components_of_one_way_are_the_textbooks():
    policies = make_policies(heads=6, trials=4, sds=(0, 1, 0.5))
    found = table_of(policies)
    groups = policies.groupby("head")["score"]
    within = groups.var().mean()
    between = 4 * groups.mean().var()
    assert list(found.index) == ["member", "trial", "evaluation"]
    assert found.loc["trial", "variance"] == pytest.approx(within)
    assert found.loc["member", "variance"] == pytest.approx((between - within) / 4)
    assert found["share"].sum() == pytest.approx(1)
    assert list(found["units"]) == [6, 19, 91]


@pytest.mark.parametrize(
    ("ensembles", "heads", "trials"), [(1, 8, 3), (4, 5, 1), (5, 4, 3), (1, 12, 1)]
)
def test_reml_finds_the_same(ensembles, heads, trials):
    """statsmodels' mixed model of the scores on all prompts, prompts as fixed effects."""
    mixed = pytest.importorskip("statsmodels.regression.mixed_linear_model")
    policies = make_policies(ensembles, heads, trials, sds=(1.5, 1, 0.6), seed=3)
    scores, policies = with_prompts(policies)
    found = component_table(
        policies, {"method": (evaluation_noise(scores), (len(scores) - 1) * 7)}
    ).set_index("component")["variance"]
    assert (found > 0).all()
    long = policies.loc[policies.index.repeat(8)].reset_index(drop=True)
    long["y"], long["prompt"] = scores.ravel(), np.tile(np.arange(8), len(scores))
    long["member"] = long["ensemble"].astype(str) + "-" + long["head"].astype(str)
    formulas = {"policy": "0 + C(seed)"} if trials > 1 else {}
    if ensembles > 1:
        groups, formulas = "ensemble", {"member": "0 + C(member)"} | formulas
    else:
        groups = "member"
    model = mixed.MixedLM.from_formula(
        "y ~ C(prompt)", long, groups=groups, re_formula="1", vc_formula=formulas or None
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = model.fit(reml=True, gtol=1e-10, maxiter=500)
    expected = {"evaluation": fitted.scale / 8}
    expected["ensemble" if ensembles > 1 else "member"] = float(fitted.cov_re.iloc[0, 0])
    names = {"member": "member", "policy": "trial"}
    order = sorted(formulas)
    expected |= {names[name]: value for name, value in zip(order, fitted.vcomp, strict=True)}
    assert set(expected) == set(found.index)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=2e-3), name


def test_intervals_cover_the_truth():
    """The member's component of ten members with three trials, and with one."""
    covered = {3: 0, 1: 0}
    for trials, number in itertools.product(covered, range(400)):
        policies = make_policies(heads=10, trials=trials, sds=(0, 1, 0.7), seed=number)
        draws = np.random.default_rng([number, 1])
        noise = 0.3 * draws.chisquare(60) / 60
        policies["score"] += np.sqrt(0.3) * draws.normal(size=len(policies))
        row = table_of(policies, noise, 60).loc["member"]
        truth = 1.0 if trials == 3 else 1 + 0.7**2
        covered[trials] += row["low"] <= truth <= row["high"]
    assert all(0.92 <= count / 400 <= 0.98 for count in covered.values()), covered


def test_a_mean_square_alone_has_the_interval_of_chi_square():
    found = difference_of_squares(MeanSquare(2.0, 10), None, 1)
    assert found == pytest.approx((2.0, 0.9764, 6.1595), abs=1e-3)  # 20 / 20.483, 20 / 3.247
    # With many degrees of freedom below, it is that of the first square, shifted.
    far = difference_of_squares(MeanSquare(2.0, 10), MeanSquare(0.5, 10**8), 1)
    assert far == pytest.approx((1.5, 0.4764, 5.6595), abs=1e-3)


def test_levels_that_are_not_told_apart_count_above():
    assert list(table_of(make_policies()).index) == ["member", "evaluation"]
    several = make_policies(3, 4, 2, sds=(1, 1, 1))
    names = ["ensemble", "member", "trial", "evaluation"]
    assert list(table_of(several).index) == names
    # Policies of a whole ensemble differ by their trial alone.
    assert list(table_of(several.assign(unit="ensemble")).index) == ["ensemble", *names[2:]]
    one = table_of(make_policies().head(1))
    assert list(one.index) == ["evaluation"]


def test_what_is_negative_is_nothing():
    same = make_policies(heads=4, trials=2, sds=(0, 0, 0))
    same["score"] = [0.0, 1.0, 2.0, 3.0, 3.0, 2.0, 1.0, 0.0]
    found = table_of(same, noise=0.1)
    assert found.loc["member", "variance"] == 0 == found.loc["member", "low"]
    nothing = table_of(same.assign(score=0.0), noise=0.0)
    assert (nothing["variance"] == 0).all() and nothing["share"].isna().all()


@pytest.mark.parametrize(
    ("ensembles", "heads", "seeds", "kept"),
    [(1, 10, 10, 10), (1, 10, 25, 20), (1, 10, 7, 7), (3, 4, 12, 12), (3, 4, 11, 9), (3, 4, 2, 2)],
)
def test_the_balanced_part_of_a_design(ensembles, heads, seeds, kept):
    policies = make_policies(ensembles, heads, trials=3).head(seeds)
    part = balanced(policies)
    assert len(part) == kept and list(part["seed"]) == list(range(kept))
    if kept >= ensembles:
        sizes = part.groupby("ensemble")["head"].nunique()
        assert sizes.nunique() == 1
        assert part.groupby(["ensemble", "head"]).size().nunique() == 1
