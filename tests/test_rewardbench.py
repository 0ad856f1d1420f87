"""RewardBench's rule against the paper's printed rows, and the tables against plain loops."""

import itertools

import numpy as np
import pandas as pd
import pytest

from prudent.data.rewardbench import SECTION_OF
from prudent.errors import InputError
from prudent.rewards import rewardbench

# Table 1 of arXiv 2410.23726: overall, then chat, chat-hard, safety, reasoning, prior.
TABLE_1 = {
    "GRM-Gemma-2B-sftreg": (74.7, 95.5, 48.7, 80.0, 76.8, 69.8),
    "Gemma-2B-rewardmodel-baseline": (73.1, 94.1, 46.9, 79.7, 73.8, 69.0),
    "Our Model": (69.4, 95.6, 44.5, 55.9, 81.8, 69.0),
    "Qwen1.5-72B-Chat": (68.2, 62.3, 66.0, 72.0, 85.5, 42.3),
    "MiniCPM-2B-dpo-fp32": (66.2, 89.1, 49.3, 52.5, 82.3, 49.6),
    "RM-Gemma-2B": (64.2, 94.4, 40.8, 44.0, 76.4, 66.5),
}
SECTIONS = ("Chat", "Chat Hard", "Safety", "Reasoning", "Prior")


def make_scores(layout, heads=4, ensembles=1, seed=0, ties=False):
    """A long table of rewards; layout: (section, subset, rows)."""
    rng = np.random.default_rng(seed)
    models = [(-1, -1), *itertools.product(range(ensembles), range(heads))]
    rows = []
    for section, subset, count in layout:
        for number, side in itertools.product(range(count), ("chosen", "rejected")):
            for ensemble, head in models:
                reward = rng.normal()
                reward = round(reward) if ties else reward
                rows.append((str(number), subset, section, side, ensemble, head, reward))
    columns = ["id", "subset", "section", "side", "ensemble", "head", "reward"]
    return pd.DataFrame(rows, columns=columns)


def pick(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


@pytest.mark.parametrize("model", TABLE_1)
def test_overall_score_gives_the_papers_printed_rows(model):
    printed, *sections = TABLE_1[model]
    known = [score for score in sections if not np.isnan(score)]
    overall = np.average(known, weights=rewardbench.section_weights(SECTIONS[: len(known)]))
    # Each printed number is rounded to 0.05, and so is the overall's printed value.
    assert overall == pytest.approx(printed, abs=0.1)


def test_plain_averages_do_not_give_the_printed_rows():
    rows = np.array(list(TABLE_1.values()))
    assert np.abs(rows[:, 1:].mean(axis=1) - rows[:, 0]).max() > 1
    assert np.abs(rows[:, 1:5].mean(axis=1) - rows[:, 0]).max() > 1


def test_a_missing_prior_is_left_out():
    assert rewardbench.section_weights(SECTIONS[:4]).tolist() == [2, 2, 2, 2]


def test_counts_are_those_of_the_benchmark():
    core = {k: sum(v.values()) for k, v in rewardbench.SUBSET_COUNTS.items() if k != "Prior"}
    assert core == {"Chat": 358, "Chat Hard": 456, "Safety": 740, "Reasoning": 1968}
    assert len(SECTION_OF) == 23 + 4
    # 2,985 rows: math-prm counts 984 and holds 447.
    assert sum(core.values()) - 984 + 447 == 2985
    hep = [n for s, n in rewardbench.SUBSET_COUNTS["Reasoning"].items() if s.startswith("hep-")]
    assert sum(hep) == rewardbench.SUBSET_COUNTS["Reasoning"]["math-prm"]


def test_weighting_a_subset_equals_repeating_its_rows():
    layout = [("Reasoning", "math-prm", 3), ("Reasoning", "hep-go", 5), ("Chat", "mt-bench-med", 4)]
    table = rewardbench.accuracy_table(make_scores(layout, heads=1))
    head = {"model": "head", "ensemble": 0, "head": 0}
    math = pick(table, subset="math-prm", **head)["accuracy"]
    code = pick(table, subset="hep-go", **head)["accuracy"]
    repeated = np.mean([math] * 984 + [code] * 164)
    reasoning = pick(table, section="Reasoning", level="section", **head)
    assert reasoning["accuracy"] == pytest.approx(repeated, abs=1e-12)
    assert reasoning["rows"] == 8
    chat = pick(table, section="Chat", level="section", **head)["accuracy"]
    overall = pick(table, level="overall", **head)["accuracy"]
    assert overall == pytest.approx((repeated + chat) / 2, abs=1e-12)


def test_prior_is_a_plain_mean_and_counts_half():
    layout = [("Prior", "shp", 9), ("Prior", "summarize", 2), ("Chat", "mt-bench-med", 6)]
    table = rewardbench.accuracy_table(make_scores(layout, heads=1, seed=3))
    head = {"model": "head", "ensemble": 0, "head": 0}
    shp, summarize, chat = (
        pick(table, subset=name, **head)["accuracy"]
        for name in ("shp", "summarize", "mt-bench-med")
    )
    prior = pick(table, section="Prior", level="section", **head)["accuracy"]
    assert prior == pytest.approx((shp + summarize) / 2)
    overall = pick(table, level="overall", **head)["accuracy"]
    assert overall == pytest.approx((2 * chat + prior) / 3)


def test_other_benchmarks_count_rows_and_sections_plainly():
    layout = [("easy", "a", 3), ("easy", "b", 9), ("hard", "c", 5)]
    scores = make_scores(layout, heads=3)
    table = rewardbench.accuracy_table(scores)
    chosen, rejected = rewardbench.rewards_by_row(scores)
    for head in range(3):
        right = (chosen[0, head] > rejected[0, head]).groupby(level="section").mean()
        where = {"model": "head", "ensemble": 0, "head": head}
        easy = pick(table, section="easy", level="section", **where)
        assert easy["accuracy"] == pytest.approx(right["easy"])
        # Row-weighted subsets: the section's variance is the sum of the rows' variances.
        parts = table[(table["section"] == "easy") & (table["level"] == "subset")]
        parts = parts[(parts["model"] == "head") & (parts["head"] == head)].set_index("subset")
        p, n = parts["accuracy"], parts["rows"]
        assert easy["se"] == pytest.approx(np.sqrt((n * p * (1 - p)).sum()) / n.sum())
        overall = pick(table, level="overall", **where)["accuracy"]
        assert overall == pytest.approx(right.mean())


def test_accuracy_agrees_with_a_plain_loop_and_ties_are_wrong():
    layout = [("easy", "a", 30), ("hard", "c", 20)]
    scores = make_scores(layout, heads=3, ensembles=2, seed=5, ties=True)
    table = rewardbench.accuracy_table(scores)
    rewards = scores.set_index(["subset", "id", "side", "ensemble", "head"])["reward"].to_dict()
    for model, ensemble, head in [
        ("base", -1, -1),
        ("head", 0, 2),
        ("head", 1, 0),
        ("mean", 0, -1),
        ("mean", 1, -1),
    ]:
        right = ties = 0
        for row in range(30):
            heads = range(3) if model == "mean" else [head]
            gap = sum(
                rewards["a", str(row), "chosen", ensemble, h]
                - rewards["a", str(row), "rejected", ensemble, h]
                for h in heads
            )
            right, ties = right + (gap > 0), ties + (gap == 0)
        found = pick(table, subset="a", model=model, ensemble=ensemble, head=head)
        assert (found["accuracy"], found["ties"]) == (pytest.approx(right / 30), ties)
    assert table["ties"].sum() > 0
    assert len(table) == (2 + 2 + 1) * (1 + 6 + 2)


def test_variance_agrees_with_a_plain_loop():
    layout = [("easy", "a", 7), ("easy", "b", 4), ("hard", "c", 5)]
    scores = make_scores(layout, heads=5, ensembles=2)
    rows = rewardbench.variance_rows(scores).set_index(["subset", "id", "ensemble"])
    long = scores.set_index(["subset", "id", "ensemble", "side"]).sort_index()
    for key in rows.index:
        chosen = long.loc[(*key, "chosen")].sort_values("head")["reward"].to_numpy()
        rejected = long.loc[(*key, "rejected")].sort_values("head")["reward"].to_numpy()
        mean = chosen.sum() / 5
        assert rows.loc[key, "accepted"] == pytest.approx(((chosen - mean) ** 2).sum() / 4)
        gap = chosen - rejected
        assert rows.loc[key, "difference"] == pytest.approx(((gap - gap.mean()) ** 2).sum() / 4)
    table = rewardbench.variance_table(scores)
    easy = pick(table, section="easy", subset="all", side="accepted", ensemble=1)
    values = rows.xs(1, level="ensemble")["accepted"].loc[["a", "b"]]
    assert easy["rows"] == 11
    for name, value in (
        ("mean", values.mean()),
        ("median", np.median(values)),
        ("max", values.max()),
        ("q10", np.quantile(values, 0.1)),
        ("q90", np.quantile(values, 0.9)),
    ):
        assert easy[name] == pytest.approx(value)
    assert len(table) == (3 + 2) * 2 * 2


def test_a_heads_offset_changes_the_accepted_variance_only():
    scores = make_scores([("easy", "a", 6)], heads=3)
    shifted = scores.assign(reward=scores["reward"] + 10 * scores["head"].clip(lower=0))
    before, after = rewardbench.variance_rows(scores), rewardbench.variance_rows(shifted)
    assert np.allclose(before["difference"], after["difference"])
    assert (after["accepted"] > before["accepted"] + 10).all()


def test_one_head_has_no_variance():
    table = rewardbench.variance_table(make_scores([("easy", "a", 6)], heads=1))
    assert table["rows"].tolist() == [6, 6] * 2
    assert table["median"].isna().all()


def test_equal_ids_in_two_subsets_are_two_rows():
    chosen, _ = rewardbench.rewards_by_row(make_scores([("easy", "a", 3), ("easy", "b", 3)]))
    assert len(chosen) == 6


def test_bad_scores_are_refused():
    scores = make_scores([("easy", "a", 3)])
    with pytest.raises(InputError, match="more than one reward"):
        rewardbench.rewards_by_row(pd.concat([scores, scores.tail(1)]))
    with pytest.raises(InputError, match="first .*'id': '2'"):
        rewardbench.rewards_by_row(scores.iloc[:-1])
    with pytest.raises(InputError, match="'id': '0'"):
        rewardbench.rewards_by_row(scores.assign(reward=[np.nan, *scores["reward"][1:]]))
    with pytest.raises(InputError, match="expected chosen and rejected"):
        rewardbench.rewards_by_row(scores[scores["side"] == "chosen"])
    with pytest.raises(InputError, match="expected chosen or rejected"):
        rewardbench.rewards_by_row(scores.replace({"side": {"chosen": "accepted"}}))
    with pytest.raises(InputError, match="expected an ensemble"):
        rewardbench.variance_rows(scores[scores["ensemble"] == -1])
