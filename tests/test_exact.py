"""Exact policies of objectives: their terms, what they are worth, and what is said of methods."""

import itertools
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from scipy import stats

from prudent.errors import InputError
from prudent.exact.evaluate import (
    ANEW,
    GIVEN,
    INDEPENDENT,
    Method,
    best_of,
    best_of_n,
    check_sizes,
    compare,
    exact_policies,
    levels_of,
)
from prudent.exact.scores import independent
from prudent.exact.summary import jackknife, spread, summary_table, variance_ratio
from prudent.exact.terms import NoOptimum, terms_of
from prudent.objectives.signal import Signal
from prudent.objectives.single import vanilla
from prudent.objectives.weighted import exact_gradient, variance_aware
from prudent.rewards.interface import Rewards
from prudent.workflow.objectives import load, objectives

P, N, K, E = 3, 20, 4, 5


def ensembles(count: int = E, seed: int = 0) -> list[Rewards]:
    draws = torch.Generator().manual_seed(seed)
    # Members of an ensemble agree in part, so that their mean knows something.
    shared = torch.randn(P * N, 1, generator=draws)
    return [Rewards(shared + torch.randn(P * N, K, generator=draws)) for _ in range(count)]


def truth() -> torch.Tensor:
    draws = torch.Generator().manual_seed(0)
    return torch.randn(P * N, 1, generator=draws).reshape(P, N).double()


# --- Terms ----------------------------------------------------------------------------------------


def test_terms_are_the_objectives_score_and_coefficient():
    rewards = ensembles()
    found = terms_of(variance_aware, rewards, N, 0, heads=[3, 2, 1, 0, 0])
    for e, head in enumerate((3, 2, 1, 0)):
        table = rewards[e].mean.double()
        torch.testing.assert_close(found.score[e].flatten(), table[:, head])
        torch.testing.assert_close(found.coefficient[e].flatten(), table.std(dim=1))
    assert found.slope is None


def test_a_score_that_falls_with_beta_has_a_slope():
    found = terms_of(exact_gradient, ensembles(1), N, 0)
    variance = ensembles(1)[0].mean.double().var(dim=1).reshape(1, P, N)
    torch.testing.assert_close(found.slope, -variance)
    torch.testing.assert_close(found.coefficient, variance)
    own = ensembles(1)[0].mean[:, 0].double().reshape(1, P, N)
    torch.testing.assert_close(found.score, own)


@pytest.mark.parametrize("name", objectives())
def test_every_objective_reaches_the_kl_or_says_why_not(name):
    objective = load(name)
    try:
        found = exact_policies(Method(objective, True), ensembles(), truth(), [0.2], 0)
    except NoOptimum as error:
        assert name in str(error)
        return
    assert found["kl"].dropna().to_numpy() == pytest.approx(0.2, rel=1e-6)
    # The whole gradient's score keeps the policy from the reference at any beta.
    assert found["kl"].notna().all() or name == "exact_gradient"
    assert found["head"].tolist() == [0, 1, 2, 3, 0]


def penalised(rewards, beta):
    score = rewards.mean[:, 0]
    ones = torch.ones_like(score)
    return Signal(score, beta * ones, penalty=torch.square, penalty_coefficient=ones)


def weighted(rewards, beta):
    score = rewards.mean[:, 0]
    return Signal(score, beta * torch.ones_like(score), weights=torch.ones_like(score))


def squared(rewards, beta):
    score = rewards.mean[:, 0]
    return Signal(score, beta**2 * torch.ones_like(score))


def curved(rewards, beta):
    score = rewards.mean[:, 0]
    return Signal(score * beta**2, beta * torch.ones_like(score))


@pytest.mark.parametrize(
    ("objective", "why"),
    [
        (penalised, "penalised has penalty beside"),
        (weighted, "weighted has weights beside"),
        (squared, "squared is not linear in beta"),
        (curved, "curved is not linear in beta"),
    ],
)
def test_what_has_no_optimum_here_says_why(objective, why):
    with pytest.raises(NoOptimum, match=why):
        terms_of(objective, ensembles(), N, 0)


def test_controls_draw_for_each_ensemble_alone():
    shuffled = load("shuffled")
    table = ensembles(1)[0]
    found = terms_of(shuffled, [table, table], N, 0)
    assert not torch.equal(found.coefficient[0], found.coefficient[1])
    again = terms_of(shuffled, [table, table], N, 0)
    assert torch.equal(found.coefficient, again.coefficient)
    other = terms_of(shuffled, [table, table], N, 1)
    assert not torch.equal(found.coefficient, other.coefficient)
    spread_of = table.mean.double().std(dim=1).sort().values
    torch.testing.assert_close(found.coefficient[0].flatten().sort().values, spread_of)


# --- What policies are worth ----------------------------------------------------------------------


def test_gains_are_means_under_the_policy_less_under_the_reference():
    found = exact_policies(Method(vanilla, True), ensembles(), truth(), [0.1, 0.5], 0)
    for row in found.to_dict("records"):
        own = ensembles()[row["replicate"]].mean[:, row["head"]].double().reshape(P, N)
        policy = (own / row["beta"]).softmax(-1)
        gain = (policy * truth()).sum(-1).mean() - truth().mean()
        proxy = (policy * own).sum(-1).mean() - own.mean()
        assert row["gain"] == pytest.approx(gain.item(), abs=1e-8)
        assert row["proxy_gain"] == pytest.approx(proxy.item(), abs=1e-8)
        kl = (policy * (policy * N).log()).sum(-1).mean()
        assert row["kl"] == pytest.approx(kl.item(), rel=1e-6) == row["kl_target"]
        size = (1 / policy.square().sum(-1)).quantile(0.01)
        assert row["effective_size"] == pytest.approx(size.item())


def test_chunks_change_nothing(monkeypatch):
    whole = exact_policies(Method(variance_aware, True), ensembles(), truth(), [0.3], 0)
    monkeypatch.setattr("prudent.exact.evaluate.AT_ONCE", 2 * P * N)
    parts = exact_policies(Method(variance_aware, True), ensembles(), truth(), [0.3], 0)
    pd.testing.assert_frame_equal(whole, parts)


def test_levels_and_their_policies():
    methods = {"vanilla": Method(vanilla, True), "mean": Method(load("mean"), False)}
    levels = levels_of(ensembles(6), ensembles(4, seed=1), N)
    assert list(levels) == [GIVEN, ANEW, INDEPENDENT]
    found = compare(methods, levels, truth(), [0.2], 0)
    counts = found.groupby(["level", "method"], sort=False).size()
    assert counts.tolist() == [6, 6, 4, 4, 4, 1]
    assert (found.loc[found["method"] == "mean", "head"] == -1).all()
    # Each member of the pool is a policy's own, in turn.
    pool = found[(found["level"] == INDEPENDENT) & (found["method"] == "vanilla")]
    assert pool["head"].tolist() == [0, 1, 2, 3]
    alone = found[(found["level"] == ANEW) & (found["method"] == "vanilla")]
    # A scale changes nothing for a method whose coefficient is constant: the first members.
    assert pool["gain"].iloc[0] == pytest.approx(alone["gain"].iloc[0], rel=1e-5)
    assert list(levels_of(ensembles(2), [], N)) == [GIVEN]


def test_independent_members_have_one_scale():
    pool = independent(ensembles(4, seed=1), N)
    assert pool.members == 4 and independent(ensembles(2), N) is None
    within = pool.mean.reshape(P, N, 4)
    within = within - within.mean(1, keepdim=True)
    torch.testing.assert_close(within.square().mean((0, 1)), torch.ones(4, dtype=torch.float64))


def test_a_method_without_an_optimum_is_left_out_and_named(caplog):
    methods = {"vanilla": Method(vanilla, True), "penalised": Method(penalised, False)}
    found = compare(methods, {GIVEN: ensembles()}, truth(), [0.2], 0)
    assert set(found["method"]) == {"vanilla"}
    assert "penalised has no exact optimum" in caplog.text
    with pytest.raises(InputError, match="none of the methods penalised has an exact optimum"):
        compare({"penalised": methods["penalised"]}, {GIVEN: ensembles()}, truth(), [0.2], 0)


def test_a_kl_that_too_few_responses_stand_for_is_refused():
    methods = {"vanilla": Method(vanilla, True)}
    found = compare(methods, {GIVEN: ensembles()}, truth(), [0.05], 0)
    check_sizes(found, "vanilla", N)
    found = compare(methods, {GIVEN: ensembles()}, truth(), [0.05, 1.5], 0)
    with pytest.raises(InputError, match=r"exact.kl: 1.5 leaves policies of vanilla that are wo"):
        check_sizes(found, "vanilla", N)


def test_best_of_n_is_the_mean_over_all_subsets():
    draws = torch.Generator().manual_seed(3)
    scores, judge = torch.randn(2, 2, 6, generator=draws), torch.randn(2, 6, generator=draws)
    found = best_of(scores, judge, [1, 2, 4, 6]).set_index(["replicate", "n"])["gain"]
    for e, n in found.index:
        best = [
            judge[p, max(subset, key=lambda i: scores[e, p, i])].item()
            for p in range(2)
            for subset in itertools.combinations(range(6), n)
        ]
        assert found[e, n] == pytest.approx(np.mean(best) - judge.mean().item(), abs=1e-6)
    table = best_of_n({GIVEN: ensembles()}, truth())
    assert set(table["n"]) == {2, 4, 8, 16}, "of twenty responses"
    kl = table[table["n"] == 4]["kl"]
    assert kl.to_numpy() == pytest.approx(math.log(4) - 3 / 4)


# --- What is said of methods ----------------------------------------------------------------------


def policies(count: int = 40, seed: int = 0) -> pd.DataFrame:
    draws = np.random.default_rng(seed)
    base = draws.normal(0.1, 0.1, count)
    own = base + draws.normal(0.02, 0.05, count)
    rows = [(GIVEN, r, "vanilla", 0.5, base[r], 50.0) for r in range(count)]
    rows += [(GIVEN, r, "other", 0.5, own[r], 40.0) for r in range(count)]
    columns = ["level", "replicate", "method", "kl_target", "gain", "effective_size"]
    return pd.DataFrame(rows, columns=columns)


def test_a_summary_by_hand():
    table = policies()
    found = summary_table(table, "vanilla").set_index("method")
    base, own = (
        table.loc[table["method"] == name, "gain"].to_numpy() for name in ("vanilla", "other")
    )
    row = found.loc["other"]
    assert row["gain"] == pytest.approx(own.mean()) and row["sd"] == pytest.approx(own.std(ddof=1))
    low, high = stats.t.interval(0.95, 39, own.mean(), stats.sem(own))
    assert (row["gain_low"], row["gain_high"]) == pytest.approx((low, high))
    assert row["difference"] == pytest.approx((own - base).mean())
    assert row["p"] == pytest.approx(stats.ttest_rel(own, base).pvalue)
    assert row["ratio"] == pytest.approx(base.var(ddof=1) / own.var(ddof=1))
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
    assert row["below"] == (own < 0).sum() and row["below_share"] == (own < 0).mean()
    assert row["quantile05"] == pytest.approx(np.quantile(own, 0.05))
    assert row["effective_size"] == 40 and row["replicates"] == 40
    assert math.isnan(found.loc["vanilla", "ratio"])


def test_what_is_not_known_is_left_out():
    table = policies(5)
    table.loc[0, "gain"] = float("nan")
    found = summary_table(table, "vanilla").set_index("method")
    assert found["replicates"].tolist() == [4, 5]
    assert summary_table(policies(1), "vanilla")[["sd", "ratio", "p"]].isna().all(axis=None)
    assert summary_table(policies(), "third")["ratio"].isna().all()


def test_the_jackknifes_interval_holds_what_it_says():
    """The coverage of normal samples' log sd and of paired samples' log ratio, by simulation."""
    rng, held = np.random.default_rng(0), {"sd": 0, "ratio": 0}
    for _ in range(400):
        one = rng.normal(size=(30, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
        sd, ratio = spread(one[:, 0]), variance_ratio(one[:, 0], one[:, 1])
        held["sd"] += sd.low < 1 < sd.high
        held["ratio"] += ratio.low < 1 < ratio.high
    # Three standard errors of a share of .95 are .033; the jackknife is known to be a little short.
    assert held["sd"] / 400 > 0.91 and held["ratio"] / 400 > 0.91
    mean = jackknife([np.arange(10.0)], partial(np.mean, axis=-1))
    low, high = stats.t.interval(0.95, 9, 4.5, stats.sem(np.arange(10.0)))
    assert mean == pytest.approx((4.5, low, high)), "of a mean it is Student's"


def test_the_manuals_example_runs():
    text = (ROOT / "docs/library.md").read_text(encoding="utf-8")
    (code,) = [part.split("```")[0] for part in text.split("```python\n")[1:] if "matched(" in part]
    names: dict = {}
    exec(code, names)
    assert names["found"].kl.numpy() == pytest.approx(0.3)
