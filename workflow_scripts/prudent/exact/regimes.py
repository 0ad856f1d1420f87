"""Where a method helps: optimal policies over a grid of what a reward ensemble is.

A cell of the grid is a number of pairs, a label noise, an ensemble, its number of members and a KL.
R replicates each draw their pairs and labels and train a base reward model. Ensembles on the base
model are one per replicate. Independent members are the base models themselves: random partitions
of the R models into disjoint ensembles, so that most policies share models with others.

All intervals leave out each replicate in turn (the jackknife), with all ensembles that it is in.
For independent members the statistic is a U-statistic of the replicates, for which the jackknife
holds (Arvesen 1969); a variance is that of disjoint ensembles within each partition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from prudent.analysis.statistics import Interval, jackknife_half_width, share_interval
from prudent.exact.evaluate import Method, compare
from prudent.exact.scores import independent
from prudent.exact.summary import named
from prudent.rewards.interface import Rewards
from prudent.seeding import derive_seed

ENSEMBLES = 60
"""About so many ensembles of independent members are made of a pool. With fewer, the choice of the
partitions would widen the intervals."""
LEAST = 3
"""The disjoint ensembles without which nothing is said of a cell."""
CELL = ["pairs", "noise", "ensemble", "members", "kl_target"]
EFFECTS = ("difference", "ratio", "below_difference")


class Team(NamedTuple):
    """An ensemble, the replicates that it is made of, and the partition that it belongs to."""

    rewards: Rewards
    replicates: tuple[int, ...]
    partition: int = 0


def teams_on_base(rewards: Sequence[Rewards], members: int) -> list[Team]:
    """Each replicate's ensemble, with its first ``members`` members; none where it has fewer."""
    if any(one.members < members for one in rewards):
        return []
    return [Team(_first(one, members), (number,)) for number, one in enumerate(rewards)]


def _first(rewards: Rewards, members: int) -> Rewards:
    std = None if rewards.std is None else rewards.std[:, :members]
    return replace(rewards, mean=rewards.mean[:, :members], std=std)


def teams_of_pool(pool: Sequence[Rewards], members: int, per_prompt: int, seed: int) -> list[Team]:
    """Ensembles of independent reward models, ``members`` of the pool each.

    The models are divided by their standard deviation within prompts, as they share no scale. There
    are no ensembles where fewer than ``LEAST`` disjoint ones can be made.

    Args:
        pool: one reward of each response, by each replicate's base model.
        per_prompt: responses to a prompt.
    """
    disjoint = len(pool) // members
    table = independent(pool, per_prompt)
    if table is None or disjoint < LEAST:
        return []
    rng = np.random.default_rng(derive_seed(seed, "regimes", "partitions", members))
    teams = []
    for partition in range(-(-ENSEMBLES // disjoint)):
        order = rng.permutation(len(pool))[: disjoint * members]
        for models in order.reshape(disjoint, members).tolist():
            rewards = Rewards(table.mean[:, models])
            teams.append(Team(rewards, tuple(models), partition))
    return teams


def cell_policies(
    methods: Mapping[str, Method],
    teams: Mapping[tuple[str, int], Sequence[Team]],
    truth: Tensor,
    kls: Sequence[float],
    seed: int,
) -> pd.DataFrame:
    """The optimal policies of all methods by all ensembles: the schema "regime_policies" without
    pairs and noise.

    Args:
        teams: by the ensemble's name and its number of members.
        truth: the judge's scores [P, N].
    """
    tables = []
    for (name, members), of in teams.items():
        if not of:
            continue
        table = compare(methods, {name: [team.rewards for team in of]}, truth, kls, seed, halved=0)
        table = table.rename(columns={"level": "ensemble", "replicate": "team"})
        table.insert(1, "members", members)
        table.insert(3, "partition", [of[number].partition for number in table["team"]])
        table.insert(4, "replicates", [list(of[number].replicates) for number in table["team"]])
        tables.append(table.drop(columns=["proxy_gain", "first_half", "second_half"]))
    return pd.concat(tables, ignore_index=True)


def regime_table(
    policies: pd.DataFrame, baseline: str, controls: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """One row per cell, method and what it is held against: the baseline and its own controls.

    Args:
        policies: the schema "regime_policies".
        controls: of each method, by name.

    Columns: the cell; method, against; ensembles, how many disjoint ones there are; the median
    effective_size of the method's policies (``exact_policies``); gain of the method, and
    below_share, the share of its policies that are worse than the reference; difference of the
    gains (method less the other one), ratio of the variances (the other's over the method's),
    below_difference of the shares; each with its 95% interval (low, high). The interval of
    below_share is Wilson's with as many policies as there are disjoint ensembles.
    """
    rows = []
    for cell, part in policies.groupby(CELL, sort=False):
        part = part.sort_values("team", kind="stable")  # which pairs the methods
        gains = {name: of["gain"].to_numpy() for name, of in part.groupby("method", sort=False)}
        first = part[part["method"] == part["method"].iloc[0]]
        design = Design(first["partition"].to_numpy(), first["replicates"].tolist())
        sizes = part.groupby("method")["effective_size"].median()
        for method, own in gains.items():
            for other in dict.fromkeys([baseline, *controls.get(method, ())]):
                if other in gains:
                    row = dict(zip(CELL, cell, strict=True)) | {"method": method, "against": other}
                    row |= {"ensembles": design.disjoint, "effective_size": sizes[method]}
                    rows.append(row | _row(design, gains[other], own, method == other))
    return pd.DataFrame(rows)


class Design:
    """Which of n ensembles share a partition, and which are left out with each replicate."""

    def __init__(self, partition: np.ndarray, replicates: Sequence[Sequence[int]]) -> None:
        """partition: [n]; replicates: of each of the n ensembles."""
        names = sorted({number for of in replicates for number in of})
        without = [[number not in of for of in replicates] for number in names]
        self.kept = np.array([[True] * len(replicates), *without])
        """[1 + R, n]: all, and without each replicate."""
        self.member = np.unique(partition, return_inverse=True)[1][:, None] == np.arange(
            len(set(partition.tolist()))
        )
        """[n, partitions]"""
        self.disjoint = int(self.member.sum(0).max())

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Means [1 + R] of values [n], nan where one is not known."""
        return self._over(values) @ np.nan_to_num(values)

    def variance(self, values: np.ndarray) -> np.ndarray:
        """Variances [1 + R] of values [n] within partitions (ddof 1), pooled."""
        known, values = np.isfinite(values), np.nan_to_num(values - np.nanmean(values))
        kept = self.kept & known
        count = kept @ self.member.astype(float)
        sums, squares = (kept @ (self.member * v[:, None]) for v in (values, values**2))
        within = (squares - sums**2 / np.maximum(count, 1)).sum(1)
        freedom = np.maximum(count - 1, 0).sum(1)
        return np.where(freedom > 0, within / np.maximum(freedom, 1), np.nan)

    def _over(self, values: np.ndarray) -> np.ndarray:
        kept = self.kept & np.isfinite(values)
        count = kept.sum(1, keepdims=True)
        return np.where(count > 0, kept / np.maximum(count, 1), np.nan)

    def interval(self, drawn: np.ndarray) -> Interval:
        """The estimate ``drawn[0]`` with the jackknife-t interval of ``drawn[1:]``."""
        estimate, left_out = float(drawn[0]), drawn[1:]
        if self.disjoint < LEAST or not np.isfinite(drawn).all():
            return Interval(estimate, float("nan"), float("nan"))
        half = jackknife_half_width(left_out)
        return Interval(estimate, estimate - half, estimate + half)


def _row(design: Design, other: np.ndarray, own: np.ndarray, same: bool) -> dict[str, float]:
    known = np.isfinite(own) & np.isfinite(other)
    share = design.mean(np.where(np.isfinite(own), own < 0, np.nan))[0]
    wilson = share_interval([share] * design.disjoint)
    row = named("gain", design.interval(design.mean(own)))
    row |= named("below_share", Interval(float(share), wilson.low, wilson.high))
    unknown = Interval(*[float("nan")] * 3)
    if same or not known.any():
        return row | {k: v for name in EFFECTS for k, v in named(name, unknown).items()}
    own, other = (np.where(known, values, np.nan) for values in (own, other))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(design.variance(other)) - np.log(design.variance(own))
    found = design.interval(ratio)
    row |= named("difference", design.interval(design.mean(own - other)))
    row |= named("ratio", Interval(*(float(np.exp(value)) for value in found)))
    below = [np.where(known, values < 0, np.nan) for values in (own, other)]
    return row | named("below_difference", design.interval(design.mean(below[0] - below[1])))


def one_reward(rewards: Tensor) -> Rewards:
    """A base model's rewards [B] as a member of a pool, centred on the responses."""
    values = torch.as_tensor(rewards).double()
    return Rewards((values - values.mean())[:, None])
