"""The whole workflow in its smallest form, from nothing to the report."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from cluster import wait_for
from conftest import ROOT, TINY, copy_project, dry_run, environment, job_counts, python, snakemake

from prudent import tables
from prudent.policies.target_kl import read_calibration
from prudent.rewards.loading import draws_of, load_rewards
from prudent.rewards.settings import KINDS
from prudent.workflow.config import members_of

METHODS = ("vanilla", "variance_aware")
OF_REWARDS = ("fig1_heads", "fig6_variance", "fig8_losses", "fig9_accuracy", "kinds", "frequency")
OF_REWARDS += ("verdict",)
OF_REWARDS += ("risk_return", "gain_over_kl")
OF_REWARDS += ("fig2_bandit", "fig3_high_variability", "fig4_low_variability")
OF_REWARDS += ("fig5_matched_steps", "theorems")
FIGURES = (*OF_REWARDS, "fig7_scores", "frontier", "fig10_kl", "fig11_reward")
FIGURES += ("calibration", "overoptimisation")


def assert_drawn(results, names):
    """All these figures and no others are files, and stand in the page."""
    page = (results / "summary/summary.html").read_text(encoding="utf-8")
    assert {path.stem for path in (results / "figures").iterdir()} == set(names)
    assert len(re.findall("<figure id=", page)) == len(names)
    for name in names:
        assert (results / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (results / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (results / f"figures/{name}.svg").read_bytes().startswith(b"<?xml")
        assert re.search(rf'<figure id="{name}">\s*<div class="panel"><svg ', page)


def test_a_finished_run_has_nothing_left_to_do(finished):
    assert dry_run(finished, "--configfile", TINY) == {}


def test_every_stage_left_what_the_next_ones_read(finished):
    results = finished / "results/tiny"
    for name in ("texts", "prompts", "preferences", "benchmark"):
        frame = tables.read_table(results / f"data/{name}.parquet", name)
        assert len(frame)
        card = json.loads((results / f"data/{name}.card.json").read_text())
        assert card
    scores = tables.read_table(results / "benchmark/scores.parquet", "scores")
    # Two ensembles of three heads and the base model, on both sides of every row.
    rows = len(tables.read_table(results / "data/benchmark.parquet", "benchmark"))
    assert len(scores) == rows * 2 * (2 * 3 + 1)
    for method in METHODS:
        for seed in range(2):
            log = pd.read_csv(results / f"policies/{method}/seed{seed}.csv")
            assert len(log) == 2 and log[["kl", "judge_score"]].notna().all(axis=None)
        judged = tables.read_table(results / f"judge/{method}.parquet", "judgements")
        assert judged["score"].notna().all() and set(judged["method"]) == {method}
        assert judged["seed"].tolist() == [0] * 16 + [1] * 16
        rewards = tables.read_table(results / f"reward/responses/{method}.parquet", "rewards")
        # Of all heads, for any policy's responses.
        assert len(rewards) == len(judged) * 2 * 3 and rewards["reward"].notna().all()
    policies = pd.read_csv(results / "summary/policies.csv")
    # One method's coefficient is given, the other's was searched for; two steps reach no KL.
    given = policies.set_index("method")[["beta", "kl_target", "target"]].drop_duplicates()
    assert given.loc["vanilla", "beta"] == 0.3 and given.loc["vanilla", "target"] == "fixed"
    pilots = tables.read_csv(results / "calibration/variance_aware.csv", "calibration")
    found = read_calibration(results / "calibration/variance_aware.json")
    assert found.beta in set(pilots["beta"]) and pilots["beta"].nunique() == 6
    assert not found.reached and found.kl_target == 0.02
    assert given.loc["variance_aware"].tolist() == [found.beta, 0.02, "missed"]
    for seed in range(2):
        sheet = results / f"policies/variance_aware/seed{seed}/metadata.json"
        assert json.loads(sheet.read_text())["settings"]["beta"] == found.beta
    assert "was to end at 0.0200 and does not" in (results / "summary/summary.html").read_text()
    places = {(row.method, row.seed, row.ensemble, row.head) for row in policies.itertuples()}
    assert places == {(method, seed, seed, 0) for method in METHODS for seed in range(2)}
    # All methods, and those that are not trained, at one KL: ensembles, replicates, and a pool.
    config = yaml.safe_load((results / "config.yaml").read_text())
    exact = tables.read_csv(results / "exact/summary.csv", "exact_summary")
    assert len(exact) == 3 * (2 + len(config["exact"]["methods"]))
    counts = exact[exact["method"] == "vanilla"].set_index("level")["replicates"]
    assert counts.tolist() == [4, 3, 3]
    optima = tables.read_table(results / "exact/policies.parquet", "exact_policies")
    assert (optima["kl"].dropna() - 0.1).abs().max() < 1e-6
    assert_drawn(results, FIGURES)
    # The audit is of the first draw; the page shows the responses on which its members disagree.
    audit = json.loads((results / "audit/audit.json").read_text())
    assert (audit["pairs"], audit["members"]) == (rows, 3)
    assert audit["inputs"]["scores"] == tables.file_digest(results / "benchmark/scores.parquet")
    samples = tables.read_table(results / "reward/samples.parquet", "reward_samples")
    shown = min(40, len(samples.drop_duplicates(["prompt", "response"])))
    for page, least in (("audit/audit.html", rows), ("summary/summary.html", shown)):
        assert (results / page).read_text(encoding="utf-8").count("<details>") >= least
    for name in ("diagnosis", "kinds", "frequency"):
        assert set(tables.read_csv(results / f"reward/{name}.csv", name)["ensemble"]) <= {
            "bootstrap",
            "bootstrap, all drawn anew",
            "bootstrap, one of each replicate",
            "",
        }
    logs = {path.stem for path in (results / "logs").glob("*.log")}
    assert {"train_reference", "train_reward_base", "compare_methods"} <= logs
    assert not list(results.rglob("*.tmp")), "a temporary file was left"
    assert not [path for path in (finished / "checkpoints").rglob("*") if path.is_file()]


def test_checkpoints_open_with_transformers_alone(finished):
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    results = finished / "results/tiny"
    for folder in ("reference", "policies/vanilla/seed0", "policies/variance_aware/seed1"):
        model = AutoModelForCausalLM.from_pretrained(results / folder)
        ids = AutoTokenizer.from_pretrained(results / folder)("the film", return_tensors="pt")
        assert model(ids["input_ids"]).logits.isfinite().all()
    ensembles = [f"reward/ensembles/bootstrap/{draw}" for draw in range(2)]
    for folder, labels in (("reward/base", 1), *((folder, 3) for folder in ensembles)):
        model = AutoModelForSequenceClassification.from_pretrained(results / folder)
        assert model.config.num_labels == labels
        assert AutoTokenizer.from_pretrained(results / folder).chat_template
    assert not [path for path in results.rglob("*") if path.suffix in {".bin", ".pt", ".pkl"}]


def test_ensembles_differ_and_share_their_body(finished):
    from safetensors.torch import load_file

    base, first, second = (
        load_file(finished / f"results/tiny/reward/{name}/model.safetensors")
        for name in ("base", "ensembles/bootstrap/0", "ensembles/bootstrap/1")
    )
    heads = [name for name in first if first[name].shape != base[name].shape]
    assert heads
    for name in first:
        same = first[name].equal(second[name])
        assert same != (name in heads), name


@pytest.mark.slow
def test_every_kind_of_ensemble_is_trained_and_checked_without_policies(tmp_path):
    """The scenario of all kinds on tiny data, to its page."""
    folder = copy_project(tmp_path / "project")
    arguments = ("--configfile", "scenarios/ensembles.yaml", TINY, "tests/config/kinds.yaml")
    output = snakemake(folder, "--cores", "2", *arguments)
    assert output.returncode == 0, output.stdout + output.stderr
    assert dry_run(folder, *arguments) == {}
    results = folder / "results/kinds"
    config = yaml.safe_load((results / "config.yaml").read_text())
    names = ["bootstrap", *(n for n in config["diagnosis"]["ensembles"] if n != "bootstrap")]
    assert {config["ensembles"][name]["kind"] for name in names} == set(KINDS)

    asked, answers = ["the acting in this horror film"] * 2, [" is scary.", " is dull."]
    for name in names:
        ensemble, losses = config["ensembles"][name], results / f"reward/ensembles/{name}.csv"
        found = draws_of(results / f"reward/ensembles/{name}")
        assert [path.name for path in found] == [str(n) for n in range(ensemble["draws"])]
        rewards = [load_rewards(path)(asked, answers).mean for path in found]
        assert {part.shape for part in rewards} == {(2, members_of(ensemble))}
        assert all(part.isfinite().all() for part in rewards)
        assert len({part.sum().item() for part in rewards}) == len(rewards), "equal draws"
        table = pd.read_csv(losses)
        assert sorted(set(table["ensemble"])) == list(range(ensemble["draws"]))
        assert table["loss"].notna().all()
    exact = tables.read_csv(results / "exact/kinds.csv", "exact_kinds")
    assert list(exact["ensemble"].unique()) == names
    # An average of models has no spread, so the methods that ask for one are not to be had.
    methods = exact.groupby("ensemble")["method"].agg(set).to_dict()
    assert methods["warm"] < methods["heads"] and "vanilla" in methods["warm"]
    kinds = tables.read_csv(results / "reward/kinds.csv", "kinds").set_index("ensemble")
    anew = ["bootstrap, all drawn anew", "bootstrap, one of each replicate"]
    assert kinds.index.tolist() == [*names, *anew]
    by_judge = tables.read_csv(results / "reward/kinds_by_judge.csv", "kinds_by_judge")
    of_judges = by_judge.groupby("judge", sort=False)["ensemble"].agg(list).to_dict()
    assert of_judges == {
        "world": [*names, *anew, "trained judge"],
        "trained": [*names, *anew, "world judge"],
    }
    table = tables.read_csv(results / "reward/diagnosis.csv", "diagnosis")
    assert list(dict.fromkeys(table["ensemble"])) == ["", *names, *anew]
    # What every response was given is of the ensemble that would reward policies.
    samples = pd.read_parquet(results / "reward/samples.parquet")
    assert len(samples) == 8 * 3 * 2 * 3 and samples["reward"].notna().all()
    assert_drawn(results, (*OF_REWARDS, "regimes_variance_aware", "regimes_mean"))
    # The grid: all base models, ensembles on each of them, and of the larger pool.
    models = sorted(path.parent.name for path in results.glob("regimes/20_pairs/*/*/*/config.json"))
    assert models == list("012345")
    grid = tables.read_csv(results / "regimes/regimes.csv", "regimes")
    cells = grid.groupby(["pairs", "ensemble"])["ensembles"].unique().map(list).to_dict()
    every = max(grid["pairs"])
    assert cells == {
        (20, "members"): [3],
        (20, "resampled"): [6],
        (every, "resampled"): [3],
    }
    assert set(grid["noise"]) == {2.0}
    assert set(grid.loc[grid["method"] == "mean", "against"]) == {"vanilla"}
    assert {"scale_only", "shuffled"} < set(grid["against"])
    left = {path.name for path in (results / "summary").iterdir()}
    assert left == {"summary.html", "preregistration.json", "verdict.json"}
    assert not (results / "policies").exists() and not list(results.rglob("*.tmp"))


def test_the_report_builds_and_holds_every_figure(finished):
    output = snakemake(finished, "--configfile", TINY, "--report", "results/tiny/report.html")
    assert output.returncode == 0, output.stdout + output.stderr
    report = (finished / "results/tiny/report.html").read_text(encoding="utf-8")
    for category in ("Summary", "Exact policies", "Reward models", "Policies", "Theory"):
        assert category in report
    assert '"Audit on the benchmark"' in report
    for path in (finished / "results/tiny/figures").glob("*.png"):
        assert path.name in report
        caption = (finished / f"rules/captions/{path.stem}.rst").read_text(encoding="utf-8")
        assert re.match(r"\*\*(.+?)\*\*", caption).group(1) in report
    for label in ("figure 1", "figure 11", "KL over steps", "Members on one response"):
        assert f'"{label}"' in report


def test_a_trained_judge_scores_as_well(finished, tmp_path):
    """On the finished run's data, where the judge's own share of the pairs is kept already."""
    folder = tmp_path / "project"
    shutil.copytree(finished, folder, symlinks=True)
    overlay = tmp_path / "trained.yaml"
    overlay.write_text("judge: {model: trained, reward: {epochs: 2}}\n")
    target = "results/tiny/judge/reference.parquet"
    arguments = ("--configfile", TINY, str(overlay), "--", target)
    assert dry_run(folder, *arguments) == {"train_judge": 1, "judge_responses": 1}
    output = snakemake(folder, "--cores", "2", *arguments)
    assert output.returncode == 0, output.stdout + output.stderr
    before, after = (pd.read_parquet(place / target) for place in (finished, folder))
    assert after["response"].equals(before["response"]), "the responses are drawn alike"
    assert (after["score"] != before["score"]).all() and after["score"].notna().all()
    sheet = json.loads((folder / target).with_suffix(".json").read_text())
    assert sheet["settings"]["judge"] == "trained" and "judge" in sheet["inputs"]


def test_a_script_runs_by_hand_as_under_snakemake(finished, tmp_path):
    results = finished / "results/tiny/benchmark"
    accuracy, variance = tmp_path / "accuracy.csv", tmp_path / "variance.csv"
    subprocess.run(
        [
            *(sys.executable, ROOT / "workflow_scripts/tabulate_variance.py"),
            *("--scores", results / "scores.parquet"),
            *("--accuracy", accuracy, "--variance", variance),
        ],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    assert accuracy.read_text() == (results / "accuracy.csv").read_text()
    assert variance.read_text() == (results / "variance.csv").read_text()


def test_the_manuals_example_of_the_library_runs(finished):
    readme = (ROOT / "docs/library.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in readme.split("```python\n")[1:]]
    (code,) = [block for block in blocks if '"results/embedded"' in block]
    code = code.replace('"results/embedded"', repr(str(finished / "results/tiny")))
    assert "ensembles/resampled/0" in code
    code = code.replace("ensembles/resampled/0", "ensembles/bootstrap/0")
    output = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "workflow_scripts"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert output.returncode == 0, output.stderr
    rewards, last = output.stdout.strip().rsplit("\n", 1)
    assert rewards.startswith("tensor([[") and all(map(math.isfinite, map(float, last.split())))


def test_a_log_says_how_to_repeat_its_job_by_hand(finished, tmp_path):
    """Its command makes the same files again, from the folder of the run."""
    folder = shutil.copytree(finished, tmp_path / "project", symlinks=True)
    results = folder / "results/tiny"
    for rule, output in (
        ("train_ensemble/bootstrap", "reward/ensembles/bootstrap.csv"),
        ("tabulate_variance", "benchmark/variance.csv"),
        ("audit_rewards", "audit/audit.json"),
        ("compare_methods", "summary/tests.csv"),
        ("plot_figure/fig10_kl", "figures/fig10_kl.svg"),
        ("write_page", "summary/summary.html"),
    ):
        command = (results / f"logs/{rule}.log").read_text().splitlines()[0]
        assert command.startswith(f"by hand: {python()} ")
        if output.endswith(".csv"):  # some as a reader does, the others in less time
            command = command.replace(python(), sys.executable, 1)
        # The fixture's folder has moved since.
        command = re.sub(r"\S+(?=/workflow_scripts/)", str(folder), command, count=1)
        before = (results / output).read_bytes()
        (results / output).unlink()
        subprocess.run(
            command.removeprefix("by hand: "),
            shell=True,
            check=True,
            cwd=folder,
            env=environment(folder) | {"PYTHONPATH": str(folder / "workflow_scripts")},
            capture_output=True,
        )
        assert (results / output).read_bytes() == before


def test_a_run_that_was_killed_goes_on_with_the_same_command(tmp_path):
    folder = copy_project(tmp_path / "project")
    target = ("--cores", "1", "--configfile", TINY, "--", "results/tiny/reference.sha256")
    texts, partial = (
        folder / "results/tiny" / name for name in ("data/texts.parquet", "reference")
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", *target],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    log = folder / "results/tiny/logs/train_reference.log"
    wait_for(log.exists, "the reference's training", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert texts.exists() and not partial.exists()
    (folder / "results/tiny/reference_loss.csv").write_text("step,lo")  # half written
    assert snakemake(folder, "--unlock", *target).returncode == 0
    again = snakemake(folder, *target)
    assert again.returncode == 0, again.stdout + again.stderr
    assert partial.exists() and job_counts(again.stdout + again.stderr) == {"train_reference": 1}
