"""What the paper prints beside a scenario's results: the rows, the page, and the script."""

import numpy as np
import pandas as pd
import pytest
from html_pages import HOSTILE, check, check_closed
from markupsafe import escape
from paper import Args, final_proxy, main, used
from tiny_page import make_tables
from tiny_results import make_logs, make_losses, make_scores

from prudent.analysis import paper, printed
from prudent.analysis.printed import Resources
from prudent.figures.paper_page import render
from prudent.figures.style import new_figure, svg_text
from prudent.rewards import rewardbench
from prudent.tables import read_csv, write_csv, write_parquet
from prudent.workflow.objectives import objectives

SETTINGS = {
    "reward": {
        "batch_size": 32,
        "learning_rate": 1e-5,
        "weight_decay": 0.001,
        "epochs": 1.0,
        "stop_loss": 0.3,
    },
    "ensemble": {
        "kind": "heads",
        "count": 10,
        "ridge": None,
        "first": "fresh",
        "batch_size": 32,
        "learning_rate": 3e-3,
        "weight_decay": 0.001,
        "epochs": 4,
    },
    "prompts": {"min_tokens": 2, "max_tokens": 8},
    "ppo": {"batch_size": 128, "learning_rate": 1.414e-5, "steps": 192},
    "methods": {
        "plain": {"objective": "vanilla", "beta": 0.2},
        "aware": {
            "objective": "variance_aware",
            "beta": {"kl": 1.3},
            "power": 2,
            "ppo": {"steps": 100},
        },
    },
}
THEORY = pd.DataFrame(
    [
        ("Theorem 3.3 on Figure 7: P", 0.0, 0.12, "no", "Words."),
        ("Figure 5: what it shows", np.nan, np.nan, "not given", ""),
    ],
    columns=["quantity", "paper", "here", "agrees", "why"],
)


def make_run(sections=("easy", "hard"), ratio=5.0, **changes):
    scores = make_scores(sections, rows=40)
    summary, tests = make_tables(ratio=ratio, low=1.5, high=9.0)
    names = {"vanilla": "plain", "variance_aware": "aware"}
    summary, tests = (table.replace({"method": names}) for table in (summary, tests))
    values = {
        "config": SETTINGS,
        "theory": THEORY,
        "accuracy": rewardbench.accuracy_table(scores),
        "variance": rewardbench.variance_table(scores),
        "base": make_losses(heads=1)[["step", "loss", "split"]],
        "heads": make_losses(heads=10),
        "pairs": 850,
        "summary": summary,
        "tests": tests,
        "proxy": {"plain": 1.5, "aware": 1.25},
        "used": {"Table 3": Resources(0.5, 1.25, 0.001), "Table 5": None},
    }
    return paper.Run(**{**values, **changes})


def table_of(run):
    table = pd.DataFrame(paper.rows(run))
    assert not table.duplicated(["item", "quantity"]).any()
    return table.set_index(["item", "quantity"])


def test_the_papers_averages_follow_rewardbenchs_rule():
    table = table_of(make_run()).loc["Table 1"]
    averages = table[table.index.str.startswith("average")]
    assert len(averages) == 6 and (averages["agrees"] == "yes").all()
    # By hand: the prior sets count half.
    by_hand = (95.6 + 44.5 + 55.9 + 81.8 + 69.0 / 2) / 4.5
    assert averages.loc["average of Our Model, by RewardBench's rule", "here"] == f"{by_hand:.2f}"
    # A plain average of the five does not agree with what is printed.
    assert abs(np.mean([62.3, 66.0, 72.0, 85.5, 42.3]) - 68.2) > 2


def test_table_1_has_ours_only_on_rewardbenchs_sections():
    own = paper.rewardbench_table(make_run().accuracy)
    assert (own["origin"] == "printed").all() and len(own) == 6
    row = table_of(make_run()).loc[("Table 1", "the paper's reward model")]
    assert row["agrees"] == "not given" and "benchmark.sources has no RewardBench" in row["why"]
    accuracy = make_run(printed.SECTIONS[:4]).accuracy
    table = paper.rewardbench_table(accuracy).set_index("model")
    assert list(table.index[-2:]) == ["base model", "mean of the members"]
    mean = accuracy[(accuracy["model"] == "mean") & (accuracy["level"] != "subset")]
    expected = mean.set_index("section")["accuracy"] * 100
    found = table.loc["mean of the members"]
    assert found["chat_hard"] == pytest.approx(expected["Chat Hard"])
    assert found["overall"] == pytest.approx(expected["all"]) and np.isnan(found["prior"])


def test_the_scores_of_policies():
    table = table_of(make_run())
    row = table.loc[("Figure 7", "variance ratio, vanilla over variance-aware")]
    # As in a table of F: 5.0, with 39 and 39 degrees of freedom.
    assert row["paper"].startswith("5.00 (2.64 to 9.45)")
    assert row["here"].startswith("5.00 (1.50 to 9.00)") and row["agrees"] == "yes"
    row = table.loc[("Figure 12", "variance ratio, vanilla over variance-aware")]
    assert row["paper"].startswith("2.38 (1.60 to 3.53)")
    for item, chances in (("Figure 7", ("27.0%", "39.2%")), ("Figure 12", ("7.5%", "2.0%"))):
        for name, chance in zip(("vanilla", "variance-aware"), chances, strict=True):
            row = table.loc[(item, f"policies worse than the reference, {name}")]
            assert row["paper"] == chance
    assert table.loc[("Figure 7", "policies of each method"), "agrees"] == "no"
    wide = make_run(tests=make_run().tests.assign(low=0.5, high=14.0))
    row = table_of(wide).loc[("Figure 7", "variance ratio, vanilla over variance-aware")]
    assert row["agrees"] == "not given" and "and 1: too few" in row["why"]
    low = make_run(tests=make_run().tests.assign(low=np.nan, high=np.nan))
    row = table_of(low).loc[("Figure 7", "variance ratio, vanilla over variance-aware")]
    assert row["agrees"] == "not given" and "Too few" in row["why"]


def test_kl_and_proxy():
    table = table_of(make_run())
    row = table.loc[("Figure 10", "final KL, variance aware")]
    assert (row["here"], row["agrees"]) == ("1.25", "yes")
    assert row["why"] == "Key methods.aware.beta asks for a KL of 1.3."
    assert table.loc[("Figure 11", "final proxy reward, vanilla"), "here"] == "1.50"


def test_settings_name_their_keys():
    table = table_of(make_run())
    row = table.loc[("Table 2", "learning rate")]
    assert tuple(row) == ("1e-05", "1e-05", "yes", "Key reward.learning_rate.")
    assert table.loc[("Table 2", "steps")].tolist()[:3] == ["4125", "29", "no"]
    assert table.loc[("Table 4", "learning rate"), "agrees"] == "no"
    # A method's own settings go before those of all.
    assert table.loc[("Table 6", "steps")].tolist()[:3] == ["192", "192", "yes"]
    assert table.loc[("Table 7", "steps")].tolist()[:3] == ["192", "100", "no"]
    assert table.loc[("Table 6", "KL coefficient"), "agrees"] == "yes"
    row = table.loc[("Table 7", "KL coefficient")]
    assert (row["here"], row["agrees"]) == ("0.500", "no")
    assert row["why"] == "Found for a KL of 1.3; key methods.aware.beta."
    choice = table.loc[("Choices", "weight of the KL")]
    assert choice["here"] == "sigma^2" and choice["why"] == "Key methods.aware.power."
    ridge = {**SETTINGS, "ensemble": {**SETTINGS["ensemble"], "ridge": 1.0}}
    table = table_of(make_run(config=ridge))
    assert table.loc[("Table 4", "epochs")].tolist()[1:3] == ["–", "not given"]
    assert table.loc[("Table 4", "optimizer"), "here"] == "L-BFGS, float64"
    assert ("Figure 8", "mean loss at which the heads' training ends") not in table.index


def test_resources_that_no_log_tells():
    table = table_of(make_run())
    assert table.loc[("Table 3", "hours")].tolist()[:3] == ["51", "0.500", "not comparable"]
    row = table.loc[("Table 5", "GB of memory")]
    assert row["agrees"] == "not given" and "its log is gone" in row["why"]


def test_a_scenario_without_policies_says_so():
    config = {**SETTINGS, "methods": {"plain": SETTINGS["methods"]["plain"]}}
    table = table_of(make_run(summary=None, tests=None, config=config, proxy={}))
    assert "`methods` and `seeds`" in table.loc[("Figure 7", "policies of each method"), "why"]
    assert table.loc[("Figure 10", "final KL, variance aware"), "agrees"] == "not given"
    assert "variance_aware" in table.loc[("Table 7", "KL coefficient"), "why"]
    assert set(printed.TITLES) - set(table.index.get_level_values(0)) == {
        *(f"Figure {n}" for n in (2, 3, 4)),  # of the theory, which this test has little of
        *("Theorem 2.2", "Theorem 3.6"),
    }


def test_theory_and_contradictions():
    table = table_of(make_run())
    assert table.loc[("Theorem 3.3", "on Figure 7: P")].tolist() == ["0", "0.120", "no", "Words."]
    assert table.loc[("Figure 5", "what it shows"), "agrees"] == "not given"
    row = table.loc[("Choices", "the reference's mean score, Figures 7 and 12")]
    assert row["agrees"] == "no" and row["here"].startswith("p = 0.00")


def test_algorithms_and_later_papers():
    table = table_of(make_run())
    row = table.loc[("Algorithms", "variance-aware PPO (2410.23726, Section 5)")]
    assert row["why"] == "Trained as the method aware."
    assert {f"objective {name}" for name in objectives()} >= set(table.loc["Algorithms", "here"])
    risk = ("Later papers", "2507.15906: risk of a policy worse than the default, variance-aware")
    assert table.loc[risk].tolist()[1:3] == ["1 of 10 against 4 of 10", "not given"]
    run = make_run()
    for low, high, agrees in ((0.0, 0.05, "yes"), (0.9, 1.0, "no")):
        aware = run.summary["method"] == "aware"
        summary = run.summary.copy()
        summary.loc[aware, ["worse_low", "worse_high"]] = low, high
        assert table_of(make_run(summary=summary)).loc[risk, "agrees"] == agrees
    methods = {**SETTINGS["methods"], "robust": {"objective": "reward_robust", "alpha": 0.4}}
    config = {**SETTINGS, "methods": methods}
    config["ensemble"] = {**SETTINGS["ensemble"], "kind": "gaussian", "count": 5}
    table = table_of(make_run(config=config)).loc["Later papers"]
    assert table.loc["2409.15360: the best alpha", "here"] == "0.400"
    members = table.loc["2409.15360: members with a mean and a standard deviation"]
    assert members.tolist()[:3] == ["5", "5", "yes"]


def test_the_page():
    run = make_run(printed.SECTIONS[:4])
    rows = pd.DataFrame(paper.rows(run))
    rows.loc[0, "why"] = HOSTILE
    svg = svg_text(new_figure(4, 3, "drawn"))
    figures = [{"item": "Figure 7", "name": "fig7_scores", "caption": "**A.** B.", "svg": svg}]
    html = render(rows, paper.rewardbench_table(run.accuracy), figures, [("seed", HOSTILE)])
    check(html)
    assert html.count("<svg") == 1 and "mean of the members" in html
    counts = rows["agrees"].value_counts()
    words = " ".join(html.split())
    assert f"Of {len(rows)} numbers, {counts['yes']} agree and {counts['no']} do not." in words
    check_closed(html.replace(str(escape(HOSTILE)), ""))


def test_the_script(tmp_path):
    run = make_run()
    for name, schema in (
        *(("theory", "claims"), ("accuracy", "accuracy"), ("variance", "variance")),
        *(("base", "losses"), ("heads", "head_losses"), ("summary", "summary"), ("tests", "tests")),
    ):
        write_csv(getattr(run, name), tmp_path / f"{name}.csv", schema)
    pairs = pd.DataFrame({"id": list("abc"), "chosen": "x", "rejected": "y", "source": "s"})
    pairs["prompt"] = [[{"role": "user", "content": "p"}]] * 3
    pairs = pairs.assign(split=["train", "train", "validation"], probability=np.nan)
    write_parquet(pairs, tmp_path / "preferences.parquet", "preferences")
    logs = []
    for (method, seed), log in make_logs(("plain", "aware"), seeds=2).items():
        path = tmp_path / method / f"seed{seed}.csv"
        path.parent.mkdir(exist_ok=True)
        write_csv(log, path, "training_log")
        logs.append(path)
    (tmp_path / "job.log").write_text("words\ntook 7200.0 s and at most 1.50 GB of memory\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_bytes(b"0" * 2000)
    of_base = {"logs": [str(tmp_path / "job.log")], "folders": [str(tmp_path / "model")]}
    names = ("theory", "accuracy", "variance", "base", "heads", "summary", "tests")
    main(
        Args(
            **{name: tmp_path / f"{name}.csv" for name in names},
            preferences=tmp_path / "preferences.parquet",
            training_logs=logs,
            svgs=[],
            table=tmp_path / "paper.csv",
            tables=[tmp_path / f"table_{n}.csv" for n in range(1, 9)],
            page=tmp_path / "paper.html",
            settings=SETTINGS,
            figures=[],
            trained={"Table 3": of_base},
            scenario="small",
            seed=0,
            config_digest="0123abcd",
        )
    )
    table = read_csv(tmp_path / "paper.csv", "paper").set_index(["item", "quantity"])
    assert table.loc[("Table 2", "steps"), "why"] == "2 training pairs."
    assert table.loc[("Table 3", "hours"), "here"] == "2.00"
    assert table.loc[("Table 3", "GB of disk"), "here"] == "2.00e−06"
    assert len(read_csv(tmp_path / "table_1.csv", "paper_rewardbench")) == 6
    for n in range(2, 9):
        assert set(read_csv(tmp_path / f"table_{n}.csv", "paper")["item"]) == {f"Table {n}"}
    expected = np.mean([pd.read_csv(log)["proxy_reward"].iloc[-1] for log in logs[:2]])
    assert final_proxy(logs)["plain"] == pytest.approx(expected)
    assert used([str(tmp_path / "none.log")], []) is None
