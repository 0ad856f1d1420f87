"""Statistics against closed forms, brute force, scipy, and simulation where the truth is known."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from prudent import schemas, tables
from prudent.analysis.policies import (
    comparison_table,
    final_mean,
    kl_mismatch,
    missed,
    policy_table,
    read_judgements,
    read_logs,
    summary_table,
    target_table,
    variance_elasticity,
    with_comparisons,
)
from prudent.analysis.statistics import (
    brown_forsythe,
    dominance,
    evaluation_noise,
    holm,
    mcnemar,
    permutation_test,
    pitman_morgan,
    share_interval,
    t_interval,
    tail_mean,
    variance_ratio,
)
from prudent.errors import InputError
from prudent.policies.target_kl import Calibration


def rng(seed=0):
    return np.random.default_rng(seed)


def make_study(sds, seeds=10, ensembles=1, heads=10, prompts=40, seed=0, shift=0.2, noise=0.3):
    """Judgements and the reference of made-up methods; sds: method -> sd of true scores."""
    draw = rng(seed)
    names = [f"prompt {i}" for i in range(prompts)]
    prompt_effect = draw.normal(size=prompts)

    def judged(level):
        scores = level + prompt_effect + noise * draw.normal(size=prompts)
        kl = 1.3 + 0.1 * draw.normal(size=prompts)
        return pd.DataFrame({"prompt": names, "response": "text", "kl": kl, "score": scores})

    judgements = {}
    for method, sd in sds.items():
        for number in range(seeds):
            judgements[method, number] = judged(shift + sd * draw.normal())
    return judgements, judged(0.0)


def make_policies(sds, units=(), **settings):
    judgements, reference = make_study(sds, **settings)
    ensembles, heads = settings.get("ensembles", 1), settings.get("heads", 10)
    units = dict.fromkeys(sds, "member") | dict(units)
    table = policy_table(judgements, reference, ensembles, heads, units)
    return table, judgements, reference


# --- policies


@pytest.mark.parametrize(("steps", "used"), [(3, 3), (5, 5), (49, 5), (100, 10), (192, 19)])
def test_final_mean_uses_the_last_tenth_and_at_least_five(steps, used):
    expected = sum((steps - 1 - i) ** 2 for i in range(used)) / used
    assert final_mean(np.arange(steps) ** 2.0) == pytest.approx(expected)


def test_policy_table_reads_every_judgement():
    table, judgements, reference = make_policies(
        {"a": 0.1, "b": 0.5}, seeds=6, heads=3, ensembles=2
    )
    assert len(table) == 12
    row = table[(table["method"] == "b") & (table["seed"] == 4)].iloc[0]
    scores = judgements["b", 4]["score"]
    assert row["score"] == pytest.approx(sum(scores) / 40)
    assert row["score_se"] == pytest.approx(stats.sem(scores))
    assert row["worse"] == (scores.mean() < reference["score"].mean())
    assert (row["ensemble"], row["head"], row["trial"]) == (0, 2, 0)
    assert row["kl"] == pytest.approx(sum(judgements["b", 4]["kl"]) / 40)
    assert row["kl_se"] == pytest.approx(stats.sem(judgements["b", 4]["kl"]))


def test_policies_judged_on_other_prompts_are_refused():
    judgements, reference = make_study({"a": 0.1}, seeds=2)
    judgements["a", 1] = judgements["a", 1].iloc[::-1]
    with pytest.raises(InputError, match="judge/a.parquet: seed 1: .*same order"):
        policy_table(judgements, reference, 1, 10, dict.fromkeys(("a", "b"), "member"))
    judgements["a", 1] = judgements["a", 0].assign(score=np.nan)
    with pytest.raises(InputError, match="not finite"):
        policy_table(judgements, reference, 1, 10, dict.fromkeys(("a", "b"), "member"))


def test_evaluation_noise_is_the_residual_of_the_two_way_layout():
    draw = rng(1)
    policies, prompts, noise = 400, 50, 0.7
    quality, hardness = draw.normal(size=(policies, 1)), 3 * draw.normal(size=prompts)
    scores = quality + hardness + noise * draw.normal(size=(policies, prompts))
    estimate = evaluation_noise(scores)
    assert estimate == pytest.approx(noise**2 / prompts, rel=0.05)
    # What is left of the variance between policies is that of their true quality.
    left = scores.mean(axis=1).var(ddof=1) - estimate
    assert left == pytest.approx(quality.var(ddof=1), rel=0.05)
    # Hardness shared by all policies is not noise between them.
    assert evaluation_noise(quality + hardness) == pytest.approx(0, abs=1e-12)
    assert np.isnan(evaluation_noise(scores[:1]))


# --- intervals


def test_t_interval_is_scipys_and_clusters_are_their_means():
    values = rng().normal(size=12)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values)[1:] == pytest.approx((expected.low, expected.high))
    clusters = np.repeat(np.arange(4), 3)
    means = values.reshape(4, 3).mean(axis=1)
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    found = t_interval(values, clusters)
    assert found == pytest.approx((values.mean(), expected.low, expected.high))
    assert np.isnan(t_interval([1.0])).tolist() == [False, True, True]
    assert np.isnan(t_interval([])).all()


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (1, 1), (39, 100)])
def test_wilson_interval_is_its_formula(k, n):
    z = stats.norm.ppf(0.975)
    share = k / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    outcomes = np.arange(n) < k
    found = share_interval(outcomes)
    assert found[1:] == pytest.approx(stats.binomtest(k, n).proportion_ci(method="wilson"))
    assert found == pytest.approx((share, max(middle - half, 0), min(middle + half, 1)), abs=1e-9)
    # Three trials a head that agree are one outcome each.
    thrice = share_interval(np.repeat(outcomes, 3), np.repeat(np.arange(n), 3))
    assert thrice == pytest.approx(found)
    assert np.isnan(share_interval([])).all()


def test_variance_ratio_agrees_with_a_jackknife_by_hand():
    draw = rng(2)
    clusters = np.repeat(np.arange(6), [1, 2, 3, 2, 2, 2])
    a, b = 5 + 2 * draw.normal(size=12), draw.normal(size=12)
    found = variance_ratio(a, b, clusters)
    log = np.log(np.var(a, ddof=1) / np.var(b, ddof=1))
    left = [clusters != cluster for cluster in range(6)]
    logs = np.array([np.log(np.var(a[k], ddof=1) / np.var(b[k], ddof=1)) for k in left])
    half = stats.t.ppf(0.975, 5) * np.sqrt(5 / 6 * ((logs - logs.mean()) ** 2).sum())
    assert found == pytest.approx(np.exp([log, log - half, log + half]))
    # Shifts change nothing, a scale changes the ratio by its square, and the arms' order inverts.
    other = variance_ratio(10 * a + 100, b, clusters)
    assert other == pytest.approx([100 * v for v in found])
    inverse = variance_ratio(b, a, clusters)
    assert inverse == pytest.approx([1 / found.estimate, 1 / found.high, 1 / found.low])
    assert variance_ratio(a, b) == variance_ratio(a, b, np.arange(12))


def test_the_jackknife_covers_the_ratio_with_ten_heads():
    draw, covered, runs = rng(4), 0, 2000
    for _ in range(runs):
        a, b = 2 * draw.normal(size=10), draw.normal(size=10)
        _, low, high = variance_ratio(a, b)
        covered += low < 4 < high
    assert 0.93 < covered / runs < 0.98


def test_an_interval_over_heads_is_wider_than_one_over_their_trials():
    draw = rng(5)
    heads = np.repeat(np.arange(10), 10)
    a = 2 * np.repeat(draw.normal(size=10), 10) + 0.1 * draw.normal(size=100)
    b = np.repeat(draw.normal(size=10), 10) + 0.1 * draw.normal(size=100)
    by_head, by_policy = variance_ratio(a, b, heads), variance_ratio(a, b)
    assert np.log(by_head.high / by_head.low) > 2 * np.log(by_policy.high / by_policy.low)


def test_pitman_and_morgans_test_is_their_t():
    """t = (F - 1) sqrt(n - 2) / (2 sqrt(F (1 - r^2))), with n - 2 degrees of freedom."""
    draw = rng(12)
    shared = draw.normal(size=15)
    a, b = 2 * shared + draw.normal(size=15), shared + draw.normal(size=15)
    f, r = np.var(a, ddof=1) / np.var(b, ddof=1), np.corrcoef(a, b)[0, 1]
    t = (f - 1) * np.sqrt(13) / (2 * np.sqrt(f * (1 - r**2)))
    assert pitman_morgan(a, b) == pytest.approx(2 * stats.t.sf(abs(t), 13))
    assert np.isnan(pitman_morgan(a, a)) and np.isnan(pitman_morgan(a[:2], b[:2]))


def test_holm_adjusts_as_published():
    """Holm's own example, with a p that is not known."""
    found = holm([0.01, np.nan, 0.04, 0.03, 0.005])
    assert found == pytest.approx([0.03, np.nan, 0.06, 0.06, 0.02], nan_ok=True)
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0] and len(holm([])) == 0
    draw = rng(13)
    p = draw.uniform(size=(3000, 4))
    assert np.mean([(holm(row) < 0.05).any() for row in p]) == pytest.approx(0.05, abs=0.012)


def test_brown_forsythe_is_levenes_test_on_medians():
    a, b = 3 * rng(6).normal(size=15), rng(7).normal(size=15)
    spread = [np.abs(v - np.median(v)) for v in (a, b)]
    assert brown_forsythe(a, b) == pytest.approx(stats.f_oneway(*spread).pvalue)


def test_the_permutation_test_agrees_with_enumeration():
    draw = rng(8)
    clusters = np.repeat(np.arange(5), 2)
    a, b = 2 * draw.normal(size=10) + 3, draw.normal(size=10)
    apart = np.abs(a - np.median(a)), np.abs(b - np.median(b))
    sizes = []
    for swaps in itertools.product([0, 1], repeat=5):
        swapped = np.repeat(np.array(swaps, dtype=bool), 2)
        first = np.where(swapped, apart[1], apart[0])
        second = np.where(swapped, apart[0], apart[1])
        sizes.append(abs(np.log(first.mean() / second.mean())))
    expected = np.mean([size >= sizes[0] - 1e-12 for size in sizes])
    assert permutation_test(a, b, clusters, 10, rng()) == pytest.approx(expected)
    # Above the limit of enumeration random swaps are drawn; both see a plain difference.
    wide, narrow = 5 * draw.normal(size=20), draw.normal(size=20)
    assert permutation_test(wide, narrow, np.arange(20), 2000, rng()) < 0.01
    assert permutation_test(wide[:12], narrow[:12], np.arange(12), 1, rng()) < 0.05


def test_dominance_agrees_with_distribution_functions_and_enumeration():
    draw = rng(3)
    a, b = draw.normal(size=6), draw.normal(0.3, 0.5, size=6)
    clusters = [0, 0, 1, 2, 3, 4]
    points = np.sort([*a, *b])

    def integral(values, z, order):
        if order == 1:
            return (values <= z).mean()
        return np.maximum(z - values, 0).mean()

    for order in (1, 2):
        signs = np.array(list(itertools.product([1, -1], repeat=5)))[:, clusters]
        ahead, behind = [], []
        for sign in signs:
            first, second = np.where(sign > 0, a, b), np.where(sign > 0, b, a)
            gaps = [integral(first, z, order) - integral(second, z, order) for z in points]
            ahead.append(max(gaps))
            behind.append(-min(gaps))
        found = dominance(a, b, clusters, order, 10, rng())
        assert found.advantage == pytest.approx(ahead[0])
        assert found.shortfall == pytest.approx(behind[0])
        assert found.advantage_p == pytest.approx(np.mean(np.array(ahead) >= ahead[0] - 1e-12))
        assert found.shortfall_p == pytest.approx(np.mean(np.array(behind) >= behind[0] - 1e-12))
        # With the roles exchanged, the two change places.
        back = dominance(b, a, clusters, order, 10, rng())
        assert back == pytest.approx((found[2], found[3], found[0], found[1]))


def test_dominance_knows_a_shift_from_a_spread():
    draw = rng(4)
    a = draw.normal(size=80)
    ids = np.arange(80)
    shifted, narrow = a + 0.5, 0.3 * draw.normal(size=80)
    for order in (1, 2):
        found = dominance(a, shifted, ids, order, 500, rng())
        assert found.advantage_p < 0.05 < found.shortfall_p and found.shortfall == pytest.approx(0)
    first, second = (dominance(a, narrow, ids, order, 500, rng()) for order in (1, 2))
    assert first.advantage_p < 0.05 and first.shortfall_p < 0.05, "its best scores are lower"
    assert second.advantage_p < 0.05 < second.shortfall_p
    many = draw.normal(size=(2, 700))
    assert np.isfinite(dominance(*many, np.arange(700), 2, 50, rng())).all()
    assert np.isnan(dominance(a[:2], a[:2], ids[:2], 1, 50, rng())).all()


def test_the_test_of_dominance_keeps_its_level():
    draw = rng(5)
    rejected = np.zeros(2)
    for _ in range(300):
        shared, a, b = draw.normal(size=(3, 12))
        found = dominance(np.exp(shared + a), np.exp(shared + b), np.arange(12), 2, 300, draw)
        rejected += found.advantage_p < 0.05, found.shortfall_p < 0.05
    assert (rejected <= 300 * 0.05 + 3 * np.sqrt(300 * 0.05 * 0.95)).all(), rejected


@pytest.mark.parametrize("count", [1, 5, 10, 17, 200])
def test_the_tails_mean_is_that_of_the_quantile_function(count):
    values = rng(count).normal(size=count)
    steps = (np.arange(10**5) + 0.5) / 10**6  # of the lowest tenth
    quantiles = np.sort(values)[np.floor(steps * count).astype(int)]
    assert tail_mean(values) == pytest.approx(quantiles.mean(), abs=1e-3)
    assert np.isnan(tail_mean([])) and tail_mean([3.0]) == pytest.approx(3)


def test_the_permutation_test_keeps_its_level():
    for skewed in (False, True):
        draw, rejected, runs = rng(9), 0, 1000
        for _ in range(runs):
            shared, a, b = draw.normal(size=(3, 10))
            a, b = shared + a, shared + b + 3
            if skewed:
                a, b = np.exp(a), np.exp(b - 3) + 3
            rejected += permutation_test(a, b, np.arange(10), 100, draw) < 0.05
        assert 0.03 < rejected / runs < 0.07


def test_mcnemar_counts_the_pairs_that_differ():
    first = np.array([True] * 8 + [False] * 4)
    second = np.array([True] * 2 + [False] * 9 + [True])
    # Six pairs are worse in the first only, one in the second only.
    expected = 2 * sum(stats.binom.pmf(k, 7, 0.5) for k in (0, 1))
    assert mcnemar(first, second) == pytest.approx(expected)
    assert np.isnan(mcnemar(first, first))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(1.0, 1.15, 0.15), (1.15, 1.0, 0.15), (2.0, 1.0, 1.0), (0.0, 1.0, np.nan), (-1, 1, np.nan)],
)
def test_kl_mismatch(first, second, expected):
    assert kl_mismatch(first, second) == pytest.approx(expected, nan_ok=True)


# --- tables


def test_tables_tell_a_real_difference():
    table, judgements, reference = make_policies({"vanilla": 1.0, "calm": 0.2}, seeds=20, heads=20)
    judged = {
        name: np.stack([judgements[name, s]["score"] for s in range(20)])
        for name in ("vanilla", "calm")
    }
    summary = summary_table(table, judged, reference["score"]).set_index("method")
    assert summary.loc["vanilla", "score_variance"] == pytest.approx(
        np.var(table["score"][:20], ddof=1)
    )
    assert summary.loc["calm", "noise_variance"] == pytest.approx(0.3**2 / 40, rel=0.2)
    assert (summary["units"] == 20).all()
    vanilla = table[table["method"] == "vanilla"]
    assert summary.loc["vanilla", "worse"] == (vanilla["score"] < reference["score"].mean()).sum()
    tests = comparison_table(table, "vanilla", 2000, 0).set_index("quantity")
    assert (tests["method"] == "calm").all() and (tests["baseline"] == "vanilla").all()
    assert tests.loc["variance_ratio", "low"] > 1
    assert tests.loc["brown_forsythe", "p"] < 0.01 and tests.loc["swap_test", "p"] < 0.01
    assert tests.loc["kl_mismatch", "estimate"] < 0.05
    assert tests.loc["worse_difference", "estimate"] < 0
    joined = with_comparisons(summary.reset_index(), tests.reset_index())
    joined = joined.set_index("method")
    assert joined.loc["calm", "variance_ratio"] == tests.loc["variance_ratio", "estimate"]
    assert joined.loc["calm", "brown_forsythe_p"] == tests.loc["brown_forsythe", "p"]
    assert joined.loc["vanilla", "variance_ratio":].isna().all()


@pytest.mark.parametrize("elasticity", [0.7, 2.6])
def test_the_elasticity_is_that_of_the_optima(elasticity):
    """Gains whose spread over heads grows with a power of the KL; other methods do not count."""
    draws = rng().normal(size=8)
    rows = [
        ("vanilla", head, kl, kl + kl ** (elasticity / 2) * draws[head])
        for head in range(8)
        for kl in (0.1, 0.4, 0.7, 1.0, 1.4)
    ]
    frontier = pd.DataFrame(rows, columns=["method", "head", "kl_target", "gain"])
    others = frontier.assign(method="other", gain=frontier["gain"] ** 2)
    both = pd.concat([others, frontier])
    assert variance_elasticity(both, "vanilla", 0.8) == pytest.approx(elasticity)
    few = frontier[frontier["head"] < 2]
    assert np.isnan(variance_elasticity(few, "vanilla", 0.8))
    assert np.isnan(variance_elasticity(frontier, "none", 0.8))
    assert np.isnan(variance_elasticity(frontier, "vanilla", float("nan")))


def test_the_elasticity_is_measured_near_the_policies():
    """Of a variance that is no power, the slope at the three nearest KLs."""
    kls = np.array([0.1, 0.4, 0.7, 1.0, 1.4])
    draws = rng().normal(size=8)
    rows = [("m", h, kl, draws[h] * np.exp(kl / 2)) for h in range(8) for kl in kls]
    frontier = pd.DataFrame(rows, columns=["method", "head", "kl_target", "gain"])
    expected = np.polyfit(np.log(kls[1:4]), kls[1:4], 1)[0]
    assert variance_elasticity(frontier, "m", 0.7) == pytest.approx(expected)


def test_a_ratio_at_one_kl_takes_out_what_the_kl_makes():
    table, *_ = make_policies({"vanilla": 1.0, "calm": 0.5})
    table.loc[table["method"] == "calm", "kl"] *= 0.9
    found = comparison_table(table, "vanilla", 500, 0, elasticity=2.6).set_index("quantity")
    kls = table.groupby("method")["kl"].mean()
    factor = (kls["calm"] / kls["vanilla"]) ** 2.6
    raw, corrected = (
        found.loc[name, ["estimate", "low", "high"]].to_numpy(float)
        for name in ("variance_ratio", "corrected_ratio")
    )
    assert corrected == pytest.approx(factor * raw) and factor < 0.8
    assert found.loc["elasticity", "estimate"] == 2.6
    plain = comparison_table(table, "vanilla", 500, 0).set_index("quantity")
    assert np.isnan(plain.loc["corrected_ratio", "estimate"])


def make_target(target, reached=True):
    return Calibration(0.4, target, 0.01, target, reached)


def test_a_target_is_reached_where_search_and_policies_are_near():
    table, *_ = make_policies(dict.fromkeys(("a", "b", "c", "d"), 0.5))
    kl = table[table["method"] == "b"]["kl"].mean()
    found = target_table(
        table,
        {"a": 0.2, "b": None, "c": None, "d": None},
        {"b": make_target(kl * 1.04), "c": make_target(2 * kl), "d": make_target(kl, False)},
    )
    assert found["method"].tolist() == ["a", "b", "c", "d"]
    assert found["target"].tolist() == ["fixed", "reached", "missed", "missed"]
    assert found["beta"].tolist() == [0.2, 0.4, 0.4, 0.4]
    assert np.isnan(found["kl_target"][0]) and found["kl_target"][2] == 2 * kl
    assert missed(table.merge(found, on="method")) == ["c", "d"]


def test_an_ensembles_policies_are_one_draw():
    """A method of the whole ensemble has as many units as ensembles, and so has what it meets."""
    table, judgements, reference = make_policies(
        {"vanilla": 1.0, "pooled": 0.5}, units={"pooled": "ensemble"}, ensembles=5, heads=2
    )
    judged = {
        name: np.stack([judgements[name, s]["score"] for s in range(10)])
        for name in ("vanilla", "pooled")
    }
    summary = summary_table(table, judged, reference["score"]).set_index("method")
    assert summary["units"].to_dict() == {"vanilla": 10, "pooled": 5}
    assert summary["unit"].to_dict() == {"vanilla": "member", "pooled": "ensemble"}
    tests = comparison_table(table, "vanilla", 500, 0).set_index("quantity")
    assert set(tests["units"]) == {5} and set(tests["unit"]) == {"ensemble"}
    wide = table.pivot(index="seed", columns="method", values="score")
    means = (wide["pooled"] - wide["vanilla"]).groupby(wide.index % 5).mean()
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    found = tests.loc["score_difference", ["low", "high"]].tolist()
    assert found == pytest.approx([expected.low, expected.high])
    one, *_ = make_policies({"vanilla": 1.0, "pooled": 0.5}, units={"pooled": "ensemble"})
    tests = comparison_table(one, "vanilla", 500, 0).set_index("quantity")
    assert (tests["units"] == 1).all() and np.isnan(tests.loc["variance_ratio", "low"])


def test_numbers_of_a_method_do_not_depend_on_the_other_methods():
    sds = {"vanilla": 1.0, "a": 0.5, "b": 0.5}
    table, *_ = make_policies(sds)
    alone = comparison_table(table[table["method"] != "a"], "vanilla", 500, 7)
    both = comparison_table(table, "vanilla", 500, 7)
    both = both[both["method"] == "b"].reset_index(drop=True)
    # But for what is adjusted over the methods.
    pd.testing.assert_frame_equal(alone.drop(columns="p_holm"), both.drop(columns="p_holm"))
    assert (both["p_holm"].dropna() >= both["p"].dropna()).all()
    assert alone["p_holm"].equals(alone["p"])


def test_pairs_are_the_seeds_that_both_methods_have():
    table, *_ = make_policies({"vanilla": 1.0, "a": 0.5})
    table = table[~((table["method"] == "a") & (table["seed"] > 6))].sample(frac=1, random_state=0)
    tests = comparison_table(table, "vanilla", 100, 0).set_index("quantity")
    wide = table.pivot(index="seed", columns="method", values="score").dropna()
    assert tests.loc["score_difference", "pairs"] == 7
    expected = stats.ttest_rel(wide["a"], wide["vanilla"]).confidence_interval(0.95)
    found = tests.loc["score_difference", ["low", "high"]].tolist()
    assert found == pytest.approx([expected.low, expected.high])


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.filterwarnings("error")
def test_few_seeds_give_nan_and_no_failure(seeds):
    table, judgements, reference = make_policies(
        {"vanilla": 1.0, "calm": 0.2}, seeds=seeds, heads=2
    )
    judged = {
        name: np.stack([judgements[name, s]["score"] for s in range(seeds)])
        for name in ("vanilla", "calm")
    }
    summary = summary_table(table, judged, reference["score"])
    tests = comparison_table(table, "vanilla", 200, 0).set_index("quantity")
    assert summary["score"].notna().all() and tests.loc["score_difference", "estimate"] != 0
    assert summary["score_variance"].isna().all() == (seeds == 1)
    assert np.isnan(tests.loc["variance_ratio", "low"])
    assert np.isnan(tests.loc["swap_test", "p"])


@pytest.mark.filterwarnings("error")
def test_policies_that_are_all_equal_give_nan_and_no_failure():
    same, varied = np.ones(10), np.arange(10.0)
    clusters = np.arange(10)
    assert np.isnan(variance_ratio(same, same, clusters)).all()
    assert variance_ratio(varied, same, clusters).estimate == np.inf
    assert np.isnan(variance_ratio(varied, same, clusters)[1:]).all()
    assert np.isnan(permutation_test(same, same, clusters, 50, rng()))
    assert np.isnan(brown_forsythe(same, same))


def test_an_unknown_baseline_is_refused():
    table, *_ = make_policies({"a": 1.0}, seeds=2)
    with pytest.raises(InputError, match="statistics.baseline.*choose one of a"):
        comparison_table(table, "vanilla", 10, 0)


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """Whole logs and judgements of two methods and two seeds, method by method."""
    logs, judged = [], []
    columns = schemas.CSV_SCHEMAS["training_log"]
    for number in range(4):
        log = pd.DataFrame({name: np.full(6, 0.5) for name in columns}).assign(step=range(6))
        logs.append(tmp_path / f"log{number}.csv")
        tables.write_csv(log, logs[-1])
    for method, first in (("a", 0), ("b", 2)):
        table = pd.DataFrame({"seed": [0, 0, 1, 1], "prompt": ["a", "b"] * 2, "response": "c"})
        scores = [0.5, first, 0.5, first + 1]
        table = table.assign(method=method, kl=0.5, score=scores, grammatical=1)
        judged.append(tmp_path / f"{method}.parquet")
        tables.write_parquet(table, judged[-1])
    return logs, judged


def test_logs_and_judgements_go_by_method_and_seed(files):
    logs, judged = files
    assert list(read_logs(logs, ["a", "b"], [0, 1])) == [(m, s) for m in "ab" for s in (0, 1)]
    found = read_judgements(judged, ["a", "b"], [0, 1])
    assert list(found) == [(m, s) for m in "ab" for s in (0, 1)]
    assert found["b", 1]["score"].tolist() == [0.5, 3] and found["b", 0]["grammatical"].all()
    with pytest.raises(InputError, match="b.parquet: found responses of b seed 0, b seed 1; expec"):
        read_judgements(judged[::-1], ["a", "b"], [0, 1])
    with pytest.raises(InputError, match="expected those of a seed 0, a seed 1, a seed 2"):
        read_judgements(judged, ["a", "b"], [0, 1, 2])
    with pytest.raises(InputError, match="4 files of policies for 2 methods x 3 seeds; expected 6"):
        read_logs(logs, ["a", "b"], [0, 1, 2])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: lines[:-1],
        lambda lines: lines[:1],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [lines[0], *lines[:0:-1]],
        lambda lines: [lines[0], *lines[2:]],
    ],
)
def test_a_log_that_is_not_whole_is_refused(files, spoil):
    logs, _ = files
    logs[3].write_text("\n".join(spoil(logs[3].read_text().splitlines())) + "\n")
    says = (
        "expected the steps 0 to 5 of method b, each once and in order|found no rows|"
        "found step 5 a second time"
    )
    with pytest.raises(InputError, match=says) as error:
        read_logs(logs, ["a", "b"], [0, 1])
    assert "log3.csv" in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"score": [0.5, np.nan, 1, 2]}, "row 2, column 'score': found nan, expected a finite"),
        ({"score": [-np.inf, 0.5, 1, 2]}, "row 1, column 'score': found -inf, expected a finite"),
        ({"score": ["high", "low"] * 2}, "a column has the wrong type"),
        (None, "found no rows, expected some"),
    ],
)
def test_a_judgement_that_is_broken_is_refused(files, change, says):
    _, judged = files
    table = pd.read_parquet(judged[1])
    table = table.iloc[:0] if change is None else table.assign(**change)
    tables.write_parquet(table, judged[1])
    with pytest.raises(InputError, match=f"b.parquet: {says}"):
        read_judgements(judged, ["a", "b"], [0, 1])
