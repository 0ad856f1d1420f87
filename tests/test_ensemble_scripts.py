"""The scripts of members, of ensembles made of them, and of the diagnosis, from files to files."""

import json
from pathlib import Path

import diagnose_rewards
import numpy as np
import pandas as pd
import pytest
import torch
import train_ensemble
import train_members
import train_replicate
from tiny_material import REWARD, save_backbone, tiny_pairs
from tiny_models import tiny_model, tiny_prompts, tiny_tokenizer
from tiny_rewards import save_reward_model

from prudent import precision
from prudent.errors import InputError
from prudent.policies.settings import SamplingSettings
from prudent.rewards.kinds import members as kind_members
from prudent.rewards.loading import draws_of, load_rewards
from prudent.rewards.material import Material
from prudent.rewards.settings import KINDS, MemberSettings
from prudent.rewards.training import train_reward_model
from prudent.tables import read_csv, read_table, write_parquet

SEED, COUNT, DRAWS = 3, 2, 2
PROMPTS, RESPONSES = tiny_prompts(6), 3
SAID = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with pairs, a backbone, a base model and a pool of members, by the scripts."""
    folder = tmp_path_factory.mktemp("scripts")
    write_parquet(tiny_pairs(), folder / "preferences.parquet", "preferences")
    save_backbone(folder / "backbone")
    pairs = read_table(folder / "preferences.parquet", "preferences")
    train_reward_model(pairs, "train", folder / "backbone", REWARD, SEED, folder / "base")
    for draw in range(DRAWS):
        train_members.main(member_args(folder, *range(draw * COUNT, (draw + 1) * COUNT)))
    return folder


def member_args(folder: Path, *members: int, **changes) -> train_members.Args:
    given = {
        "preferences": folder / "preferences.parquet",
        "backbone": folder / "backbone",
        "checkpoints": folder / f"pool/{members[0]}",
        "settings": KINDS["members"](),
        "reward": REWARD,
        "members": list(members),
        "resume": folder / "resume",
        "seed": SEED,
    }
    return train_members.Args(**given | changes)


def ensemble_args(folder: Path, kind: str, output: Path, **changes) -> train_ensemble.Args:
    given = {
        "preferences": folder / "preferences.parquet",
        "backbone": folder / "backbone",
        "ensemble": output / "ensemble",
        "loss": output / "loss.csv",
        "kind": kind,
        "settings": KINDS[kind]().model_dump(),
        "reward": REWARD,
        "size": COUNT,
        "draws": DRAWS,
        "seed": SEED,
    }
    return train_ensemble.Args(**given | changes)


def pool(folder: Path) -> list[Path]:
    """The folders of the jobs that trained the members."""
    return [folder / f"pool/{draw * COUNT}" for draw in range(DRAWS)]


def members(folder: Path) -> list[Path]:
    return [path for job in pool(folder) for path in draws_of(job)]


# --- Members --------------------------------------------------------------------------------------


def test_a_member_is_what_the_library_trains(files, tmp_path):
    pairs = read_table(files / "preferences.parquet", "preferences")
    given = Material(pairs, files / "backbone", REWARD)
    losses = kind_members.train_member(given, KINDS["members"](), SEED, 1, tmp_path / "one")
    written = read_csv(files / "pool/0/1/losses.csv", "member_losses")
    pd.testing.assert_frame_equal(
        written, losses.reset_index(drop=True), check_dtype=False, rtol=1e-6
    )
    expected, found = (load_rewards(path) for path in (tmp_path / "one", files / "pool/0/1"))
    texts = SAID, [" w7 w9"] * len(SAID)
    assert torch.equal(found(*texts).mean, expected(*texts).mean)
    assert not torch.equal(found(*texts).mean, load_rewards(files / "pool/0/0")(*texts).mean)
    sheet = json.loads((files / "pool/0/1/metadata.json").read_text())
    assert set(sheet["inputs"]) == {"preferences", "backbone"}
    assert (sheet["settings"]["member"], sheet["settings"]["seed"]) == (1, SEED)
    assert sheet["settings"]["learning_rate"] == REWARD.learning_rate


def test_a_member_of_an_average_starts_from_the_base_model(files, tmp_path, monkeypatch):
    settings = MemberSettings(start="base")
    out = {"checkpoints": tmp_path / "one", "settings": settings}
    with pytest.raises(InputError, match="needs a base reward model, and none is given"):
        train_members.main(member_args(files, 0, **out))
    monkeypatch.setattr(precision, "native", lambda device: False)
    reward = REWARD.replace(bfloat16="auto")
    train_members.main(member_args(files, 0, **out, base=files / "base", reward=reward))
    sheet = json.loads((tmp_path / "one/0/metadata.json").read_text())
    assert set(sheet["inputs"]) == {"preferences", "backbone", "base"}
    assert sheet["settings"]["bfloat16"] is False, "what was asked for, and not what was done"


# --- Ensembles ------------------------------------------------------------------------------------


def test_draws_of_members_share_no_member(files, tmp_path):
    args = ensemble_args(files, "members", tmp_path, members=pool(files))
    train_ensemble.main(args)
    texts = SAID, [" w7 w9", " w8 w3", " w10", " w11 w7", " w8", " w12"]
    alone = [load_rewards(path)(*texts).mean[:, 0] for path in members(files)]
    assert len(draws_of(args.ensemble)) == DRAWS
    for draw, path in enumerate(draws_of(args.ensemble)):
        mean = load_rewards(path)(*texts).mean
        for head in range(COUNT):
            expected = alone[draw * COUNT + head]
            torch.testing.assert_close(mean[:, head], expected, rtol=1e-4, atol=1e-5)
        sheet = json.loads((path / "metadata.json").read_text())
        assert set(sheet["inputs"]) == {"preferences", "backbone"}
        assert sheet["settings"]["count"] == COUNT and sheet["settings"]["labels"] == "own"
    losses = read_csv(args.loss, "head_losses")
    places = set(zip(losses["ensemble"], losses["head"], strict=True))
    assert places == {(draw, head) for draw in range(DRAWS) for head in range(COUNT)}


def test_an_average_takes_the_models_of_its_draw(files, tmp_path):
    settings = KINDS["warm"](models=COUNT).model_dump()
    args = ensemble_args(files, "warm", tmp_path, settings=settings, members=pool(files))
    train_ensemble.main(args)
    name = "transformer.h.0.mlp.c_fc.weight"
    single = [load_rewards(path).model.state_dict()[name] for path in members(files)]
    for draw, path in enumerate(draws_of(args.ensemble)):
        ensemble = load_rewards(path)
        assert ensemble.heads == 1
        expected = sum(single[draw * COUNT : (draw + 1) * COUNT]) / COUNT
        torch.testing.assert_close(ensemble.model.state_dict()[name], expected)


@pytest.mark.parametrize("kind", ["adapters", "dropout"])
def test_kinds_that_need_pairs_and_a_backbone_alone(files, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(precision, "native", lambda device: False)
    reward = REWARD.replace(bfloat16="auto")
    args = ensemble_args(files, kind, tmp_path, reward=reward)
    train_ensemble.main(args)
    texts = SAID, [" w7 w9"] * len(SAID)
    first, second = (load_rewards(path)(*texts).mean for path in draws_of(args.ensemble))
    assert first.shape == second.shape == (len(SAID), COUNT)
    assert not torch.allclose(first, second), "the draws are one and the same"
    sheet = json.loads((args.ensemble / "0/metadata.json").read_text())
    assert sheet["settings"]["bfloat16"] is False, "what was asked for, and not what was done"


@pytest.mark.parametrize("kind", ["heads", "gaussian"])
def test_kinds_that_need_features_say_so(files, tmp_path, kind):
    with pytest.raises(InputError, match="needs a base reward model, and none is given"):
        train_ensemble.main(ensemble_args(files, kind, tmp_path))
    with pytest.raises(InputError, match="needs the pairs' features, and none are given"):
        train_ensemble.main(ensemble_args(files, kind, tmp_path, base=files / "base"))


# --- Replicates -----------------------------------------------------------------------------------


def replicate_args(folder: Path, kind: str, output: Path, **changes) -> train_replicate.Args:
    given = {
        "preferences": folder / "preferences.parquet",
        "backbone": folder / "backbone",
        "checkpoint": output / "replicate",
        "loss": output / "loss.csv",
        "kind": kind,
        "settings": KINDS[kind]().model_dump(),
        "reward": REWARD,
        "size": COUNT,
        "models": COUNT if kind in ("members", "warm") else 0,
        "replicate": 1,
        "seed": SEED,
    }
    return train_replicate.Args(**given | changes)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_replicate_is_an_ensemble_of_its_own_of_every_kind(files, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(precision, "native", lambda device: False)
    settings = KINDS[kind](**({"models": COUNT} if kind == "warm" else {})).model_dump()
    reward = REWARD.replace(bfloat16="auto")
    args = replicate_args(files, kind, tmp_path, settings=settings, reward=reward)
    train_replicate.main(args)
    texts = SAID, [" w7 w9"] * len(SAID)
    found = load_rewards(args.checkpoint)(*texts)
    assert found.members == (1 if kind == "warm" else COUNT) and found.mean.isfinite().all()
    losses = read_csv(args.loss, "head_losses")
    # A dropout ensemble has one training.
    heads = 1 if kind == "dropout" else COUNT
    assert set(losses["ensemble"]) == {1} and set(losses["head"]) == set(range(heads))
    sheet = json.loads((args.checkpoint / "metadata.json").read_text())
    assert set(sheet["inputs"]) == {"preferences", "backbone"}
    assert sheet["settings"]["replicate"] == 1
    assert sheet["settings"]["reward"]["bfloat16"] is False


def test_replicates_share_no_backbone_and_come_again(files, tmp_path):
    """Their bodies differ, where draws of one ensemble have one; a second run is the same."""
    bodies = []
    for place, number in (("a", 1), ("b", 1), ("c", 2)):
        args = replicate_args(files, "heads", tmp_path / place, replicate=number)
        train_replicate.main(args)
        bodies.append(load_rewards(args.checkpoint).model.state_dict())
    name = "transformer.h.0.mlp.c_fc.weight"
    first, again, other = (body[name] for body in bodies)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(bodies[0]["score.weight"], bodies[1]["score.weight"])


# --- The diagnosis --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def diagnosed(files, tmp_path_factory) -> diagnose_rewards.Args:
    """A diagnosis of members and of an average, judged by a reward model."""
    folder = tmp_path_factory.mktemp("diagnosis")
    warm = KINDS["warm"](models=COUNT).model_dump()
    for kind, more in (("members", {}), ("warm", {"settings": warm})):
        out = folder / kind
        train_ensemble.main(ensemble_args(files, kind, out, members=pool(files), **more))
    tiny_model("gpt2", 0).save_pretrained(folder / "reference")
    tiny_tokenizer().save_pretrained(folder / "reference")
    table = pd.DataFrame({"prompt": PROMPTS, "source": "here", "tokens": 1, "split": "test"})
    table.loc[len(PROMPTS)] = [" w5", "here", 1, "train"]
    write_parquet(table, folder / "prompts.parquet", "prompts")
    args = diagnose_rewards.Args(
        reference=folder / "reference",
        base=files / "base",
        ensembles=[folder / "members/ensemble", folder / "warm/ensemble"],
        names=["members", "warm"],
        prompts=folder / "prompts.parquet",
        preferences=files / "preferences.parquet",
        samples=folder / "samples.parquet",
        table=folder / "diagnosis.csv",
        kinds=folder / "kinds.csv",
        frequency=folder / "frequency.csv",
        prompt_count=5,
        response_count=RESPONSES,
        reward=REWARD,
        model=str(save_reward_model(folder / "judge", seed=9)),
        sampling=SamplingSettings(response_length=4),
        seed=SEED,
        promised="members",
        backbone=files / "backbone",
    )
    diagnose_rewards.main(args)
    return args


def test_a_diagnosis_has_rows_of_each_ensemble_and_no_promises_of_another_judge(diagnosed):
    table = read_csv(diagnosed.table, "diagnosis")
    assert list(dict.fromkeys(table["ensemble"])) == ["", "members", "warm"]
    assert table[["promised_low", "promised_high"]].isna().all(axis=None)
    kinds = read_csv(diagnosed.kinds, "kinds")
    assert kinds["ensemble"].tolist() == ["members", "warm"]
    ratio = kinds.set_index("ensemble")["sigma_ratio"]
    assert np.isfinite(ratio["members"]) and np.isnan(ratio["warm"])
    # Only the world's judge knows which judgements are rare.
    assert read_csv(diagnosed.frequency, "frequency").empty


def test_its_samples_are_rewarded_by_the_first_ensemble_alone(diagnosed):
    samples = pd.read_parquet(diagnosed.samples)
    assert len(samples) == 5 * RESPONSES * DRAWS * COUNT
    assert sorted(set(samples["prompt_index"])) == [0, 1, 2, 3, 4]
    first = samples[(samples["ensemble"] == 0) & (samples["head"] == 0)]
    assert first["prompt"].tolist() == [prompt for prompt in PROMPTS[:5] for _ in range(RESPONSES)]
    for draw, path in enumerate(draws_of(diagnosed.ensembles[0])):
        mean = load_rewards(path)(first["prompt"].tolist(), first["response"].tolist()).mean
        for head in range(COUNT):
            rows = samples[(samples["ensemble"] == draw) & (samples["head"] == head)]
            expected = mean[:, head].double().numpy()
            np.testing.assert_allclose(rows["reward"], expected, rtol=1e-4, atol=1e-5)
    score = load_rewards(diagnosed.model)(first["prompt"].tolist(), first["response"].tolist()).mean
    np.testing.assert_allclose(first["score"], score[:, 0], rtol=1e-4, atol=1e-4)


def test_a_diagnosis_of_nothing_is_refused(diagnosed, tmp_path):
    from dataclasses import replace

    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: found no draw of an ensemble"):
        diagnose_rewards.main(replace(diagnosed, ensembles=[tmp_path / "empty"], names=["members"]))


def test_replicates_are_diagnosed_as_what_they_are(files, diagnosed, tmp_path):
    """An ensemble each, whose members share a base model, and their first members as one."""
    from dataclasses import replace

    paths = []
    for number in range(3):
        args = replicate_args(files, "heads", tmp_path / str(number), replicate=number)
        train_replicate.main(args)
        paths.append(args.checkpoint)
    written = {name: tmp_path / f"{name}.csv" for name in ("table", "kinds", "frequency")}
    more = {"replicates": paths, "samples": tmp_path / "samples.parquet", **written}
    diagnose_rewards.main(replace(diagnosed, **more))
    names = ["members", "warm", "members, all drawn anew", "members, one of each replicate"]
    kinds = read_csv(tmp_path / "kinds.csv", "kinds")
    assert kinds["ensemble"].tolist() == names
    kept = read_csv(diagnosed.kinds, "kinds")
    pd.testing.assert_frame_equal(kinds.iloc[:2], kept)
    # Its first members are those of the second row, so that one member is as right in both.
    anew, first = kinds.set_index("ensemble").loc[names[2:], "accuracy_member"]
    assert 0 <= anew <= 1 and 0 <= first <= 1
