"""Ensembles in the configuration: their kinds' keys, what names them, how many models they are."""

from pathlib import Path

import pytest

from prudent.errors import InputError
from prudent.rewards.settings import KINDS
from prudent.workflow.checks import effective_config
from prudent.workflow.config import ensemble_settings, members_of, models_of
from prudent.workflow.config_docs import DEFAULTS, ensembles_text
from prudent.workflow.configfiles import merged, read_config
from prudent.workflow.remembered import Memory

REPLICATES = read_config(DEFAULTS)["exact"]["replicates"]


def effective(**changes) -> dict:
    """The default configuration with some changes."""
    return effective_config(merged(read_config(DEFAULTS), changes), Memory(Path("none")))


def refusal(changes: dict) -> str:
    with pytest.raises(InputError) as refused:
        effective(**changes)
    return str(refused.value)


# Keys of one ensemble of the default configuration, and what the one message says.
OF_ONE = [
    ("heads", {"kind": "head"}, ["`ensembles.heads.kind`", "`heads`?", "dropout, warm"]),
    (
        "heads",
        {"epoch": 3},
        ["`ensembles.heads.epoch` is not a key of an ensemble of the kind heads", "`epochs`?"],
    ),
    ("heads", {"drawz": 3}, ["`ensembles.heads.drawz`", "did you mean `draws`?"]),
    ("heads", {"rank": 3}, ["`ensembles.heads.rank` is not a key", "of the kind heads"]),
    ("heads", {"min_std": 0.1}, ["`ensembles.heads.min_std` is not a key"]),
    ("members", {"models": 5}, ["`ensembles.members.models` is not a key"]),
    ("heads", {5: 1}, ["a key in `ensembles.heads` is 5"]),
    ("heads", {"count": 1}, ["`ensembles.heads.count` is 1", "a whole number >= 2"]),
    ("heads", {"count": 3.0}, ["`ensembles.heads.count` is 3.0", "a whole number >= 2"]),
    ("heads", {"draws": 0}, ["`ensembles.heads.draws` is 0", ">= 1 and <= 10000"]),
    ("heads", {"draws": 10_001}, ["`ensembles.heads.draws` is 10001", ">= 1 and <= 10000"]),
    ("heads", {"draws": None}, ["`ensembles.heads.draws` is empty (null)"]),
    ("heads", {"first": "old"}, ["`ensembles.heads.first`", "fresh, base"]),
    ("bootstrap", {"bootstrap": "yes"}, ["`ensembles.bootstrap.bootstrap`", "true or false"]),
    ("heads", {"init_std": "wide"}, ["`ensembles.heads.init_std` is the text 'wide'"]),
    ("heads", {"learning_rate": "1e-3"}, ["`ensembles.heads.learning_rate`", "write 1.0e-3"]),
    ("heads", {"stop_loss": None}, ["`ensembles.heads.stop_loss` is empty (null)"]),
    ("gaussian", {"min_std": 0.0}, ["`ensembles.gaussian.min_std` is 0.0", "a number > 0"]),
    ("members", {"learning_rates": []}, ["`ensembles.members.learning_rates` is an empty list"]),
    (
        "members",
        {"learning_rates": [0.1, -1]},
        ["`ensembles.members.learning_rates[1]` is -1", "a number > 0"],
    ),
    ("members", {"dropouts": [1.0]}, ["`ensembles.members.dropouts[0]` is 1.0", ">= 0 and < 1"]),
    ("members", {"labels": "fresh"}, ["`ensembles.members.labels`", "own, shared"]),
    ("adapters", {"rank": 0}, ["`ensembles.adapters.rank` is 0", "a whole number >= 1"]),
    ("dropout", {"dropout": 0.0}, ["`ensembles.dropout.dropout` is 0.0", "> 0 and < 1"]),
    ("warm", {"models": 1}, ["`ensembles.warm.models` is 1", "a whole number >= 2"]),
]


@pytest.mark.parametrize(("name", "changes", "parts"), OF_ONE)
def test_a_mistake_in_an_ensemble_is_refused_in_one_message(name, changes, parts):
    message = refusal({"ensembles": {name: changes}})
    assert message.startswith("config: ") and "\n" not in message
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"heads": {"count": 3}}, ["unknown key `heads`", "ensembles, ensemble, diagnosis"]),
        ({"ensembles": None}, ["`ensembles` is empty (null)", "at least one entry"]),
        ({"ensembles": {"heads": None}}, ["`ensembles.heads` is empty (null)", "a section"]),
        ({"ensembles": {"new": {"count": 3}}}, ["`ensembles.new.kind` is missing", "dropout, war"]),
        *(
            ({"ensembles": {name: {"kind": "heads"}}}, [repr(name), "in `ensembles`"])
            for name in ("A b", "../x", "nan", "on", "", 5, None, "heads\n", "all")
        ),
        ({"ensemble": "head"}, ["`ensemble` names 'head'", "`heads`?", "one of resampled, heads"]),
        ({"ensemble": 3}, ["`ensemble` is 3", "text"]),
        ({"ensemble": None}, ["`ensemble` is empty (null)"]),
        (
            {"diagnosis": {"ensembles": ["heads", "member"]}},
            ["`diagnosis.ensembles` names 'member'", "did you mean `members`?"],
        ),
        (
            {"diagnosis": {"ensembles": ["heads", "heads"]}},
            ["`diagnosis.ensembles` names an ensemble twice"],
        ),
        ({"diagnosis": {"ensembles": []}}, ["`diagnosis.ensembles` is an empty list", "or null"]),
        ({"diagnosis": {"ensembles": "heads"}}, ["`diagnosis.ensembles` is the text 'heads'"]),
    ],
)
def test_what_names_no_ensemble_is_refused(changes, parts):
    message = refusal(changes)
    assert message.startswith("config: ") and "\n" not in message
    for part in parts:
        assert part in message, message


def test_a_missing_ensemble_is_named(config):
    del config["ensemble"]
    with pytest.raises(InputError, match="`ensemble` is missing"):
        effective_config(config, Memory(Path("none")))


# --- The grid of regimes --------------------------------------------------------------------------

GRID = {
    "pools": [{"pairs": 100, "replicates": 30}],
    "ensembles": ["heads", "members"],
    "methods": ["variance_aware", "mean"],
}
PLAIN = "names members, whose members differ from base reward models"


def test_a_grid_of_regimes_is_taken():
    grid = effective(regimes=GRID)["regimes"]
    assert grid["noise"] == [1.0] and grid["pools"][0]["per_job"] == 1
    every = {
        **GRID,
        "pools": [{"pairs": "all", "replicates": 4, "per_job": 2}],
        "noise": [0.5, 2.0],
    }
    assert effective(regimes=every)["regimes"]["pools"][0]["pairs"] == "all"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"regimes": {"pools": GRID["pools"]}}, "`regimes.ensembles` is empty; expected some"),
        ({"regimes": {**GRID, "methods": []}}, "`regimes.methods` is empty; expected some"),
        ({"regimes": {**GRID, "ensembles": ["head"]}}, "`regimes.ensembles` names 'head', which"),
        (
            {"regimes": {**GRID, "ensembles": ["warm"]}},
            "names warm, which is of the kind warm; exp",
        ),
        ({"regimes": {**GRID, "methods": ["vanilla"]}}, "`regimes.methods` names 'vanilla', which"),
        ({"regimes": {**GRID, "methods": ["men"]}}, "did you mean `mean`?"),
        ({"regimes": {**GRID, "members": [3, 3]}}, "`regimes.members` names a value twice"),
        ({"regimes": {**GRID, "pools": 2 * GRID["pools"]}}, "`regimes.pools` names a value twice"),
        ({"regimes": {**GRID, "members": [1]}}, "`regimes.members[0]` is 1"),
        ({"regimes": GRID, "ensembles": {"members": {"epochs": 2.0}}}, PLAIN),
        (
            {"regimes": {**GRID, "noise": [2.0]}, "preferences": {"sources": [{"path": "a.csv"}]}},
            "`regimes.noise` has other values than 1, and the labels",
        ),
        (
            {
                "regimes": {**GRID, "pools": [{"pairs": 9, "replicates": 900}]},
                "limits": {"jobs": 99},
            },
            "`regimes.pools` is of 1 pools, which comes to about",
        ),
    ],
)
def test_a_mistake_in_the_grid_is_refused_in_one_message(changes, says):
    message = refusal(changes)
    assert says in message and "\n" not in message


# --- How much a run would be ----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "each"), [("members", 10), ("warm", 5)])
def test_independent_models_count_against_the_limit_of_jobs(name, each):
    # Of two methods' one policy and search each, replicates, and about as many as rules.
    limit = 2 * 2 * 1 + 2 + REPLICATES + 30
    most = {"ensemble": name, "ensembles": {name: {"draws": 7}}, "seeds": 1}
    most["methods"] = {"variance_aware": {"objective": "mean"}}  # a single member has no spread
    assert effective(**most, limits={"jobs": limit + 8 * each})["ensemble"] == name
    message = refusal({**most, "limits": {"jobs": limit + 8 * each - 1}})
    assert f"`ensembles.{name}.draws` is 7, which comes to about {limit + 8 * each} jobs" in message
    # One draw more is the pilots'.
    assert f"{8 * each} independent reward model(s)" in message and "`limits.jobs`" in message


def test_policies_and_models_are_counted_together_and_the_larger_one_is_named():
    members = {"ensemble": "members", "ensembles": {"members": {"draws": 2}}}
    changes = members | {"limits": {"jobs": 101 + REPLICATES}}
    assert f"`seeds` is 10, which comes to about {102 + REPLICATES} jobs" in refusal(changes)
    # Those that are only checked count as well.
    checked = {"ensemble": "heads", "diagnosis": {"ensembles": ["members", "warm"]}, "seeds": 1}
    message = refusal({**checked, "limits": {"jobs": 50 + REPLICATES}})
    jobs = 51 + REPLICATES
    assert f"`ensembles.members.draws` is 1, which comes to about {jobs} jobs" in message
    assert f"15 independent reward model(s), {REPLICATES} replicate(s), 0 of regimes" in message
    message = refusal({**checked, "exact": {"replicates": 99}, "limits": {"jobs": 99}})
    assert "`exact.replicates` is 99, which comes to about 150 jobs" in message


def test_ensembles_that_are_not_used_count_for_nothing():
    large = {"ensembles": {"members": {"draws": 10_000}, "heads": {"count": 10**9}}}
    unused = {"ensemble": "gaussian", "diagnosis": {"ensembles": None}}
    assert effective(**large, **unused)["ensembles"]["members"]["draws"] == 10_000
    # An ensemble of heads is one job, in all its draws.
    heads = effective(ensemble="heads", ensembles={"heads": {"draws": 10_000}})
    assert heads["ensembles"]["heads"]["draws"] == 10_000


def test_weights_of_all_heads_have_a_limit():
    many = {
        "diagnosis": {"ensembles": None},
        "ensembles": {"heads": {"count": 10**6, "draws": 10_000}},
        "ensemble": "heads",
    }
    message = refusal(many)
    assert "`ensembles.heads.count` is 1000000, which with 10000 draw(s)" in message
    assert "6.4e+11 weights" in message and "`limits.weights`" in message
    assert effective(**many, limits={"weights": 10**12})


# --- What the rules get of them -------------------------------------------------------------------


def test_settings_of_an_ensemble_are_its_own_and_its_kinds_defaults():
    ensembles = effective()["ensembles"]
    assert {one["kind"] for one in ensembles.values()} == set(KINDS)
    for one in ensembles.values():
        settings = ensemble_settings(one)
        defaults = KINDS[one["kind"]]().model_dump()
        own = {key: value for key, value in one.items() if key in defaults}
        assert settings == defaults | own
        assert set(one) == {"kind", "count", "draws", *own}
    assert ensemble_settings(ensembles["wide_heads"])["init_std"] == 1.0


def test_members_and_models_of_the_kinds():
    for kind in KINDS:
        one = {"kind": kind, "count": 7, "draws": 3}
        assert members_of(one) == (1 if kind == "warm" else 7)
        assert models_of(one) == {"members": 7, "warm": 5}.get(kind, 0)
    assert models_of({"kind": "warm", "count": 7, "draws": 3, "models": 4}) == 4


def test_the_manual_has_every_kind_with_all_its_keys():
    sections = ensembles_text().split("\n## ")[1:]
    assert [section.split("\n")[0] for section in sections] == list(KINDS)
    for section, model in zip(sections, KINDS.values(), strict=True):
        for key, field in model.model_fields.items():
            assert section.count(f"| `{key}` |") == 1 and field.description
