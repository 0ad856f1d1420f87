"""The configuration's schema file and the documentation's table, made from the settings.

``python -m prudent.workflow.config_docs`` writes them, and the page of the methods.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from prudent.data.settings import Source
from prudent.rewards.settings import KINDS, SpreadSettings
from prudent.settings import Form, expected, resolved
from prudent.workflow.config import Config
from prudent.workflow.configfiles import read_config
from prudent.workflow.objectives import FACTS, load, objectives

ROOT = Path(__file__).resolve().parents[3]
DEFAULTS = ROOT / "config.yaml"
SCHEMA = ROOT / "rules" / "schemas" / "config.schema.yaml"
TABLE = ROOT / "docs" / "configuration.md"
VERDICT_SCHEMA = ROOT / "rules" / "schemas" / "verdict.schema.yaml"
METHODS = ROOT / "docs" / "methods.md"
ENSEMBLES = ROOT / "docs" / "ensembles.md"
MARKS = ("<!-- config -->\n", "<!-- /config -->\n")

HEADER = """\
# The configuration's JSON schema, for editors; made from the settings classes by
# `make config-docs`. The classes also hold the rules across keys.
"""


VERDICT_HEADER = """\
# The JSON schema of results/SCENARIO/summary/verdict.json; made from prudent/analysis/verdict.py by
# `make config-docs`.
"""


def verdict_schema_text() -> str:
    """The schema file of what is found of the methods."""
    from prudent.analysis.verdict import Verdicts

    form = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    form |= Verdicts.model_json_schema()
    return VERDICT_HEADER + yaml.safe_dump(form, sort_keys=False, width=100)


def schema_text() -> str:
    """The schema file."""
    form = _schema()
    of_all = {
        **dict.fromkeys(
            ("Method", "ExactMethod"),
            [objective.parameters for objective in objectives().values()],
        ),
        "Ensemble": list(KINDS.values()),
    }
    for name, models in of_all.items():
        # An editor's check: which key goes with which objective or kind is the classes' to say.
        found: dict[str, list[Form]] = {}
        for model in models:
            own = model.model_json_schema()
            for key, part in own.get("properties", {}).items():
                part = resolved(part, own)
                if part not in found.setdefault(key, []):
                    found[key].append(part)
        more = {
            key: {"anyOf": parts} if len(parts) > 1 else parts[0] for key, parts in found.items()
        }
        form["$defs"][name]["properties"] |= more
        form["$defs"][name]["additionalProperties"] = False
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_plain(form)}
    return HEADER + yaml.safe_dump(schema, sort_keys=False, allow_unicode=True, width=100)


def _schema() -> Form:
    return Config.model_json_schema() | {"title": "Configuration of Prudent"}


def _plain(form: Any) -> Any:
    """The schema without pydantic's titles, and with descriptions on one line."""
    if isinstance(form, dict):
        return {
            key: " ".join(value.split()) if key == "description" else _plain(value)
            for key, value in form.items()
            if not (
                key == "title" and isinstance(value, str) and value != "Configuration of Prudent"
            )
        }
    return [_plain(part) for part in form] if isinstance(form, list) else form


def config_table() -> str:
    """The keys as markdown tables: default, the default scenario's value, form and meaning."""
    schema = _schema()
    scenario = read_config(DEFAULTS)
    rows = ["| key | default | `config.yaml` | expected | meaning |", "|---|---|---|---|---|"]
    rows += _rows(schema, schema, scenario, "")
    rows += [
        "",
        "Sources. Each entry of a list `sources` has exactly one of `world`, `path`, `dataset`, "
        "`sampled`, and may have:",
        "",
        "| key of a source | expected | meaning |",
        "|---|---|---|",
    ]
    source = Source.model_json_schema()
    for name, form in source["properties"].items():
        form = resolved(form, source) | {"nullable": False}
        keys = {f"{name}.{key}": part for key, part in form.get("properties", {}).items()}
        for key, part in {name: form, **keys}.items():
            rows.append(f"| `{key}` | {_cell(expected(part, source))} | {_meaning(part)} |")
    return "\n".join(rows) + "\n"


def _rows(form: Form, schema: Form, scenario: Any, prefix: str) -> Iterator[str]:
    for name, part in form["properties"].items():
        key, part = f"{prefix}{name}", resolved(part, schema)
        said = scenario.get(name) if isinstance(scenario, dict) else None
        if key in ("methods", "ensembles"):
            yield f"| **`{key}`** | | | | {_meaning(part)} |"
            method = resolved(part["additionalProperties"], schema)
            for option, inner in method["properties"].items():
                inner = resolved(inner, schema)
                if option == "spread":
                    yield f"| **`{key}.NAME.{option}`** | | | | {_meaning(inner)} |"
                    yield from _rows(inner, schema, None, f"{key}.NAME.{option}.")
                    continue
                yield (
                    f"| `{key}.NAME.{option}` | {_default(inner)} | | "
                    f"{_cell(expected(inner, schema))} | {_meaning(inner)} |"
                )
                for form in inner.get("oneOf", []):
                    part = resolved(form, schema)
                    if "properties" in part:
                        yield from _rows(part, schema, None, f"{key}.NAME.{option}.")
        elif part.get("properties") and key != "judge.reward":
            yield f"| **`{key}`** | | | | {_meaning(part)} |"
            yield from _rows(part, schema, said, f"{key}.")
        else:
            here = "" if said is None or isinstance(said, list) else f"`{yaml_text(said)}`"
            yield (
                f"| `{key}` | {_default(part)} | {here} | {_cell(expected(part, schema))} | "
                f"{_meaning(part)} |"
            )


def _default(form: Form) -> str:
    if "default" not in form:
        return ""
    default = form["default"]
    if isinstance(default, dict):  # a section that overrides another: what is empty is not set
        default = {key: value for key, value in default.items() if value is not None}
    return f"`{yaml_text(default)}`"


def _meaning(form: Form) -> str:
    return _cell(" ".join(form["description"].split()))


def yaml_text(value: Any) -> str:
    """A value on one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
    return text.replace("\n...", "").strip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def with_table(text: str) -> str:
    """A document with the table between its two marks."""
    before, rest = text.split(MARKS[0], 1)
    return before + MARKS[0] + config_table() + MARKS[1] + rest.split(MARKS[1], 1)[1]


METHODS_HEAD = """\
# Methods

An objective turns the rewards of an ensemble's members into a score and a KL coefficient for each
response. PPO maximises the score minus the coefficient times the log-ratio to the reference. A
method in the configuration names an objective, its coefficient `beta` and values of its parameters.
Where the objective uses sigma, the method also says how this spread is taken.
`scenarios/methods.yaml` has all objectives. `make config-docs` writes this page from
`workflow_scripts/prudent/objectives/`.

**Why the raw spread of heads on a frozen backbone says so little.** The layer norm before the heads
gives all features nearly the same length. The reward of an untrained linear head is then a draw
whose size is about that length, the same for every response. The spread of many such heads is
therefore nearly constant. With ten heads, sampling alone sets its 90th percentile at twice its
10th. Training moves the heads only where the pairs reach. Moreover, Bradley-Terry identifies a
reward only up to an offset for each prompt, which cancels in every pair. The raw spread includes
the spread of these offsets, which is the same for all responses to a prompt. The data identify only
the spread of each member's reward minus its mean over responses to the same prompt. The diagnosis
compares what each ensemble's spread knows of the error with what noise of constant size gives.
"""

SYMBOLS = """\
r_k is member k's reward of a response, and r_head that of the policy's own member. mean, median and
sigma are over the K members (ddof 1). std_k is a member's own standard deviation, and h are the
features that the members' final layers read. *Unit*: policies differ by their member, or by their
ensemble alone. *Exact*: whether the optimal policy is known without training
([Exact policies](exact.md)).
"""


ENSEMBLES_HEAD = """\
# Reward ensembles

An ensemble is a name under `ensembles` in the configuration, with a kind, the number of members
`count`, the number of independent ensembles `draws`, and values of the kind's keys. `ensemble`
names the one that rewards the policies, and `diagnosis.ensembles` the ones that are checked against
the judge. Other ensembles are not trained. `make config-docs` writes this page from
`workflow_scripts/prudent/rewards/settings.py`. [The embedded world](embedded-world.md) shows how
much each kind's spread is worth.
"""


def ensembles_text() -> str:
    """The page of the kinds of ensembles: what each is, and its keys."""
    parts = [ENSEMBLES_HEAD]
    for kind, model in KINDS.items():
        parts.append(f"## {kind}\n\n{_body(inspect.cleandoc(model.__doc__))}\n")
        parts.append(_parameters("key", model.model_json_schema()))
    return "\n".join(parts)


def methods_text() -> str:
    """The page of the objectives: a table of all, how a spread is taken, and each by itself, what
    it does, by its docstring, and its parameters."""
    parts = [METHODS_HEAD, _methods_table(), SYMBOLS, "## How the spread is taken\n"]
    parts.append(_parameters("key of `spread`", SpreadSettings.model_json_schema()))
    for objective in objectives().values():
        text = re.sub(r"\n*^Args:\n(    .*\n?|\n)*", "\n\n", objective.document, flags=re.M)
        text = re.sub(rf"^({'|'.join(FACTS)}): .*\n?(    .*\n?)*", "", text, flags=re.M)
        parts.append(f"## {objective.name}\n\n{_body(text)}\n")
        facts = objective.facts.items()
        parts.append("".join(f"- {name}: {_fact(name, said)}\n" for name, said in facts))
        form = objective.parameters.model_json_schema()
        if form.get("properties"):
            parts.append(_parameters("parameter", form))
    return "\n".join(parts)


def _methods_table() -> str:
    """One row an objective."""
    rows = [
        "| objective | score | KL coefficient | source | unit | exact | control |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, objective in objectives().items():
        facts = {key: _fact(key, said) for key, said in objective.facts.items()}
        score, coefficient, source, control = (
            _cell(facts.get(key, "")) for key in ("Score", "Coefficient", "Source", "Control")
        )
        exact = "yes" if has_optimum(name) else "no"
        control = control or ("is one" if objective.control else "")
        link = f"[{name}](#{name})"
        rows.append(
            f"| {link} | {score} | {coefficient} | {source} | {objective.unit} | {exact} | "
            f"{control} |"
        )
    return "\n".join(rows) + "\n"


def _fact(name: str, said: str) -> str:
    """A line of an objective's docstring, its formula up to the first comma as code."""
    if name in ("Source", "Control"):
        return said
    formula, comma, rest = said.partition(", ")
    return f"`{formula}`{comma}{rest}"


def has_optimum(name: str) -> bool:
    """Whether an objective's optimal policy is known without training, tried on random rewards."""
    import torch

    from prudent.exact.terms import NoOptimum, terms_of
    from prudent.rewards.interface import Rewards
    from prudent.rewards.last_layer import LastLayer

    draws = torch.Generator().manual_seed(0)
    mean, std, features = (torch.randn(8, 4, generator=draws) for _ in range(3))
    given = Rewards(mean, std.abs(), features)
    try:
        terms_of(load(name), [given], 4, 0, last_layer=LastLayer(features))
    except NoOptimum:
        return False
    return True


def _body(text: str) -> str:
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip())]
    return "\n\n".join(paragraphs).replace("``", "`")


def _parameters(what: str, form: Form) -> str:
    """A table of all properties of a schema."""
    rows = [f"| {what} | default | expected | meaning |", "|---|---|---|---|"]
    for name, part in form["properties"].items():
        part = resolved(part, form)
        meaning = _meaning(part).replace("``", "`")
        rows.append(f"| `{name}` | {_default(part)} | {_cell(expected(part, form))} | {meaning} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Writes the schema files, the pages of methods and ensembles, and the table of the keys."""
    ENSEMBLES.write_text(ensembles_text(), encoding="utf-8")
    METHODS.write_text(methods_text(), encoding="utf-8")
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    VERDICT_SCHEMA.write_text(verdict_schema_text(), encoding="utf-8")
    TABLE.write_text(with_table(TABLE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
