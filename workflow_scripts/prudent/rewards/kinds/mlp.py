"""Small networks on one frozen backbone, each held near its random start (RewardUQ, 2602.24040).

A network of ReLU layers reads the base model's features. Its loss is Bradley-Terry's plus ``pull``
times the mean squared distance of its weights from their initial values. Where the pairs are not
informative a network stays as it began, and there the networks differ. RewardUQ's defaults are two
layers of 128, Xavier's initialisation and a pull of 0.1. We leave out its penalty on rewards that
are not centred, and centre rewards afterwards, as for the other kinds.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from prudent.checkpoints import load_tensors, save_checkpoint, save_tensors
from prudent.errors import InputError
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import BATCH_TOKENS, PairFeatures
from prudent.rewards.fitting import Measured, fit_heads
from prudent.rewards.losses import bradley_terry
from prudent.rewards.material import Material, draw_labels
from prudent.rewards.settings import MLPSettings
from prudent.seeding import generator

FILE = "mlp.safetensors"

Networks = dict[str, Tensor]
"""K networks: ``weight_i`` [K, in, out] and ``bias_i`` [K, out] of layer i, from 0, and
``offsets`` [K], which is subtracted from their outputs."""


class MLPEnsemble(RewardEnsemble):
    """K networks on one frozen backbone, whose own head is kept but not used."""

    networks: Networks

    @classmethod
    def load(cls, path: str | Path, batch_tokens: int = BATCH_TOKENS) -> MLPEnsemble:
        """Loads a checkpoint of ``train``; ``InputError`` if a part is missing or broken."""
        ensemble = super().load(path, batch_tokens)
        ensemble.networks = _load(Path(path) / FILE, ensemble.weight.shape[1])
        return ensemble

    @property
    def heads(self) -> int:
        """The number of networks K."""
        return len(self.networks["offsets"])

    def rewards(self, features: Tensor) -> Tensor:
        """Rewards [B, K] from features [B, d] of this backbone."""
        said = forward(self.networks, features.expand(self.heads, *features.shape))
        return self.finite(said - self.networks["offsets"])

    def untrained(self, backbone: str | Path | None = None) -> MLPEnsemble | None:
        """The networks before training, on the base model's body; None if they were not kept."""
        path = Path(self.model.name_or_path) / "untrained.safetensors"
        if not path.is_file():
            return None
        before = copy.copy(self)
        before.networks = load_tensors(path, {k: v.shape for k, v in self.networks.items()})
        return before


def _load(path: Path, width: int) -> Networks:
    """The networks in a file; ``InputError`` unless they map features of this width to a number."""
    networks = load_tensors(path)
    layers = sum(name.startswith("weight_") for name in networks)
    offsets = networks.get("offsets")
    expected = f"{path}: expected the weights and biases of layers, and an offset for each network"
    if offsets is None or offsets.dim() != 1 or not len(offsets) or not layers:
        raise InputError(expected)
    shapes, wide = {"offsets": list(offsets.shape)}, width
    for layer in range(layers):
        weight = networks.get(f"weight_{layer}")
        if weight is None or weight.dim() != 3:
            raise InputError(expected)
        out = 1 if layer == layers - 1 else weight.shape[2]
        shapes[f"weight_{layer}"] = [len(offsets), wide, out]
        shapes[f"bias_{layer}"] = [len(offsets), out]
        wide = out
    for name, shape in shapes.items():
        found = list(networks[name].shape) if name in networks else "nothing"
        if found != shape:
            raise InputError(f"{path}: {name}: found {found}, expected {shape}")
    return networks


def forward(networks: Networks, features: Tensor) -> Tensor:
    """Outputs [n, K] of K networks for features [K, n, d], each network's own."""
    layers = sum(name.startswith("weight_") for name in networks)
    states = features
    for layer in range(layers):
        states = torch.baddbmm(
            networks[f"bias_{layer}"][:, None], states, networks[f"weight_{layer}"]
        )
        if layer < layers - 1:
            states = states.relu()
    return states[:, :, 0].T


def begin(widths: Sequence[int], count: int, draws: torch.Generator) -> Networks:
    """Networks with these widths, features and output included, by Xavier's normal draws."""
    networks = {"offsets": torch.zeros(count)}
    for layer, (wide, out) in enumerate(zip(widths, widths[1:], strict=False)):
        std = math.sqrt(2 / (wide + out))
        networks[f"weight_{layer}"] = torch.randn(count, wide, out, generator=draws) * std
        networks[f"bias_{layer}"] = torch.zeros(count, out)
    return networks


def train(
    material: Material,
    settings: MLPSettings,
    count: int,
    seed: int,
    draw: int,
    output: str | Path,
) -> pd.DataFrame:
    """Trains ensemble ``draw`` of ``count`` networks, writes it, and returns the losses."""
    base, tokenizer, _, features = material.frozen_base()
    trained, began, losses = train_networks(features, settings, count, seed, draw)

    def more(folder: Path) -> None:
        save_tensors(trained, folder / FILE)
        save_tensors(began, folder / "untrained.safetensors")

    written = copy.copy(base)
    written.config = copy.deepcopy(base.config)
    written.config.reward_ensemble = "mlp"
    save_checkpoint(written, tokenizer, output, more=more)
    return losses


def train_networks(
    features: PairFeatures, settings: MLPSettings, count: int, seed: int, draw: int
) -> tuple[Networks, Networks, pd.DataFrame]:
    """One ensemble's networks after and before their training, and their losses.

    Labels, order and bootstrap are those of the kind ``heads``. Training losses include the pull.
    """
    mask = features.of("train")
    signs = draw_labels(features.probability, seed, draw, "mlp")[mask]
    sides = torch.stack([features.chosen, features.rejected]).float()
    training, unseen = sides[:, mask], sides[:, ~mask]
    widths = [sides.shape[2], *settings.hidden, 1]
    networks = begin(widths, count, generator(seed, "mlp", draw, "init"))
    began = {name: value.clone() for name, value in networks.items()}
    fitted = [name for name in networks if name != "offsets"]
    size = sum(networks[name][0].numel() for name in fitted)

    def margins(pairs: Tensor) -> Tensor:  # [b, K] of features [2, K, b, d]
        return forward(networks, pairs[0]) - forward(networks, pairs[1])

    def measure(rows: Tensor) -> Measured:
        found = margins(training[:, rows]) * signs[rows].T
        moved = [(networks[name] - began[name]).square().flatten(1).sum(1) for name in fitted]
        pull = settings.pull * torch.stack(moved).sum(0) / size
        return bradley_terry(found) + pull, (found.detach() > 0).float().mean(0)

    @torch.no_grad()
    def validate() -> Measured:
        found = margins(unseen[:, None].expand(-1, count, -1, -1))
        return bradley_terry(found), (found > 0).float().mean(0)

    losses = fit_heads(
        [networks[name] for name in fitted],
        measure,
        validate if unseen.shape[1] else None,
        settings,
        int(mask.sum()),
        seed,
        "mlp",
        draw,
    )
    if settings.center:
        responses = training.flatten(0, 1).expand(count, -1, -1)
        for some in (networks, began):
            some["offsets"] = forward(some, responses).mean(0)
    return networks, began, losses
