"""Files of figures, and the scripts that make all of them from files."""

import importlib
import os

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from tiny_page import make_judged, make_samples
from tiny_results import (
    TWO,
    make_calibration,
    make_exact,
    make_logs,
    make_losses,
    make_scores,
    names_of_figures,
)

from prudent import schemas, tables
from prudent.analysis.policies import long_table
from prudent.analysis.verdict import read_verdicts
from prudent.exact.evaluate import GIVEN
from prudent.figures.fig10_kl import draw_kl
from prudent.figures.style import save

THEORY = ("fig2_bandit", "fig3_high_variability", "fig4_low_variability")
THEORY += ("fig5_matched_steps", "theorems")
POLICIES = pd.DataFrame({"method": TWO, "kl": [1.3, 1.2], "kl_target": 1.0, "target": "fixed"})


def test_saved_files_are_the_same_bytes_each_time(tmp_path):
    forms = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    for name in ("a", "b"):
        figure = draw_kl(long_table(make_logs()), POLICIES, TWO)
        save(figure, *(tmp_path / f"{name}.{form}" for form in forms))
    for form, start in forms.items():
        first, second = ((tmp_path / f"{name}.{form}").read_bytes() for name in ("a", "b"))
        assert first == second and len(first) > 5000 and first.startswith(start)
    assert {path.name for path in tmp_path.iterdir()} == {f"{n}.{f}" for n in "ab" for f in forms}


def test_very_many_points_are_drawn_as_pixels(tmp_path):
    for steps in (300, 3000):
        save(
            draw_kl(long_table(make_logs(TWO, 20, steps)), POLICIES, TWO), tmp_path / f"{steps}.svg"
        )
    assert "data:image/png" not in (tmp_path / "300.svg").read_text()
    text = (tmp_path / "3000.svg").read_text()
    assert "data:image/png" in text and len(text) < 2_000_000


def test_the_users_matplotlib_settings_are_left_alone():
    before = dict(mpl.rcParams)
    draw_kl(long_table(make_logs()), POLICIES, TWO)
    assert dict(mpl.rcParams) == before


@pytest.fixture
def results(tmp_path):
    """The tables of a small run, as the stages before write them."""
    scores = make_scores()
    tables.write_parquet(scores, tmp_path / "scores.parquet", "scores")
    rows = scores[["id", "subset", "section"]].drop_duplicates()
    prompt = [{"role": "user", "content": "the movie was"}]
    benchmark = rows.assign(prompt=[prompt] * len(rows), chosen="good", rejected="bad")
    tables.write_parquet(benchmark, tmp_path / "benchmark.parquet", "benchmark")
    draw = np.random.default_rng(3)
    logs = []
    for (method, seed), log in make_logs(seeds=4).items():
        tables.write_csv(log, tmp_path / f"{method}{seed}.csv")
        logs.append(tmp_path / f"{method}{seed}.csv")
    judged = [tmp_path / f"{method}.parquet" for method in TWO]
    for path, seeds in {**dict.fromkeys(judged, 4), tmp_path / "reference.parquet": 1}.items():
        table = pd.DataFrame({"prompt": [f"p{i}" for i in range(20)] * seeds, "response": "x"})
        table = table.assign(method=path.stem, seed=np.repeat(np.arange(seeds), 20), kl=1.3)
        scores = draw.normal(size=len(table))
        tables.write_parquet(table.assign(score=scores, grammatical=1), path)
    tables.write_csv(make_losses(1), tmp_path / "base.csv")
    tables.write_csv(make_losses(3), tmp_path / "heads.csv")
    diagnosis = dict.fromkeys(schemas.CSV_SCHEMAS["diagnosis"], 0.7)
    diagnosis |= {"ensemble": ["heads"], "quantity": ["accuracy"]}
    tables.write_csv(pd.DataFrame(diagnosis), tmp_path / "diagnosis.csv")
    frequency = dict.fromkeys(schemas.CSV_SCHEMAS["frequency"], 0.7) | {"ensemble": ["heads"]}
    tables.write_csv(pd.DataFrame(frequency), tmp_path / "frequency.csv")
    samples = make_samples([[1.0, 2.0], [0.0, 5.0]])
    tables.write_parquet(samples, tmp_path / "samples.parquet", "reward_samples")
    said = {"vanilla": [[1, 1]], "variance_aware": [[1, 3]], "reference": [[0, 0]]}
    for name, table in zip(("said", "rewards"), make_judged(said), strict=True):
        for method, rows in table.groupby("method"):
            tables.write_parquet(rows, tmp_path / f"{name}_{method}.parquet")
    tables.write_csv(make_exact(), tmp_path / "exact.csv", "exact_summary")
    optima = [
        (m, 0, h, kl, kl, kl, kl, 1.0, 20.0) for m in TWO for h in (0, 1) for kl in (0.1, 1.0)
    ]
    columns = schemas.SCHEMAS["exact_frontier"].names
    frontier = pd.DataFrame(optima, columns=columns)
    tables.write_parquet(frontier, tmp_path / "frontier.parquet", "exact_frontier")
    optima = [(GIVEN, r, 0, m, k, k) for m in TWO for k in (0.1, 1.0) for r in (0, 1)]
    columns = ["level", "replicate", "head", "method", "kl_target", "kl"]
    optima = pd.DataFrame(optima, columns=columns)
    optima = optima.assign(gain=0.1 + 0.01 * optima["replicate"], proxy_gain=0.2, beta=1.0)
    optima = optima.assign(effective_size=20.0, first_half=0.1, second_half=0.1)
    tables.write_parquet(optima, tmp_path / "optima.parquet", "exact_policies")
    pilots, found = make_calibration("variance_aware")
    tables.write_csv(pilots, tmp_path / "variance_aware.csv", "calibration")
    tables.write_json({"found": found._asdict()}, tmp_path / "variance_aware.json")
    return tmp_path, judged, logs


OF_POLICIES = ("policies", "summary", "tests", "components")


def test_scripts_make_all_files_from_files(results):
    folder, judged, logs = results

    def run(script, **values):
        module = importlib.import_module(script)
        module.main(module.Args(**values))

    run(
        "tabulate_variance",
        scores=folder / "scores.parquet",
        accuracy=folder / "accuracy.csv",
        variance=folder / "variance.csv",
    )
    run(
        "compare_methods",
        reference=folder / "reference.parquet",
        judgements=judged,
        frontier=folder / "frontier.parquet",
        **{name: folder / f"{name}.csv" for name in OF_POLICIES},
        methods=TWO,
        seeds=[0, 1, 2, 3],
        units=dict.fromkeys(TWO, "member"),
        betas={"vanilla": 0.3, "variance_aware": None},
        calibrations=[folder / "variance_aware.json"],
        controls=[],
        baseline="vanilla",
        ensembles=1,
        heads=3,
        permutations=200,
        seed=0,
    )
    held = {"controls": ["vanilla"], "missing": [], "trained": True}
    settings = {"baseline": "vanilla", "kl": 1.0, "margin": 1.5, "permutations": 200, "seed": 0}
    stated = folder / "preregistration.json"
    run("preregister", stated=stated, methods={"variance_aware": held}, **settings)
    optima = {"stated": stated, "exact": folder / "optima.parquet"}
    optima["verdict"] = folder / "verdict.json"
    # The rule is older than what it is about, or it is not.
    of_policies = {name: folder / f"{name}.csv" for name in ("policies", "summary", "tests")}
    for age, when in ((-100, "before"), (100, "after")):
        time = logs[0].stat().st_mtime
        os.utime(stated, (time + age, time + age))
        run("verdict", **optima, **of_policies, logs=logs)
        (method,) = read_verdicts(folder / "verdict.json").methods
        assert read_verdicts(folder / "verdict.json").rule_stated == f"{when} the policies"
    trained = method.comparisons[1]
    table = pd.read_csv(folder / "tests.csv").set_index("quantity")
    assert trained.ratio.estimate == pytest.approx(table.loc["variance_ratio", "estimate"])
    assert (trained.policies, trained.draws) == ("trained policies", 3)
    run("verdict", **optima)
    assert len(read_verdicts(folder / "verdict.json").methods[0].comparisons) == 1
    run("verdict", **optima, **of_policies, logs=logs)
    policies = pd.read_csv(folder / "policies.csv")
    second = pd.read_parquet(judged[1])
    expected = second.loc[second["seed"] == 1, "score"].mean()
    row = policies[(policies["method"] == "variance_aware") & (policies["seed"] == 1)].iloc[0]
    assert row["score"] == pytest.approx(expected)
    assert (row["head"], row["trial"]) == (1, 0)
    run("theory", table=folder / "theory.csv", curves=folder / "curves.parquet", seed=0)
    lists = {"methods": TWO, "seeds": [0, 1, 2, 3]}
    logs = {"training_logs": list(map(str, logs))}
    reference = str(folder / "reference.parquet")
    scores, benchmark = str(folder / "scores.parquet"), str(folder / "benchmark.parquet")
    losses = {"base": str(folder / "base.csv"), "heads": str(folder / "heads.csv")}
    exact = {"exact": str(folder / "exact.csv")}
    for name, files, settings in (
        ("risk_return", exact, {"baseline": "vanilla"}),
        ("gain_over_kl", {"policies": str(folder / "optima.parquet")}, {}),
        (
            "overoptimisation",
            logs | {"policies": str(folder / "policies.csv")},
            lists,
        ),
        ("verdict", {"verdict": str(folder / "verdict.json")}, {"margin": 1.5}),
        ("fig1_heads", {"scores": scores, "benchmark": benchmark}, {}),
        ("fig6_variance", {"scores": scores}, {}),
        (
            "fig7_scores",
            {"policies": str(folder / "policies.csv"), "reference": reference},
            {"methods": TWO},
        ),
        (
            "frontier",
            {
                "frontier": str(folder / "frontier.parquet"),
                "policies": str(folder / "policies.csv"),
                "reference": reference,
            },
            {"methods": TWO},
        ),
        ("fig8_losses", losses, {"stop_loss": 0.3}),
        ("fig9_accuracy", {"accuracy": str(folder / "accuracy.csv")}, {}),
        ("kinds", {"diagnosis": str(folder / "diagnosis.csv")}, {}),
        ("frequency", {"frequency": str(folder / "frequency.csv")}, {}),
        ("fig10_kl", logs | {"policies": str(folder / "policies.csv")}, lists),
        ("fig11_reward", logs | {"policies": str(folder / "policies.csv")}, lists),
        (
            "calibration",
            {
                "tables": [str(folder / "variance_aware.csv")],
                "calibrations": [str(folder / "variance_aware.json")],
            },
            {"methods": TWO[1:]},
        ),
        *((name, {"curves": str(folder / "curves.parquet")}, {}) for name in THEORY),
    ):
        forms = {form: folder / f"{name}.{form}" for form in ("png", "pdf", "svg")}
        run("plot_figure", figure=name, files=files, settings=settings, **forms)
        assert all(path.stat().st_size > 5000 for path in forms.values())
    names = names_of_figures()
    of_rewards = ("diagnosis", "frequency", "accuracy", "variance")
    run(
        "write_page",
        **{name: folder / f"{name}.csv" for name in (*OF_POLICIES, *of_rewards)},
        exact=folder / "exact.csv",
        verdict=folder / "verdict.json",
        samples=folder / "samples.parquet",
        judgements=[folder / f"said_{name}.parquet" for name in (*TWO, "reference")],
        rewards=[folder / f"rewards_{name}.parquet" for name in (*TWO, "reference")],
        svgs=[folder / f"{name}.svg" for name in names],
        page=folder / "summary.html",
        figures=[{"name": name, "category": "All", "caption": f"**{name}.** x"} for name in names],
        scenario="small",
        seed=7,
        config_digest="0123abcd",
    )
    page = (folder / "summary.html").read_text(encoding="utf-8")
    assert "variance aware" in page and "SHA-256 0123abcd of config.yaml" in page
    assert page.count("<svg") == len(names) == 20
    assert "2.00 apart, variance aware 3.00, vanilla 1.00: question 1" in page
