"""The rules and the scripts, as written."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

RULES = ROOT / "rules"
SCRIPTS = ROOT / "workflow_scripts"


def test_slurm_profile_gives_gpus_to_the_rules_that_ask_for_one():
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8"))
    asking = {name for name, text in rule_texts().items() if "gpu=1" in text}
    asking |= {"train_judge", "train_pilots", "respond_reference"}
    assert set(profile["set-resources"]) == asking
    assert all(given["gpu_model"] == "a40" for given in profile["set-resources"].values())


def test_slurm_profile_names_every_rule_that_is_cached():
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8"))
    cached = {name for name, text in rule_texts().items() if "    cache: " in text}
    assert set(profile["cache"]) == cached | {"train_judge"}


ORDER = "input output log benchmark cache priority conda threads resources params message script"
ORDER = ORDER.split()


# Of an ensemble its settings count, and not its name: equal settings make equal members.
WILDCARDS_IN_FUNCTIONS = {
    "train_members": {"ensemble", "first"},
    "train_pool": {"pairs", "noise", "first"},
}


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
    if "cache" in directives:  # whose key tells one wildcard from another by parameters alone
        params = re.search(r"^    params:\n((?:     .*\n)+)", text, re.M).group(1)
        known = set(re.findall(r"wildcards\.(\w+)", params))
        known |= WILDCARDS_IN_FUNCTIONS.get(name, set())
        assert set(re.findall(r"\{\{(\w+)\}\}", text)) <= known, "a wildcard"
    assert f'"../workflow_scripts/{name}.py"' in text
    assert re.search(rf'code=[^=]*code_(digest|of_ensembles|of_policy)\(\s*"{name}"', text)
    for directive in ("input", "output", "params"):
        block = re.search(rf"^    {directive}:\n((?:     .*\n)+)", text, re.M).group(1)
        for line in re.findall(r"^ {8}(\w.*)", block, re.M):
            assert re.match(r"\w+=|unpack\(", line), f"{directive} is not named: {line}"


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


def test_jobs_without_a_model_import_nothing_of_torch():
    """It takes seconds; a job that judges by the world's reward, or draws a figure, takes one."""
    light = "audit_rewards compare_methods judge_responses plot_figure prepare_texts "
    light += "tabulate_variance write_page"
    code = f"import sys, {', '.join(light.split())}"
    code += "; print({'torch', 'transformers'} & {*sys.modules})"
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True
    )
    assert output.stdout == "set()\n"


def test_the_library_does_not_know_snakemake():
    modules = sorted((SCRIPTS / "prudent").rglob("*.py"))
    assert modules
    for path in modules:
        if path.name != "slurm.py":  # which speaks for the Snakefile
            assert "snakemake" not in imported(path), path


def test_every_caption_is_used_and_there():
    used = set()
    for path in [ROOT / "Snakefile", *RULES.glob("*.smk")]:
        text = path.read_text(encoding="utf-8")
        used |= set(re.findall(r'captions/(\w+\.rst)"', text))
        names = re.findall(r'^    "(\w+)": \{$|"module": "(\w+)"', text, re.M)
        used |= {f"{name}.rst" for name in map("".join, names)}
    assert used == {path.name for path in (RULES / "captions").glob("*.rst")}
