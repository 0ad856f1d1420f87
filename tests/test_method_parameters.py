"""Parameters of objectives, as keys of the configuration's methods."""

import re
from pathlib import Path

import pytest
from tiny_config import refusal

from prudent.errors import InputError
from prudent.workflow.checks import effective_config
from prudent.workflow.config import objective_parameters
from prudent.workflow.objectives import GIVEN, load, objectives
from prudent.workflow.remembered import Memory


def test_objectives_read_without_importing_are_those_of_the_package():
    import importlib
    import inspect

    for name, objective in objectives().items():
        module = importlib.import_module(f"prudent.objectives.{objective.file.stem}")
        function = getattr(module, name)
        assert function is load(name) and inspect.getdoc(function) == objective.document
        for key, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and key not in GIVEN:
                field = objective.parameters.model_fields[key]
                assert field.default == parameter.default and field.description
    assert {"vanilla", "variance_aware", "scale_only"} <= set(objectives())


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def f(scores, beta):\n    pass", "has to begin with (rewards, beta, and"),
        ("def f(rewards, beta, *, k=1):\n    pass", "'k' to have a type and a default"),
        ("def f(rewards, beta, *, k: int):\n    pass", "'k' to have a type and a default"),
        ("def f(rewards, beta, *, ppo: int = 1):\n    pass", "to be named otherwise than"),
        ("def f(rewards, beta, *, k: Odd = 1):\n    pass", "name 'Odd' is not defined"),
        ("def f(rewards, head, beta):\n    pass", "has to begin with (rewards, beta, and"),
        (
            "def f(rewards, beta, *, k: Share = 2.0):\n    pass",
            "its defaults: f: `k` is 2.0; expec",
        ),
        ("def f(rewards, beta:\n    pass", "family.py: line 1: "),
        ("def vanilla(rewards, beta):\n    pass\n" * 2, None),
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
        ({"wdth": 1}, "`methods.careful.wdth` is not a key of a method with the objective lower_"),
        (
            {"decay": 0.5},
            "`methods.careful.decay` is not a key of a method with the objective lower",
        ),
        ({"run": 1}, "`methods.careful.run` is not a key of a method"),
    ],
)
def test_parameters_of_an_objective_are_checked(config, method, says):
    config["methods"]["careful"] = {"objective": "lower_confidence_bound", "beta": 0.1} | method
    assert says in refusal(config)


@pytest.mark.parametrize(
    ("method", "ensemble", "says"),
    [
        ({"spread": {"centre": "prompt"}}, "heads", "unknown key `methods.careful.spread.centre`"),
        ({"spread": {"ridge": 0}}, "heads", "`methods.careful.spread.ridge` is 0; expected a numb"),
        (
            {"spread": {"low": 2.0, "high": 1.0}},
            "heads",
            "`methods.careful.spread.low` is 2; expected at most `high`, 1",
        ),
        (
            {"spread": {"center": "prompt"}},
            "heads",
            "`methods.careful.spread.center` is prompt, and PPO has one response to a prompt",
        ),
        (
            {"objective": "mean", "spread": {"shuffled": True}},
            "heads",
            "`methods.careful.spread` is set, and the objective mean uses no spread",
        ),
        (
            {"spread": {"of": "last_layer"}},
            "members",
            "`methods.careful.spread.of` needs the features of the base model, and `ensemble`, "
            "members, is of the kind members; expected one of the kinds heads, "
            "last_layer, mlp, gaussian",
        ),
        (
            {"objective": "adv_po"},
            "dropout",
            "`methods.careful.objective` needs the features of the base model",
        ),
        (
            {"objective": "reward_robust"},
            "heads",
            "`methods.careful.objective` is reward_robust, which needs members with a standard "
            "deviation of their own, and `ensemble`, heads, is of the kind heads; expected one of "
            "the kind gaussian",
        ),
        (
            {},
            "warm",
            "which needs a spread of two members at least, and `ensemble`, warm, is of the kind",
        ),
    ],
)
def test_how_a_method_takes_the_spread_is_checked(config, method, ensemble, says):
    given = {"objective": "lower_confidence_bound", "beta": 0.1} | method
    config["ensemble"] = ensemble
    config["methods"] = {"careful": given, "vanilla": {"objective": "vanilla", "beta": 0.1}}
    config["exact"]["methods"] = {}
    assert says in refusal(config)


def test_exact_methods_may_take_the_spread_within_the_prompt(config):
    method = {"objective": "variance_aware", "spread": {"center": "prompt", "shuffled": True}}
    config["exact"]["methods"]["centred"] = method
    accepted = effective_config(config, Memory(Path("none")))["exact"]["methods"]["centred"]
    assert accepted["spread"]["center"] == "prompt" and accepted["spread"]["scale"] == "none"


def test_parameters_of_an_objective_have_defaults(config):
    method = {"objective": "centred_spread", "beta": 0.1, "width": 2}
    assert objective_parameters(method) == {"width": 2.0, "decay": 0.99, "squares": 0.0}
    config["methods"]["careful"] = method
    accepted = effective_config(config, Memory(Path("none")))
    assert accepted["methods"]["careful"]["width"] == 2
