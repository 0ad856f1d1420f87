"""The library without the workflow: a wheel, and nothing beside it but what it requires."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tiny_models import tiny_model, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "workflow_scripts/prudent"
# Of the workflow alone.
EXTRAS = ("snakemake", "snakemake_executor_plugin_slurm", "matplotlib", "peft", "pytest")
# Says which extra it needs; nothing imports it but the loader, by name.
ADAPTERS = "prudent.rewards.kinds.adapters"
# Draws with matplotlib; the audit's command imports it by name, and says which extra it needs.
DRAWS = "prudent.audit.figures"
# What only the pipeline needs.
PIPELINE = ("workflow", "figures")
# The audit's page has the tables, the style and the drawings of the pipeline's.
ALLOWED = {
    LIBRARY / "audit" / f"{name}.py": "prudent.figures" for name in ("figures", "page", "sentences")
}
# The plan is of the pipeline's configuration.
ALLOWED |= {LIBRARY / "plan" / f"{name}.py": "prudent.workflow" for name in ("costs", "command")}


def required(names: list[str]) -> set[str]:
    """The installed distributions that these ones require, all the way down, without extras."""
    found: set[str] = set()
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name in found:
            continue
        found.add(name)
        for text in importlib.metadata.distribution(name).requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                names.append(requirement.name)
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Python in a fresh environment that has the wheel and the distributions that it requires."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "workflow_scripts", source / "workflow_scripts", ignore=ignored)
    # Isolated: with a PYTHONPATH to the checkout, pip would take the wheel for installed.
    pip = [sys.executable, "-I", "-m", "pip", "-q", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder)]
    subprocess.run([*pip, *build, str(source)], check=True)
    (wheel,) = folder.glob("prudent-*.whl")

    fresh = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(fresh)], check=True)
    executable = fresh / "bin/python"
    install = ["--python", str(executable), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*pip, *install], check=True)
    (packages,) = fresh.glob("lib/python*/site-packages")
    # Linked, not downloaded anew: only what is required, so the rest is really absent.
    (metadata,) = packages.glob("prudent-*.dist-info")
    wanted = importlib.metadata.PathDistribution(metadata).requires or []
    plain = [Requirement(text) for text in wanted]
    for name in required([r.name for r in plain if r.marker is None]):
        distribution = importlib.metadata.distribution(name)
        tops = {path.parts[0] for path in distribution.files or []} - {".."}
        for top in tops - {"__pycache__"}:
            place = Path(distribution.locate_file(top))
            if place.exists() and not (packages / top).exists():
                (packages / top).symlink_to(place)
    return executable


def run(python: Path, code: str, folder: Path) -> str:
    """The output of some code, far from the repository."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    output = subprocess.run(
        [python, "-c", code], cwd=folder, env=clean, capture_output=True, text=True
    )
    assert output.returncode == 0, output.stderr
    return output.stdout


def test_the_readmes_example_runs_with_the_wheel_alone(python, tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(import torch\n.*?)```", readme, re.DOTALL)
    tiny_model().save_pretrained(tmp_path / "gpt2")  # the hub's, in the folder that it runs in
    tiny_tokenizer().save_pretrained(tmp_path / "gpt2")
    shorter = example.replace("steps=100", "steps=2")
    assert shorter != example
    told = run(python, shorter + "print(len(log), log[-1]['sigma'] > 0)\n", tmp_path)
    assert told.split() == ["2", "True"]


def test_the_library_needs_nothing_of_the_workflow(python, tmp_path):
    modules = [
        ".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts)
        for path in sorted(LIBRARY.rglob("*.py"))
        if path.relative_to(LIBRARY).parts[0] not in PIPELINE
    ]
    assert len(modules) > 50
    code = f"""
import importlib, importlib.util
for name in {EXTRAS}:
    assert importlib.util.find_spec(name) is None, name
for name in {modules}:
    if name not in {(ADAPTERS, DRAWS)}:
        importlib.import_module(name)
from prudent.errors import InputError
try:
    importlib.import_module({ADAPTERS!r})
except InputError as error:
    assert "adapters" in str(error) and "peft" in str(error)
else:
    raise AssertionError("peft is not installed, and adapters do not say so")
from pathlib import Path
from prudent.audit.command import audit
try:
    audit(Path("scores.parquet"), Path("audit"))
except InputError as error:
    assert "matplotlib" in str(error) and "prudent[figures]" in str(error)
else:
    raise AssertionError("matplotlib is not installed, and the audit does not say so")
import prudent
print(prudent.__file__)
"""
    assert run(python, code, tmp_path).startswith(str(python.parents[1]))
    assert not list(tmp_path.iterdir())


def test_the_wheel_has_the_command_and_its_pages_templates(python, tmp_path):
    help_ = subprocess.run(
        [python.with_name("prudent"), "audit", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "score_chosen" in help_ and "audit.json" in help_
    code = """
from pathlib import Path
import prudent
from prudent.figures.templates import template
for folder in ("audit", "figures"):
    template(Path(prudent.__file__).parent / folder / "page.html")
"""
    run(python, code + "template(Path(prudent.__file__).parent / 'figures/parts.html')", tmp_path)


def test_nothing_outside_the_pipeline_imports_it():
    for path in sorted(LIBRARY.rglob("*.py")):
        if path.relative_to(LIBRARY).parts[0] in PIPELINE:
            continue
        allowed = ALLOWED.get(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for part in (f"prudent.{part}" for part in PIPELINE):
                assert part == allowed or not any(name.startswith(part) for name in names), path
