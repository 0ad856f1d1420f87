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
from transformers import GPT2Config, GPT2LMHeadModel

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
    frontiers,
    levels_of,
)
from prudent.exact.optimum import optimum
from prudent.exact.scores import independent
from prudent.exact.summary import jackknife, spread, summary_table, variance_ratio
from prudent.exact.terms import NoOptimum, terms_of
from prudent.objectives.signal import Run, Signal, evaluate
from prudent.objectives.single import vanilla
from prudent.objectives.weighted import exact_gradient, variance_aware
from prudent.ppo import losses
from prudent.ppo.minibatch import Experience, ValueFunction, minibatch_loss
from prudent.ppo.settings import PPOSettings
from prudent.rewards.interface import Rewards
from prudent.rewards.last_layer import LastLayer
from prudent.rewards.settings import SpreadSettings
from prudent.workflow.config_docs import has_optimum
from prudent.workflow.objectives import load, objectives

P, N, K, E = 3, 20, 4, 5


def ensembles(count: int = E, seed: int = 0) -> list[Rewards]:
    draws = torch.Generator().manual_seed(seed)
    # Members of an ensemble agree in part, so that their mean knows something.
    shared = torch.randn(P * N, 1, generator=draws)
    return [Rewards(shared + torch.randn(P * N, K, generator=draws)) for _ in range(count)]


def whole(rewards: Rewards) -> Rewards:
    """With all that an objective may ask for."""
    draws = torch.Generator().manual_seed(1)
    std = torch.rand(P * N, K, generator=draws) + 0.1
    return Rewards(rewards.mean, std, torch.randn(P * N, 3, generator=draws))


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
    given, last_layer = [whole(table) for table in ensembles()], LastLayer(torch.eye(3))
    try:
        found = exact_policies(Method(load(name), True), given, truth(), [0.2], 0, last_layer)
    except NoOptimum as error:
        assert name in str(error) and not has_optimum(name)
        return
    assert has_optimum(name)
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


def of_batch(rewards, beta):
    score = rewards.mean[:, 0]
    return Signal(score, beta * torch.ones_like(score), of_batch=True)


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
        (of_batch, "of_batch scores a response by the rest of its batch"),
    ],
)
def test_what_has_no_optimum_here_says_why(objective, why):
    with pytest.raises(NoOptimum, match=why):
        terms_of(objective, ensembles(), N, 0)


def test_controls_draw_for_each_ensemble_alone():
    shuffled = partial(terms_of, variance_aware, spread=SpreadSettings(shuffled=True))
    table = ensembles(1)[0]
    found = shuffled([table, table], N, 0)
    assert not torch.equal(found.coefficient[0], found.coefficient[1])
    again = shuffled([table, table], N, 0)
    assert torch.equal(found.coefficient, again.coefficient)
    other = shuffled([table, table], N, 1)
    assert not torch.equal(found.coefficient, other.coefficient)
    spread_of = table.mean.double().std(dim=1).sort().values
    torch.testing.assert_close(found.coefficient[0].flatten().sort().values, spread_of)


def test_the_spread_is_taken_as_the_method_says():
    given = [whole(table) for table in ensembles(2)]
    within = given[0].mean.double().reshape(P, N, K)
    within = (within - within.mean(1, keepdim=True)).std(-1)
    found = terms_of(variance_aware, given, N, 0, spread=SpreadSettings(center="prompt"))
    torch.testing.assert_close(found.coefficient[0], within)
    layer, spread = LastLayer(torch.eye(3)), SpreadSettings(of="last_layer", ridge=3.0)
    found = terms_of(variance_aware, given, N, 0, spread=spread, last_layer=layer)
    expected = given[1].features.double().norm(dim=1).reshape(P, N) / 2
    torch.testing.assert_close(found.coefficient[1], expected)


def test_a_level_that_lacks_what_a_method_asks_for_is_left_out(caplog):
    given = [whole(table) for table in ensembles(3)]
    last_layer = Method(variance_aware, True, SpreadSettings(of="last_layer"))
    methods = {"vanilla": Method(vanilla, True), "last_layer": last_layer}
    levels = {GIVEN: given, ANEW: ensembles(3)}
    found = compare(methods, levels, truth(), [0.1], 0, LastLayer(torch.eye(3)))
    assert set(found.loc[found["method"] == "last_layer", "level"]) == {GIVEN}
    assert "all drawn anew: no exact optimum of last_layer: spread.of: is last_layer" in caplog.text


def test_a_single_member_has_no_method_that_uses_a_spread(caplog):
    given = [Rewards(table.mean[:, :1]) for table in ensembles(3)]
    methods = {"vanilla": Method(vanilla, True), "aware": Method(variance_aware, True)}
    found = compare(methods, {GIVEN: given}, truth(), [0.1], 0)
    assert set(found["method"]) == {"vanilla"}
    assert "no exact optimum of aware: the ensemble has 1 member(s); a spread" in caplog.text


# --- The trainer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in objectives() if has_optimum(name)])
def test_the_trainers_own_gradient_vanishes_at_the_optimum(name):
    """Five responses of one token, all enumerated: the policy is its final layer."""
    draws = torch.Generator().manual_seed(7)
    parts = (torch.randn(5, n, generator=draws, dtype=torch.float64) for n in (K, K, 3))
    mean, std, features = parts
    mean = mean[:, :1] + 0.5 * mean  # members that agree in part
    given, layer, head, beta = Rewards(mean, std.abs(), features), LastLayer(features), 1, 0.7
    objective = load(name)
    terms = terms_of(objective, [given], 5, 0, heads=[head], last_layer=layer)
    found = optimum(terms, torch.tensor([beta], dtype=torch.float64))
    run = Run(0, 0, sample_reference=lambda: given, last_layer=layer)
    signal = evaluate(objective, given, beta, head=head, run=run)
    assert gradient_of_ppo(signal, found.log_ratio[0, 0]) < 1e-12
    assert gradient_of_ppo(signal, torch.zeros(5, dtype=torch.float64)) > 1e-3


def gradient_of_ppo(signal: Signal, log_ratio: torch.Tensor) -> float:
    """The largest gradient of PPO's loss over the logits, in expectation over a policy's responses
    to one prompt; the reference draws each of the five with the same probability."""
    config = GPT2Config(
        vocab_size=5, n_positions=8, n_embd=4, n_layer=1, n_head=1, tie_word_embeddings=False
    )
    policy = GPT2LMHeadModel(config).double().eval()
    ids = torch.stack([torch.zeros(5, dtype=torch.long), torch.arange(5)], dim=1)
    with torch.no_grad():
        state = policy.transformer(ids).last_hidden_state[0, 0]
        log_probs = log_ratio - math.log(5)
        policy.lm_head.weight.copy_(torch.outer(log_probs, state) / state.square().sum())
    one = torch.ones(5, 1, dtype=torch.float64)
    own, reference = log_probs[:, None], torch.full_like(one, -math.log(5))
    rewards = losses.token_rewards(own - reference, one, signal.score, signal.kl_coefficient)
    # A baseline that is the same for all changes no expected gradient; each response is seen as
    # often as the policy draws it.
    advantages = (rewards - (own.exp() * rewards).sum()) * own.exp() * 5
    batch = Experience(
        *(ids, torch.ones_like(ids), one, own, one, advantages, one, reference, 0 * one)
    )
    value = ValueFunction(torch.nn.Linear(4, 1).double())
    settings = PPOSettings(response_length=1, value_coefficient=0.0)
    loss, terms = minibatch_loss(policy, value, batch, settings, one.sum())
    loss.backward()
    assert terms["ratio"].item() == pytest.approx(1.0), "the policy is not the one that was meant"
    return policy.lm_head.weight.grad.abs().max().item()


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
    constant = Rewards(torch.ones(P * N, 1))
    found = independent([*ensembles(2, seed=1), constant], N)
    assert torch.equal(found.mean[:, 2], constant.mean[:, 0].double())
    pool = independent(ensembles(4, seed=1), N)
    assert pool.members == 4 and independent(ensembles(2), N) is None
    within = pool.mean.reshape(P, N, 4)
    within = within - within.mean(1, keepdim=True)
    torch.testing.assert_close(within.square().mean((0, 1)), torch.ones(4, dtype=torch.float64))


def test_a_method_without_an_optimum_is_left_out_and_named(caplog):
    methods = {"vanilla": Method(vanilla, True), "penalised": Method(penalised, False)}
    found = compare(methods, {GIVEN: ensembles()}, truth(), [0.2], 0)
    assert set(found["method"]) == {"vanilla"}
    assert "no exact optimum of penalised: penalised has penalty" in caplog.text
    with pytest.raises(InputError, match="none of the methods penalised has an exact optimum"):
        compare({"penalised": methods["penalised"]}, {GIVEN: ensembles()}, truth(), [0.2], 0)


def test_a_kl_that_too_few_responses_stand_for_is_refused():
    methods = {"vanilla": Method(vanilla, True)}
    found = compare(methods, {GIVEN: ensembles()}, truth(), [0.05], 0)
    check_sizes(found, "vanilla", N)
    found = compare(methods, {GIVEN: ensembles()}, truth(), [0.05, 1.5], 0)
    with pytest.raises(InputError, match=r"exact.kl: 1.5 leaves policies of vanilla that are wo"):
        check_sizes(found, "vanilla", N)


def test_what_half_the_responses_say():
    """Each half's policies are those of a world that has no other responses; the first ensembles'
    alone are found, and their difference says what another sample would change."""
    method, whole_judge = Method(vanilla, True), truth()
    found = exact_policies(method, ensembles(), whole_judge, [0.1], 0, halved=3)
    assert found["first_half"].notna().tolist() == [True] * 3 + [False] * 2
    for name, half in (("first_half", slice(N // 2)), ("second_half", slice(N // 2, N))):
        part = [
            Rewards(table.mean.reshape(P, N, K)[:, half].reshape(-1, K)) for table in ensembles()
        ]
        alone = exact_policies(method, part, whole_judge[:, half], [0.1], 0)
        assert found[name][:3].tolist() == pytest.approx(alone["gain"][:3].tolist())
    draws = torch.Generator().manual_seed(0)
    prompts, size = 400, 64
    score = torch.randn(1, prompts, size, generator=draws)
    rewards = [Rewards(score.reshape(-1, 1))]
    found = exact_policies(method, rewards, score[0], [0.2], 0)
    said = summary_table(found.assign(level=GIVEN, method="vanilla"), "vanilla").iloc[0]
    # Of a normal score the optimum at KL k gains sqrt(2 k) standard deviations.
    limit = (2 * 0.2) ** 0.5
    assert abs(said["gain"] - limit) < 0.03
    assert abs(said["half_shift"]) < 0.03 and said["sampling_sd"] < 0.02


def test_frontiers_are_of_the_trained_policies_draws_and_members(caplog):
    methods = {"vanilla": Method(vanilla, True), "mean": Method(load("mean"), False)}
    methods["penalised"] = Method(penalised, False)
    policies = [(0, 1), (2, 1), (0, 3)]
    found = frontiers(methods, ensembles(3), policies, truth(), 0)
    own = found[found["method"] == "vanilla"]
    assert list(own[["draw", "head"]].drop_duplicates().itertuples(index=False, name=None)) == (
        policies
    )
    of_mean = found[found["method"] == "mean"]
    assert of_mean["draw"].unique().tolist() == [0, 2] and set(of_mean["head"]) == {-1}
    assert set(found["method"]) == {"vanilla", "mean"}
    row = own[(own["draw"] == 2) & (own["kl_target"] == 0.4)].iloc[0]
    reward = ensembles(3)[2].mean[:, 1].double().reshape(P, N)
    policy = (reward / row["beta"]).softmax(-1)
    assert row["gain"] == pytest.approx(((policy - 1 / N) * truth()).sum(-1).mean().item())
    assert found["kl_target"].max() < math.log(N), "what is not reached is left out"
    assert frontiers({}, ensembles(3), policies, truth(), 0).empty


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
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(first_half=table["gain"] - 0.02, second_half=table["gain"] + 0.06)


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
    assert row["sampling_sd"] == pytest.approx(0.04) and row["half_shift"] == pytest.approx(0.02)
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
