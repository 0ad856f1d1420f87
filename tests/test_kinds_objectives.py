"""Every objective on every kind of ensemble: steps of PPO on tiny models."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_material import tiny_material
from tiny_models import tiny_model, tiny_prompts, tiny_tokenizer

from prudent.ppo.trainer import PPOSettings, PPOTrainer
from prudent.rewards.kinds.members import train_member
from prudent.rewards.last_layer import LastLayer
from prudent.rewards.loading import KINDS as LOADED
from prudent.rewards.loading import load_rewards, train_function
from prudent.rewards.settings import AS_HEADS, KINDS, ON_BASE, SpreadSettings
from prudent.workflow.digest import SCRIPTS, imported_files
from prudent.workflow.objectives import load, objectives

COUNT = 3
SETTINGS = PPOSettings(
    batch_size=8,
    minibatch_size=4,
    epochs=1,
    steps=2,
    learning_rate=1e-2,
    response_length=5,
    checkpoint_every=1,
)
SHORT = {"heads": {"epochs": 1}, "gaussian": {"epochs": 1}, "warm": {"models": COUNT}}
SHORT["mlp"] = {"epochs": 1, "hidden": [8]}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """An ensemble of each kind, from one material; the pool serves two of them."""
    folder = tmp_path_factory.mktemp("kinds")
    given = tiny_material(folder)
    pool = tuple(folder / "pool" / str(member) for member in range(COUNT))
    for member, path in enumerate(pool):
        train_member(given, KINDS["members"](), 0, member, path)
    given, paths = replace(given, members=pool), {}
    for kind, settings in KINDS.items():
        paths[kind] = folder / kind
        train_function(kind)(given, settings(**SHORT.get(kind, {})), COUNT, 0, 0, paths[kind])
    return paths


@pytest.mark.parametrize("kind", KINDS)
def test_ppo_learns_from_it_by_every_objective(checkpoints, kind):
    rewards = load_rewards(checkpoints[kind])
    members = 1 if kind == "warm" else COUNT
    last_layer, spread = None, SpreadSettings()
    if kind in ON_BASE:
        texts = tiny_prompts(20)
        features = rewards(texts, texts[::-1]).features
        last_layer = LastLayer(features[:10] - features[10:])
        spread = SpreadSettings(of="last_layer", center="reference", scale="reference")
    lacking = set() if kind == "gaussian" else {"std"}
    lacking |= set() if last_layer else {"last_layer"}
    for name in objectives() if members > 1 else ["vanilla"]:
        if lacking & {*objectives()[name].asks}:
            continue
        trainer = PPOTrainer(
            policy=tiny_model("gpt2", 0),
            reference=tiny_model("gpt2", 1),
            tokenizer=tiny_tokenizer(),
            reward_fn=rewards,
            objective=load(name),
            settings=SETTINGS,
            head=members - 1,
            beta=0.3,
            seed=0,
            run_seed=0,
            spread=spread,
            last_layer=last_layer,
        )
        before = {key: value.detach().clone() for key, value in trainer.parameters.items()}
        _, row = trainer.train(tiny_prompts(20))
        assert math.isfinite(row["score"]) and row["entropy"] > 0
        assert members == 1 or row["sigma"] > 0
        assert any((value != before[key]).any() for key, value in trainer.parameters.items())


def test_an_edit_of_one_kind_is_none_of_another():
    """A job's digest follows the imports of the modules that it loads."""
    package = SCRIPTS / "prudent/rewards/kinds"
    assert {path.stem for path in package.glob("*.py")} - {"__init__"} == set(KINDS)
    assert set(LOADED) == set(KINDS) - {*AS_HEADS}
    for kind in KINDS:
        files = imported_files(package / f"{kind}.py")
        assert {path.stem for path in files if path.parent == package} == {kind}
    for name in ("loading", "ensemble", "features", "judges"):
        files = imported_files(SCRIPTS / f"prudent/rewards/{name}.py")
        assert not any(path.parent == package for path in files)
