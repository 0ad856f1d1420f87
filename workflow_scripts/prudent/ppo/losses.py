"""Losses of PPO: pure functions of tensors.

Shapes: B responses of at most T tokens. ``mask [B, T]`` is 1 on a response's tokens (its EOS
included) and 0 after them, and every response has at least one token. The forms are those of TRL
0.11 (``PPOTrainer``), which the paper used.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the places where the mask is 1, a scalar."""
    return (values * mask).sum() / mask.sum()


def masked_whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """Values scaled to variance 1 over the mask (Bessel's correction, 1e-8 added to the variance).
    A single value, which has no variance, becomes its mean.

    The mean becomes 0, or is kept with ``shift_mean=False``. Values outside the mask are
    transformed too, and are meaningless.
    """
    mean = masked_mean(values, mask)
    count = mask.sum()
    variance = masked_mean((values - mean) ** 2, mask) * count / (count - 1).clamp(min=1)
    whitened = (values - mean) * torch.rsqrt(variance + 1e-8)
    return whitened if shift_mean else whitened + mean


def token_rewards(log_ratio: Tensor, mask: Tensor, score: Tensor, kl_coefficient: Tensor) -> Tensor:
    """The reward of each token, [B, T]: the KL penalty on every token, the score on the last one.

    reward[b, t] = -kl_coefficient[b] * log_ratio[b, t] * mask[b, t] + 1[t = last(b)] * score[b],
    with ``log_ratio`` [B, T] = log pi_old - log pi_reference of the sampled tokens.
    """
    rewards = -kl_coefficient[:, None] * log_ratio * mask
    last = mask.sum(dim=1, keepdim=True).long() - 1
    return rewards.scatter_add(1, last, score[:, None].to(rewards.dtype))


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (1506.02438): advantages and returns, each [B, T].

    ``values`` [B, T] are those of the states in which the tokens were chosen. A response ends with
    its last token; the value after it is 0. Returns = advantages + values, both 0 outside the mask.
    """
    rewards, values = rewards * mask, values * mask
    advantages = torch.zeros_like(values)
    next_value = next_advantage = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = delta + gamma * lam * next_advantage
        next_value = values[:, t]
        advantages[:, t] = next_advantage
    return advantages, advantages + values


def policy_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate of each token (1707.06347, Eq 7), and 1 where clipping is active."""
    ratio = torch.exp(log_probs - old_log_probs)
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(unclipped, clipped), (clipped > unclipped).to(log_probs.dtype)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float) -> Tensor:
    """Half the squared error of each value, which may differ from the old one by ``clip_range``."""
    near = torch.clamp(values, old_values - clip_range, old_values + clip_range)
    return 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2)
