"""Draws from the Laplace posterior of a reward model's last layer, as linear heads.

The base model's body is frozen, and its features h give the reward w h. With a Gaussian prior of
precision ``ridge`` and Bradley-Terry's likelihood, the posterior of w is close to a Gaussian around
its mode, whose precision is the Hessian of the negative log posterior (Laplace; 2402.13210 does it
with adapters; RewardUQ, 2602.24040, with the precision of a linear regression). A member is one
draw. The checkpoint is of the kind ``heads``.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from prudent.errors import InputError
from prudent.rewards.ensemble import Heads, save_ensemble
from prudent.rewards.features import PairFeatures
from prudent.rewards.fitting import Measured, constants, fit_to_convergence, loss_table, measured
from prudent.rewards.losses import bradley_terry
from prudent.rewards.material import Material, draw_labels
from prudent.rewards.settings import LastLayerSettings
from prudent.seeding import generator


def train(
    material: Material,
    settings: LastLayerSettings,
    count: int,
    seed: int,
    draw: int,
    output: str | Path,
) -> pd.DataFrame:
    """Draws ensemble ``draw`` of ``count`` heads, writes it, and returns the losses."""
    base, tokenizer, layer, features = material.frozen_base()
    heads = draw_heads(features, layer, settings, count, seed, draw)
    save_ensemble(base, tokenizer, heads, output)
    return heads.losses


def draw_heads(
    features: PairFeatures,
    base: nn.Linear,
    settings: LastLayerSettings,
    count: int,
    seed: int,
    draw: int,
) -> Heads:
    """One ensemble's heads; the untrained heads are the same draws from the prior.

    base: the base model's final layer, which decides whether heads have a bias. ``losses``: of the
    draws from the prior (step 0) and from the posterior (step 1).
    """
    mask = features.of("train")
    if not mask.any():
        raise InputError(
            "the last layer has no training pairs: no row of the preferences is in 'train'"
        )
    signs = draw_labels(features.probability, seed, draw, "last_layer")[mask, None]
    difference = (features.chosen - features.rejected).float()
    training, unseen = difference[mask] * signs, difference[~mask]
    noise = torch.randn(
        count, training.shape[1], generator=generator(seed, "last_layer", draw), dtype=torch.float64
    )
    mode, factor = posterior(training, settings.ridge)
    initial = (noise / settings.ridge**0.5).float()
    # w = mode + L^-T e has the covariance (L L')^-1.
    weight = torch.linalg.solve_triangular(factor.T, noise.T, upper=True).T
    weight = (mode + weight).float()

    def of(pairs: Tensor, heads: Tensor) -> Measured:
        margins = pairs @ heads.T
        return bradley_terry(margins), (margins > 0).float().mean(0)

    records = []
    for step, heads in enumerate((initial, weight)):
        validate = (lambda heads=heads: of(unseen, heads)) if len(unseen) else None
        records += measured(step, lambda heads=heads: of(training, heads), validate)
    sides = torch.cat([features.chosen[mask], features.rejected[mask]]).float()
    mean = sides.mean(0) if settings.center else None
    bias, offsets, began = constants(base, False, weight, initial, mean)
    losses = loss_table(records, draw)
    return Heads(weight, bias, offsets, losses, {"weight": initial, "offsets": began})


def posterior(pairs: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """The mode [d] of a linear head's weights and L [d, d], float64; L L' is the precision.

    pairs: differences of features [n, d], the chosen response's less the rejected one's; ridge: the
    prior's precision. ``InputError`` where the mode is not found.
    """
    pairs = pairs.double()
    mode = fit_to_convergence(pairs, torch.arange(len(pairs))[None], ridge)[0]
    probability = torch.sigmoid(pairs @ mode)
    weighted = pairs * (probability * (1 - probability))[:, None]
    precision = weighted.T @ pairs + ridge * torch.eye(pairs.shape[1], dtype=torch.float64)
    return mode, torch.linalg.cholesky(precision)
