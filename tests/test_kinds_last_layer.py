"""Draws from the Laplace posterior of the last layer."""

import numpy as np
import pytest
import torch
from ensemble_contract import PROMPTS, RESPONSES, FrozenBaseContract, close
from scipy import integrate
from tiny_material import tiny_features, tiny_layer

from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import extract
from prudent.rewards.interface import Rewards
from prudent.rewards.kinds.last_layer import draw_heads, posterior, train
from prudent.rewards.models import final_linear
from prudent.rewards.settings import LastLayerSettings

SETTINGS = LastLayerSettings(ridge=2.0)


def minus_log_posterior(weight: torch.Tensor, pairs: torch.Tensor, ridge: float) -> torch.Tensor:
    return torch.nn.functional.softplus(-pairs @ weight).sum() + ridge / 2 * weight @ weight


def test_the_mode_and_the_precision_are_those_of_autograd():
    pairs = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)).double() + 0.3
    mode, factor = posterior(pairs, 0.7)
    weight = mode.clone().requires_grad_()
    (slope,) = torch.autograd.grad(minus_log_posterior(weight, pairs, 0.7), weight)
    assert slope.abs().max() < 1e-4
    hessian = torch.autograd.functional.hessian(lambda w: minus_log_posterior(w, pairs, 0.7), mode)
    torch.testing.assert_close(factor @ factor.T, hessian)


def test_with_many_pairs_it_is_the_posterior_itself():
    """One weight, by numerical integration: Laplace's error falls with the number of pairs."""
    pairs = torch.randn(2000, 1, generator=torch.Generator().manual_seed(1)).double() + 0.2
    mode, factor = posterior(pairs, 1.0)
    best = float(minus_log_posterior(mode, pairs, 1.0))

    def density(w: float, power: int) -> float:
        value = float(minus_log_posterior(torch.tensor([w]).double(), pairs, 1.0))
        return w**power * np.exp(best - value)

    low, high = float(mode) - 0.5, float(mode) + 0.5
    total, first, second = (
        integrate.quad(density, low, high, args=(k,), points=[float(mode)])[0] for k in range(3)
    )
    mean = first / total
    assert float(mode) == pytest.approx(mean, abs=2e-3)
    assert 1 / float(factor) == pytest.approx(np.sqrt(second / total - mean**2), rel=0.02)


def test_draws_have_the_posteriors_mean_and_covariance():
    features = tiny_features()
    heads = draw_heads(features, tiny_layer(), SETTINGS, 40_000, 3, 0)
    mask = features.of("train")
    mode, factor = posterior((features.chosen - features.rejected)[mask], SETTINGS.ridge)
    covariance = torch.linalg.inv(factor @ factor.T).numpy()
    np.testing.assert_allclose(heads.weight.mean(0), mode, atol=0.01)
    scale = np.sqrt(np.outer(covariance.diagonal(), covariance.diagonal()))
    np.testing.assert_allclose(np.cov(heads.weight.T) / scale, covariance / scale, atol=0.03)
    before = heads.untrained["weight"]
    np.testing.assert_allclose(np.cov(before.T), np.eye(5) / SETTINGS.ridge, atol=0.02)


@pytest.mark.parametrize("bias", [False, True])
def test_rewards_are_centred_and_labels_and_draws_are_the_ensembles_own(bias):
    features, mask = tiny_features(), tiny_features().of("train")
    sides = torch.cat([features.chosen[mask], features.rejected[mask]])
    heads = draw_heads(features, tiny_layer(bias), SETTINGS, 3, 3, 0)
    for weight, offsets in (
        (heads.weight, heads.offsets),
        (heads.untrained["weight"], heads.untrained["offsets"]),
    ):
        rewards = sides @ weight.T - offsets
        torch.testing.assert_close(rewards.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    again, other = (draw_heads(features, tiny_layer(bias), SETTINGS, 3, 3, draw) for draw in (0, 1))
    assert torch.equal(heads.weight, again.weight)
    assert not torch.allclose(heads.weight, other.weight, rtol=0.01)
    plain = draw_heads(features, tiny_layer(bias), SETTINGS.replace(center=False), 3, 3, 0)
    assert not plain.offsets.any() and (plain.bias is None) == (not bias)


def test_the_table_of_losses_is_before_and_after():
    features = tiny_features()
    heads = draw_heads(features, tiny_layer(), SETTINGS, 3, 3, 0)
    table = heads.losses.groupby(["split", "step"])["loss"].mean()
    assert table["train"].index.tolist() == table["validation"].index.tolist() == [0, 1]
    assert table["train"][1] < table["train"][0]
    mask = features.of("train")
    margins = (features.chosen - features.rejected)[~mask] @ heads.weight.T
    after = heads.losses[(heads.losses["split"] == "validation") & (heads.losses["step"] == 1)]
    np.testing.assert_allclose(
        after["loss"], torch.nn.functional.softplus(-margins).mean(0), rtol=1e-5
    )


class TestLastLayer(FrozenBaseContract):
    @staticmethod
    def train(given, path):
        return train(given, SETTINGS, 3, 5, 1, path)

    def test_it_is_what_was_drawn_on_the_base_models_features(self, given, rewards):
        base = RewardEnsemble.load(given.base)
        heads = draw_heads(given.features, final_linear(base.model)[1], SETTINGS, 3, 5, 1)
        features = extract(base.model, base.tokenizer, PROMPTS, RESPONSES)
        bias = 0.0 if heads.bias is None else heads.bias
        close(rewards, Rewards(features @ heads.weight.T + bias - heads.offsets, None, features))
