"""The tables of policies, of methods and of their comparisons."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tiny_studies import make_policies, make_study, rng

from prudent import schemas, tables
from prudent.analysis.policies import (
    comparison_table,
    final_mean,
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
    evaluation_noise,
    permutation_test,
    variance_ratio,
)
from prudent.errors import InputError
from prudent.policies.target_kl import Calibration


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
