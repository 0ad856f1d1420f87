"""Environments, constraints and what is installed agree."""

import importlib.metadata
import re
import tomllib

import yaml
from conftest import ROOT


def pins() -> dict[str, str]:
    lines = (ROOT / "envs/constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {name.lower().replace("_", "-"): version for name, version in pairs}


def test_environments_and_constraints_agree():
    pinned = pins()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = {
        re.match(r"[\w-]+", requirement).group()
        for requirement in [*project["dependencies"], *(item for extra in extras for item in extra)]
    }
    assert wanted <= set(pinned)
    # Jobs run in these; Snakemake itself does not.
    jobs = [*project["dependencies"], "filelock", "matplotlib", "peft", "tyro"]
    runtime = {re.match(r"[\w-]+", item).group() for item in jobs}
    for name in ("cpu", "gpu"):
        environment = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
        packages = environment["dependencies"][-1]["pip"]
        versions = dict(item.split("==") for item in packages if not item.startswith("-"))
        assert set(versions) == runtime, name
        assert versions == {package: pinned[package] for package in versions}, name


def test_the_installed_versions_are_the_constraints():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for requirement in [
        *project["dependencies"],
        *extras["workflow"],
        *extras["test"],
        *extras["adapters"],
    ]:
        name = re.match(r"[\w-]+", requirement).group()
        installed = importlib.metadata.version(name).split("+")[0]
        assert installed == pins()[name], name
