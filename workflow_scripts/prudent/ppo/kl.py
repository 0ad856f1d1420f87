"""Estimates of KL(policy || reference) from the policy's own samples.

Both take ``log_ratio`` [B, T] = log pi - log pi_reference of the sampled tokens and ``mask``
[B, T], and return the estimate of each sample, [B], in nats: the sum over its tokens. Names as in
J. Schulman, "Approximating KL divergence" (2020).
"""

from __future__ import annotations

import torch
from torch import Tensor


def k1(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """The log-ratio itself: unbiased, of either sign. The penalty in the rewards uses it."""
    return (log_ratio * mask).sum(dim=1)


def k3(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """exp(-x) - 1 + x for the log-ratio x: unbiased, never negative, and of lower variance."""
    log_ratio = log_ratio * mask
    return (torch.expm1(-log_ratio) + log_ratio).sum(dim=1)
