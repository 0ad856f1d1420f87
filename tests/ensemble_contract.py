"""What every kind of reward ensemble has to do, whatever it is made of.

A kind's tests inherit from `EnsembleContract` and give a checkpoint of `MEMBERS` members.
"""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_material import tiny_material
from tiny_rewards import random_texts

from prudent.errors import InputError
from prudent.rewards.interface import Rewards
from prudent.rewards.loading import load_rewards
from prudent.rewards.material import Material

PROMPTS, RESPONSES = random_texts(17, seed=3), random_texts(17, seed=4)

NO_TEXTS = [
    (["w3"], [], "found 1 prompts and 0 responses, expected a response for each prompt"),
    (["w3", "w4"], ["w5"], "found 2 prompts and 1 responses"),
    ("w3", ["w4"], "prompts: found str, expected a list of texts"),
    (["w3"], "w4", "responses: found str, expected a list of texts"),
    (None, ["w4"], "prompts: found NoneType, expected a list of texts"),
    ({"w3": 1}, ["w4"], "prompts: found dict, expected a list of texts"),
    (["w3"], [None], r"responses\[0\]: found NoneType, expected a text"),
    (["w3"], [float("nan")], r"responses\[0\]: found float, expected a text"),
    ([{"role": "user"}], ["w4"], r"prompts\[0\]: found dict, expected a text or a list of mes"),
    ([[{"role": "user"}]], ["w4"], r"prompts\[0\]: found \{'role': 'user'\}, expected a role"),
    ([[]], ["w4"], r"prompts\[0\]: found list, expected a text or a list of messages"),
    (["half \ud800"], ["w4"], r"prompts\[0\]: found 'half \\ud800', expected Unicode text"),
    (["w3"], [b"w4"], r"responses\[0\]: found bytes, expected a text"),
]
BROKEN = {
    "no config": lambda path, _: (path / "config.json").unlink(),
    "no weights": lambda _, model: (model / "model.safetensors").unlink(),
    "no tokenizer": lambda _, model: (model / "tokenizer.json").unlink(),
    "broken config": lambda path, _: (path / "config.json").write_text("{"),
    "broken weights": lambda _, model: (model / "model.safetensors").write_bytes(b"weights"),
    "broken tokenizer": lambda _, model: (model / "tokenizer.json").write_text("{}"),
    "unknown kind": lambda path, _: (path / "config.json").write_text(
        '{"reward_ensemble": ["heads"], "model_type": "gpt2"}'
    ),
    "nothing": lambda path, _: [shutil.rmtree(path), path.mkdir()],
}


def close(found: Rewards, expected: Rewards) -> None:
    """Up to rounding: sums go another way in batches of another size."""
    for name in ("mean", "std", "features"):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None)
        if one is not None:
            scale = float(other.abs().max()) if other.numel() else 0.0
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * scale + 1e-6)


def rows(rewards: Rewards, chosen: Any) -> Rewards:
    parts = (rewards.mean, rewards.std, rewards.features)
    return Rewards(*(None if part is None else part[chosen] for part in parts))


class EnsembleContract:
    """The tests; subclasses have a fixture ``checkpoint`` of class scope."""

    MEMBERS = 4
    MODEL = "."
    """The folder in the checkpoint that holds a model and a tokenizer."""
    TRAINED = False
    """Whether a fixture ``backbone`` has what the members were trained from."""

    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls) -> Path:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def ensemble(cls, checkpoint) -> Any:
        return load_rewards(checkpoint)

    @pytest.fixture(scope="class")
    @classmethod
    def rewards(cls, ensemble) -> Rewards:
        return ensemble(PROMPTS, RESPONSES)

    def test_shapes_and_types(self, rewards):
        assert rewards.mean.shape == (17, self.MEMBERS) and rewards.members == self.MEMBERS
        if rewards.std is not None:
            assert rewards.std.shape == rewards.mean.shape and (rewards.std >= 0).all()
        if rewards.features is not None:
            assert rewards.features.ndim == 2 and len(rewards.features) == 17
        for part in (rewards.mean, rewards.std, rewards.features):
            if part is not None:
                assert part.dtype == torch.float32 and part.device.type == "cpu"
                assert part.isfinite().all() and not part.requires_grad

    def test_members_differ_and_so_do_texts(self, rewards):
        assert (rewards.spread() > 0).all()
        assert (rewards.mean.std(dim=0) > 0).all()

    def test_the_same_texts_get_the_same_bits(self, ensemble, rewards):
        again = ensemble(PROMPTS, RESPONSES)
        assert torch.equal(again.mean, rewards.mean)
        if rewards.std is not None:
            assert torch.equal(again.std, rewards.std)

    def test_order_changes_nothing(self, ensemble, rewards):
        order = torch.randperm(17, generator=torch.Generator().manual_seed(0)).tolist()
        shuffled = ensemble([PROMPTS[i] for i in order], [RESPONSES[i] for i in order])
        close(shuffled, rows(rewards, order))

    def test_padding_and_company_change_nothing(self, ensemble, rewards):
        for row in range(17):
            close(ensemble([PROMPTS[row]], [RESPONSES[row]]), rows(rewards, [row]))
        longest = max(RESPONSES, key=len)
        close(rows(ensemble(["w3", *PROMPTS], [longest * 2, *RESPONSES]), slice(1, None)), rewards)

    def test_no_texts_are_no_rewards(self, ensemble, rewards):
        empty = ensemble([], [])
        close(empty, rows(rewards, slice(0, 0)))
        assert empty.mean.shape == (0, self.MEMBERS)

    def test_texts_may_be_arrays_columns_and_messages(self, ensemble, rewards):
        for prompts, responses in (
            (np.array(PROMPTS), np.array(RESPONSES)),
            (pd.Series(PROMPTS, index=range(3, 20)), tuple(RESPONSES)),
            (iter(PROMPTS), iter(RESPONSES)),
            ([[{"role": "user", "content": prompt}] for prompt in PROMPTS], RESPONSES),
        ):
            assert torch.equal(ensemble(prompts, responses).mean, rewards.mean)

    @pytest.mark.parametrize(("prompts", "responses", "says"), NO_TEXTS)
    def test_what_is_no_text_is_refused(self, ensemble, prompts, responses, says):
        with pytest.raises(InputError, match=says):
            ensemble(prompts, responses)

    def test_a_copy_elsewhere_is_the_same_ensemble(self, checkpoint, rewards, tmp_path):
        copy = shutil.copytree(checkpoint, tmp_path / "copy")
        assert torch.equal(load_rewards(copy)(PROMPTS, RESPONSES).mean, rewards.mean)

    @pytest.mark.parametrize("fault", BROKEN)
    def test_a_broken_checkpoint_is_refused(self, checkpoint, tmp_path, fault):
        copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
        BROKEN[fault](copy, copy / self.MODEL)
        with pytest.raises(InputError) as error:
            load_rewards(copy)
        assert re.match(rf"{copy}(/\S+)?: ", str(error.value))

    def test_no_checkpoint_is_refused(self, tmp_path):
        with pytest.raises(InputError, match=f"{tmp_path / 'none'}: "):
            load_rewards(tmp_path / "none")

    def test_before_its_training_it_is_another_ensemble_of_as_many(
        self, request, ensemble, rewards
    ):
        if not self.TRAINED:
            pytest.skip("the weights are random")
        before = ensemble.untrained(request.getfixturevalue("backbone"))
        found = before(PROMPTS, RESPONSES)
        assert found.mean.shape == (17, self.MEMBERS) and found.mean.dtype == torch.float32
        assert (found.std is None) == (rewards.std is None)
        assert found.mean.isfinite().all() and (found.spread() > 0).all()
        assert not torch.allclose(found.mean, rewards.mean, rtol=1e-3)
        assert torch.equal(before(PROMPTS, RESPONSES).mean, found.mean)
        close(before(PROMPTS[3:4], RESPONSES[3:4]), rows(found, [3]))
        # The trained ensemble is not touched.
        assert torch.equal(ensemble(PROMPTS, RESPONSES).mean, rewards.mean)

    def test_a_broken_file_of_what_it_was_before_is_refused(self, request, checkpoint, tmp_path):
        if not self.TRAINED:
            pytest.skip("the weights are random")
        copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
        (file, *_) = sorted(copy.rglob("untrained.safetensors"))
        file.write_bytes(b"heads")
        with pytest.raises(InputError, match=f"{file}: not a readable safetensors file"):
            load_rewards(copy).untrained(request.getfixturevalue("backbone"))
        file.unlink()
        assert load_rewards(copy).untrained(request.getfixturevalue("backbone")) is None


class FrozenBaseContract(EnsembleContract):
    """Of members on the frozen body of a base model, trained in draw 1 of seed 5."""

    MEMBERS = 3
    TRAINED = True

    @staticmethod
    def train(given: Material, path: Path) -> pd.DataFrame:
        raise NotImplementedError

    @pytest.fixture(scope="class", params=["gpt2", "bert"])
    @classmethod
    def given(cls, request, tmp_path_factory) -> Material:
        return tiny_material(tmp_path_factory.mktemp(request.param), request.param)

    @pytest.fixture(scope="class")
    @classmethod
    def backbone(cls, given) -> Path:
        return given.backbone

    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, given, tmp_path_factory) -> Path:
        path = tmp_path_factory.mktemp("ensemble") / "ensemble"
        losses = cls.train(given, path)
        assert set(losses["ensemble"]) == {1} and set(losses["head"]) == {0, 1, 2}
        assert losses["loss"].notna().all()
        return path

    def test_material_without_what_it_needs_is_refused(self, given, tmp_path):
        missing = {"base": "base reward model", "features": "the pairs' features"}
        for name, says in missing.items():
            with pytest.raises(InputError, match=f"this kind of ensemble needs .*{says}"):
                self.train(replace(given, **{name: None}), tmp_path / "ensemble")

    def test_without_training_pairs_it_is_refused(self, given, tmp_path):
        features = replace(given.features, split=["validation"] * len(given.features.split))
        with pytest.raises(InputError, match="no training pairs"):
            self.train(replace(given, features=features), tmp_path / "ensemble")
