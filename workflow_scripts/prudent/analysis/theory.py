"""The theory of arXiv 2410.23726 in closed form, for policies on finitely many responses.

Rewards are estimated with independent Gaussian errors: R ~ N(r, Sigma), Sigma diagonal. All that
follows is float64, and batched over leading dimensions where shapes say [..., n].
"""

from __future__ import annotations

import numpy as np
from scipy import stats
from scipy.optimize import brentq

# --- Theorem 2.2: how far estimates are from the truth


def norm_probability(size: int, ratio: float) -> float:
    """P(|R - r|_{Sigma^-1}^2 <= ratio * size), which is chi-squared's, ``size`` its degrees.

    By Cauchy and Schwarz's inequality this is the probability that |(R - r)'d| <= beta |d|_Sigma
    for all d at once, with beta^2 = ratio * size.
    """
    return float(stats.chi2.cdf(ratio * size, size))


def printed_bound(ratio: float) -> float:
    """What Theorem 2.2 states for this probability: at least 1 - exp(-size / beta^2)."""
    return float(-np.expm1(-1 / ratio))


def proven_bound(ratio: float) -> float:
    """What its proof gives, with beta^2 = size ln(1 / delta): at least 1 - exp(-beta^2 / size)."""
    return float(-np.expm1(-ratio))


def largest_delta(size: int) -> float:
    """The largest delta for which |R - r|_{Sigma^-1}^2 <= size ln(1 / delta) has probability
    1 - delta or more, as the proof takes for granted."""
    ratio = brentq(lambda c: np.exp(-c) - stats.chi2.sf(c * size, size), 0.1, 20)
    return float(np.exp(-ratio))


# --- Theorem 3.3: steps away from the reference policy


def direction(rewards: np.ndarray, weights: np.ndarray, plane: bool = False) -> np.ndarray:
    """The direction of ``best_step`` [..., n], which is linear in the rewards [..., n]."""
    if plane:
        level = (rewards / weights).sum(-1, keepdims=True) / (1 / weights).sum()
        rewards = rewards - level
    return rewards / weights


def best_step(
    rewards: np.ndarray, weights: np.ndarray, square: float, plane: bool = False
) -> np.ndarray:
    """The step d [..., n] with the largest R'd where d'Wd <= ``square``, W the weights [n].

    With W = 1 it is the unaware policy's, pi - pi0 = sqrt(eps / R'R) R; with W = Sigma the aware
    one's, sqrt(eps~ / R'Sigma^-1 R) Sigma^-1 R. These closed forms leave out that probabilities sum
    to 1.

    Args:
        plane: whether the step's parts sum to 0, so that the probabilities still sum to 1.
    """
    found = direction(rewards, weights, plane)
    length = (weights * found**2).sum(-1, keepdims=True)
    return found * np.sqrt(square / length)


def below_reference(
    true: np.ndarray, variances: np.ndarray, weights: np.ndarray, plane: bool = False
) -> float:
    """P(r'd <= 0) for the best step d by the estimates R (Theorem 3.3).

    The direction u is linear and symmetric, so that r'u(R) = u(r)'R is Gaussian. The length of the
    step says nothing about its sign.

    Args:
        true, variances: r and Sigma's diagonal [n].
        weights: 1 for the unaware policy, ``variances`` for the aware one [n].
    """
    found = direction(true, weights, plane)
    return float(stats.norm.cdf(-(found @ true) / np.sqrt(variances @ found**2)))


def noise_limit(variances: np.ndarray) -> float:
    """The unaware over the aware policy's standard deviation of the return, as printed.

    It is the limit where estimates are mostly noise and r has no preferred response: the square
    root of 1 / (lambda_min mean(1 / sigma^2)), since eps~ = lambda_min eps.
    """
    return float(1 / np.sqrt(variances.min() * (1 / variances).mean()))


# --- Theorem 3.6: optimal policies


def objective(
    policy: np.ndarray,
    rewards: np.ndarray,
    variances: np.ndarray,
    beta: float,
    reference: np.ndarray,
) -> float:
    """E_pi[R - beta sigma^2 log(pi / pi0)] of a policy [n] (Section 2)."""
    used = policy > 0
    ratio = np.log(policy[used] / reference[used])
    return float(policy[used] @ (rewards[used] - beta * variances[used] * ratio))


def printed_optimum(
    rewards: np.ndarray, variances: np.ndarray, beta: float, reference: np.ndarray
) -> np.ndarray:
    """Theorem 3.6 as printed: pi = pi0 exp(R / (beta sigma^2)) / Z [n]."""
    score = np.log(reference) + rewards / (beta * variances)
    weight = np.exp(score - score.max())
    return weight / weight.sum()


def true_optimum(
    rewards: np.ndarray, variances: np.ndarray, beta: float, reference: np.ndarray
) -> np.ndarray:
    """The maximiser of ``objective``: pi = pi0 exp((R - lambda) / (beta sigma^2) - 1) [n].

    The objective is concave. lambda is the multiplier of sum pi = 1, and a response's variance
    divides it, so that it is no common factor unless the variance is the same for all.
    """
    return _weighted(rewards, beta * variances, 1.0, reference)


def ppo_optimum(
    rewards: np.ndarray, variances: np.ndarray, beta: float, reference: np.ndarray
) -> np.ndarray:
    """Where PPO's gradient vanishes: pi = pi0 exp((R - lambda) / (beta sigma^2)) [n].

    PPO takes the penalty beta sigma^2 log(pi / pi0) as a constant, which leaves out a part of the
    gradient, beta E[sigma^2 grad log pi] (as in ``prudent.exact.optimum``).
    """
    return _weighted(rewards, beta * variances, 0.0, reference)


def _weighted(
    rewards: np.ndarray, coefficient: np.ndarray, own: float, reference: np.ndarray
) -> np.ndarray:
    """pi0 exp((R - lambda) / c - own), lambda such that it sums to 1.

    The sum falls with lambda; it is at least 1 where no exponent is negative, and at most 1 where
    none is positive.
    """
    zero = rewards - own * coefficient
    low, high = float(zero.min()), float(zero.max())

    def excess(level: float) -> float:
        return float(np.logaddexp.reduce(np.log(reference) + (zero - level) / coefficient))

    level = brentq(excess, low, high, xtol=1e-14, rtol=1e-14) if high > low else low
    policy = reference * np.exp((zero - level) / coefficient)
    return policy / policy.sum()


# --- Policies at the same KL


def tilted(directions: np.ndarray, kl: float) -> np.ndarray:
    """The policies exp(t u) / Z [..., n] whose KL to the uniform reference is ``kl``.

    For u = R this is the KL-constrained optimum, and for u = R / sigma^2 the policy that Theorem
    3.6 prints. t is found by Newton's method on log KL over log t.
    """
    u = directions / directions.std(-1, keepdims=True)
    most = u.max(-1, keepdims=True)
    t = np.full(most.shape, np.sqrt(2 * kl))
    for _ in range(50):
        weight = np.exp(t * (u - most))
        total = weight.sum(-1, keepdims=True)
        weight /= total
        mean = (weight * u).sum(-1, keepdims=True)
        variance = (weight * (u - mean) ** 2).sum(-1, keepdims=True)
        divergence = t * (mean - most) - np.log(total / u.shape[-1])
        with np.errstate(divide="ignore", invalid="ignore"):  # where all is on one response
            step = np.log(divergence / kl) * divergence / (t**2 * variance)
        if np.abs(step).max() < 1e-9:
            return weight
        t = t * np.exp(-np.clip(step, -1, 1))
    raise ArithmeticError(f"no policy of KL {kl} was found")
