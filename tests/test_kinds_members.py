"""Independent members: what each hangs on, and the ensemble that is made of them."""

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ensemble_contract import PROMPTS, RESPONSES, EnsembleContract, close
from safetensors.torch import load_file
from tiny_material import REWARD, save_backbone, tiny_material, tiny_pairs

from prudent.errors import InputError
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.interface import Rewards
from prudent.rewards.kinds.members import (
    MemberEnsemble,
    member_settings,
    train,
    train_member,
)
from prudent.rewards.loading import load_rewards
from prudent.rewards.material import Material, draw_labels, relabelled
from prudent.rewards.models import new_reward_model
from prudent.rewards.settings import MemberSettings
from prudent.tables import file_digest

SETTINGS = MemberSettings()


def material(folder: Path, kind: str = "gpt2") -> Material:
    return Material(tiny_pairs(), save_backbone(folder / "backbone", kind), REWARD)


def pool(given: Material, folder: Path, count: int, **settings) -> Material:
    """The same material with members that were trained on it."""
    paths = tuple(folder / f"member_{member}" for member in range(count))
    for member, path in enumerate(paths):
        train_member(given, SETTINGS.replace(**settings), 5, member, path)
    return Material(given.preferences, given.backbone, given.reward, members=paths)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Material:
    folder = tmp_path_factory.mktemp("pool")
    return pool(material(folder), folder / "pool", 3)


# --- one member -----------------------------------------------------------------------------------


def test_a_member_hangs_on_the_seed_and_its_number_alone(made, tmp_path):
    torch.manual_seed(99)
    train_member(made, SETTINGS, 5, 1, tmp_path / "again")
    assert file_digest(tmp_path / "again") == file_digest(made.members[1])
    train_member(made, SETTINGS, 6, 1, tmp_path / "other")
    digests = {file_digest(path) for path in (*made.members, tmp_path / "other")}
    assert len(digests) == 4


def test_members_begin_with_their_own_head_and_are_centred(made):
    heads = [load_file(path / "untrained.safetensors") for path in made.members]
    assert not torch.equal(heads[0]["score.weight"], heads[1]["score.weight"])
    prompts, responses = made.centring_texts(5)
    assert len(responses) == 2 * 48
    for path in made.members:
        rewards = RewardEnsemble.load(path)(prompts, responses).mean
        assert abs(rewards.mean()) < 1e-5 and rewards.std() > 1e-3


def test_members_may_start_from_the_base_model(tmp_path):
    given = tiny_material(tmp_path)
    still = SETTINGS.replace(start="base", learning_rates=[1e-30])
    base = load_file(given.base / "model.safetensors")
    for member in range(2):
        train_member(given, still, 5, member, tmp_path / str(member))
        found = load_file(tmp_path / str(member) / "model.safetensors")
        assert all(torch.equal(base[name], value) for name, value in found.items())
    for member in range(2):
        train_member(given, SETTINGS.replace(start="base"), 5, member, tmp_path / str(member))
    assert file_digest(tmp_path / "0") != file_digest(tmp_path / "1"), "their orders differ"
    with pytest.raises(InputError, match="base reward model"):
        train_member(replace(given, base=None), still, 5, 0, tmp_path / "none")


def test_what_it_was_before_is_a_new_model_of_its_stream(made):
    """The initial head is what Hugging Face draws, so its spread is the configuration's."""
    heads = torch.cat(
        [load_file(path / "untrained.safetensors")["score.weight"] for path in made.members]
    )
    assert 0.01 < heads.std() < 0.04  # initializer_range is 0.02, of 48 numbers


def test_labels_are_drawn_for_each_member(made, tmp_path):
    """Member 0 keeps the stored labels; own and shared labels are the same for it alone."""
    for member in (0, 1):
        train_member(made, SETTINGS.replace(labels="shared"), 5, member, tmp_path / str(member))
    same = [file_digest(tmp_path / str(m)) == file_digest(made.members[m]) for m in (0, 1)]
    assert same == [True, False]


def test_relabelled_pairs_exchange_their_sides_in_training_alone():
    pairs = tiny_pairs(train=4, validation=3)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, 1.0, -1.0])
    found = relabelled(pairs, signs)
    for row in range(7):
        sides = ["chosen", "rejected"] if row not in (1, 3) else ["rejected", "chosen"]
        assert found.loc[row, ["chosen", "rejected"]].tolist() == pairs.loc[row, sides].tolist()
    assert pairs.equals(tiny_pairs(train=4, validation=3)), "the table given was changed"


def test_members_labels_are_as_often_others_as_the_labeller_says():
    probability = torch.full((20_000,), 0.8)
    drawn = [draw_labels(probability, 5, member, "members") for member in (1, 2)]
    for signs in drawn:
        assert abs((signs < 0).float().mean() - 0.2) < 0.015
    assert not torch.equal(*drawn)
    assert not torch.equal(drawn[0], draw_labels(probability, 5, 1))  # the heads' stream


def test_members_take_turns_in_the_lists():
    settings = SETTINGS.replace(learning_rates=[1e-3, 2e-3], dropouts=[0.0, 0.1, 0.2], epochs=0.5)
    found = [member_settings(REWARD, settings, member) for member in range(6)]
    assert [one.learning_rate for one in found] == [1e-3, 2e-3] * 3
    assert [one.dropout for one in found] == [0.0, 0.1, 0.2] * 2
    assert {one.epochs for one in found} == {0.5}
    assert member_settings(REWARD, SETTINGS, 3) == REWARD


def test_dropout_is_that_of_everything_in_the_configuration(made, tmp_path):
    tokenizer = RewardEnsemble.load(made.members[0]).tokenizer
    model = new_reward_model(made.backbone, tokenizer, 0, dropout=0.3)
    rates = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {0.3} and model.config.attn_pdrop == 0.3
    assert {m.p for m in new_reward_model(made.backbone, tokenizer, 0).modules()
            if isinstance(m, torch.nn.Dropout)} == {0.1}  # fmt: skip
    for name, rate in (("none", 0.0), ("some", 0.3)):
        train_member(made, SETTINGS.replace(dropouts=[rate]), 5, 1, tmp_path / name)
    assert file_digest(tmp_path / "none") != file_digest(tmp_path / "some")
    config = json.loads((tmp_path / "some" / "config.json").read_text())
    assert config["resid_pdrop"] == 0.3


def test_a_member_that_diverges_is_refused_and_leaves_nothing(made, tmp_path):
    with pytest.raises(InputError, match="finite"):
        train_member(made, SETTINGS.replace(learning_rates=[1e10]), 5, 0, tmp_path / "member")
    assert not list(tmp_path.iterdir())


# --- the ensemble ---------------------------------------------------------------------------------


def test_the_ensemble_is_its_members_side_by_side(made, tmp_path):
    losses = train(made, SETTINGS, 3, 5, 2, tmp_path / "ensemble")
    expected = [RewardEnsemble.load(path)(PROMPTS, RESPONSES).mean for path in made.members]
    found = load_rewards(tmp_path / "ensemble")
    assert isinstance(found, MemberEnsemble)
    close(found(PROMPTS, RESPONSES), Rewards(torch.cat(expected, dim=1)))

    assert list(losses.columns) == ["ensemble", "head", "step", "loss", "accuracy", "split"]
    assert set(losses["ensemble"]) == {2}
    for head, path in enumerate(made.members):
        one = losses[losses["head"] == head].drop(columns=["ensemble", "head"])
        table = pd.read_csv(path / "losses.csv")
        assert set(table["member"]) == {head}
        pd.testing.assert_frame_equal(
            one.reset_index(drop=True), table.drop(columns="member"), check_dtype=False
        )
    config = json.loads((tmp_path / "ensemble" / "config.json").read_text())
    assert [entry["digest"] for entry in config["members"]] == [
        file_digest(path) for path in made.members
    ]


def test_its_files_are_links_and_survive_the_pool(made, tmp_path):
    members = tuple(
        Path(shutil.copytree(path, tmp_path / "pool" / path.name)) for path in made.members
    )
    given = Material(made.preferences, made.backbone, made.reward, members=members)
    (members[0] / ".snakemake_timestamp").write_text("")
    train(given, SETTINGS, 3, 5, 0, tmp_path / "ensemble")
    assert not (tmp_path / "ensemble/member_0/.snakemake_timestamp").exists()
    links = os.stat(tmp_path / "ensemble/member_0/model.safetensors").st_nlink
    assert links == 2
    before = load_rewards(tmp_path / "ensemble")(PROMPTS, RESPONSES).mean
    shutil.rmtree(tmp_path / "pool")
    assert torch.equal(load_rewards(tmp_path / "ensemble")(PROMPTS, RESPONSES).mean, before)


def test_where_there_are_no_links_there_are_copies(made, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    train(made, SETTINGS, 3, 5, 0, tmp_path / "ensemble")
    assert os.stat(tmp_path / "ensemble/member_0/model.safetensors").st_nlink == 1
    load_rewards(tmp_path / "ensemble")


def test_a_member_that_did_not_learn_is_named_and_kept(made, tmp_path, caplog):
    poor = Path(shutil.copytree(made.members[1], tmp_path / "poor"))
    table = pd.read_csv(poor / "losses.csv")
    table.loc[table["split"] == "validation", "accuracy"] = 0.52
    table.assign(member=17).to_csv(poor / "losses.csv", index=False)
    given = Material(made.preferences, made.backbone, made.reward, members=(made.members[0], poor))
    with caplog.at_level(logging.WARNING):
        train(given, SETTINGS, 2, 5, 3, tmp_path / "ensemble")
    (record,) = [record for record in caplog.records if record.name.startswith("prudent")]
    assert "ensemble 3: member 17 of the pool, head 1 here, is right about 0.520" in record.message
    assert load_rewards(tmp_path / "ensemble")(PROMPTS, RESPONSES).members == 2


def test_before_training_they_are_the_fresh_heads_of_the_backbone(made, tmp_path):
    train(made, SETTINGS, 3, 5, 0, tmp_path / "ensemble")
    found = load_rewards(tmp_path / "ensemble").untrained(made.backbone)(PROMPTS, RESPONSES)
    still = MemberSettings(learning_rates=[1e-30])  # the training that changes nothing
    columns = []
    for member in range(3):
        train_member(made, still, 5, member, tmp_path / str(member))
        columns.append(RewardEnsemble.load(tmp_path / str(member))(PROMPTS, RESPONSES).mean)
    close(found, Rewards(torch.cat(columns, dim=1)))


def test_members_of_another_number_or_pool_are_refused(made, tmp_path):
    with pytest.raises(InputError, match="ensemble 0: found 3 members, expected 4"):
        train(made, SETTINGS, 4, 5, 0, tmp_path / "ensemble")
    other = Path(shutil.copytree(made.members[0], tmp_path / "other"))
    config = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 20}))
    given = Material(
        made.preferences, made.backbone, made.reward, members=(*made.members[:2], other)
    )
    train(given, SETTINGS, 3, 5, 0, tmp_path / "ensemble")
    with pytest.raises(InputError, match="member_2: its tokenizer, .* expected members of one"):
        load_rewards(tmp_path / "ensemble")
    with pytest.raises(InputError, match="losses.csv"):
        (other / "losses.csv").unlink()
        train(given, SETTINGS, 3, 5, 0, tmp_path / "again")


@pytest.mark.parametrize(
    "members", [None, [], "member_0", [{}], [{"folder": "../pool"}], [{"folder": 3}]]
)
def test_a_config_without_members_is_refused(tmp_path, members):
    (tmp_path / "config.json").write_text(
        json.dumps({"reward_ensemble": "members", "members": members})
    )
    with pytest.raises(InputError, match=f"{tmp_path}: config.json: members is "):
        load_rewards(tmp_path)


def test_another_backbone_is_not_what_they_began_from(made, tmp_path):
    train(made, SETTINGS, 3, 5, 0, tmp_path / "ensemble")
    other = save_backbone(tmp_path / "bert", "bert")
    with pytest.raises(InputError, match=f"{other}: is not the backbone"):
        load_rewards(tmp_path / "ensemble").untrained(other)


class TestMembers(EnsembleContract):
    """As a kind of ensemble."""

    MEMBERS = 3
    MODEL = "member_1"
    TRAINED = True

    @pytest.fixture(scope="class", params=["gpt2", "bert", "roberta"])
    @classmethod
    def given(cls, request, tmp_path_factory) -> Material:
        folder = tmp_path_factory.mktemp(request.param)
        return pool(material(folder, request.param), folder / "pool", 3)

    @pytest.fixture(scope="class")
    @classmethod
    def backbone(cls, given) -> Path:
        return given.backbone

    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, given, tmp_path_factory) -> Path:
        path = tmp_path_factory.mktemp("ensemble") / "ensemble"
        train(given, SETTINGS, 3, 5, 0, path)
        return path


def test_accuracies_are_shares(made):
    table = pd.read_csv(made.members[0] / "losses.csv")
    assert table["accuracy"].between(0, 1).all() and np.isfinite(table["loss"]).all()
