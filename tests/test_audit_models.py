"""The scores that models give to a file's responses: whose they are, and that they are kept."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from tiny_audit import best_of_four, write_lines
from tiny_material import tiny_pairs
from tiny_rewards import random_texts, reward_tokenizer_of, save_reward_model, tiny_reward_model

from prudent.__main__ import main
from prudent.audit import models
from prudent.audit.command import audit
from prudent.audit.forms import read_labelled
from prudent.audit.measures import BEST_OF_N, BY_BOTH, BY_NORM, BY_UNTRAINED, TIES
from prudent.audit.scores import NORM, UNTRAINED, read_scores
from prudent.checkpoints import save_tensors
from prudent.errors import InputError
from prudent.rewards.ensemble import Heads, save_ensemble
from prudent.rewards.loading import load_rewards
from prudent.tables import file_digest


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A reward model, one of three labels, and an ensemble of heads that kept its initial ones."""
    folder = tmp_path_factory.mktemp("models")
    save_reward_model(folder / "one")
    save_reward_model(folder / "three", "llama", labels=3, seed=1)
    draw = torch.Generator().manual_seed(0)
    weight, before = torch.randn(2, 4, 16, generator=draw)
    untrained = {"weight": before, "offsets": torch.zeros(4)}
    heads = Heads(weight, None, torch.zeros(4), pd.DataFrame(), untrained)
    save_ensemble(
        tiny_reward_model("gpt2", reward_tokenizer_of("gpt2")),
        *(reward_tokenizer_of("gpt2"), heads, folder / "heads"),
    )
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Pairs without scores."""
    frame = tiny_pairs(24, 0)
    return write_lines(
        frame[["prompt", "chosen", "rejected", "id"]].to_dict("records"),
        tmp_path_factory.mktemp("pairs") / "pairs.jsonl",
    )


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """RewardBench 2's form, with words that the models know, and without scores."""
    records = best_of_four(5, 4, members=0)
    texts = iter(random_texts(1000, 5))
    for row in records:
        row["prompt"] = next(texts)
        row |= {side: [f"{next(texts)} w{k + 3}" for k in range(len(row[side]))] for side in SIDES}
    return write_lines(records, tmp_path_factory.mktemp("lists") / "lists.jsonl")


SIDES = ("chosen", "rejected")


def numbers(folder):
    return json.loads((folder / "audit.json").read_text())


def test_all_members_of_all_checkpoints_score_the_pairs(checkpoints, file, monkeypatch):
    monkeypatch.setattr(models, "BLOCK", 7)
    names = [str(checkpoints / name) for name in ("one", "three")]
    labelled = read_labelled(file)
    scored, members = models.score(labelled, names)
    assert members == [names[0], *(f"{names[1]} {k}" for k in range(3))]
    assert scored.known == {}
    prompts = [row.prompt for row in labelled.rows]
    for side in SIDES:
        texts = [getattr(row, side)[0] for row in labelled.rows]
        expected = [load_rewards(name)(prompts, texts).mean.numpy() for name in names]
        found = np.concatenate(getattr(scored, side))
        np.testing.assert_allclose(found, np.concatenate(expected, axis=1), rtol=1e-4, atol=1e-4)


def test_models_that_share_no_features_are_scored_in_blocks(monkeypatch):
    monkeypatch.setattr(models, "BLOCK", 3)

    def reward(prompts, responses):
        assert len(prompts) == len(responses) <= 3
        table = [
            [float(response), float(prompt)]
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        return models.Rewards(torch.tensor(table))

    found = models._rewards(reward, [str(-k) for k in range(8)], list("01234567"), "toy")
    assert found.mean.tolist() == [[k, -k] for k in range(8)]


def test_scores_that_are_kept_have_the_same_audit(checkpoints, file, lists, tmp_path, capsys):
    for name, given, more in (("pairs", file, [BY_NORM, BY_BOTH]), ("lists", lists, [TIES])):
        model = str(checkpoints / "heads")
        main(["audit", str(given), "--model", model, "--output", str(tmp_path / name)])
        kept = tmp_path / name / "scores.parquet"
        assert model in capsys.readouterr().err  # the progress
        audit(kept, tmp_path / f"{name} again")
        one, other = numbers(tmp_path / name), numbers(tmp_path / f"{name} again")
        for key in ("table", "summary", "pairs", "members"):
            assert one[key] == other[key], key
        assert one["members"] == 4
        assert one["settings"]["models"] == model
        assert one["settings"]["members"] == [f"{model} {k}" for k in range(4)]
        assert one["inputs"]["model_0"] == file_digest(model)
        assert {row["quantity"] for row in one["table"]} >= {BY_UNTRAINED, *more}
        tables = [(tmp_path / of / "audit.csv").read_bytes() for of in (name, f"{name} again")]
        assert tables[0] == tables[1]
    assert BEST_OF_N in {row["quantity"] for row in one["table"]}


@pytest.mark.parametrize("form", ["pairs", "lists"])
def test_what_explains_the_spread_of_heads(checkpoints, file, lists, form):
    labelled = read_labelled(file if form == "pairs" else lists)
    scored, _ = models.score(labelled, [str(checkpoints / "heads")])
    found, ensemble = scored.pairs(), load_rewards(checkpoints / "heads")
    chosen, rejected = (ensemble(found.prompts, getattr(found, side)).features for side in SIDES)
    difference = (chosen - rejected).double()
    np.testing.assert_allclose(found.norm, difference.norm(dim=1), rtol=1e-4, atol=1e-5)
    before = difference @ ensemble.untrained().weight.double().T
    np.testing.assert_allclose(found.untrained, before.std(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.margins, difference @ ensemble.weight.double().T, atol=1e-4)


def test_the_spread_before_training_is_left_out_where_it_was_not_kept(checkpoints, file):
    scored, _ = models.score(read_labelled(file), [str(checkpoints / "three")])
    assert list(scored.known) == [NORM]


def test_kept_scores_have_the_form_of_the_file(checkpoints, lists, tmp_path):
    labelled = read_labelled(lists)
    scored, _ = models.score(labelled, [str(checkpoints / "heads")])
    scored.write(tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    sides = [f"{side}_{k}" for k in range(4) for side in SIDES]
    expected = {"prompt", *SIDES, "subset", "id", *sides, NORM, UNTRAINED}
    assert set(table.column_names) == expected
    again = read_scores(tmp_path / "s.parquet")
    np.testing.assert_array_equal(again.margins, scored.pairs().margins)
    assert [choice.tie for choice in again.choices] == [row.tie for row in labelled.rows]


def test_scores_in_the_file_are_not_read_beside_a_model(checkpoints, file, tmp_path):
    records = [json.loads(line) for line in file.read_text().splitlines()]
    path = write_lines([row | {"chosen_0": "x"} for row in records], tmp_path / "a.jsonl")
    audit(path, tmp_path / "out", models=[str(checkpoints / "one")])
    assert numbers(tmp_path / "out")["members"] == 1


def test_a_subset_and_ids_are_kept(checkpoints, tmp_path):
    row = {"question": "w3", "response_A": "w4", "response_B": "w5", "label": "B>A", "source": "s"}
    path = write_lines([row | {"pair_id": "a"}, row | {"pair_id": "b"}], tmp_path / "a.jsonl")
    audit(path, tmp_path, models=[str(checkpoints / "one")])
    kept = pq.read_table(tmp_path / "scores.parquet").to_pydict()
    assert (kept["subset"], kept["id"], kept["chosen"]) == (["s"] * 2, ["a", "b"], ["w5"] * 2)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none/at/all", "none/at/all: no such folder; expected that of a checkpoint"),
        ("empty", "has no config.json; expected the folder of a checkpoint"),
        ("broken", "broken: cannot be loaded as a model: config.json"),
        ("unknown", "config.json: reward_ensemble is 'x'; expected one of heads"),
    ],
)
def test_a_bad_checkpoint_is_one_line_and_status_1(checkpoints, file, tmp_path, capsys, name, says):
    (tmp_path / "empty").mkdir()
    for of in ("broken", "unknown"):
        shutil.copytree(checkpoints / "one", tmp_path / of)
    (tmp_path / "broken/config.json").write_text("{")
    config = json.loads((checkpoints / "one/config.json").read_text())
    (tmp_path / "unknown/config.json").write_text(json.dumps(config | {"reward_ensemble": "x"}))
    model, out = str(tmp_path / name), str(tmp_path / "out")
    with pytest.raises(SystemExit) as ended:
        main(["audit", str(file), "--model", model, "--output", out])
    told = capsys.readouterr().err
    assert ended.value.code == 1 and says in told
    assert told.startswith(f"error: {model}") and told.count("\n") == 1


def test_a_second_checkpoint_that_is_missing_is_seen_before_any_work(checkpoints, file, tmp_path):
    names = [str(checkpoints / "one"), str(tmp_path / "none")]
    with pytest.raises(InputError, match=f"^{re.escape(names[1])}: no such folder"):
        audit(file, tmp_path / "out", models=names)
    assert not (tmp_path / "out").exists()


def test_untrained_heads_of_another_shape_are_one_line(checkpoints, file, tmp_path):
    shutil.copytree(checkpoints / "heads", tmp_path / "heads")
    wrong = {"weight": torch.zeros(2, 2), "offsets": torch.zeros(4)}
    save_tensors(wrong, tmp_path / "heads/untrained.safetensors")
    with pytest.raises(InputError, match=r"untrained.safetensors: weight: found \[2, 2\]"):
        audit(file, tmp_path / "out", models=[str(tmp_path / "heads")])


def test_a_reward_that_is_not_finite_is_named_by_its_row(file, tmp_path, monkeypatch):
    def reward(prompts, responses):
        table = torch.zeros(len(responses), 2)
        table[5, 1] = torch.inf  # the rejected response of the third row
        return models.Rewards(table)

    monkeypatch.setattr(models, "load_rewards", lambda checkpoint: reward)
    with pytest.raises(InputError, match="^m: found the reward inf for row 3, column 'rejected'"):
        models.score(read_labelled(file), ["m"])


def test_the_file_to_read_is_not_overwritten(checkpoints, file, tmp_path):
    audit(file, tmp_path, models=[str(checkpoints / "one")])
    kept = tmp_path / "scores.parquet"
    before = file_digest(kept)
    with pytest.raises(InputError, match="another folder for --output"):
        audit(kept, tmp_path, models=[str(checkpoints / "three")])
    assert file_digest(kept) == before
