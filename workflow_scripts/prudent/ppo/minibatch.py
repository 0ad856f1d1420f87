"""PPO's experience, and the loss of a part of it: pure functions and modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from prudent.policies.sampling import response_loss, response_states
from prudent.ppo import losses
from prudent.ppo.settings import PPOSettings


@dataclass
class Experience:
    """A batch to learn from: B prompts of P tokens, padded on the left, responses of T tokens."""

    ids: Tensor
    """[B, P + T] prompts and responses."""
    attention_mask: Tensor
    """[B, P + T] 1 on their real tokens."""
    mask: Tensor
    """[B, T] 1 on the responses' tokens; all other fields are [B, T] too."""
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    reference_log_probs: Tensor
    penalty_coefficient: Tensor

    def rows(self, index: Tensor | slice) -> Experience:
        """The part with these rows."""
        return Experience(*(getattr(self, field.name)[index] for field in fields(self)))


class ValueFunction(nn.Module):
    """Values of the states in which tokens are chosen: a linear head, on a backbone or without."""

    def __init__(self, head: nn.Linear, backbone: Any = None) -> None:
        super().__init__()
        self.head, self.backbone = head, backbone

    def forward(self, states: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Values [B, T], in the head's precision.

        ``states`` [B, T, d] are the policy's; with its own backbone it reads ``ids`` and ``mask``
        [B, P + T] instead.
        """
        if self.backbone is not None:
            states = response_states(self.backbone, ids, mask, states.shape[1])
        with torch.autocast(states.device.type, enabled=False):
            return self.head(states.to(self.head.weight.dtype)).squeeze(-1)


def minibatch_loss(
    policy: Any,
    value: ValueFunction,
    batch: Experience,
    settings: PPOSettings,
    tokens: Tensor,
    penalty: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a part of a minibatch, a scalar with gradient, and its terms.

    ``tokens`` is the number of tokens of the whole minibatch, over which all means are taken. So
    the parts add up to the whole, however it is cut. ``penalty`` is a ``Signal``'s.
    """
    old_log_probs, advantages, mask, reference_log_probs, coefficients = (
        part.flatten()
        for part in (
            *(batch.log_probs, batch.advantages, batch.mask),
            *(batch.reference_log_probs, batch.penalty_coefficient),
        )
    )
    clipped = torch.zeros_like(old_log_probs)

    def surrogate(log_probs: Tensor, rows: slice) -> Tensor:
        loss, clipped[rows] = losses.policy_loss(
            log_probs, old_log_probs[rows], advantages[rows], settings.clip_range
        )
        if penalty is not None:
            # Values outside the mask are meaningless, and a penalty may make them infinite.
            log_ratio = (log_probs - reference_log_probs[rows]).masked_fill(mask[rows] == 0, 0.0)
            loss = loss + coefficients[rows] * penalty(log_ratio)
        return (loss * mask[rows]).sum() / tokens

    policy_loss, log_probs, states = response_loss(
        policy,
        batch.ids,
        batch.attention_mask,
        batch.mask.shape[1],
        settings.temperature,
        surrogate,
    )
    values = value(states, batch.ids, batch.attention_mask)
    value_loss = losses.value_loss(values, batch.values, batch.returns, settings.value_clip_range)
    value_loss = (value_loss * batch.mask).sum() / tokens
    ratio = torch.exp(log_probs - batch.log_probs)
    terms = {
        "policy_loss": policy_loss.detach(),
        "value_loss": value_loss.detach(),
        "clip_fraction": (clipped * mask).sum() / tokens,
        "ratio": (ratio * batch.mask).sum() / tokens,
    }
    return policy_loss + settings.value_coefficient * value_loss, terms


def value_head(policy: Any, stream: torch.Generator) -> nn.Linear:
    """A linear head, at least float32, with nn.Linear's own initialisation from a stream."""
    width = policy.get_output_embeddings().weight.shape[1]
    dtype = torch.promote_types(policy.dtype, torch.float32)
    head = nn.utils.skip_init(nn.Linear, width, 1, device=policy.device, dtype=dtype)
    with torch.no_grad():
        for parameter in head.parameters():
            draws = torch.rand(parameter.shape, generator=stream, dtype=dtype)
            parameter.copy_((2 * draws - 1) / width**0.5)
    return head
