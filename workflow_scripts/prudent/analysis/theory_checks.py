"""What the theory of arXiv 2410.23726 says, beside what it is: rows of a table, and curves.

The text that we could read gives neither the true rewards, nor eps, nor the reference policy of
Figures 3 and 4. Here the true rewards are normal at several scales. eps is such that the unaware
policy has the standard deviation that the paper prints, and the reference's return such that it has
its mean; what the aware policy has is then a prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from prudent.analysis.statistics import (
    LEVEL,
    Interval,
    jackknife_half_width,
    share_interval,
    t_interval,
    variance_ratio,
)
from prudent.analysis.theory import (
    below_reference,
    best_step,
    direction,
    largest_delta,
    noise_limit,
    norm_probability,
    objective,
    ppo_optimum,
    printed_bound,
    printed_optimum,
    proven_bound,
    tilted,
    true_optimum,
)
from prudent.seeding import derive_seed

SIZE = 1000
"""Responses of the paper's simulation."""
PAIRS, DRAWS, PROBLEMS = 1000, 20_000, 300
"""Pairs of opposite errors in 1,000 dimensions, draws in few, and random problems of each kind."""
SCALES = (0.01, 0.1, 0.3, 1.0, 3.0)
"""Standard deviations of the true rewards, whose estimates have some of 1.7 to 10."""
SHOWN = (0.01, 0.3, 3.0)
"""Those of Figures 3 and 4."""
KL = 1.0
"""Of the policies at the same KL."""
RATIOS = (0.5, 2.0)
"""beta^2 over the number of responses, in the rows on Theorem 2.2."""
AWARE, UNAWARE = "variance-aware", "variance-unaware"
PRINTED, LENGTH, SAME_KL = "as printed", "same length", "same KL"
OPTIMA = {"printed": printed_optimum, "true": true_optimum, "PPO": ppo_optimum}


class Simulation(NamedTuple):
    """One of the paper's simulations: its figure, the range of its variances, and what it prints of
    the returns of the unaware and of the aware policy."""

    figure: str
    variances: tuple[float, float]
    sds: tuple[float, float]
    means: tuple[float, float]


SIMULATIONS = (
    Simulation("fig3", (3, 100), (0.13, 0.04), (4.643, 4.644)),
    Simulation("fig4", (70, 100), (0.14, 0.12), (0.14, 0.13)),
)
TRAINED = {"7": ((0.34, 0.06), (0.22, 0.012), 0.19), "12": ((0.43, 0.038), (0.41, 0.016), 0.15)}
"""Figures 7 and 12: mean and variance of the unaware and of the aware policies' scores, and the
reference's mean."""

# Three arms, of which the worst is known least. What the paper's Figure 2 has is not known to us.
ARMS = np.array([1.0, 0.6, 0.2])
ARM_VARIANCES = np.array([0.25, 1.0, 9.0])
UNIFORM = np.full(3, 1 / 3)
SQUARE = 0.1
"""eps of the bandit: a step of this length leaves no probability negative."""
BETA = 0.5


class Row(NamedTuple):
    """A row of the table; nan is what is not given."""

    quantity: str
    paper: float = np.nan
    here: float = np.nan
    agrees: str = "not given"
    why: str = ""


class Curve(NamedTuple):
    """Points that a figure draws, with intervals or without."""

    figure: str
    panel: str
    series: str
    x: Any
    y: Any
    low: Any = np.nan
    high: Any = np.nan


def study(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table and the curves of all checks."""
    found = [*bandit(seed), *norm_bound(seed), *below(seed), *optima(seed)]
    for simulation in SIMULATIONS:
        found += simulated(seed, simulation)
    found.append(Row("Figure 5: what it shows", why="Not in the text that we could read."))
    rows = pd.DataFrame([row for row in found if isinstance(row, Row)])
    curves = [pd.DataFrame(curve._asdict()) for curve in found if isinstance(curve, Curve)]
    return rows, pd.concat(curves, ignore_index=True)


def stream(seed: int, *purpose: str | int) -> np.random.Generator:
    """The random stream of one purpose."""
    return np.random.default_rng(derive_seed(seed, "theory", *purpose))


def verdict(agrees: bool) -> str:
    """What the table says of a claim."""
    return "yes" if agrees else "no"


# --- Figure 2


def bandit(seed: int) -> Iterator[Row | Curve]:
    """A bandit of three arms, on which the step's probabilities sum to 1."""
    yield Row("Figure 2: arms and policies", why="Not in the text that we could read.")
    sd = np.sqrt(ARM_VARIANCES)
    arms = np.arange(3.0)
    yield Curve("fig2", "arms", "true", arms, ARMS, ARMS - sd, ARMS + sd)
    yield Curve("fig2", "policies", "reference", arms, UNIFORM, UNIFORM, UNIFORM)
    rewards = ARMS + stream(seed, "bandit").normal(size=(DRAWS, 3)) * sd
    for name, weights, square in _policies(ARM_VARIANCES, SQUARE):
        policies = UNIFORM + best_step(rewards, weights, square, plane=True)
        low, high = np.quantile(policies, [0.05, 0.95], axis=0)
        yield Curve("fig2", "policies", name, arms, policies.mean(0), low, high)
        gain = (policies - UNIFORM) @ ARMS
        yield Curve("fig2", "gains", name, np.sort(gain)[:: DRAWS // 1000], np.linspace(0, 1, 1000))
        exact = below_reference(ARMS, ARM_VARIANCES, weights, plane=True)
        share = share_interval(gain <= 0)
        yield Curve("fig2", "below", name, exact, *([value] for value in share))
        said = f"Closed form {exact:.3f}; the simulation's interval {_range(share)}."
        yield Row(f"Theorem 3.3, bandit: P(below the reference), {name}", here=share[0], why=said)


def _policies(variances: np.ndarray, square: float) -> Iterator[tuple[str, np.ndarray, float]]:
    """Each policy's name, weights and eps, as printed: eps~ = lambda_min eps."""
    yield UNAWARE, np.ones_like(variances), square
    yield AWARE, variances, variances.min() * square


def _range(interval: Interval) -> str:
    return f"{interval[1]:.3f} to {interval[2]:.3f}"


# --- Theorem 2.2


def norm_bound(seed: int) -> Iterator[Row | Curve]:
    """The probability that estimates are as near to the truth as Theorem 2.2 says."""
    ratios = np.linspace(0.02, 3, 150)
    for size in (3, SIZE):
        panel = f"{size:,} responses"
        lines: dict[str, Callable[[float], float]] = {
            "true": lambda ratio, size=size: norm_probability(size, ratio),
            "printed": printed_bound,
            "proof's": proven_bound,
        }
        for name, line in lines.items():
            yield Curve("theorem2.2", panel, name, ratios, [line(ratio) for ratio in ratios])
        errors = stream(seed, "norm", size).normal(size=(DRAWS // (1 if size == 3 else 10), size))
        squares = (errors**2).mean(-1)
        for ratio in (0.25, *RATIOS, 1.0, 1.5):
            share = share_interval(squares <= ratio)
            yield Curve("theorem2.2", panel, "simulated", ratio, *([value] for value in share))
            if ratio not in RATIOS:
                continue
            for name, bound in (("printed", printed_bound(ratio)), ("proof", proven_bound(ratio))):
                holds = share[2] >= bound
                why = "" if holds else "The fraction in the exponent is upside down."
                if not holds and name == "proof":
                    why = f"The norm's bound holds for delta up to {largest_delta(size):.2f} only."
                yield Row(
                    f"Theorem 2.2 ({name}): P of the bound at beta^2 = {ratio:g} x {size:,}, at "
                    "least",
                    bound,
                    share[0],
                    verdict(holds),
                    why,
                )


# --- Theorem 3.3


def below(seed: int) -> Iterator[Row | Curve]:
    """The probability of a policy that is worse than the reference."""
    true, variances = world(seed, SIMULATIONS[0].variances)
    scales = np.geomspace(0.003, 1, 60)
    rewards = estimates(np.zeros(SIZE), variances, PAIRS, stream(seed, "below"))
    pairs = np.tile(np.arange(PAIRS), 2)
    for name, weights, _ in _policies(variances, 1.0):
        exact = [below_reference(scale * true, variances, weights) for scale in scales]
        yield Curve("theorem3.3", "below", name, scales, exact)
        for scale in (0.01, 0.03, 0.1, 0.3):
            gain = direction(scale * true + rewards, weights) @ true
            share = share_interval(gain <= 0, pairs)
            yield Curve("theorem3.3", "simulated", name, scale, *([value] for value in share))
    draws = stream(seed, "problems")
    less = []
    for _ in range(PROBLEMS):
        size = int(draws.integers(2, 20))
        spread = np.exp(draws.normal(size=size))
        problem = draws.normal(size=size), spread
        less.append(below_reference(*problem, spread) <= below_reference(*problem, 1 + 0 * spread))
    yield Row(
        f"Theorem 3.3: share of {PROBLEMS} random problems where the aware policy is below the "
        "reference less often",
        1,
        np.mean(less),
        verdict(all(less)),
    )
    for figure, (unaware, aware, reference) in TRAINED.items():
        chances = [
            stats.norm.cdf((reference - mean) / np.sqrt(variance))
            for mean, variance in (unaware, aware)
        ]
        holds = chances[1] <= chances[0]
        words = "The printed means and variances say {1:.3f} for aware, {0:.3f} for unaware."
        yield Row(
            f"Theorem 3.3 on Figure {figure}: P(below the reference), aware less unaware, at most",
            0,
            chances[1] - chances[0],
            verdict(holds),
            words.format(*chances),
        )


# --- Theorem 3.6


def optima(seed: int) -> Iterator[Row | Curve]:
    """The printed optimum, the true one and PPO's fixed point, on enumerated problems."""
    arms = np.arange(3.0)
    given = ARM_VARIANCES, BETA, UNIFORM
    policies = {name: solve(ARMS, *given) for name, solve in OPTIMA.items()}
    values = {name: objective(policy, ARMS, *given) for name, policy in policies.items()}
    for name, policy in policies.items():
        yield Curve("theorem3.6", name, f"{values[name]:.3f}", arms, policy)
        if name != "true":
            paper = 0.0 if name == "printed" else np.nan
            yield Row(
                f"Theorem 3.6, bandit: objective of the {name} optimum less the largest",
                paper,
                values[name] - values["true"],
                "no" if name == "printed" else "not given",
                "The multiplier of sum pi = 1 is divided by each variance, and does not cancel."
                if name == "printed"
                else "PPO's gradient leaves out beta E[sigma^2 grad log pi].",
            )
    for name, solve in OPTIMA.items():
        moved = np.abs(solve(ARMS + 1, *given) - policies[name]).sum() / 2
        why = "A Bradley-Terry reward is known up to a constant." if moved > 1e-9 else ""
        yield Row(
            f"Theorem 3.6, bandit: how far the {name} optimum moves if all rewards grow by 1",
            here=round(moved, 12),
            why=why,
        )
    draws = stream(seed, "optima")
    worse, apart = [], []
    for _ in range(PROBLEMS):
        size = int(draws.integers(2, 9))
        rewards, reference = draws.normal(size=size), draws.dirichlet(np.ones(size))
        spread = np.exp(draws.normal(size=size))
        problem = rewards, spread, BETA, reference
        lost = objective(true_optimum(*problem), *problem) - objective(
            printed_optimum(*problem), *problem
        )
        worse.append(lost > 1e-9)
        same = rewards, np.full(size, spread[0]), BETA, reference
        found = np.stack([solve(*same) for solve in OPTIMA.values()])
        apart.append(np.ptp(found, axis=0).max())
    yield Row(
        f"Theorem 3.6: share of {PROBLEMS} random problems where the printed optimum is optimal",
        1,
        1 - np.mean(worse),
        verdict(not any(worse)),
        "It is where the variance is constant.",
    )
    yield Row(
        "Theorem 3.6: the largest difference between the three optima under constant variance",
        0,
        np.max(apart),
        verdict(np.max(apart) < 1e-9),
    )


# --- Figures 3 and 4, and the same at the same length and KL


def world(seed: int, ends: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """True rewards of sd 1 and the variances of their estimates [SIZE], from end to end.

    A reward and its opposite have the same variance, so that the true rewards say nothing of the
    variances: a chance correlation of the two would be a gain, or a loss, of all policies that move
    to less certain responses.
    """
    half = stream(seed, "true").normal(size=SIZE // 2)
    return np.concatenate([half, -half]), np.tile(np.linspace(*ends, SIZE // 2), 2)


def estimates(
    true: np.ndarray, variances: np.ndarray, pairs: int, rng: np.random.Generator
) -> np.ndarray:
    """Estimates R [2 pairs, n], where each error comes with its opposite: that leaves little noise
    in the means of returns. Rows i and i + pairs are a pair."""
    errors = rng.normal(size=(pairs, len(true))) * np.sqrt(variances)
    return np.concatenate([true + errors, true - errors])


def gains(
    rewards: np.ndarray, true: np.ndarray, variances: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """The gains r'(pi - pi0) [draws] of both policies by the estimates R [draws, n].

    ``PRINTED`` has eps = 1 and eps~ = lambda_min, ``LENGTH`` steps of length 1, and ``SAME_KL``
    policies exp(t d) / Z on the same directions.
    """
    found: dict[str, dict[str, np.ndarray]] = {PRINTED: {}, LENGTH: {}, SAME_KL: {}}
    for name, weights, square in _policies(variances, 1.0):
        step = best_step(rewards, weights, square)
        found[PRINTED][name] = step @ true
        found[LENGTH][name] = step @ true / np.linalg.norm(step, axis=-1)
        found[SAME_KL][name] = tilted(step, KL) @ true - true.mean()
    return found


def sd_ratio(unaware: np.ndarray, aware: np.ndarray) -> Interval:
    """The ratio of standard deviations [2 pairs], with the jackknife-t interval over pairs."""
    pairs = np.tile(np.arange(len(aware) // 2), 2)
    return Interval(*np.sqrt(variance_ratio(unaware, aware, pairs)))


def mean_ratio(unaware: np.ndarray, aware: np.ndarray) -> Interval:
    """The ratio of means, aware over unaware [2 pairs], the same way.

    nan where the unaware policy's mean is not told from 0, as a ratio to it then says nothing.
    """
    arms = np.stack([unaware, aware]).reshape(2, 2, -1).sum(1)
    mean = t_interval(arms[0])
    if mean[1] <= 0 <= mean[2]:
        return Interval(np.nan, np.nan, np.nan)
    total = arms.sum(1, keepdims=True)
    ratio = float(total[1, 0] / total[0, 0])
    left_out = total - arms
    half = jackknife_half_width(left_out[1] / left_out[0])
    return Interval(ratio, ratio - half, ratio + half)


def simulated(seed: int, simulation: Simulation) -> Iterator[Row | Curve]:
    """A figure's simulation at several true rewards, and by each rule of how far policies go."""
    figure, (printed_sd, aware_sd) = simulation.figure, simulation.sds
    title = f"Figure {figure.removeprefix('fig')}"
    unit, variances = world(seed, simulation.variances)
    limit = noise_limit(variances)
    ends = (printed_sd - 0.005) / (aware_sd + 0.005), (printed_sd + 0.005) / (aware_sd - 0.005)
    yield Row(
        f"{title}: sd of unaware over aware, in the limit of noise",
        printed_sd / aware_sd,
        limit,
        verdict(ends[0] <= limit <= ends[1]),
        f"Rounding allows {ends[0]:.2f} to {ends[1]:.2f}.",
    )
    if figure == "fig4":
        why = "The printed means, 0.14 and 0.13, look like standard deviations."
        yield Row(f"{title}: mean return of the unaware policy", simulation.means[0], why=why)
    for scale in SCALES:
        true = scale * unit
        rewards = estimates(true, variances, PAIRS, stream(seed, figure))
        found = gains(rewards, true, variances)
        for rule, of in found.items():
            both = of[UNAWARE], of[AWARE]
            sd, mean = sd_ratio(*both), mean_ratio(*both)
            yield Curve(figure, "sd", rule, scale, *([value] for value in sd))
            yield Curve(figure, "mean", rule, scale, *([value] for value in mean))
            if scale in SHOWN and rule != PRINTED:
                of_scale = f"(true rewards of sd {scale:g}, {rule})"
                ratios = {"sd of unaware over aware": sd, "mean gain of aware over unaware": mean}
                for what, ratio in ratios.items():
                    said = f"{LEVEL:.0%} interval {_range(ratio)}."
                    if np.isnan(ratio[0]):
                        said = "The unaware policy's gain is not told from 0."
                    yield Row(f"{title}: {what} {of_scale}", here=ratio[0], why=said)
        if scale in SHOWN:
            yield from _as_printed(simulation, title, scale, found[PRINTED])


def _as_printed(
    simulation: Simulation, title: str, scale: float, found: dict[str, np.ndarray]
) -> Iterator[Row | Curve]:
    """The returns where the unaware policy's have the printed mean and standard deviation."""
    unaware, aware = found[UNAWARE], found[AWARE]
    factor = simulation.sds[0] / unaware.std(ddof=1)
    offset = simulation.means[0] - factor * unaware.mean()
    for name, gain in found.items():
        returns = offset + factor * gain
        yield Curve(simulation.figure, f"{scale:g}", name, np.arange(len(gain)), returns)
    ratio = sd_ratio(unaware, aware)
    low, high = simulation.sds[0] / ratio[2], simulation.sds[0] / ratio[1]
    printed = simulation.sds[1]
    yield Row(
        f"{title}: sd of the return, aware (unaware {simulation.sds[0]:g}, true rewards of sd "
        f"{scale:g})",
        printed,
        simulation.sds[0] / ratio[0],
        verdict(low <= printed + 0.005 and high >= printed - 0.005),
        f"{LEVEL:.0%} interval {low:.4f} to {high:.4f}.",
    )
    if simulation.figure == "fig3":
        change = factor * (aware.mean() - unaware.mean())
        printed = simulation.means[1] - simulation.means[0]
        yield Row(
            f"{title}: mean return, aware less unaware (true rewards of sd {scale:g})",
            printed,
            change,
            verdict(abs(change - printed) <= 0.001),
            "The shorter step gains less.",
        )
