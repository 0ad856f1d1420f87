"""The score is lowered where the members disagree; every response has the same KL coefficient."""

from __future__ import annotations

from prudent.objectives.signal import Run, Signal
from prudent.rewards.interface import Rewards
from prudent.settings import Nonnegative, Share


def lower_confidence_bound(
    rewards: Rewards, head: int, beta: float, *, width: Nonnegative = 1.0
) -> Signal:
    """The ensemble's mean less ``width`` standard deviations of its members.

    score = mean - width * sigma (ddof 1), coefficient = beta: the pessimism of Zhang et al.
    (arXiv 2401.16635), whose text subtracts from one member's reward, and of Eisenstein et al.

    Args:
        width: standard deviations that the score lies below the members' mean.

    Raises InputError where there are fewer than two members.
    """
    score = rewards.mean.mean(dim=1) - width * rewards.spread()
    return Signal(score, beta * score.new_ones(score.shape))


def centred_spread(
    rewards: Rewards,
    head: int,
    beta: float,
    *,
    width: Nonnegative = 1.0,
    decay: Share = 0.99,
    run: Run,
) -> Signal:
    """The ensemble's mean less ``width`` times what the spread is above its running mean.

    score = mean - width * (sigma - running mean of sigma), coefficient = beta, as in UP-RLHF, which
    instead of the KL coefficient has a loss of squared log-ratios. The running mean begins with the
    first batch's mean; each batch, the present one too, then has the share 1 - ``decay`` in it.

    Args:
        width: reward that one unit of spread above the running mean costs.
        decay: share of the running mean that is kept at each step.

    Raises InputError where there are fewer than two members.
    """
    spread = rewards.spread()
    level = run.state.get("level", spread.mean())
    run.state["level"] = level = decay * level + (1 - decay) * spread.mean()
    score = rewards.mean.mean(dim=1) - width * (spread - level)
    return Signal(score, beta * score.new_ones(score.shape), metrics={"level": level.item()})
