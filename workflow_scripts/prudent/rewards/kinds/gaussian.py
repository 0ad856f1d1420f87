"""Heads that give a mean and a standard deviation of their own (BRME, 2409.15360, section 4).

A head's reward of a response is Gaussian, r = m + s eps with eps ~ N(0, 1): m = w h and s = least +
softplus(v h + c), of the frozen base model's features h. (A softplus grows more slowly than an
exponential where features are large.)

The paper trains m and s with the mean squared error of drawn rewards against a target t, the reward
of its first stage. But E (m + s eps - t)^2 = (m - t)^2 + s^2: whatever the data, the best s is 0,
and the final s depends only on when training stops. Here s is trained on the labels instead. If
both responses' rewards are drawn, the chosen one wins with probability

    P = E sigmoid(m_c - m_r + eps sqrt(s_c^2 + s_r^2)),

and the loss is -log P, with P averaged over ``DRAWS`` reparameterised draws, antithetic pairs,
inside the logarithm. (The average of -log sigmoid, Jensen's bound, would drive s to 0 again.) So s
is larger where labels contradict the means more often. Its level says little: if all s and the
differences of the means grow together, the probabilities hardly change, so the level stays near its
start. Each head's s is aleatoric; the heads' disagreement is the spread of their means.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prudent.checkpoints import load_tensors
from prudent.rewards.ensemble import Heads, RewardEnsemble, save_ensemble
from prudent.rewards.features import BATCH_TOKENS, PairFeatures
from prudent.rewards.fitting import Measured, constants, fit_heads
from prudent.rewards.interface import Rewards
from prudent.rewards.material import Material, draw_labels
from prudent.rewards.settings import GaussianSettings
from prudent.seeding import generator

DRAWS = 16
"""Draws of a pair's rewards at each step."""


class GaussianEnsemble(RewardEnsemble):
    """K heads on one frozen backbone, each with a mean and a standard deviation."""

    std_weight: Tensor
    std_bias: Tensor
    least: Tensor

    @classmethod
    def load(cls, path: str | Path, batch_tokens: int = BATCH_TOKENS) -> GaussianEnsemble:
        """Loads a checkpoint of ``train``: a classifier for K means, and std.safetensors."""
        ensemble = super().load(path, batch_tokens)
        shapes = {"weight": ensemble.weight.shape, "bias": (ensemble.heads,), "least": ()}
        std = load_tensors(Path(path) / "std.safetensors", shapes)
        ensemble.std_weight, ensemble.std_bias = std["weight"], std["bias"]
        ensemble.least = std["least"]
        return ensemble

    def from_features(self, features: Tensor) -> Rewards:
        """Means and standard deviations [B, K] of features [B, d] of this backbone."""
        std = deviations(features, self.std_weight, self.std_bias, self.least)
        return Rewards(self.rewards(features), std, features)

    def untrained(self, backbone: str | Path | None = None) -> GaussianEnsemble | None:
        """The heads before training, on the base model's body; None if they were not kept."""
        path = Path(self.model.name_or_path) / "untrained.safetensors"
        if not path.is_file():
            return None
        wide, one = self.weight.shape, (self.heads,)
        found = load_tensors(
            path, {"weight": wide, "offsets": one, "std_weight": wide, "std_bias": one}
        )
        before = copy.copy(self)
        before.weight, before.bias = found["weight"], -found["offsets"]
        before.std_weight, before.std_bias = found["std_weight"], found["std_bias"]
        return before


def deviations(features: Tensor, weight: Tensor, bias: Tensor, least: float | Tensor) -> Tensor:
    """The heads' standard deviations [n, K] of features [n, d]."""
    return least + F.softplus(features @ weight.T + bias)


def drawn_loss(margins: Tensor, spread: Tensor, noise: Tensor) -> Tensor:
    """-log of the mean over draws of sigmoid(margin + noise spread), [n, K].

    margins: differences of the means [n, K]; spread: sqrt(s_c^2 + s_r^2) [n, K]; noise: standard
    normal draws [draws, n, K].
    """
    draws = F.logsigmoid(margins + noise * spread)
    return math.log(len(noise)) - torch.logsumexp(draws, dim=0)


def antithetic(shape: Sequence[int], draws: torch.Generator) -> Tensor:
    """Standard normal draws [``DRAWS``, *shape]; the second half is the negated first half."""
    half = torch.randn(DRAWS // 2, *shape, generator=draws)
    return torch.cat([half, -half])


def train(
    material: Material,
    settings: GaussianSettings,
    count: int,
    seed: int,
    draw: int,
    output: str | Path,
) -> pd.DataFrame:
    """Trains ensemble ``draw`` of ``count`` heads, writes it, and returns the losses."""
    base, tokenizer, layer, features = material.frozen_base()
    heads, std = train_gaussians(features, layer, settings, count, seed, draw)
    save_ensemble(base, tokenizer, heads, output, "gaussian", std)
    return heads.losses


def train_gaussians(
    features: PairFeatures,
    base: nn.Linear,
    settings: GaussianSettings,
    count: int,
    seed: int,
    draw: int,
) -> tuple[Heads, dict[str, Tensor]]:
    """One ensemble's means, and ``weight``, ``bias`` and ``least`` of their standard deviations.

    base: the base model's final layer (for ``first``, which fixes head 0's mean, and for whether
    heads have a bias). Labels, order and bootstrap are those of the kind ``heads``.
    """
    mask = features.of("train")
    signs = draw_labels(features.probability, seed, draw, "gaussian")[mask, None]
    chosen, rejected = features.chosen.float(), features.rejected.float()
    difference = (chosen - rejected)[mask] * signs
    sides = torch.stack([chosen, rejected])
    training, validation = sides[:, mask], sides[:, ~mask]

    init = generator(seed, "gaussian", draw, "init")
    weight, std_weight = torch.randn(2, count, chosen.shape[1], generator=init) * settings.init_std
    frozen = settings.first == "base"
    if frozen:
        weight[0] = base.weight.detach()[0].float().cpu()
    std_bias = torch.zeros(count)
    weight, std_weight = weight.clone(), std_weight.clone()
    initial = {"weight": weight.clone(), "std_weight": std_weight.clone(), "std_bias": std_bias * 1}
    noise = generator(seed, "gaussian", draw, "noise")

    def spread(pairs: Tensor) -> Tensor:  # of features [2, K, b, d]
        raw = torch.einsum("skbd,kd->sbk", pairs, std_weight) + std_bias
        return (settings.min_std + F.softplus(raw)).square().sum(0).sqrt()

    def measure(rows: Tensor) -> Measured:
        margins = torch.einsum("kbd,kd->bk", difference[rows], weight)
        losses = drawn_loss(margins, spread(training[:, rows]), antithetic(margins.shape, noise))
        return losses.mean(0), (margins.detach() > 0).float().mean(0)

    @torch.no_grad()
    def validate() -> Measured:
        margins = (validation[0] - validation[1]) @ weight.T
        stds = [deviations(side, std_weight, std_bias, settings.min_std) for side in validation]
        draws = antithetic(margins.shape, generator(seed, "gaussian", draw, "validation"))
        losses = drawn_loss(margins, torch.stack(stds).square().sum(0).sqrt(), draws)
        return losses.mean(0), (margins > 0).float().mean(0)

    losses = fit_heads(
        [weight, std_weight, std_bias],
        measure,
        validate if validation.shape[1] else None,
        settings,
        int(mask.sum()),
        seed,
        "gaussian",
        draw,
        frozen,
    )
    mean = training.mean((0, 1)) if settings.center else None
    bias, offsets, initial["offsets"] = constants(base, frozen, weight, initial["weight"], mean)
    std = {"weight": std_weight, "bias": std_bias, "least": torch.tensor(settings.min_std)}
    return Heads(weight, bias, offsets, losses, initial), std
