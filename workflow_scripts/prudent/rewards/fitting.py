"""Trains K heads at once from cached features, each as if it were alone."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor, nn

from prudent.errors import InputError
from prudent.rewards.settings import HeadFitting
from prudent.seeding import generator

logger = logging.getLogger(__name__)

Measured = tuple[Tensor, Tensor]
"""Each head's loss [K] and accuracy [K]."""

Record = tuple[int, str, Tensor, Tensor]
"""Step, split, losses [K], accuracies [K]."""


def fit_heads(
    parameters: Sequence[Tensor],
    measure: Callable[[Tensor], Measured],
    validate: Callable[[], Measured] | None,
    settings: HeadFitting,
    size: int,
    seed: int,
    stage: str,
    draw: int,
    frozen: bool = False,
) -> pd.DataFrame:
    """Trains ``parameters`` [K, ...] in place and returns ensemble, head, step, loss, accuracy,
    split.

    measure: maps the row numbers [K, b] of each head's training pairs, out of ``size``, to losses
    and accuracies; the sum of the losses is minimised (AdamW, cosine schedule). validate: the same
    on the validation pairs, None if there are none. frozen: whether row 0 of the first parameter
    stays fixed and does not count for ``stop_loss``.
    """
    if not size:
        raise InputError(
            "the heads have no training pairs: no row of the preferences is in 'train'"
        )
    first = parameters[0]
    count = len(first)
    for parameter in parameters:
        parameter.requires_grad_()
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    steps_an_epoch = math.ceil(size / settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, settings.epochs * steps_an_epoch
    )
    records: list[Record] = []
    step = 0

    def record(split: str, found: Measured) -> None:
        records.append((step, split, found[0].detach(), found[1].detach()))

    sample = resamples(settings, count, size, seed, stage, draw)
    kept = first.detach()[0].clone()
    for epoch in range(settings.epochs):
        order = _orders(settings, count, size, seed, stage, draw, epoch)
        total = torch.zeros(count)
        if validate is not None:
            record("validation", validate())
        for batch in order.split(settings.batch_size, dim=1):
            losses, right = measure(sample.gather(1, batch))
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step()
            schedule.step()
            if frozen:
                with torch.no_grad():
                    first[0] = kept
            step += 1
            record("train", (losses, right))
            total += losses.detach() * batch.shape[1] / size
        if not total.isfinite().all():
            head = int((~total.isfinite()).nonzero()[0])
            raise InputError(
                f"ensemble {draw}, epoch {epoch + 1}: the loss of head {head} is "
                f"{total[head]}, expected a finite one; a smaller {stage}.learning_rate may help"
            )
        logger.info("ensemble %d, epoch %d: mean loss %.4f", draw, epoch + 1, total.mean())
        if total[int(frozen) :].mean() < settings.stop_loss:
            break
    if validate is not None:
        record("validation", validate())
    for parameter in parameters:
        parameter.requires_grad_(False)
    return loss_table(records, draw)


def fit_to_convergence(pairs: Tensor, sample: Tensor, ridge: float) -> Tensor:
    """The weights [K, d] that minimise each head's loss, in float64.

    A head's loss is the sum of the Bradley-Terry losses of its pairs plus ridge / 2 |w|^2, and is
    strictly convex. pairs: differences of features [n, d], the chosen response's less the rejected
    one's; sample: the row numbers [K, n] of each head's pairs, possibly repeated. ``InputError``
    where a head does not converge.
    """
    difference = pairs.double().numpy()
    weights = []
    for head, numbers in enumerate(sample.numpy()):
        times = np.bincount(numbers, minlength=len(difference)).astype(float)

        def loss(weight: np.ndarray, times: np.ndarray = times) -> tuple[float, np.ndarray]:
            margin = difference @ weight
            value = times @ np.logaddexp(0, -margin) + ridge / 2 * weight @ weight
            return value, ridge * weight - (times * expit(-margin)) @ difference

        found = minimize(
            loss,
            np.zeros(difference.shape[1]),
            jac=True,
            method="L-BFGS-B",
            # Only the gradient, a sum over pairs, decides whether a head has converged.
            options={"gtol": 1e-7 * max(times.sum(), 1), "ftol": 0.0, "maxiter": 10_000},
        )
        slope = np.abs(found.jac).max()
        if not slope <= 1e-4 * max(times.sum(), 1):
            raise InputError(
                f"head {head} did not converge: {found.message}, the loss's largest slope is "
                f"{slope:.2g}; a larger ridge than {ridge:g} may help"
            )
        weights.append(torch.from_numpy(found.x))
    return torch.stack(weights)


def constants(
    base: nn.Linear, frozen: bool, weight: Tensor, initial: Tensor, mean: Tensor | None
) -> tuple[Tensor | None, Tensor, Tensor]:
    """The constants of the heads' rewards: the bias [K] (None if the base model's final layer has
    none), the offsets to subtract from the logits [K], and those before training, bias included.

    weight, initial: the heads [K, d] after and before training. mean: of the features [d], on which
    rewards are centred; None does not centre. frozen: whether head 0 is the base model's.
    """
    count = len(weight)
    bias = None
    if base.bias is not None:
        bias = torch.zeros(count)
        if frozen:
            bias[0] = base.bias.detach()[0].float().cpu()
    own = torch.zeros(count) if bias is None else bias
    if mean is None:
        return bias, torch.zeros(count), -own
    return bias, mean @ weight.T + own, mean @ initial.T


def measured(
    step: int, measure: Callable[[], Measured], validate: Callable[[], Measured] | None
) -> list[Record]:
    """The records of a step, of the training pairs and of any validation pairs."""
    found = [("train", measure())]
    found += [("validation", validate())] if validate is not None else []
    return [(step, split, *values) for split, values in found]


def loss_table(records: Sequence[Record], draw: int) -> pd.DataFrame:
    """Losses of K members as a table: ensemble, head, step, loss, accuracy, split."""
    count = len(records[0][2])
    return pd.DataFrame(
        {
            "ensemble": draw,
            "head": np.tile(np.arange(count), len(records)),
            "step": np.repeat([record[0] for record in records], count),
            "loss": torch.cat([record[2] for record in records]).numpy(),
            "accuracy": torch.cat([record[3] for record in records]).numpy(),
            "split": np.repeat([record[1] for record in records], count),
        }
    )


def resamples(
    settings: HeadFitting, count: int, size: int, seed: int, stage: str, draw: int
) -> Tensor:
    """The pairs [K, size] that each head is trained on: all pairs, or its own resample."""
    if not settings.bootstrap:
        return torch.arange(size).expand(count, -1)
    return torch.stack(
        [
            torch.randint(size, (size,), generator=generator(seed, stage, draw, "bootstrap", head))
            for head in range(count)
        ]
    )


def _orders(
    settings: HeadFitting, count: int, size: int, seed: int, stage: str, draw: int, epoch: int
) -> Tensor:
    """The order [K, size] in which each head sees its pairs in this epoch."""
    heads = range(count) if settings.order == "own" else (0,)
    orders = torch.stack(
        [
            torch.randperm(size, generator=generator(seed, stage, draw, "order", epoch, head))
            for head in heads
        ]
    )
    return orders.expand(count, -1)
