"""The trainer's checks: models and rewards of other forms, and numbers that are not finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from prudent.checkpoints import check_tokenizer
from prudent.errors import InputError, quoted
from prudent.policies.sampling import check_cache
from prudent.rewards.interface import Rewards, as_rewards


class NonFiniteError(InputError):
    """Training met an infinity or NaN; the message names the step and the term."""


def check_models(policy: Any, reference: Any, tokenizer: Any) -> None:
    """``InputError`` where the policy cannot be trained, or the reference would be trained too."""
    if policy is reference:
        raise InputError("the policy and the reference are one object; they have to be two")
    sizes = [_vocabulary(policy, "policy"), _vocabulary(reference, "reference")]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"the policy's vocabulary has {sizes[0]} tokens and the reference's {sizes[1]}; "
            "expected two models of one vocabulary"
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise InputError(
            f"tokenizer: found {type(tokenizer).__name__}, expected the policy's, of transformers"
        )
    name = policy.name_or_path or type(policy).__name__
    check_tokenizer(tokenizer, policy, name)
    used = max(tokenizer.get_vocab().values()) + 1
    if used < sizes[0]:
        raise InputError(
            f"{name}: the model gives probabilities to {sizes[0]} tokens, and the tokenizer knows "
            f"{used}; the others must not be drawn: call model.resize_token_embeddings({used}) of "
            "policy and reference"
        )
    _check_weights(policy, name)
    for model in (policy, reference):
        check_cache(model, model.name_or_path or type(model).__name__)
    if not any(parameter.requires_grad for parameter in policy.parameters()):
        raise InputError(
            "the policy is frozen: none of its parameters requires a gradient; expected one that "
            "can be trained"
        )
    theirs = {id(parameter) for parameter in reference.parameters()}
    theirs |= {parameter.data_ptr() for parameter in reference.parameters()}
    for name, parameter in policy.named_parameters():
        if id(parameter) in theirs or parameter.data_ptr() in theirs:
            raise InputError(
                f"the policy shares {name} with the reference, which would be trained with it; "
                "load the model twice, or copy it with copy.deepcopy"
            )


def _check_weights(policy: Any, name: str) -> None:
    """``InputError`` for weights too coarse for small steps, and for adapters."""
    if hasattr(policy, "peft_config"):
        raise InputError(
            f"{name}: is a model with adapters (peft), which this trainer does not know; expected "
            "a model whose own weights are trained, as merge_and_unload() gives"
        )
    for key, parameter in policy.named_parameters():
        if parameter.requires_grad and parameter.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"{name}: the weights {key} are {parameter.dtype}, in which most steps of a small "
                "learning rate round to nothing; expected float32: load the policy with "
                "dtype=torch.float32 (ppo.bfloat16 still computes in bfloat16)"
            )


def _vocabulary(model: Any, name: str) -> int:
    """The number of tokens that a model gives probabilities to; ``InputError`` for other models."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is None:
        raise InputError(f"{name}: found {type(model).__name__}, expected a causal language model")
    return head.weight.shape[0]


def checked_rewards(
    found: Any, head: int, step: int, prompts: list[str], responses: list[str]
) -> Rewards:
    """A reward function's result for these, as ``Rewards`` that have the policy's head."""
    rewards = as_rewards(found, len(prompts))
    if not 0 <= head < rewards.members:
        raise InputError(
            f"the policy's head is {head}, and the reward function has {rewards.members} "
            "heads, counted from 0"
        )
    bad = (~rewards.mean.isfinite()).any(dim=1).nonzero().flatten().tolist()
    if bad:
        raise NonFiniteError(
            f"step {step}: the reward is not finite for {len(bad)} of {len(prompts)} "
            f"responses; the prompts were {some([prompts[row] for row in bad])}; the first "
            f"response was {quoted(responses[bad[0]])}"
        )
    return rewards


def require_finite_rows(step: int, prompts: list[str], name: str, values: Tensor) -> None:
    """Checks one number per response; ``values`` and ``prompts`` are a step's, [B]."""
    if not values.isfinite().all():
        rows = (~values.isfinite()).nonzero().flatten().tolist()
        raise NonFiniteError(
            f"step {step}: the {name} is not finite for {len(rows)} of {len(prompts)} responses; "
            f"the prompts were {some([prompts[row] for row in rows])}"
        )


def some(prompts: list[str], limit: int = 3) -> str:
    """The first few prompts, and how many more there are."""
    rest = f" and {len(prompts) - limit} more" if len(prompts) > limit else ""
    return ", ".join(repr(prompt) for prompt in prompts[:limit]) + rest


def require_finite_updates(
    step: int, orders: list[Tensor], texts: list[str], terms: dict[str, Tensor]
) -> None:
    """Checks a step's terms, each [epochs * minibatches per epoch] in order, all at once.

    ``orders`` are the epochs' orders of the responses, and ``texts`` the responses' prompts.
    """
    # One transfer from the device per step; the place of a fault is searched only if there is one.
    if torch.cat(list(terms.values())).isfinite().all():
        return
    bad = {name: (~values.isfinite()).tolist() for name, values in terms.items()}
    first = {name: flags.index(True) / len(flags) for name, flags in bad.items() if any(flags)}
    name = min(first, key=first.__getitem__)
    per_epoch = len(bad[name]) // len(orders)
    epoch, place = divmod(bad[name].index(True), per_epoch)
    rows = orders[epoch].chunk(per_epoch)[place].tolist()
    raise NonFiniteError(
        f"step {step}, epoch {epoch}, minibatch {place}: the {name.replace('_', ' ')} is not "
        f"finite; a smaller learning rate or a larger KL coefficient may help; the prompts "
        f"were {some([texts[row] for row in rows])}"
    )
