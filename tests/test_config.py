"""The configuration: what is accepted, how mistakes are refused, and what the rules get of it."""

import pytest
import yaml
from tiny_config import MEMORY, refusal, set_key

from prudent.ppo.settings import PPOSettings
from prudent.settings import resolved
from prudent.workflow.checks import effective_config
from prudent.workflow.config import (
    Config,
    held_methods,
    method_settings,
    to_dict,
)
from prudent.workflow.config_docs import (
    DEFAULTS,
    ENSEMBLES,
    METHODS,
    SCHEMA,
    TABLE,
    VERDICT_SCHEMA,
    ensembles_text,
    methods_text,
    schema_text,
    verdict_schema_text,
    with_table,
)
from prudent.workflow.configfiles import merged, read_config

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
    ({None: 1}, ["a key in the configuration is empty (null)", "has the keys scenario, seed,"]),
    ({"ppo": {5: 1}}, ["a key in `ppo` is 5; `ppo` has the keys batch_size,"]),
    ({"methods.vanilla.ppo": {True: 1}}, ["a key in `methods.vanilla.ppo` is true; "]),
    ({"ppo.learning_rte": 1}, ["unknown key `ppo.learning_rte`", "did you mean `learning_rate`?"]),
    ({"methods.vanilla.betas": 1}, ["`methods.vanilla.betas`", "did you mean `beta`?"]),
    ({"methods.vanilla.ppo": {"step": 3}}, ["`methods.vanilla.ppo.step`", "`steps`"]),
    ({"judge.reward": {"epoch": 3}}, ["`judge.reward.epoch`", "`epochs`"]),
    ({"texts.sources.0.row": 3}, ["`texts.sources[0].row`", "`rows`"]),
    ({"environment": "gpuu"}, ["`environment` is the text 'gpuu'", "cpu, gpu", "`gpu`?"]),
    ({"seeds": -1}, ["`seeds` is -1", "a whole number >= 0"]),
    ({"seeds": 2.5}, ["`seeds` is 2.5", "a whole number >= 0"]),
    ({"seeds": 2.0}, ["`seeds` is 2.0", "a whole number >= 0"]),
    ({"seeds": True}, ["`seeds` is true", "a whole number >= 0"]),
    ({"seeds": None}, ["`seeds` is empty (null)", "a whole number >= 0"]),
    ({"ppo": None}, ["`ppo` is empty (null)", "a section"]),
    ({"methods.vanilla.beta": -0.1}, ["`methods.vanilla.beta` is -0.1", "a number >= 0"]),
    ({"methods.vanilla.beta": float("nan")}, ["`methods.vanilla.beta` is nan", "a number >= 0"]),
    ({"methods.vanilla.beta": [1, 2]}, ["is a list", "a number >= 0, or a section with kl"]),
    ({"methods.vanilla.beta": "0.5"}, ["`methods.vanilla.beta` is the text", "without quotes"]),
    ({"methods.vanilla.beta": None}, ["is empty (null)", "a number >= 0, or a section with kl"]),
    ({"methods.vanilla.beta": {}}, ["`methods.vanilla.beta.kl` is missing", "a number > 0"]),
    ({"methods.vanilla.beta": {"kl": 0}}, ["`methods.vanilla.beta.kl` is 0", "a number > 0"]),
    ({"methods.vanilla.beta": {"kl": -1.0}}, ["`methods.vanilla.beta.kl` is -1", "> 0"]),
    ({"methods.vanilla.beta": {"kl": [1.0, 2.0]}}, ["`methods.vanilla.beta.kl` is a list", "> 0"]),
    ({"methods.vanilla.beta": {"lk": 1}}, ["unknown key `methods.vanilla.beta.lk`", "keys kl"]),
    ({"methods.vanilla.beta": {"kl": 6}}, ["`methods.vanilla.beta.kl` is 6", "up to 5.55"]),
    ({"pilots": 0}, ["`pilots` is 0", "a whole number >= 1"]),
    ({"ppo.learning_rate": "1e-6"}, ["`ppo.learning_rate`", "a number > 0", "write 1.0e-6"]),
    ({"ppo.learning_rate": "3E4"}, ["the text '3E4'", "write 3.0e+4"]),
    ({"ppo.learning_rate": "0.5"}, ["the text '0.5'", "without quotes"]),
    ({"ppo.learning_rate": "fast"}, ["the text 'fast'", "expected a number > 0"]),
    ({"ppo.gamma": 1.1}, ["`ppo.gamma` is 1.1", "> 0 and <= 1"]),
    ({"ppo.max_grad_norm": 0}, ["`ppo.max_grad_norm` is 0", "> 0 or null"]),
    ({"texts.sources": []}, ["`texts.sources` is an empty list", "at least one entry"]),
    ({"methods": {}}, ["`methods` is an empty section", "at least one entry"]),
    ({"methods": {"A b": {"objective": "vanilla", "beta": 1}}}, ["'A b' in `methods`"]),
    ({"methods.vanilla": {"objective": "vanilla"}}, ["`methods.vanilla.beta` is missing"]),
    ({"scenario": "../x"}, ["`scenario` is the text '../x'"]),
    # Longer than a file's name may be, with what is appended to it.
    ({"scenario": "x" * 101}, ["`scenario` is the text 'xxx", "{0,99}"]),
    ({"methods": {"x" * 101: {"objective": "vanilla", "beta": 1}}}, ["at most 100 lower-case"]),
    ({"ensembles": {"x" * 101: {"kind": "heads"}}}, ["in `ensembles` does not fit", "at most 100"]),
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
    ({"judge.model": "/none"}, ["`judge.model` is '/none'", "no such folder"]),
    ({"judge.model": "trained"}, ["`judge.model` is trained", "`preferences.judge` is 0"]),
    ({"diagnosis.trained_judge": True}, ["`diagnosis.trained_judge` is true", "judge` is 0"]),
    (
        {"diagnosis.trained_judge": True, "judge.model": "trained", "preferences.judge": 0.1},
        ["`diagnosis.trained_judge` is true", "which is the same judge"],
    ),
    ({"judge.prompts": 4096}, ["`judge.prompts` is 4096", "`prompts.test`, 512"]),
    ({"diagnosis.prompts": 4096}, ["`diagnosis.prompts` is 4096", "`prompts.test`, 512"]),
    ({"preferences.judge": 0.9}, ["`preferences.validation` and `judge`", "a sum < 1"]),
    ({"reward.template": "dialog"}, ["`reward.template`", "`dialogue`?", "continuation"]),
    ({"texts.sources.0": {"rows": 3}}, ["`texts.sources[0]`", "exactly one of world, path"]),
    ({"texts.sources.0": {"world": "reviews"}}, ["`texts.sources[0].rows` is missing"]),
    ({"texts.sources.0": {"world": "benchmark", "rows": 3}}, ["expected reviews"]),
    ({"texts.sources.0": {"sampled": 3}}, ["`texts.sources[0]` has sampled", "exactly one of"]),
    (
        {"texts.sources.0": {"path": "a.csv", "zipf": 1.0}},
        ["`texts.sources[0].zipf` does not go with `path`"],
    ),
    ({"texts.sources.0": {"world": "reviews", "rows": 3, "zipf": -0.1}}, ["zipf", ">= 0 and <= 4"]),
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
        ["`judge.model` is world", "expected trained"],
    ),
    *(
        ({"methods": {name: {"objective": "vanilla", "beta": 1}}}, [repr(name), "in `methods`"])
        for name in ("nan", "on", True, 5, None, "vanilla\n", "all", "null", "reference", "_a")
    ),
    ({"scenario": "x\n"}, ["`scenario` is the text 'x\\n'"]),
    ({"seed": 10**30}, ["`seed` is 1000000000000000000000000000000", "expected a whole number"]),
    ({"seed": 10**5000}, ["`seed` is a whole number of about 5000 digits"]),
    ({"seeds": 10**5000}, ["`seeds` is a whole number of about 5000 digits", "at most 18 digits"]),
    (
        {"ppo.minibatch_size": 10**400},
        ["`ppo.minibatch_size` is a whole number of about 400 digits"],
    ),
    ({"seeds": 10**9}, ["`seeds` is 1000000000", "4000000042 jobs", "`limits.jobs`, 100000"]),
    ({"reference.width": 10**9}, ["`reference.width` 1000000000", "weights", "`limits.weights`"]),
    ({"reference.vocabulary": 10**9}, ["`vocabulary` 1000000000", "`limits.weights`"]),
    (
        {"texts.sources.0": {"world": "reviews", "rows": 10**9}},
        ["`texts.sources[0].rows`", "at most"],
    ),
    ({"preferences.sources.0": {"sampled": 10**9}}, ["`preferences.sources[0].sampled`", "<= 100"]),
    ({"statistics.permutations": 10**9}, ["`statistics.permutations`", "<= 1000000"]),
    ({"prompts.sources.0.rows": 512}, ["`prompts.test` is 512", "less than the 512 rows"]),
    ({"prompts.sources.0.rows": 639}, ["`ppo.batch_size` is 128", "at most 127, the 639 rows"]),
    (
        {"methods.vanilla.ppo": {"batch_size": 256}, "prompts.sources.0.rows": 700},
        ["`methods.vanilla.ppo.batch_size` is 256", "at most 188"],
    ),
    (
        {"reward.gradient_accumulation_steps": 5},
        ["`reward.gradient_accumulation_steps` is 5", "a divisor of `batch_size`, 32"],
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
        if isinstance(values, dict) and section not in ("methods", "ensembles"):
            defaults = schema["$defs"][schema["properties"][section]["$ref"].rsplit("/", 1)[1]]
            for key, value in values.items():
                assert defaults["properties"][key].get("default") != value, f"{section}.{key}"
    assert config["ppo"]["batch_size"] == PPOSettings().batch_size == 128
    assert config["ppo"]["steps"] == said["ppo"]["steps"] != PPOSettings().steps


def test_what_is_effective_is_accepted_again_and_stays(config):
    assert effective_config(config, MEMORY) == config
    assert yaml.safe_load(yaml.safe_dump(config)) == config


def test_every_key_has_a_description_and_every_section_is_closed():
    schema = Config.model_json_schema()
    found = 0
    for name, form in {"Config": schema, **schema["$defs"]}.items():
        # A method also has the parameters of its objective, an ensemble the settings of its kind.
        assert form["additionalProperties"] is (name in ("Method", "ExactMethod", "Ensemble")), name
        for key, part in form["properties"].items():
            assert resolved(part, schema).get("description"), f"{name}.{key}"
            found += 1
    assert found > 100


def test_schema_and_table_are_in_step_with_the_settings():
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), "run `make config-docs`"
    verdict = VERDICT_SCHEMA.read_text(encoding="utf-8")
    assert verdict == verdict_schema_text(), "run `make config-docs`"
    table = TABLE.read_text(encoding="utf-8")
    assert with_table(table) == table, "run `make config-docs`"
    assert METHODS.read_text(encoding="utf-8") == methods_text(), "run `make config-docs`"
    assert ENSEMBLES.read_text(encoding="utf-8") == ensembles_text(), "run `make config-docs`"
    for key in ("seeds", "ppo.steps", "methods.NAME.beta", "ensembles.NAME.kind", "judge.model"):
        assert f"| `{key}` |" in table
    steps = PPOSettings().steps
    assert f"| `ppo.steps` | `{steps}` | `40` | a whole number >= 1 |" in table


def test_the_schema_file_accepts_and_refuses_as_the_settings_do():
    """For editors: it cannot hold the rules across keys, but all that is said of one key."""
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(yaml.safe_load(SCHEMA.read_text())).is_valid
    assert check(read_config(DEFAULTS))
    for change in ({"sed": 1}, {"seeds": -1}, {"ppo": {"gamma": 2}}, {"environment": "tpu"}):
        assert not check(merged(read_config(DEFAULTS), change)), change


def test_data_root_is_replaced_everywhere(config, tmp_path):
    (tmp_path / "a.csv").touch()
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge/config.json").write_text("{}")
    config["data_root"] = f"{tmp_path}/"
    config["texts"]["sources"] = [{"path": "{data_root}/a.csv"}]
    config["judge"]["model"] = "{data_root}/judge"
    effective = effective_config(config, MEMORY)
    assert effective["texts"]["sources"] == [{"path": f"{tmp_path}/a.csv"}]
    assert effective["judge"]["model"] == f"{tmp_path}/judge"
    assert config["texts"]["sources"] == [{"path": "{data_root}/a.csv"}]


def test_a_tilde_is_the_home_folder(config, tmp_path, monkeypatch):
    """Shells leave it as it stands in `--config data_root=~/data`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    for name in ("data/a.csv", "b.csv"):
        (tmp_path / name).touch()
    config["data_root"] = "~/data"
    config["texts"]["sources"] = [{"path": "{data_root}/a.csv"}, {"path": "~/b.csv"}]
    effective = effective_config(config, MEMORY)
    paths = [source["path"] for source in effective["texts"]["sources"]]
    assert paths == [f"{tmp_path}/data/a.csv", f"{tmp_path}/b.csv"]
    assert effective["data_root"] == f"{tmp_path}/data"
    config["texts"]["sources"] = [{"path": "~/c.csv"}]
    assert f"'{tmp_path}/c.csv', and there is no such file" in refusal(config)


def test_a_methods_controls_are_found_in_the_study(config):
    """By the objective's docstring, with the same parameters; a shuffled spread beside its own."""
    found = held_methods(to_dict(Config(**config)))
    exact = config["exact"]["methods"]
    assert set(found) == {*config["methods"], *exact} - {"vanilla", "shuffled", "scale_only"}
    assert found["variance_aware"] == {
        "controls": ["scale_only", "shuffled"],
        "missing": [],
        "trained": True,
    }
    # Its controls would have its power.
    missing = ["scale_only", "shuffled spread"]
    assert found["sigma_squared"] == {"controls": [], "missing": missing, "trained": False}
    assert found["mean"]["controls"] == ["vanilla"]
    exact["squares"] = {"objective": "scale_only", "power": 2}
    exact["other"] = {
        "objective": "variance_aware",
        "spread": {"shuffled": True, "center": "prompt"},
    }
    config["seeds"] = 0
    found = held_methods(to_dict(Config(**config)))
    assert found["sigma_squared"]["controls"] == ["squares"]
    assert found["variance_aware"]["controls"] == ["scale_only", "shuffled"]
    assert not found["variance_aware"]["trained"]


def test_overrides(config):
    config["methods"]["vanilla"]["ppo"] = {"steps": 7}
    config["judge"]["reward"] = {"epochs": 3}
    assert method_settings(config, "vanilla") == config["ppo"] | {"steps": 7}
    assert method_settings(config, "variance_aware") == config["ppo"]
    own = Config(**config).judge_reward()
    assert own.model_dump() == config["reward"] | {"epochs": 3}
