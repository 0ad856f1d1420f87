"""The paper's theory: closed forms against brute force, and what the checks and figures say."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.optimize import minimize
from tiny_results import artist, check_layout, texts

from prudent.analysis import theory, theory_checks
from prudent.analysis.theory_checks import AWARE, LENGTH, PRINTED, SAME_KL, UNAWARE
from prudent.exact.optimum import Terms, optimum
from prudent.figures import (
    fig2_bandit,
    fig3_high_variability,
    fig4_low_variability,
    fig5_matched_steps,
    theorems,
)
from prudent.tables import read_csv, read_table, write_csv, write_parquet

DRAWS = 40_000


def problem(size, seed=0, plane=False):
    """Rewards, variances and a reference policy."""
    draws = np.random.default_rng([size, seed])
    return draws.normal(size=size), np.exp(draws.normal(size=size)), draws.dirichlet(np.ones(size))


# --- Theorem 2.2 ----------------------------------------------------------------------------------


def test_the_probability_of_the_ellipsoid():
    # With two responses |R - r|^2 is exponential, and the proof's bound is the truth.
    for ratio in (0.1, 1.0, 2.5):
        exact = theory.norm_probability(2, ratio)
        assert exact == pytest.approx(1 - np.exp(-ratio), abs=1e-12)
        assert theory.proven_bound(ratio) == pytest.approx(exact, abs=1e-12)
    errors = np.random.default_rng(0).normal(size=(DRAWS, 5))
    share = ((errors**2).sum(-1) <= 0.7 * 5).mean()
    assert share == pytest.approx(theory.norm_probability(5, 0.7), abs=4 * 0.5 / DRAWS**0.5)


def test_the_ellipsoid_bounds_every_step_at_once():
    """By Cauchy and Schwarz: the largest |(R - r)'d| / |d|_Sigma over d is the error's norm."""
    _, variances, _ = problem(4)
    draws = np.random.default_rng(1)
    errors = draws.normal(size=(200, 4)) * np.sqrt(variances)
    steps = draws.normal(size=(20_000, 4))
    ratios = np.abs(errors @ steps.T) / np.sqrt((steps**2) @ variances)
    norms = np.sqrt((errors**2 / variances).sum(-1))
    assert (ratios <= norms[:, None] * (1 + 1e-12)).all()
    assert ratios.max(1) == pytest.approx(norms, rel=0.05)


def test_the_printed_bound_is_upside_down():
    assert theory.printed_bound(0.25) == pytest.approx(1 - np.exp(-4))
    # A smaller ellipsoid cannot hold the truth more often.
    assert theory.printed_bound(0.25) > theory.printed_bound(4) and theory.printed_bound(0.25) > 0.9
    assert theory.norm_probability(1000, 0.25) < 1e-12


@pytest.mark.parametrize("size", [3, 30, 1000])
def test_the_proofs_bound_holds_up_to_the_largest_delta(size):
    largest = theory.largest_delta(size)
    for delta, holds in ((0.9 * largest, True), (1.1 * largest, False)):
        ratio = np.log(1 / delta)
        assert (theory.norm_probability(size, ratio) >= theory.proven_bound(ratio)) is holds


# --- Theorem 3.3 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("plane", [False, True])
@pytest.mark.parametrize("aware", [False, True])
def test_no_other_step_is_better(plane, aware):
    rewards, variances, _ = problem(5)
    weights = variances if aware else np.ones(5)
    step = theory.best_step(rewards, weights, 0.3, plane=plane)
    assert weights @ step**2 == pytest.approx(0.3)
    assert not plane or step.sum() == pytest.approx(0, abs=1e-12)
    others = np.random.default_rng(2).normal(size=(50_000, 5))
    if plane:
        others -= others.mean(1, keepdims=True)
    others *= np.sqrt(0.3 / (others**2 @ weights))[:, None]
    assert (others @ rewards).max() <= step @ rewards + 1e-12
    assert (others @ rewards).max() > 0.95 * (step @ rewards)


@pytest.mark.parametrize("plane", [False, True])
@pytest.mark.parametrize("aware", [False, True])
def test_the_probability_of_falling_below_the_reference(plane, aware):
    true, variances, _ = problem(6, seed=3)
    true = 0.3 * true
    weights = variances if aware else np.ones(6)
    draws = np.random.default_rng(4)
    rewards = true + draws.normal(size=(DRAWS, 6)) * np.sqrt(variances)
    for square in (0.01, 4.0):  # it does not depend on how far the policy goes
        share = (theory.best_step(rewards, weights, square, plane=plane) @ true <= 0).mean()
        exact = theory.below_reference(true, variances, weights, plane=plane)
        assert 0.02 < exact < 0.5
        assert share == pytest.approx(exact, abs=4 * 0.5 / DRAWS**0.5)


def test_the_aware_policy_is_below_the_reference_less_often():
    for seed in range(50):
        true, variances, _ = problem(7, seed)
        aware, unaware = (
            theory.below_reference(true, variances, w) for w in (variances, np.ones(7))
        )
        norm = np.sqrt((true**2 / variances).sum())
        assert aware == pytest.approx(stats.norm.cdf(-norm))
        assert aware < unaware
    same = np.full(7, 2.0)
    assert theory.below_reference(true, same, same) == pytest.approx(
        theory.below_reference(true, same, np.ones(7))
    )


def test_the_limit_of_noise():
    variances = np.tile(np.linspace(3, 100, 300), 2)
    half = np.random.default_rng(5).normal(size=300)
    true = 1e-3 * np.concatenate([half, -half])
    rewards = theory_checks.estimates(true, variances, 1500, np.random.default_rng(6))
    found = theory_checks.gains(rewards, true, variances)[PRINTED]
    ratio = theory_checks.sd_ratio(found[UNAWARE], found[AWARE])
    assert (
        ratio[1] < theory.noise_limit(variances) * 1.08
        and ratio[2] > theory.noise_limit(variances) * 0.92
    )
    # The integral of the printed range: sqrt(97 / (3 ln(100 / 3))).
    assert theory.noise_limit(np.linspace(3, 100, 200_001)) == pytest.approx(3.0366, abs=1e-3)
    assert theory.noise_limit(np.full(9, 5.0)) == pytest.approx(1)


# --- Theorem 3.6 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_true_optimum_is_found_by_a_general_solver_too(seed):
    rewards, variances, reference = problem(5, seed)
    beta = 0.4

    def lost(policy):
        return -theory.objective(np.clip(policy, 1e-300, None), rewards, variances, beta, reference)

    best = minimize(
        lost,
        reference,
        method="SLSQP",
        bounds=[(1e-12, 1)] * 5,
        constraints={"type": "eq", "fun": lambda policy: policy.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    found = theory.true_optimum(rewards, variances, beta, reference)
    assert found.sum() == pytest.approx(1) and (found >= 0).all()
    assert found == pytest.approx(best.x, abs=2e-4)
    assert lost(found) <= best.fun + 1e-9
    printed = theory.printed_optimum(rewards, variances, beta, reference)
    assert lost(printed) > lost(found) + 1e-6


def test_ppos_fixed_point_is_that_of_the_exact_policies():
    rewards, variances, _ = problem(8)
    reference = np.full(8, 1 / 8)
    terms = Terms(*(torch.tensor(part).reshape(1, 1, 8) for part in (rewards, variances)))
    expected = optimum(terms, torch.tensor([0.3])).probability.flatten().numpy()
    found = theory.ppo_optimum(rewards, variances, np.float32(0.3), reference)
    assert found == pytest.approx(expected, abs=1e-9)
    # Its gradient vanishes: the reward less the penalty is the same for all responses.
    left = rewards - 0.3 * variances * np.log(
        theory.ppo_optimum(rewards, variances, 0.3, reference) / reference
    )
    assert np.ptp(left) < 1e-9


def test_a_constant_changes_the_printed_optimum_alone():
    rewards, variances, reference = problem(5)
    for solve, moves in (
        (theory.printed_optimum, True),
        (theory.true_optimum, False),
        (theory.ppo_optimum, False),
    ):
        before, after = (solve(rewards + shift, variances, 0.5, reference) for shift in (0, 3))
        assert bool(np.abs(after - before).max() > 1e-3) is moves


def test_the_three_optima_agree_where_the_variance_is_constant():
    rewards, _, reference = problem(5)
    found = [
        solve(rewards, np.full(5, 1.7), 0.5, reference)
        for solve in (theory.printed_optimum, theory.true_optimum, theory.ppo_optimum)
    ]
    assert found[0] == pytest.approx(found[1]) and found[0] == pytest.approx(found[2])
    weight = reference * np.exp(rewards / 0.85)
    assert found[0] == pytest.approx(weight / weight.sum())
    # Equal rewards leave PPO's policy where it is; the objective's optimum moves even then.
    same = np.zeros(5), problem(5)[1], 0.5, reference
    assert theory.ppo_optimum(*same) == pytest.approx(reference)
    assert np.abs(theory.true_optimum(*same) - reference).max() > 1e-3


def test_tilted_policies_have_the_kl():
    directions = np.random.default_rng(7).normal(size=(6, 50)) * np.arange(1, 7)[:, None]
    for kl in (0.01, 1.0, 2.5):
        policies = theory.tilted(directions, kl)
        found = (policies * np.log(policies * 50)).sum(1)
        assert found == pytest.approx(np.full(6, kl), rel=1e-8)
        # log-ratios are linear in the direction
        for policy, direction in zip(policies, directions, strict=True):
            assert np.corrcoef(np.log(policy), direction)[0, 1] == pytest.approx(1)
    with pytest.raises(ArithmeticError, match="no policy of KL 5"):
        theory.tilted(directions, 5.0)


# --- The checks, and their figures ----------------------------------------------------------------


@pytest.fixture(scope="module")
def study():
    return theory_checks.study(0)


def test_the_study_is_whole_and_the_same_again(study, tmp_path):
    table, curves = study
    write_csv(table, tmp_path / "theory.csv", "claims")
    write_parquet(curves, tmp_path / "curves.parquet", "theory_curves")
    again = theory_checks.study(0)
    pd.testing.assert_frame_equal(table, again[0])
    pd.testing.assert_frame_equal(curves, again[1])
    other = theory_checks.study(1)[0]
    assert not table["here"].equals(other["here"])
    # What is said of claims does not depend on the draws.
    assert read_csv(tmp_path / "theory.csv", "claims")["agrees"].tolist() == list(other["agrees"])
    assert len(read_table(tmp_path / "curves.parquet", "theory_curves")) == len(curves)


def test_what_the_study_says(study):
    table = study[0].set_index("quantity")
    agrees = table["agrees"].to_dict()
    known = table[["paper", "here"]].notna().all(axis=1)
    assert ((table["agrees"] != "not given") == known).all(), "what both say is judged, and no more"
    printed = "Theorem 2.2 (printed): P of the bound at beta^2 = {} x 1,000, at least"
    assert (agrees[printed.format("0.5")], agrees[printed.format("2")]) == ("no", "yes")
    assert agrees["Figure 3: sd of unaware over aware, in the limit of noise"] == "yes"
    fair = "Figure 3: sd of unaware over aware (true rewards of sd 0.3, same length)"
    assert table.loc[fair, "here"] < 1.2
    assert agrees[
        "Theorem 3.3 on Figure 7: P(below the reference), aware less unaware, at most"
    ] == ("no")
    assert table.loc[
        "Theorem 3.6: the largest difference between the three optima under constant variance",
        "here",
    ] == pytest.approx(0, abs=1e-9)


def test_ratios_of_means():
    draws = np.random.default_rng(8)
    unaware, aware = 5 + draws.normal(size=2000), 10 + draws.normal(size=2000)
    ratio = theory_checks.mean_ratio(unaware, aware)
    assert ratio[1] < 2 < ratio[2] and ratio[2] - ratio[1] < 0.1
    assert np.isnan(theory_checks.mean_ratio(unaware - 5, aware)).all()


def test_gains_go_as_far_as_they_say():
    true, variances = theory_checks.world(0, (3, 100))
    assert true.mean() == pytest.approx(0) and np.corrcoef(true, variances)[0, 1] == pytest.approx(
        0, abs=1e-12
    )
    assert np.corrcoef(true**2, variances)[0, 1] != 0  # one draw, not more than that
    rewards = theory_checks.estimates(true, variances, 3, np.random.default_rng(9))
    assert rewards[:3] + rewards[3:] == pytest.approx(np.tile(2 * true, (3, 1)))
    found = theory_checks.gains(rewards, true, variances)
    step = theory.best_step(rewards, variances, 3.0)
    assert found[PRINTED][AWARE] == pytest.approx(step @ true)
    assert found[LENGTH][AWARE] == pytest.approx(step @ true / np.sqrt((step**2).sum(1)))
    policies = theory.tilted(step, theory_checks.KL)
    assert found[SAME_KL][AWARE] == pytest.approx(policies @ true)


def test_the_figures(study):
    curves = study[1]
    figure = fig2_bandit.draw_bandit(curves)
    check_layout(figure)
    exact = theory.below_reference(
        theory_checks.ARMS,
        theory_checks.ARM_VARIANCES,
        theory_checks.ARM_VARIANCES,
        plane=True,
    )
    assert f"variance-aware,\n{exact:.1%} at 0" in texts(figure)
    figure = fig5_matched_steps.draw_matched(curves)
    check_layout(figure)
    assert "Variances of 70 to 100" in texts(figure)
    figure = theorems.draw_theorems(curves)
    check_layout(figure)
    line = artist(figure, "risk variance-aware")
    assert (np.diff(line.get_ydata()) <= 0).all()


@pytest.mark.parametrize(
    ("module", "place"), [(fig3_high_variability, 0), (fig4_low_variability, 1)]
)
def test_the_figures_of_the_simulations(study, tmp_path, module, place):
    write_parquet(study[1], tmp_path / "curves.parquet", "theory_curves")
    figure = module.plot(tmp_path / "curves.parquet")
    check_layout(figure)
    simulation = theory_checks.SIMULATIONS[place]
    words = texts(figure)
    assert f"{simulation.means[0]:.3f} ± {simulation.sds[0]:.3f}" in words
    assert " ".join(words.split()).count(f"{simulation.sds[1]:g} (aware)") == 1
    assert words.count("variance-unaware: ") == 3
