"""MC dropout: masks against the model with its dropout modules replaced, text by text."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ensemble_contract import PROMPTS, RESPONSES, EnsembleContract, close
from tiny_material import REWARD, save_backbone, tiny_material, tiny_pairs
from tiny_rewards import reward_tokenizer_of, tiny_reward_model
from torch import nn

from prudent.errors import InputError
from prudent.rewards.ensemble import load_classifier
from prudent.rewards.features import extract
from prudent.rewards.interface import Rewards
from prudent.rewards.kinds.dropout import DropoutEnsemble, mask, train
from prudent.rewards.loading import load_rewards
from prudent.rewards.material import Material
from prudent.rewards.models import final_linear, hidden_dropouts
from prudent.rewards.settings import DropoutSettings
from prudent.rewards.text import encode
from prudent.rewards.training import start_reward_model
from prudent.tables import file_digest

SETTINGS = DropoutSettings(dropout=0.3)
GPT2 = [
    "transformer.drop",
    *(f"transformer.h.{layer}.{part}" for layer in range(2)
      for part in ("attn.resid_dropout", "mlp.dropout")),
]  # fmt: skip
BERT = [
    "bert.embeddings.dropout",
    *(f"bert.encoder.layer.{layer}.{part}.dropout" for layer in range(2)
      for part in ("attention.output", "output")),
    "dropout",
]  # fmt: skip


class Scaled(nn.Module):
    """In place of a dropout module."""

    def __init__(self, factor: torch.Tensor) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states * self.factor


def by_hand(path: Path, member: int) -> torch.Tensor:
    """A member's rewards [n] of the contract's texts, one text at a time."""
    model, tokenizer = load_classifier(path)
    config = json.loads((path / "config.json").read_text())
    rate, stream = config["reward_dropout"], config["reward_stream"]
    for name in hidden_dropouts(model):
        parent = model.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], Scaled(mask(16, rate, stream, name, member)))
    with torch.no_grad():
        rows = encode(tokenizer, PROMPTS, RESPONSES)
        logits = [model(input_ids=torch.tensor([ids])).logits[0, 0] for ids in rows]
    return torch.stack(logits) - config["reward_offsets"][member]


@pytest.mark.parametrize(("kind", "names"), [("gpt2", GPT2), ("bert", BERT), ("llama", [])])
def test_the_modules_that_drop_hidden_states(kind, names):
    model = tiny_reward_model(kind, reward_tokenizer_of(kind))
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        assert hidden_dropouts(model) == dict.fromkeys(names, 16)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_masks_keep_the_mean_and_are_streams_of_their_own():
    one = mask(100_000, 0.3, 7, "a", 0)
    assert one.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert one.mean() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(one, mask(100_000, 0.3, 7, "a", 0))
    for other in (mask(100_000, 0.3, 7, "a", 1), mask(100_000, 0.3, 7, "b", 0),
                  mask(100_000, 0.3, 8, "a", 0)):  # fmt: skip
        both = ((one == 0) & (other == 0)).float().mean()
        assert both == pytest.approx(0.09, abs=0.005)
    assert (mask(50, 0.0, 7, "a", 0) == 1).all()


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Material:
    return tiny_material(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def made(given, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("made") / "ensemble"
    losses = train(given, SETTINGS, 4, 5, 0, path)
    assert list(losses.columns) == ["ensemble", "head", "step", "loss", "accuracy", "split"]
    assert set(losses["ensemble"]) == set(losses["head"]) == {0}
    return path


def test_members_are_centred_on_the_training_responses(given, made):
    rewards = load_rewards(made)(*given.centring_texts(5)).mean
    torch.testing.assert_close(rewards.mean(0), torch.zeros(4), atol=1e-5, rtol=0)


def test_members_do_not_hang_on_how_many_there_are(given, made, tmp_path):
    train(given, SETTINGS, 2, 5, 0, tmp_path / "two")
    found = load_rewards(tmp_path / "two")(PROMPTS, RESPONSES).mean
    torch.testing.assert_close(found, load_rewards(made)(PROMPTS, RESPONSES).mean[:, :2])
    assert file_digest(tmp_path / "two/model.safetensors") == file_digest(
        made / "model.safetensors"
    )


def test_without_dropout_every_member_is_the_plain_model(made, tmp_path):
    path = Path(shutil.copytree(made, tmp_path / "copy"))
    config = json.loads((path / "config.json").read_text())
    offsets = torch.tensor(config["reward_offsets"])
    model, tokenizer = load_classifier(path)
    with torch.no_grad():
        plain = final_linear(model)[1](extract(model, tokenizer, PROMPTS, RESPONSES))
    for rate, tolerance in ((0.0, 1e-6), (1e-9, 1e-6)):
        (path / "config.json").write_text(json.dumps(config | {"reward_dropout": rate}))
        found = load_rewards(path)(PROMPTS, RESPONSES).mean + offsets
        torch.testing.assert_close(found, plain.expand(-1, 4), atol=tolerance, rtol=1e-6)
    # And with few units dropped the members' mean comes near, as their number grows.
    many = DropoutEnsemble(model, tokenizer, 300, 0.02, 3, torch.zeros(300))(PROMPTS, RESPONSES)
    near = (many.mean.mean(1) - plain[:, 0]).abs().mean()
    assert near < 0.5 * (many.mean - plain).abs().mean()


def test_the_model_is_trained_with_dropout_on_labels_of_its_own(given, made, tmp_path):
    config = json.loads((made / "config.json").read_text())
    assert config["resid_pdrop"] == config["attn_pdrop"] == 0.3
    digests = [file_digest(made / "model.safetensors")]
    for name, settings, draw in (
        ("less", SETTINGS.replace(dropout=0.1), 0),
        ("longer", SETTINGS.replace(epochs=2.0), 0),
        ("other", SETTINGS, 1),
    ):
        train(given, settings, 2, 5, draw, tmp_path / name)
        digests.append(file_digest(tmp_path / name / "model.safetensors"))
    assert len(set(digests)) == 4
    train(given, SETTINGS, 4, 5, 0, tmp_path / "again")
    assert file_digest(tmp_path / "again") == file_digest(made)


def test_an_architecture_that_drops_nothing_gets_it_on_its_features(tmp_path):
    backbone = save_backbone(tmp_path / "backbone", "llama")
    model, tokenizer = start_reward_model(backbone, REWARD.replace(dropout=0.3), 0)
    batch = {"input_ids": torch.tensor([[3, 4, 5]])}
    with torch.no_grad():
        logits = [model.train()(**batch).logits.item() for _ in range(4)]
        assert len(set(logits)) == 4
        assert len({model.eval()(**batch).logits.item() for _ in range(2)}) == 1

    given = Material(tiny_pairs(), backbone, REWARD)
    train(given, SETTINGS, 4, 5, 0, tmp_path / "ensemble")
    model, tokenizer = load_classifier(tmp_path / "ensemble")
    features, weight = extract(model, tokenizer, PROMPTS, RESPONSES), model.score.weight[0]
    stream, offsets = model.config.reward_stream, torch.tensor(model.config.reward_offsets)
    masks = torch.stack([mask(16, 0.3, stream, "features", k) for k in range(4)])
    expected = torch.einsum("nd,kd,d->nk", features, masks, weight.detach()) - offsets
    close(load_rewards(tmp_path / "ensemble")(PROMPTS, RESPONSES), Rewards(expected))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reward_members", 0),
        ("reward_members", True),
        ("reward_members", None),
        ("reward_dropout", 1.0),
        ("reward_dropout", "0.1"),
        ("reward_stream", -1),
        ("reward_stream", 0.5),
        ("reward_offsets", [0.0]),
        ("reward_offsets", [0.0, 0.0, 0.0, "0"]),
    ],
)
def test_a_config_that_does_not_say_how_is_refused(made, tmp_path, key, value):
    path = Path(shutil.copytree(made, tmp_path / "copy"))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(InputError, match=rf"{path}: config\.(json: )?{key} is "):
        load_rewards(path)


def test_a_training_that_diverges_leaves_nothing(given, tmp_path):
    wild = replace(given, reward=REWARD.replace(learning_rate=1e10))
    with pytest.raises(InputError, match="finite"):
        train(wild, SETTINGS, 2, 5, 0, tmp_path / "ensemble")
    assert not list(tmp_path.iterdir())


class TestDropout(EnsembleContract):
    """As a kind of ensemble."""

    TRAINED = True

    @pytest.fixture(scope="class", params=["gpt2", "llama", "bert", "roberta"])
    @classmethod
    def kind(cls, request) -> str:
        return request.param

    @pytest.fixture(scope="class")
    @classmethod
    def backbone(cls, kind, tmp_path_factory) -> Path:
        return save_backbone(tmp_path_factory.mktemp(kind) / "backbone", kind)

    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, backbone, tmp_path_factory) -> Path:
        path = tmp_path_factory.mktemp("ensemble") / "ensemble"
        train(Material(tiny_pairs(), backbone, REWARD), SETTINGS, 4, 5, 0, path)
        return path

    def test_members_are_the_model_with_its_modules_replaced(self, kind, checkpoint, rewards):
        if kind == "llama":
            pytest.skip("has no modules")
        expected = torch.stack([by_hand(checkpoint, member) for member in range(4)], dim=1)
        close(rewards, Rewards(expected))

    def test_reading_leaves_the_model_as_it_was(self, ensemble):
        before = copy.deepcopy(ensemble.model.state_dict())
        ensemble(PROMPTS, RESPONSES)
        after = ensemble.model.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in before.items())
        assert not any(module._forward_pre_hooks for module in ensemble.model.modules())
