"""Heads of a reward ensemble, trained from cached features on one frozen backbone.

2410.23726, section 4: the base model's body is frozen, heads are attached in parallel, and only
they are trained, with the sum of their Bradley-Terry losses. Ten heads are ten labels of one
sequence-classification model, so an ensemble is an ordinary Hugging Face checkpoint.
"""

from __future__ import annotations

import copy
import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prudent.checkpoints import save_checkpoint
from prudent.errors import InputError
from prudent.rewards.losses import bradley_terry
from prudent.rewards.models import final_linear
from prudent.rewards.settings import HeadSettings
from prudent.seeding import generator

logger = logging.getLogger(__name__)


@dataclass
class Heads:
    """Trained heads: weight [K, d], bias [K] or None, offsets [K] to subtract from the logits."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    offsets: torch.Tensor
    losses: pd.DataFrame


def draw_labels(
    probability: torch.Tensor, root: int, ensemble: int, stage: str = "heads"
) -> torch.Tensor:
    """Signs [n] of the pairs' differences for one ensemble: -1 where its fresh label disagrees.

    ``probability`` [n] is that of the stored label under the gold labeller, NaN where the label was
    given. Ensemble 0 keeps the stored labels, which are a draw themselves; the others draw anew.
    """
    signs = torch.ones(len(probability))
    if ensemble > 0:
        draws = torch.rand(
            len(probability), generator=generator(root, stage, ensemble, "labels")
        ).double()
        signs[~probability.isnan() & (draws >= probability.double())] = -1.0
    return signs


def train_heads(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    train: torch.Tensor,
    probability: torch.Tensor,
    base: nn.Linear,
    settings: HeadSettings,
    root: int,
    ensemble: int,
) -> Heads:
    """Trains one ensemble's heads from features.

    chosen, rejected: features [n, d]; train: bool [n], the others validate; probability: see
    ``draw_labels``; base: the base model's final layer (for ``first`` and for whether heads have a
    bias). The loss is the sum of the K heads' mean losses (2410.23726, section 4), so each head is
    trained as if it were alone. ``losses``: ensemble, head, step, loss, accuracy, split.
    """
    if not train.any():
        raise InputError(
            "the heads have no training pairs: no row of the preferences is in 'train'"
        )
    signs = draw_labels(probability, root, ensemble)
    difference = (chosen - rejected).float()
    training = difference[train] * signs[train, None]
    validation = difference[~train]
    count, size = settings.count, len(training)

    init = generator(root, "heads", ensemble, "init")
    weight = torch.randn(count, difference.shape[1], generator=init) * settings.init_std
    frozen = torch.zeros(count, dtype=torch.bool)
    if settings.first == "base":
        weight[0] = base.weight.detach()[0].float().cpu()
        frozen[0] = True
    weight.requires_grad_()
    optimizer = torch.optim.AdamW(
        [weight], lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    steps_an_epoch = math.ceil(size / settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, settings.epochs * steps_an_epoch
    )
    records: list[tuple[int, str, torch.Tensor, torch.Tensor]] = []
    step = 0

    def validate() -> None:
        if len(validation):
            with torch.no_grad():
                margins = validation @ weight.T
            right = (margins > 0).float().mean(0)
            records.append((step, "validation", bradley_terry(margins), right))

    sample = _bootstrap(settings, size, root, ensemble)
    kept = weight.detach()[0].clone()
    for epoch in range(settings.epochs):
        order = _orders(settings, size, root, ensemble, epoch)
        total = torch.zeros(count)
        validate()
        for batch in order.split(settings.batch_size, dim=1):
            pairs = training[sample.gather(1, batch)]  # [K, b, d]
            margins = torch.einsum("kbd,kd->bk", pairs, weight)
            losses = bradley_terry(margins)
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step()
            schedule.step()
            if frozen[0]:
                with torch.no_grad():
                    weight[0] = kept
            step += 1
            detached = losses.detach()
            records.append((step, "train", detached, (margins.detach() > 0).float().mean(0)))
            total += detached * batch.shape[1] / size
        if not total.isfinite().all():
            head = int((~total.isfinite()).nonzero()[0])
            raise InputError(
                f"ensemble {ensemble}, epoch {epoch + 1}: the loss of head {head} is "
                f"{total[head]}, expected a finite one; a smaller heads.learning_rate may help"
            )
        logger.info("ensemble %d, epoch %d: mean loss %.4f", ensemble, epoch + 1, total.mean())
        if total[~frozen].mean() < settings.stop_loss:
            break
    validate()
    final = weight.detach()
    bias = None
    if base.bias is not None:
        bias = torch.where(frozen, base.bias.detach()[0].float().cpu(), 0.0)
    offsets = torch.zeros(count)
    if settings.center:
        offsets = torch.cat([chosen[train], rejected[train]]).float().mean(0) @ final.T
        offsets += 0.0 if bias is None else bias
    losses = pd.DataFrame(
        {
            "ensemble": ensemble,
            "head": np.tile(np.arange(count), len(records)),
            "step": np.repeat([record[0] for record in records], count),
            "loss": torch.cat([record[2] for record in records]).numpy(),
            "accuracy": torch.cat([record[3] for record in records]).numpy(),
            "split": np.repeat([record[1] for record in records], count),
        }
    )
    return Heads(final, bias, offsets, losses)


def _bootstrap(settings: HeadSettings, size: int, root: int, ensemble: int) -> torch.Tensor:
    """Pairs [K, size] that each head is trained on: all of them, or its own resample."""
    if not settings.bootstrap:
        return torch.arange(size).expand(settings.count, -1)
    return torch.stack(
        [
            torch.randint(
                size, (size,), generator=generator(root, "heads", ensemble, "bootstrap", head)
            )
            for head in range(settings.count)
        ]
    )


def _orders(
    settings: HeadSettings, size: int, root: int, ensemble: int, epoch: int
) -> torch.Tensor:
    """The order [K, size] in which each head sees its pairs in this epoch."""
    heads = range(settings.count) if settings.order == "own" else (0,)
    orders = torch.stack(
        [
            torch.randperm(size, generator=generator(root, "heads", ensemble, "order", epoch, head))
            for head in heads
        ]
    )
    return orders.expand(settings.count, -1)


def save_ensemble(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    heads: Heads,
    path: str | Path,
) -> None:
    """Writes the base model with its head replaced by K heads, as a checkpoint with K labels.

    ``config.reward_offsets`` holds what to subtract from the logits for centred rewards.
    """
    name, linear = final_linear(base)
    count, width = heads.weight.shape
    replaced = nn.Linear(width, count, bias=linear.bias is not None)
    with torch.no_grad():
        replaced.weight.copy_(heads.weight)
        if heads.bias is not None:
            replaced.bias.copy_(heads.bias)
    config = base.config
    parent = base.get_submodule(name.rpartition(".")[0]) if "." in name else base
    try:
        setattr(parent, name.rpartition(".")[2], replaced.to(linear.weight.dtype))
        base.config = copy.deepcopy(config)
        base.config.num_labels = count
        base.config.reward_offsets = heads.offsets.tolist()
        save_checkpoint(base, tokenizer, path)
    finally:
        setattr(parent, name.rpartition(".")[2], linear)
        base.config = config
