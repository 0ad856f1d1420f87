"""Heads with a standard deviation of their own: the loss against integrals, and what it teaches."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ensemble_contract import PROMPTS, RESPONSES, FrozenBaseContract, close
from safetensors.torch import load_file, save_file
from scipy import integrate, stats
from tiny_material import tiny_features, tiny_layer
from torch import nn

from prudent.errors import InputError
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import extract
from prudent.rewards.interface import Rewards
from prudent.rewards.kinds.gaussian import (
    DRAWS,
    antithetic,
    deviations,
    drawn_loss,
    train,
    train_gaussians,
)
from prudent.rewards.loading import load_rewards
from prudent.rewards.models import final_linear
from prudent.rewards.settings import GaussianSettings

SETTINGS = GaussianSettings(
    epochs=3, batch_size=16, learning_rate=0.05, weight_decay=0.0, stop_loss=0.0
)


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [-2.0, 0.0, 0.7])
@pytest.mark.parametrize("spread", [1e-3, 0.5, 3.0])
def test_the_loss_is_minus_the_log_of_the_expected_probability(margin, spread):
    def integrand(eps: float) -> float:
        return stats.norm.pdf(eps) / (1 + np.exp(-margin - eps * spread))

    expected = -np.log(integrate.quad(integrand, -12, 12)[0])
    noise = torch.randn(400_000, 1, 1, generator=torch.Generator().manual_seed(0))
    found = drawn_loss(torch.tensor([[margin]]), torch.tensor([[spread]]), noise)
    assert found.item() == pytest.approx(expected, abs=0.004)


def test_draws_come_in_pairs_of_opposite_sign():
    noise = antithetic((5, 3), torch.Generator().manual_seed(0))
    assert noise.shape == (DRAWS, 5, 3)
    assert torch.equal(noise[: DRAWS // 2], -noise[DRAWS // 2 :])


def learned_spread(loss) -> torch.Tensor:
    """The spread [2] that a loss teaches for two sorts of pairs, whose labels are wrong in 2% and
    in 40% of the cases, while the difference of the means is held at 2."""
    draws = torch.Generator().manual_seed(3)
    sort = torch.arange(4000) % 2
    wrong = torch.rand(4000, generator=draws) < torch.tensor([0.02, 0.4])[sort]
    margins = torch.where(wrong, -2.0, 2.0)[:, None]
    raw = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        spread = nn.functional.softplus(raw)[sort][:, None]
        loss(margins, spread, antithetic(margins.shape, draws)).mean().backward()
        optimizer.step()
    return nn.functional.softplus(raw).detach()


def test_the_squared_error_of_drawn_rewards_collapses_the_spread():
    """BRME's second stage: E (m + s eps - t)^2 = (m - t)^2 + s^2, whatever the targets are."""

    def squared(margins, spread, noise):
        return (margins + noise * spread - 2.0).square().mean(0)

    assert (learned_spread(squared) < 0.05).all()


def test_jensens_bound_collapses_it_too():
    def bound(margins, spread, noise):
        return -nn.functional.logsigmoid(margins + noise * spread).mean(0)

    assert (learned_spread(bound) < 0.05).all()


def test_the_likelihood_of_draws_gives_unsure_pairs_the_larger_spread():
    sure, unsure = learned_spread(drawn_loss)
    assert sure < 0.05 and unsure > 3.0
    noise = torch.randn(200_000, 1, 1, generator=torch.Generator().manual_seed(0))
    right = torch.exp(-drawn_loss(torch.tensor([[2.0]]), unsure[None, None], noise)).item()
    assert right == pytest.approx(0.6, abs=0.03)  # as often as the labels are right


# --- training -------------------------------------------------------------------------------------


def fit(settings: GaussianSettings = SETTINGS, draw: int = 0, base: nn.Linear | None = None):
    return train_gaussians(tiny_features(), base or tiny_layer(), settings, 3, 11, draw)


@pytest.mark.parametrize("first", ["fresh", "base"])
@pytest.mark.parametrize("bias", [False, True])
def test_means_are_centred_on_the_training_responses(first, bias):
    heads, _ = fit(SETTINGS.replace(first=first), base=tiny_layer(bias))
    features, mask = tiny_features(), tiny_features().of("train")
    sides = torch.cat([features.chosen[mask], features.rejected[mask]])
    for weight, constant, offsets in (
        (heads.weight, heads.bias if bias else 0.0, heads.offsets),
        (heads.untrained["weight"], 0.0, heads.untrained["offsets"]),
    ):
        rewards = sides @ weight.T + constant - offsets
        torch.testing.assert_close(rewards.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    if first == "base":
        assert torch.equal(heads.weight[0], tiny_layer(bias).weight.detach()[0])


def test_training_lowers_the_loss_and_hangs_on_the_seed_and_the_ensemble():
    heads, std = fit()
    means = heads.losses.groupby(["split", "step"])["loss"].mean()["validation"]
    assert means.iloc[-1] < means.iloc[0] - 0.02
    again, same = fit()
    assert torch.equal(heads.weight, again.weight) and torch.equal(std["weight"], same["weight"])
    assert not torch.equal(heads.weight, fit(draw=1)[0].weight)
    assert not torch.equal(std["weight"], heads.untrained["std_weight"])
    assert std["bias"].abs().min() > 0


def test_the_first_validation_row_is_that_of_the_heads_as_they_began():
    heads, _ = fit()
    features, began = tiny_features(), heads.untrained
    unseen = ~features.of("train")
    difference = (features.chosen - features.rejected)[unseen]
    margins = difference @ began["weight"].T
    stds = [
        deviations(side[unseen], began["std_weight"], began["std_bias"], SETTINGS.min_std)
        for side in (features.chosen, features.rejected)
    ]
    spread = (stds[0] ** 2 + stds[1] ** 2).sqrt()
    noise = torch.randn(100_000, 12, 3, generator=torch.Generator().manual_seed(0))
    expected = drawn_loss(margins, spread, noise).mean(0)
    first = heads.losses[(heads.losses["split"] == "validation") & (heads.losses["step"] == 0)]
    np.testing.assert_allclose(first["loss"], expected, atol=0.03)
    np.testing.assert_allclose(first["accuracy"], (margins > 0).float().mean(0), rtol=1e-6)


def test_losses_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="expected a finite one; .* gaussian.learning_rate"):
        wide = replace(tiny_features(), chosen=tiny_features().chosen * 1e30)
        train_gaussians(wide, tiny_layer(), SETTINGS.replace(learning_rate=1e10), 3, 11, 0)


# --- as a kind of ensemble ------------------------------------------------------------------------


class TestGaussian(FrozenBaseContract):
    @staticmethod
    def train(given, path):
        return train(given, SETTINGS, 3, 5, 1, path)

    def test_it_is_what_was_trained_on_the_base_models_features(self, given, ensemble, rewards):
        base = RewardEnsemble.load(given.base)
        heads, std = train_gaussians(given.features, final_linear(base.model)[1], SETTINGS, 3, 5, 1)
        features = extract(base.model, base.tokenizer, PROMPTS, RESPONSES)
        bias = 0.0 if heads.bias is None else heads.bias
        close(
            rewards,
            Rewards(
                features @ heads.weight.T + bias - heads.offsets,
                deviations(features, std["weight"], std["bias"], SETTINGS.min_std),
                features,
            ),
        )

    @pytest.mark.parametrize("spoil", ["missing", "broken", "shape", "not finite"])
    def test_a_broken_file_of_deviations_is_refused(self, checkpoint, tmp_path, spoil):
        copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
        tensors = load_file(copy / "std.safetensors")
        (copy / "std.safetensors").unlink()
        if spoil == "broken":
            (copy / "std.safetensors").write_bytes(b"std")
        elif spoil == "shape":
            save_file(tensors | {"bias": torch.zeros(2)}, copy / "std.safetensors")
        elif spoil == "not finite":
            save_file(tensors | {"bias": torch.full((3,), torch.nan)}, copy / "std.safetensors")
        with pytest.raises(InputError, match=f"{copy}/std.safetensors: "):
            load_rewards(copy)
