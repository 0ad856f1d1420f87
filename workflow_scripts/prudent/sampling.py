"""Sampling responses from a causal language model, and scoring given ones.

Both work with any Hugging Face causal LM. Prompts are padded on the left, so that all responses
start in the same column; positions are counted from each row's first real token. What a row gets
depends on that row alone: the order and company of the rows, and the padding, change nothing beyond
rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prudent.errors import InputError
from prudent.losses import entropy


@dataclass
class Rollout:
    """Responses to B prompts, of T tokens at most (the longest one's length)."""

    response_ids: Tensor
    """[B, T] tokens; padding behind a response's end."""
    mask: Tensor
    """[B, T] float: 1 on a response's tokens, its EOS included."""
    log_probs: Tensor
    """[B, T] of the tokens, at the sampling temperature; 0 outside the mask."""
    entropies: Tensor
    """[B, T] of the distributions that the tokens were drawn from; 0 outside the mask."""
    hidden_states: Tensor
    """[B, T, d] last hidden states in which the tokens were chosen, i.e. one position before."""


@torch.no_grad()
def sample(
    model: Any,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    uniforms: Tensor,
    temperature: float,
    eos_token_id: int | None,
    pad_token_id: int,
) -> Rollout:
    """Draws one response a prompt by inverting the cumulative distribution at given uniforms.

    Token t of row b is the first whose cumulative probability exceeds ``uniforms[b, t]`` (in
    [0, 1)); so the draws belong to the row. A response ends with EOS, or after as many tokens as
    ``uniforms`` [B, T] has columns; sampling stops when all have ended. ``prompt_ids`` and
    ``prompt_mask`` [B, P] are padded on the left.
    """
    mask, positions = prompt_mask, position_ids(prompt_mask)
    inputs, cache = prompt_ids, None
    alive = torch.ones_like(prompt_mask[:, 0], dtype=torch.bool)
    columns: list[tuple[Tensor, ...]] = []
    for t in range(uniforms.shape[1]):
        output = model(
            input_ids=inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            output_hidden_states=True,
        )
        cache = output.past_key_values
        log_probs = _log_softmax(output.logits[:, -1], temperature)
        tokens = inverse_cdf(log_probs.exp(), uniforms[:, t])
        columns.append(
            (
                tokens.masked_fill(~alive, pad_token_id),
                alive.to(log_probs.dtype),
                log_probs.gather(1, tokens[:, None]).squeeze(1) * alive,
                entropy(log_probs) * alive,
                output.hidden_states[-1][:, -1],
            )
        )
        inputs = columns[-1][0][:, None]
        mask = torch.cat([mask, alive[:, None].to(mask.dtype)], dim=1)
        positions = positions[:, -1:] + 1
        if eos_token_id is not None:
            alive = alive & (tokens != eos_token_id)
            if not alive.any():
                break
    return Rollout(*(torch.stack(column, dim=1) for column in zip(*columns, strict=True)))


def response_statistics(
    model: Any, ids: Tensor, mask: Tensor, response_length: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities [B, T] of given responses, and the hidden states [B, T, d] behind them.

    ``ids`` and ``mask`` [B, P + T] are prompts padded on the left, then responses of
    ``response_length`` T; the log-probabilities are those at the sampling temperature. The last
    token chooses nothing, so the model does not read it, and logits are computed for the T
    positions that chose the responses alone. What stands outside the mask means nothing.
    """
    output = model(
        input_ids=ids[:, :-1],
        attention_mask=mask[:, :-1],
        position_ids=position_ids(mask)[:, :-1],
        use_cache=False,
        logits_to_keep=response_length,
        output_hidden_states=True,
    )
    log_probs = _log_softmax(output.logits, temperature)
    chosen = ids[:, -response_length:, None]
    return (
        log_probs.gather(2, chosen).squeeze(2),
        output.hidden_states[-1][:, -response_length:],
    )


def inverse_cdf(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """The first index whose cumulative probability exceeds the uniform: [B, V], [B] -> [B].

    Uniforms are scaled by the sum, which rounding leaves near 1, and kept below it: an index of
    probability 0 is never chosen.
    """
    cumulative = probabilities.cumsum(dim=-1)
    total = cumulative[:, -1:]
    target = uniforms.to(cumulative)[:, None] * total
    target = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True).squeeze(1)


def position_ids(mask: Tensor) -> Tensor:
    """Each token's place among the real tokens of its row; padding on the left gets 0."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


def pad_token(tokenizer: Any) -> int:
    """The tokenizer's padding token, or EOS where it has none (masks say what is real)."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    raise InputError("the policy's tokenizer has neither a padding nor an EOS token; it needs one")


def encode_prompts(tokenizer: Any, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Prompts as ids and mask [B, P], padded on the left to the longest."""
    rows = tokenizer(prompts)["input_ids"]
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_token(tokenizer))
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        if not row:
            raise InputError(f"prompt {prompts[i]!r}: it has no tokens; a policy needs at least 1")
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return ids, mask


def decode_responses(
    tokenizer: Any, prompt_ids: Tensor, prompt_mask: Tensor, response_ids: Tensor, mask: Tensor
) -> list[str]:
    """The responses' texts without special tokens, to be written right behind their prompts.

    Decoded together with the prompt, since some tokenizers (sentencepiece's) drop the space in
    front of a text's first word.
    """
    prompts = [
        ids[keep].tolist()
        for ids, keep in zip(prompt_ids.cpu(), prompt_mask.cpu().bool(), strict=True)
    ]
    responses = [
        ids[keep].tolist() for ids, keep in zip(response_ids.cpu(), mask.cpu().bool(), strict=True)
    ]

    def decode(rows: list[list[int]]) -> list[str]:
        return tokenizer.batch_decode(
            rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    heads = decode(prompts)
    wholes = decode([p + r for p, r in zip(prompts, responses, strict=True)])
    return [
        # A response can complete a character that the prompt's last token began; then there is no
        # clean cut, and the response is decoded by itself.
        whole[len(head) :] if whole.startswith(head) else decode([response])[0]
        for head, whole, response in zip(heads, wholes, responses, strict=True)
    ]


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """In float32 at least, whatever the model computes in."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return (logits if temperature == 1 else logits / temperature).log_softmax(dim=-1)
