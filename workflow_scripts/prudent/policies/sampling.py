"""Sampling responses from a causal language model, and scoring given ones.

Both work with any Hugging Face causal LM that ``check_cache`` passes. Prompts are padded on the
left, so that all responses start in the same column; positions are counted from each row's first
real token. The result for a row depends on that row alone: the other rows, their order and the
padding change it by rounding only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from prudent.checkpoints import why
from prudent.errors import InputError
from prudent.policies.lm_head import (
    CHUNK_BYTES,
    chosen_log_probs,
    fused_loss,
    linear_head,
    log_softmax,
)

BLOCK = 256
"""Tokens of the vocabulary that the sampler sums at once."""


@dataclass
class Rollout:
    """Responses to B prompts, of T tokens at most (the longest one's length)."""

    response_ids: Tensor
    """[B, T] tokens; padding after a response's end."""
    mask: Tensor
    """[B, T] float: 1 on a response's tokens, its EOS included."""
    log_probs: Tensor
    """[B, T] of the tokens, at the sampling temperature; 0 outside the mask."""
    entropies: Tensor
    """[B, T] of the distributions that the tokens were drawn from; 0 outside the mask."""
    hidden_states: Tensor
    """[B, T, d] last hidden states in which the tokens were chosen, i.e. one position before."""

    def columns(self, count: int) -> Rollout:
        """The first tokens of each response."""
        return Rollout(*(getattr(self, field.name)[:, :count] for field in fields(self)))


@torch.no_grad()
def sample(
    model: Any,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    uniforms: Tensor,
    temperature: float,
    eos_token_ids: Sequence[int],
    pad_token_id: int,
) -> Rollout:
    """Draws one response per prompt by inverting the cumulative distribution at given uniforms.

    Token t of row b is the first whose cumulative probability exceeds ``uniforms[b, t]`` (in
    [0, 1)), so the draws belong to the row. A response ends with one of the EOS tokens, or after as
    many tokens as ``uniforms`` [B, T] has columns; sampling stops when all have ended.
    ``prompt_ids`` and ``prompt_mask`` [B, P] are padded on the left.
    """
    head = linear_head(model)
    mask, positions = prompt_mask, position_ids(prompt_mask)
    inputs, cache = prompt_ids, None
    alive = torch.ones_like(prompt_mask[:, 0], dtype=torch.bool)
    columns: list[tuple[Tensor, ...]] = []
    for t in range(uniforms.shape[1]):
        states, logits, cache = _forward(
            model, inputs, mask, positions, keep=1, use_cache=True, past_key_values=cache
        )
        states = states[:, -1]
        log_probs = log_softmax(logits[:, -1] if head is None else head(states), temperature)
        probabilities = log_probs.exp()
        tokens = inverse_cdf(probabilities, uniforms[:, t])
        columns.append(
            (
                tokens.masked_fill(~alive, pad_token_id),
                alive.to(log_probs.dtype),
                log_probs.gather(1, tokens[:, None]).squeeze(1) * alive,
                entropy(log_probs, probabilities) * alive,
                states,
            )
        )
        inputs = columns[-1][0][:, None]
        mask = torch.cat([mask, alive[:, None].to(mask.dtype)], dim=1)
        positions = positions[:, -1:] + 1
        for end in eos_token_ids:
            alive = alive & (tokens != end)
        if eos_token_ids:
            # Reading from a GPU waits for it, so this is checked only now and then.
            if (alive.device.type == "cpu" or t % 16 == 15) and not alive.any():
                break
    rollout = Rollout(*(torch.stack(column, dim=1) for column in zip(*columns, strict=True)))
    return rollout.columns(int(rollout.mask.sum(dim=1).max()))


def response_statistics(
    model: Any, ids: Tensor, mask: Tensor, response_length: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities [B, T] of given responses, and the hidden states [B, T, d] behind them.

    ``ids`` and ``mask`` [B, P + T] are prompts padded on the left, then responses of
    ``response_length`` T; the log-probabilities are at the sampling temperature. No token follows
    the last one, so the model does not read it, and computes logits only for the T positions that
    chose the responses. Values outside the mask are meaningless.
    """
    states, log_probs = _chosen(model, ids, mask, response_length, temperature)
    if log_probs is None:
        tokens = ids[:, -response_length:]
        log_probs = chosen_log_probs(
            linear_head(model), states.flatten(0, 1), tokens.flatten(), temperature
        ).view(tokens.shape)
    return log_probs, states


@torch.no_grad()
def token_kl(
    policy: Any, reference: Any, ids: Tensor, mask: Tensor, response_length: int, temperature: float
) -> Tensor:
    """KL(policy || reference) [B, T], in nats, of the distributions that responses were drawn from.

    It is over all next tokens at each position of given responses; ``ids`` and ``mask`` are as in
    ``response_statistics``. The sum over a response's tokens has the same mean as its log-ratio,
    the KL of the policies, without the noise of the token that was drawn. Values outside the mask
    are meaningless. Rows are read in parts, so that their logits fit into memory.
    """
    size = policy.get_output_embeddings().weight.shape[0]
    rows = max(1, CHUNK_BYTES[ids.device.type] // (8 * response_length * size))
    parts = []
    for start in range(0, len(ids), rows):
        part = slice(start, start + rows)
        own, other = (
            _distributions(model, ids[part], mask[part], response_length, temperature)
            for model in (policy, reference)
        )
        probabilities = own.exp()
        # A token that was ruled out adds 0, not 0 times minus infinity.
        terms = torch.where(probabilities > 0, probabilities * (own - other), 0.0)
        parts.append(terms.sum(dim=-1))
    return torch.cat(parts)


@torch.no_grad()
def check_cache(model: Any, name: str) -> None:
    """``InputError`` for a model whose cache, on a padded text, does not give the same results as
    reading the unpadded text at once.

    Examples are state-space models, whose caches have another form, models without a cache, and
    models that count positions by themselves.
    """
    last = model.get_input_embeddings().weight.shape[0] - 1
    ids = torch.tensor([[0, 0, last, 0]], device=model.device)
    mask = torch.ones_like(ids)
    mask[0, 0] = 0
    places = position_ids(mask)
    was_training = model.training
    model.eval()
    try:
        text = (part[:, 1:] for part in (ids, mask, places))
        whole = _forward(model, *text, keep=1, use_cache=False)[0][:, -1]
        head = {"keep": 1, "use_cache": True, "past_key_values": None}
        cache = _forward(model, ids[:, :3], mask[:, :3], places[:, :3], **head)[2]
        head["past_key_values"] = cache
        found = _forward(model, ids[:, 3:], mask, places[:, 3:], **head)[0][:, -1]
        far = 1e-2 * float(whole.nan_to_num().abs().max()) + 1e-6
        agree = torch.allclose(found, whole, rtol=1e-2, atol=far, equal_nan=True)
    except Exception as error:  # of many classes, from deep in the model
        raise InputError(
            f"{name}: responses cannot be sampled from a {type(model).__name__}: {why(error)}; "
            "expected a decoder with a cache of keys and values"
        ) from error
    finally:
        model.train(was_training)
    if cache is None or not agree:
        raise InputError(
            f"{name}: responses cannot be sampled from a {type(model).__name__}, which does not "
            "go on from its cache as from the text, or not where that is padded; expected a "
            "decoder with a cache of keys and values"
        )


def _distributions(
    model: Any, ids: Tensor, mask: Tensor, response_length: int, temperature: float
) -> Tensor:
    """Log-probabilities [B, T, V] of all tokens at each position of given responses."""
    states, logits = _read(model, ids, mask, response_length)
    return log_softmax(linear_head(model)(states) if logits is None else logits, temperature)


def response_loss(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    response_length: int,
    temperature: float,
    loss_of: Callable[[Tensor, slice], Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """A loss of the responses' log-probabilities, a scalar with gradient.

    Also returns the log-probabilities [B, T] without, and the hidden states [B, T, d] with
    gradient; see ``response_statistics``. ``loss_of(log_probs [n], rows)`` is the part of the loss
    from the tokens in a slice of [B * T], all rows in turn.
    """
    states, log_probs = _chosen(model, ids, mask, response_length, temperature)
    tokens = ids[:, -response_length:]
    if log_probs is not None:
        return loss_of(log_probs.flatten(), slice(None)), log_probs.detach(), states
    loss, log_probs = fused_loss(
        linear_head(model), states.flatten(0, 1), tokens.flatten(), temperature, loss_of
    )
    return loss, log_probs.view(tokens.shape), states


def response_states(model: Any, ids: Tensor, mask: Tensor, response_length: int) -> Tensor:
    """The last hidden states [B, T, d] in which the tokens of given responses were chosen.

    ``model`` is a causal LM or its backbone.
    """
    output = model.base_model(
        input_ids=ids[:, :-1],
        attention_mask=mask[:, :-1],
        position_ids=position_ids(mask)[:, :-1],
        use_cache=False,
    )
    return output.last_hidden_state[:, -response_length:]


def _chosen(
    model: Any, ids: Tensor, mask: Tensor, response_length: int, temperature: float
) -> tuple[Tensor, Tensor | None]:
    """Hidden states, and log-probabilities if the model's own forward pass has to compute them."""
    states, logits = _read(model, ids, mask, response_length)
    if logits is None:
        return states, None
    chosen = ids[:, -response_length:, None]
    return states, log_softmax(logits, temperature).gather(2, chosen).squeeze(2)


def _read(
    model: Any, ids: Tensor, mask: Tensor, response_length: int
) -> tuple[Tensor, Tensor | None]:
    """Hidden states [B, T, d] in which the responses' tokens were chosen, and logits [B, T, V] as
    in ``_forward``."""
    states, logits, _ = _forward(
        model,
        ids[:, :-1],
        mask[:, :-1],
        position_ids(mask)[:, :-1],
        keep=response_length,
        use_cache=False,
    )
    return states[:, -response_length:], logits


def _forward(
    model: Any, ids: Tensor, mask: Tensor, positions: Tensor, keep: int, **options: Any
) -> tuple[Tensor, Tensor | None, Any]:
    """The last hidden states [B, S, d], the logits and the KV cache.

    The logits are those of the last ``keep`` positions; None if they are a linear layer of the
    hidden states.
    """
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, **options}
    if linear_head(model) is not None:
        output = model.base_model(**inputs)
        return output.last_hidden_state, None, output.past_key_values
    output = model(**inputs, logits_to_keep=keep, output_hidden_states=True)
    return output.hidden_states[-1], output.logits, output.past_key_values


def inverse_cdf(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """The first index whose cumulative probability exceeds the uniform: [B, V], [B] -> [B].

    Uniforms are scaled by the sum, which is 1 up to rounding, and kept below it, so an index of
    probability 0 is never chosen. Sums of blocks are accumulated first, then the probabilities
    within one block, which is cheaper and more accurate than accumulating all.
    """
    size = probabilities.shape[1]
    whole = size // BLOCK * BLOCK
    sums = probabilities[:, :whole].unflatten(1, (-1, BLOCK)).sum(dim=2)
    if whole < size:
        sums = torch.cat([sums, probabilities[:, whole:].sum(dim=1, keepdim=True)], dim=1)
    block, rest = _invert(sums, uniforms.to(sums)[:, None] * sums.sum(dim=1, keepdim=True))
    places = block * BLOCK + torch.arange(BLOCK, device=block.device)
    inside = probabilities.gather(1, places.clamp(max=size - 1)) * (places < size)
    place, _ = _invert(inside, rest)
    return (block * BLOCK + place).clamp(max=size - 1).squeeze(1)


def _invert(weights: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The first index whose cumulative weight exceeds the target [B, 1], and the target's rest."""
    cumulative = weights.cumsum(dim=1)
    total = cumulative[:, -1:]
    target = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
    # The index stays in range even if weights are NaN, which the caller has to notice.
    index = torch.searchsorted(cumulative, target, right=True).clamp(max=weights.shape[1] - 1)
    before = torch.where(index > 0, cumulative.gather(1, (index - 1).clamp(min=0)), 0)
    return index, target - before


def position_ids(mask: Tensor) -> Tensor:
    """Each token's position among the real tokens of its row; padding on the left gets 0."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


def entropy(log_probs: Tensor, probabilities: Tensor | None = None) -> Tensor:
    """Entropy in nats over the last axis, from log-probabilities (log-softmax of the logits).

    Each term is at least 0, so rounding never makes the sum negative; a token that was ruled out
    (log-probability minus infinity) adds 0. ``probabilities`` are computed if not given.
    """
    probabilities = log_probs.exp() if probabilities is None else probabilities
    finite = log_probs.clamp(min=torch.finfo(log_probs.dtype).min)
    return -finite.mul_(probabilities).sum(dim=-1)
