"""Ensembles found by their folders and their kinds."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from tiny_rewards import save_reward_model

from prudent.errors import InputError
from prudent.rewards import loading
from prudent.rewards.settings import AS_HEADS, KINDS


def test_draws_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("10", "0", "2", "1", "metadata", "1.csv", "-1", ".3"):
        (tmp_path / name).mkdir()
    assert [path.name for path in loading.draws_of(tmp_path)] == ["0", "1", "2", "10"]
    assert loading.draws_of(str(tmp_path)) == loading.draws_of(tmp_path)


@pytest.mark.parametrize("names", [(), ("metadata",), ("model.safetensors", "config.json")])
def test_a_folder_without_draws_is_refused(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}: found no draw of an ensemble")):
        loading.draws_of(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="none: found no draw of an ensemble; expected folders 0"):
        loading.draws_of(tmp_path / "none")


def test_every_kind_can_be_trained_and_what_it_writes_can_be_loaded():
    for kind in KINDS:
        assert callable(loading.train_function(kind))
    assert set(loading.KINDS) == set(KINDS) - {*AS_HEADS}
    for kind, name in loading.KINDS.items():
        assert callable(getattr(loading.kind_module(kind), name).load)


def test_a_checkpoint_that_says_nothing_of_its_kind_is_one_of_heads(tmp_path):
    path = save_reward_model(tmp_path / "base", labels=2)
    ensemble = loading.load_rewards(path)
    assert type(ensemble) is getattr(loading.kind_module("heads"), loading.KINDS["heads"])
    assert ensemble.heads == 2


@pytest.mark.parametrize("kind", ["warm", "head", 5, None, ["heads"]])
def test_a_checkpoint_of_an_unknown_kind_is_refused(tmp_path, kind):
    path = save_reward_model(tmp_path / "base")
    config = json.loads((path / "config.json").read_text()) | {"reward_ensemble": kind}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config.json: reward_ensemble is .*; expected one of he"):
        loading.load_rewards(path)


REVISIONS = """
from prudent.rewards.judges import load_judge
from prudent.rewards.loading import load_rewards
prompts, responses = ["w3 w4"], [" w5 w6"]
for revision in ("main", "first"):
    mean = load_rewards("owner/name", revision=revision)(prompts, responses).mean
    score = load_judge("owner/name", revision)(prompts, responses)["score"]
    assert mean[0, 0].item() == score[0]
    print(score[0])
"""


def test_a_revision_is_that_of_the_weights_too(tmp_path):
    """Two of one repository, as the hub's cache keeps them."""
    place = tmp_path / "hub/hub/models--owner--name"
    wanted = []
    for seed, (name, commit) in enumerate((("main", "a" * 40), ("first", "b" * 40))):
        folder = save_reward_model(tmp_path / name, seed=seed)
        shutil.copytree(folder, place / "snapshots" / commit)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / name).write_text(commit)
        wanted.append(loading.load_rewards(folder)(["w3 w4"], [" w5 w6"]).mean.item())
    output = subprocess.run(
        [sys.executable, "-c", REVISIONS],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
        cwd=ROOT / "workflow_scripts",
    )
    assert output.returncode == 0, output.stderr
    assert [float(line) for line in output.stdout.split()] == pytest.approx(wanted)
    assert wanted[0] != wanted[1]


def test_a_revision_of_another_kind_is_refused(tmp_path):
    path = save_reward_model(tmp_path / "base")
    config = json.loads((path / "config.json").read_text()) | {"reward_ensemble": "members"}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="an ensemble of members and the revision 'main'; expecte"):
        loading.load_rewards(path, revision="main")
