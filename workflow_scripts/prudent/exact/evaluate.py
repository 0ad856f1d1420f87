"""The value of optimal policies: the judge's score, the rewards' own score, and the KL."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from prudent.errors import InputError
from prudent.exact.optimum import Optimum, Terms, matched
from prudent.exact.scores import independent
from prudent.exact.summary import LEAST_SIZE
from prudent.exact.terms import NoOptimum, terms_of
from prudent.rewards.interface import Rewards, Unavailable
from prudent.rewards.last_layer import LastLayer
from prudent.rewards.settings import SpreadSettings

logger = logging.getLogger(__name__)

COUNTS = (2, 4, 8, 16, 32, 64)
"""The n of best-of-n."""
SHARE = 0.01
"""The share of prompts that may have policies worth fewer than ``LEAST_SIZE`` responses."""
HALVED = 20
"""The ensembles of each level whose policies are also found from each half of the responses."""
FRONTIER = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.4, 1.9, 2.5)
"""KLs of the optimal policies that trained policies are compared with."""
AT_ONCE = 4_000_000
"""Numbers [E, P, N] that are processed at once; an array of them takes 32 MB."""


GIVEN = "given the backbone"
"""The level of ensembles with fresh labels, resamples and heads, on one base model."""
ANEW = "all drawn anew"
"""The level of replicates: each has its own pairs, labels, base model and heads."""
INDEPENDENT = "independent members"
"""One ensemble of one member of each replicate. Each member in turn is a policy's own, so the
policies share members; a method without an own member has one policy."""


@dataclass(frozen=True)
class Method:
    """A method, for exact policies."""

    objective: Any
    """A function of prudent/objectives with its parameters bound."""
    own: bool
    """Whether its policies have a member of their own; otherwise they differ by ensemble."""
    spread: SpreadSettings = SpreadSettings()  # noqa: RUF009, it is frozen
    """How it takes the spread."""


def methods_of(
    said: Mapping[str, Mapping[str, Any]], load: Callable[[str], Any]
) -> dict[str, Method]:
    """The methods by name, from the rules' entries: objective, parameters, spread, unit.

    ``load`` finds an objective by its name.
    """
    return {
        name: Method(
            functools.partial(load(method["objective"]), **method["parameters"]),
            method["unit"] == "member",
            SpreadSettings(**method["spread"]),
        )
        for name, method in said.items()
    }


def levels_of(
    given: Sequence[Rewards], anew: Sequence[Rewards], per_prompt: int
) -> dict[str, Sequence[Rewards]]:
    """The ensembles of each level of replication that exists."""
    levels = {GIVEN: given, ANEW: anew}
    if (pool := independent(anew, per_prompt)) is not None:
        levels[INDEPENDENT] = [pool] * pool.members
    return {level: rewards for level, rewards in levels.items() if len(rewards)}


def exact_policies(
    method: Method,
    rewards: Sequence[Rewards],
    truth: Tensor,
    kls: Sequence[float],
    seed: int,
    last_layer: LastLayer | None = None,
    heads: Sequence[int] | None = None,
    halved: int = HALVED,
) -> pd.DataFrame:
    """A method's optimal policies: replicate, head, kl_target, gain, proxy_gain, kl, beta,
    effective_size, first_half, second_half; one row per ensemble and KL.

    The own member of ensemble e's policy is e mod K, or none (head -1). A gain is a mean under the
    policy less that under the reference policy, nan where no beta reaches the KL. The effective
    size is the number of equally likely responses that a prompt's policy is worth; the column has
    its 1% quantile over prompts. The halves, for the first ``halved`` ensembles, are the gains of
    policies made from one half of the responses each.

    Args:
        rewards: of the P N responses by E ensembles, ordered by prompt.
        truth: the judge's scores [P, N].
        kls: the targets.
        last_layer: of the features of the ensembles' common backbone, if known.
        heads: each ensemble's member instead of e mod K.

    Raises NoOptimum and Unavailable as ``terms_of`` does.
    """
    truth = truth.double()
    if heads is None:
        heads = [place % table.members for place, table in enumerate(rewards)]
    chunk = max(1, AT_ONCE // truth.numel())
    tables = []
    for first in range(0, len(rewards), chunk):
        places = list(range(first, min(first + chunk, len(rewards))))
        part = [rewards[place] for place in places]
        own = [heads[place] for place in places]
        terms = terms_of(
            *(method.objective, part, truth.shape[1], seed, own, places),
            spread=method.spread,
            last_layer=last_layer,
        )
        for kl in kls:
            table = worth(terms, matched(terms, kl), truth)
            table.insert(0, "replicate", places)
            table.insert(1, "head", own if method.own else -1)
            table.insert(2, "kl_target", float(kl))
            both = max(0, min(len(places), halved - first))
            unknown = [math.nan] * (len(places) - both)
            first_half, second_half = _gains_of_halves(terms, kl, truth, both)
            table["first_half"] = [*first_half, *unknown]
            table["second_half"] = [*second_half, *unknown]
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _gains_of_halves(
    terms: Terms, kl: float, truth: Tensor, ensembles: int
) -> tuple[list[float], list[float]]:
    """The gains of the policies on the first and on the second half of the responses."""
    size = truth.shape[1] // 2
    if size < 2 or not ensembles:
        return [math.nan] * ensembles, [math.nan] * ensembles
    found = []
    for half in (slice(size), slice(size, 2 * size)):
        part = Terms(*(p if p is None else p[:ensembles, :, half] for p in terms))
        found.append(worth(part, matched(part, kl), truth[:, half])["gain"].tolist())
    return found[0], found[1]


def frontiers(
    methods: Mapping[str, Method],
    draws: Sequence[Rewards],
    policies: Sequence[tuple[int, int]],
    truth: Tensor,
    seed: int,
    last_layer: LastLayer | None = None,
) -> pd.DataFrame:
    """The optimal policies that trained ones are compared with, for the same draws and members.

    Columns: method, draw, head (-1 where a method has none), kl_target, gain, proxy_gain, kl, beta,
    effective_size; for the KLs of ``FRONTIER`` that are reached.

    Args:
        policies: the draw and the member of each trained policy.
    """
    columns = ["method", "draw", "head", "kl_target", "gain", "proxy_gain", "kl", "beta"]
    columns += ["effective_size"]
    tables = []
    for name, method in methods.items():
        pairs = policies if method.own else [(draw, 0) for draw, _ in policies]
        pairs = list(dict.fromkeys(pairs))
        given, heads = [draws[draw] for draw, _ in pairs], [head for _, head in pairs]
        try:
            found = exact_policies(method, given, truth, FRONTIER, seed, last_layer, heads)
        except (NoOptimum, Unavailable):
            continue  # ``compare`` has already warned of it
        found.insert(0, "method", name)
        found.insert(1, "draw", [pairs[place][0] for place in found.pop("replicate")])
        tables.append(found[columns])
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    return table.dropna(subset="gain")


def compare(
    methods: Mapping[str, Method],
    levels: Mapping[str, Sequence[Rewards]],
    truth: Tensor,
    kls: Sequence[float],
    seed: int,
    last_layer: LastLayer | None = None,
    halved: int = HALVED,
) -> pd.DataFrame:
    """``exact_policies`` of all methods at all levels, with the columns level and method.

    A method without an exact optimum, or whose inputs a level lacks, is left out with a warning.
    ``last_layer`` belongs to the backbone of the level ``GIVEN``.
    """
    tables = []
    for level, rewards in levels.items():
        for name, method in methods.items():
            one = level == INDEPENDENT and not method.own
            try:
                found = exact_policies(
                    *(method, rewards[:1] if one else rewards, truth, kls, seed),
                    last_layer=last_layer if level == GIVEN else None,
                    halved=halved,
                )
            except (NoOptimum, Unavailable) as error:
                logger.warning("%s: no exact optimum of %s: %s", level, name, error)
                continue
            found.insert(0, "level", level)
            found.insert(3, "method", name)
            tables.append(found)
            logger.info("%s, %s: %d policies", level, name, len(found))
    if not tables:
        raise InputError(f"none of the methods {', '.join(methods)} has an exact optimum")
    return pd.concat(tables, ignore_index=True)


def worth(terms: Terms, found: Optimum, truth: Tensor) -> pd.DataFrame:
    """One row per ensemble: gain, proxy_gain, kl, beta, effective_size."""
    probability = found.probability
    score = terms.score.double()
    if terms.slope is not None:
        score = score + found.beta[:, None, None] * terms.slope.double()

    def gain(values: Tensor) -> Tensor:
        """The gain of the mean over prompts [E]."""
        return ((probability * values).sum(-1) - values.mean(-1)).mean(-1)

    size = found.effective_size()
    least = size.nan_to_num(0).quantile(SHARE, dim=-1)
    table = pd.DataFrame(
        {
            "gain": gain(truth.expand(len(score), -1, -1)).numpy(),
            "proxy_gain": gain(score).numpy(),
            "kl": found.kl.numpy(),
            "beta": found.beta.numpy(),
            "effective_size": least.numpy(),
        }
    )
    return table


def check_sizes(policies: pd.DataFrame, method: str, per_prompt: int) -> None:
    """``InputError`` where N responses cannot represent the policies of ``method``, the baseline,
    at a KL: most of them are worth fewer than ``LEAST_SIZE``."""
    rows = policies[(policies["method"] == method) & (policies["level"] != INDEPENDENT)]
    for kl, part in rows.groupby("kl_target"):
        size = part["effective_size"].median()
        if not size >= LEAST_SIZE:
            needed = math.ceil(per_prompt * LEAST_SIZE / max(size, 1.0))
            raise InputError(
                f"exact.kl: {kl:g} leaves policies of {method} that are worth {size:.1f} responses "
                f"for one prompt in a hundred; expected {LEAST_SIZE:g} at least, which takes about "
                f"{needed} responses to each prompt instead of {per_prompt} (exact.samples)"
            )


def best_of_n(levels: Mapping[str, Sequence[Rewards]], truth: Tensor) -> pd.DataFrame:
    """``best_of`` by one member and by the mean of the members: level, scorer, replicate, n, kl,
    gain."""
    tables = []
    counts = [n for n in COUNTS if n <= truth.shape[1]]
    for level, rewards in levels.items():
        one = [table.mean[:, place % table.members] for place, table in enumerate(rewards)]
        means = [table.mean.mean(1) for table in (rewards[:1] if level == INDEPENDENT else rewards)]
        for scorer, values in (("one member", one), ("mean of the members", means)):
            scores = torch.stack([value.reshape(truth.shape) for value in values])
            table = best_of(scores, truth, counts)
            table.insert(0, "level", level)
            table.insert(1, "scorer", scorer)
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def best_of(scores: Tensor, truth: Tensor, counts: Sequence[int]) -> pd.DataFrame:
    """Best-of-n policies of E scores, over all subsets of the N responses: replicate, n, kl, gain.

    scores: [E, P, N]; truth: [P, N]. KL = log n - (n - 1) / n, exact where no two responses are the
    same. In ascending order, the i-th response is the best of n with probability
    C(i - 1, n - 1) / C(N, n).
    """
    ensembles, _, size = scores.shape
    order = scores.double().argsort(dim=-1, stable=True)
    ordered = truth.double().expand(ensembles, -1, -1).gather(-1, order)
    rank = torch.arange(1, size + 1, dtype=torch.float64)
    rows = []
    for n in counts:
        weight = _log_choose(rank - 1, n - 1) - _log_choose(torch.tensor(float(size)).double(), n)
        weight = weight.exp().where(rank >= n, 0.0)
        gain = ((ordered * weight).sum(-1) - ordered.mean(-1)).mean(-1)
        kl = torch.log(torch.tensor(float(n))).item() - (n - 1) / n
        rows.append(
            pd.DataFrame({"replicate": range(ensembles), "n": n, "kl": kl, "gain": gain.numpy()})
        )
    return pd.concat(rows, ignore_index=True)


def _log_choose(size: Tensor, count: int) -> Tensor:
    """log C(size, count); undefined where size < count."""
    kept = size.clamp_min(count)
    one = torch.ones_like(kept)
    return (kept + 1).lgamma() - (count * one + 1).lgamma() - (kept - count + 1).lgamma()
