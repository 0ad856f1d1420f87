"""Heads of a reward ensemble, trained from cached features on one frozen backbone.

2410.23726, section 4: the base model's body is frozen, heads are attached in parallel, and only the
heads are trained, with the sum of their Bradley-Terry losses.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from prudent.checkpoints import load_tensors
from prudent.rewards.ensemble import Heads, RewardEnsemble, save_ensemble
from prudent.rewards.fitting import (
    Measured,
    constants,
    fit_heads,
    fit_to_convergence,
    loss_table,
    measured,
    resamples,
)
from prudent.rewards.losses import bradley_terry
from prudent.rewards.material import Material, draw_labels
from prudent.rewards.settings import HeadSettings
from prudent.seeding import generator


class HeadEnsemble(RewardEnsemble):
    """K heads on one frozen backbone; any sequence classifier is one."""

    def untrained(self, backbone: str | Path | None = None) -> HeadEnsemble | None:
        """The heads before training, on the base model's body; None if they were not kept."""
        path = Path(self.model.name_or_path) / "untrained.safetensors"
        if not path.is_file():
            return None
        found = load_tensors(path, {"weight": self.weight.shape, "offsets": (self.heads,)})
        before = copy.copy(self)
        before.weight, before.bias = found["weight"], -found["offsets"]
        return before


def train(
    material: Material,
    settings: HeadSettings,
    count: int,
    seed: int,
    draw: int,
    output: str | Path,
) -> pd.DataFrame:
    """Trains ensemble ``draw`` of ``count`` heads, writes it, and returns the losses."""
    base, tokenizer, layer, features = material.frozen_base()
    heads = train_heads(
        features.chosen,
        features.rejected,
        features.of("train"),
        features.probability,
        layer,
        settings,
        count,
        seed,
        draw,
    )
    save_ensemble(base, tokenizer, heads, output)
    return heads.losses


def train_heads(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    train: torch.Tensor,
    probability: torch.Tensor,
    base: nn.Linear,
    settings: HeadSettings,
    count: int,
    seed: int,
    ensemble: int,
) -> Heads:
    """Trains one ensemble's heads from features.

    chosen, rejected: features [n, d]; train: bool [n], the others validate; probability: see
    ``draw_labels``; base: the base model's final layer (for ``first`` and for whether heads have a
    bias). The loss is the sum of the K heads' mean losses (2410.23726, section 4), so each head is
    trained as if it were alone. ``losses``: ensemble, head, step, loss, accuracy, split; for heads
    trained to convergence, before (step 0) and after training (step 1).
    """
    signs = draw_labels(probability, seed, ensemble)
    difference = (chosen - rejected).float()
    training = difference[train] * signs[train, None]
    validation = difference[~train]

    init = generator(seed, "heads", ensemble, "init")
    weight = torch.randn(count, difference.shape[1], generator=init) * settings.init_std
    frozen = settings.first == "base"
    if frozen:
        weight[0] = base.weight.detach()[0].float().cpu()
    initial = weight.clone()

    def measure(rows: torch.Tensor) -> Measured:
        margins = torch.einsum("kbd,kd->bk", training[rows], weight)  # of pairs [K, b, d]
        return bradley_terry(margins), (margins.detach() > 0).float().mean(0)

    def validate() -> Measured:
        with torch.no_grad():
            margins = validation @ weight.T
        return bradley_terry(margins), (margins > 0).float().mean(0)

    checked = validate if len(validation) else None
    if settings.ridge is None:
        losses = fit_heads(
            [weight],
            measure,
            checked,
            settings,
            len(training),
            seed,
            "heads",
            ensemble,
            frozen,
        )
    else:
        sample = resamples(settings, count, len(training), seed, "heads", ensemble)

        def measure_all() -> Measured:
            margins = (training @ weight.T).gather(0, sample.T)
            return bradley_terry(margins), (margins > 0).float().mean(0)

        before = measured(0, measure_all, checked)
        weight.copy_(fit_to_convergence(training, sample, settings.ridge))
        losses = loss_table([*before, *measured(1, measure_all, checked)], ensemble)
    weight = weight.detach()
    mean = torch.cat([chosen[train], rejected[train]]).float().mean(0) if settings.center else None
    bias, offsets, began = constants(base, frozen, weight, initial, mean)
    return Heads(weight, bias, offsets, losses, {"weight": initial, "offsets": began})
