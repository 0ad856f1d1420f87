"""Small networks on the frozen base model, and their pull to where they began."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ensemble_contract import PROMPTS, RESPONSES, FrozenBaseContract, close
from safetensors.torch import load_file, save_file
from tiny_material import tiny_features
from torch import nn

from prudent.errors import InputError
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import extract
from prudent.rewards.interface import Rewards
from prudent.rewards.kinds.mlp import begin, forward, train, train_networks
from prudent.rewards.loading import load_rewards
from prudent.rewards.settings import MLPSettings

SETTINGS = MLPSettings(
    hidden=[6, 4], epochs=3, batch_size=16, learning_rate=0.02, weight_decay=0.0, stop_loss=0.0
)


def as_module(networks: dict[str, torch.Tensor], network: int) -> nn.Sequential:
    """One network as torch's own layers."""
    parts: list[nn.Module] = []
    for layer in range(sum(name.startswith("weight_") for name in networks)):
        weight, bias = (networks[f"{part}_{layer}"][network] for part in ("weight", "bias"))
        linear = nn.Linear(*weight.shape)
        linear.weight, linear.bias = nn.Parameter(weight.T.clone()), nn.Parameter(bias.clone())
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def test_networks_are_torchs_and_begin_as_xavier_says():
    networks = begin([300, 200, 1], 3, torch.Generator().manual_seed(0))
    networks["bias_0"] += 0.1
    features = torch.randn(3, 5, 300, generator=torch.Generator().manual_seed(1))
    found = forward(networks, features)
    expected = torch.cat([as_module(networks, k)(features[k]) for k in range(3)], dim=1)
    torch.testing.assert_close(found, expected)
    assert networks["weight_0"].std().item() == pytest.approx(math.sqrt(2 / 500), rel=0.02)
    assert not torch.equal(networks["weight_0"][0], networks["weight_0"][1])


def test_training_is_that_of_each_network_alone_with_torchs_layers():
    """The same steps by autograd on torch's modules: loss, pull, optimizer and schedule."""
    settings = SETTINGS.replace(pull=2.0, batch_size=48, epochs=4)
    features = tiny_features()
    trained, began, losses = train_networks(features, settings, 3, 11, 0)
    mask = features.of("train")
    chosen, rejected = features.chosen[mask], features.rejected[mask]
    for k in range(3):
        module, start = as_module(began, k), as_module(began, k)
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.02, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
        for step in range(4):
            margins = module(chosen) - module(rejected)
            moved = [
                (one - other.detach()).flatten() ** 2
                for one, other in zip(module.parameters(), start.parameters(), strict=True)
            ]
            loss = nn.functional.softplus(-margins).mean() + 2.0 * torch.cat(moved).mean()
            of_head = losses[(losses["head"] == k) & (losses["split"] == "train")]
            assert of_head["loss"].iloc[step] == pytest.approx(loss.item(), rel=1e-4)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        found = as_module(trained, k)
        for one, other in zip(found.parameters(), module.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def moved(pull: float) -> float:
    trained, began, _ = train_networks(
        tiny_features(), SETTINGS.replace(pull=pull, epochs=20), 3, 11, 0
    )
    return float((trained["weight_0"] - began["weight_0"]).abs().mean())


def test_a_stronger_pull_keeps_networks_nearer_to_where_they_began():
    assert moved(0.0) > 2 * moved(10.0) > 4 * moved(1000.0)


def test_training_hangs_on_the_seed_and_the_ensemble_and_learns():
    trained, began, losses = train_networks(tiny_features(), SETTINGS, 3, 11, 0)
    means = losses.groupby(["split", "step"])["loss"].mean()["validation"]
    assert means.iloc[-1] < means.iloc[0] - 0.02
    again = train_networks(tiny_features(), SETTINGS, 3, 11, 0)[0]
    other = train_networks(tiny_features(), SETTINGS, 3, 11, 1)[0]
    assert all(torch.equal(trained[name], again[name]) for name in trained)
    assert not torch.equal(trained["weight_0"], other["weight_0"])
    features, mask = tiny_features(), tiny_features().of("train")
    sides = torch.cat([features.chosen[mask], features.rejected[mask]])
    for networks in (trained, began):
        rewards = forward(networks, sides.expand(3, -1, -1)) - networks["offsets"]
        torch.testing.assert_close(rewards.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    plain = train_networks(tiny_features(), SETTINGS.replace(center=False), 3, 11, 0)[0]
    assert not plain["offsets"].any()


class TestMLP(FrozenBaseContract):
    @staticmethod
    def train(given, path):
        return train(given, SETTINGS, 3, 5, 1, path)

    def test_it_is_what_was_trained_on_the_base_models_features(self, given, ensemble, rewards):
        base = RewardEnsemble.load(given.base)
        networks, _, losses = train_networks(given.features, SETTINGS, 3, 5, 1)
        features = extract(base.model, base.tokenizer, PROMPTS, RESPONSES)
        said = forward(networks, features.expand(3, -1, -1)) - networks["offsets"]
        close(rewards, Rewards(said, features=features))
        assert ensemble.heads == 3 and set(losses["head"]) == {0, 1, 2}
        assert np.isfinite(losses["loss"]).all()

    @pytest.mark.parametrize(
        ("spoil", "says"),
        [
            (lambda t: t.pop("weight_1"), "expected the weights and biases of layers"),
            (lambda t: t.pop("offsets"), "expected the weights and biases of layers"),
            (lambda t: t.pop("bias_2"), "bias_2: found nothing, expected [3, 1]"),
            (lambda t: t.update(bias_0=torch.zeros(3, 5)), "bias_0: found [3, 5], expected [3, 6]"),
            (lambda t: t.update(weight_2=torch.zeros(3, 4, 2)), "weight_2: found [3, 4, 2]"),
            (lambda t: t.update(offsets=torch.full((3,), torch.nan)), "not finite"),
        ],
    )
    def test_a_broken_file_of_networks_is_refused(self, checkpoint, tmp_path, spoil, says):
        copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
        tensors = load_file(copy / "mlp.safetensors")
        spoil(tensors)
        save_file(tensors, copy / "mlp.safetensors")
        with pytest.raises(InputError) as error:
            load_rewards(copy)
        assert str(copy / "mlp.safetensors") in str(error.value) and says in str(error.value)
