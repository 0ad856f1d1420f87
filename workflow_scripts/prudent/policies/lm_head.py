"""The LM head of a causal language model: log-probabilities of tokens without keeping the logits.

Logits are by far the largest tensors of a training step (1,280 tokens of GPT-2's vocabulary are
257 MB), and most of their cost is moving them through memory several times. Here they exist for a
few rows at a time, in one reused buffer that fits the processor's cache. The gradient of a loss of
the log-probabilities is computed at once, while the rows' probabilities still exist, as in Liger's
fused cross-entropy (2410.10989).

This works for models whose logits are a linear layer of the last hidden states. Models that do more
(Gemma 2 soft-caps its logits, others scale them) are recognised by a test, and use their own
forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

CHUNK_BYTES = {"cpu": 128 << 20, "cuda": 1 << 30}
"""Size of the buffer that holds logits, by the kind of device."""

_heads: WeakKeyDictionary[nn.Module, tuple[nn.Module, nn.Linear | None]] = WeakKeyDictionary()


def linear_head(model: Any) -> nn.Linear | None:
    """The layer that alone maps the model's last hidden states to its logits, or None.

    Found by a test, once per model and output layer; a change of vocabulary replaces that layer.
    """
    head = model.get_output_embeddings()
    known = _heads.get(model)
    if known is None or known[0] is not head:
        explains = isinstance(head, nn.Linear) and _explains(head, model)
        known = _heads[model] = (head, head if explains else None)
    return known[1]


@torch.no_grad()
def _explains(head: nn.Linear, model: Any) -> bool:
    """Whether the model's logits equal the head's for any states, including large logits."""
    ids = torch.arange(8, device=model.device)[None] % head.out_features
    seen: list[Tensor] = []

    def put(_module: Any, _inputs: Any, output: Any) -> Any:
        states = output.last_hidden_state
        if states.shape[-1] == head.in_features:
            # Scales the logits to some hundreds: soft caps hardly change logits near 0.
            scale = 300 / head(states).std().clamp(min=1e-6)
            seen.append(states * scale)
            output.last_hidden_state = seen[0]
        return output

    hook = model.base_model.register_forward_hook(put)
    try:
        with torch.autocast(model.device.type, enabled=False):
            logits = model(input_ids=ids, use_cache=False).logits
            return bool(seen) and torch.allclose(head(seen[0]), logits, rtol=1e-2, atol=3)
    finally:
        hook.remove()


def chosen_log_probs(
    head: nn.Linear, states: Tensor, tokens: Tensor, temperature: float = 1.0
) -> Tensor:
    """Log-probabilities [N] of the tokens [N], chosen in states [N, d].

    If gradients are enabled, all logits are kept.
    """
    if torch.is_grad_enabled():
        return log_softmax(head(states), temperature).gather(1, tokens[:, None]).squeeze(1)
    chosen = [
        log_softmax(logits, temperature).gather(1, tokens[rows, None])
        for rows, logits in _chunks(states, head.weight, head.bias)
    ]
    return torch.cat(chosen).squeeze(1)


def fused_loss(
    head: nn.Linear,
    states: Tensor,
    tokens: Tensor,
    temperature: float,
    loss_of: Callable[[Tensor, slice], Tensor],
) -> tuple[Tensor, Tensor]:
    """A loss of tokens' log-probabilities, a scalar with gradient; and these [N], without.

    ``loss_of(log_probs [n], rows)`` is the part of the loss, a scalar, from some rows of the
    ``states`` [N, d] and ``tokens`` [N].
    """
    return _FusedLoss.apply(states, head.weight, head.bias, tokens, temperature, loss_of)


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, weight, bias, tokens, temperature, loss_of):
        dtype = _compute_dtype(weight)
        matrix = weight.to(dtype)
        log_probs = states.new_empty(len(states), dtype=_wide(dtype))
        total = log_probs.new_zeros(())
        grad_states = torch.empty_like(states)
        grad_weight = torch.empty_like(weight) if weight.requires_grad else None
        grad_bias = torch.zeros_like(bias) if bias is not None and bias.requires_grad else None
        for rows, logits in _chunks(states, matrix, bias):
            chosen_tokens = tokens[rows]
            logits = log_softmax(logits, temperature)
            chosen = logits.gather(1, chosen_tokens[:, None]).squeeze(1)
            log_probs[rows] = chosen
            with torch.enable_grad():
                chosen.requires_grad_()
                loss = loss_of(chosen, rows)
                (slope,) = torch.autograd.grad(loss, chosen)
            total += loss.detach()
            # d loss / d logits = slope / temperature * (one-hot of the token - probabilities); the
            # factor is cheaper to apply to the states than to the probabilities.
            slope = (slope / temperature)[:, None]
            probabilities = logits.exp_().to(dtype)
            pull = weight[chosen_tokens] - torch.mm(probabilities, matrix)
            grad_states[rows] = (slope * pull).to(states.dtype)
            if grad_weight is not None:
                weighted = (slope * states[rows]).to(weight.dtype)
                first = rows.start == 0
                if dtype == weight.dtype:
                    grad_weight.addmm_(probabilities.T, weighted, beta=not first, alpha=-1)
                else:
                    part = torch.mm(probabilities.T, -weighted.to(dtype))
                    grad_weight.copy_(part) if first else grad_weight.add_(part)
                grad_weight.index_add_(0, chosen_tokens, weighted)
            if grad_bias is not None:
                slope = slope.squeeze(1).to(bias.dtype)
                grad_bias -= torch.mv(probabilities.T.to(bias.dtype), slope)
                grad_bias.index_add_(0, chosen_tokens, slope)
        ctx.gradients = grad_states, grad_weight, grad_bias
        ctx.mark_non_differentiable(log_probs)
        return total, log_probs

    @staticmethod
    def backward(ctx, factor, _):
        gradients, ctx.gradients = ctx.gradients, None
        if factor.device.type != "cpu" or factor != 1:
            gradients = [None if g is None else g * factor.to(g.dtype) for g in gradients]
        return (*gradients, None, None, None)


def _chunks(states: Tensor, weight: Tensor, bias: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of rows in turn: their slice, and their logits in a buffer that is reused."""
    dtype = _compute_dtype(weight)
    weight, states = weight.to(dtype), states.to(dtype)
    wide = _wide(dtype)
    limit = CHUNK_BYTES.get(states.device.type, 1 << 30) // (len(weight) * wide.itemsize)
    count = min(max(limit, 1), len(states))
    buffer = states.new_empty((count, len(weight)), dtype=wide)
    for start in range(0, len(states), count):
        rows = slice(start, min(start + count, len(states)))
        logits = buffer[: rows.stop - start]
        if wide == dtype:
            torch.mm(states[rows], weight.T, out=logits)
        else:
            logits.copy_(torch.mm(states[rows], weight.T))
        if bias is not None:
            logits += bias
        yield rows, logits


def log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """Log-softmax, at least in float32, and in place if no gradient needs the logits."""
    logits = logits.to(_wide(logits.dtype))
    if torch.is_grad_enabled():
        return (logits / temperature).log_softmax(dim=-1)
    if temperature != 1:
        logits /= temperature
    return torch.log_softmax(logits, dim=-1, out=logits)


def _compute_dtype(weight: Tensor) -> torch.dtype:
    """The precision of matrix products: the weights', or autocast's."""
    kind = weight.device.type
    enabled = torch.is_autocast_enabled(kind) and weight.dtype != torch.float64
    return torch.get_autocast_dtype(kind) if enabled else weight.dtype


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
