"""The score guards against the worst of the rewards that the data allow."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from prudent.objectives.signal import Run, Signal
from prudent.rewards.interface import Rewards
from prudent.rewards.last_layer import LastLayer
from prudent.rewards.spread import centred, features_of
from prudent.settings import Nonnegative, Positive, Proportion


def reward_robust(
    rewards: Rewards,
    beta: float,
    *,
    std: Tensor,
    run: Run,
    alpha: Proportion = 0.3,
    minimum: Literal["batch", "response"] = "batch",
) -> Signal:
    """A blend of the surest member's reward and the worst member's (BRME).

    Each member's rewards c_k are centred on their mean over responses of the reference policy,
    because a minimum needs a common zero. The paper's objective is alpha E[r_nominal] +
    (1 - alpha) min_k E[r_k]: its minimum is over a batch's means, outside the expectation. A
    minimum for each response is more pessimistic. alpha 1 is the nominal reward alone.

    Score: alpha c_j + (1 - alpha) c_m, j the response's member of the least std, m the member of
        the batch's least mean, or of the response's least reward
    Coefficient: beta
    Source: Reward-robust RLHF (BRME), arXiv 2409.15360
    Control: mean, random_head

    Args:
        alpha: share of the nominal reward.
        minimum: whether the worst member is found for the batch or for each response.

    Raises Unavailable where members have no standard deviation of their own.
    """
    member = centred(rewards.mean, rewards, run.reference.mean, "reference")
    nominal = member.gather(1, std.argmin(dim=1, keepdim=True)).squeeze(1)
    if minimum == "batch":
        worst = member[:, member.mean(dim=0).argmin()]
    else:
        worst = member.min(dim=1).values
    score = alpha * nominal + (1 - alpha) * worst
    return Signal(score, beta * score.new_ones(score.shape), of_batch=minimum == "batch")


def adv_po(
    rewards: Rewards,
    beta: float,
    *,
    head: int,
    last_layer: LastLayer,
    run: Run,
    width: Nonnegative = 1.0,
    ridge: Positive = 1.0,
) -> Signal:
    """The own head's reward at the worst linear reward in a confidence ellipsoid (AdvPO).

    max_pi min_w E_pi[w h] - E_ref[w h] - beta KL over |w - w_head|_A <= width costs width
    |g|_(A^-1), where g = E_pi[h] - E_ref[h]: the distance of the policy's features, as a batch,
    from the reference's, in directions that the training pairs do not cover. Its gradient gives
    each response a part of the cost. The paper uses reference responses to the same prompts; here
    they are the reference policy's, to training prompts.

    Score: r_head - width (h - E_ref[h])' A^-1 g / |g|_(A^-1)
    Coefficient: beta
    Source: AdvPO, arXiv 2403.05171
    Control: vanilla

    Args:
        width: radius of the ellipsoid, in reward.
        ridge: of A = ridge I + sum of d d' over the training pairs.

    Raises Unavailable where members share no features or those of training pairs are not known.
    """
    moved = features_of(rewards) - features_of(run.reference).to(rewards.mean).mean(dim=0)
    whitened = last_layer.whitened(moved, ridge)
    direction = whitened.mean(dim=0)
    length = direction.norm()
    cost = whitened @ direction / length if length > 0 else 0 * whitened[:, 0]
    score = rewards.mean[:, head] - width * cost
    metrics = {"distance": length.item()}
    return Signal(score, beta * score.new_ones(score.shape), of_batch=True, metrics=metrics)
