"""Sequence classifiers as reward ensembles: K linear heads on one frozen backbone.

Ten heads are ten labels of one sequence-classification model. So an ensemble of heads is an
ordinary Hugging Face checkpoint, and a reward model is an ensemble with one member.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prudent.checkpoint_files import positions
from prudent.checkpoints import (
    MAX_LENGTH,
    check_length,
    check_tokenizer,
    load_tokenizer,
    save_checkpoint,
    save_tensors,
)
from prudent.errors import InputError, quoted
from prudent.rewards.features import BATCH_TOKENS, extract
from prudent.rewards.interface import Rewards
from prudent.rewards.models import final_linear, load_reward_model
from prudent.rewards.text import Prompt, check_template


class RewardEnsemble:
    """K rewards for each prompt and response: ``ensemble(prompts, responses) -> Rewards``.

    Loads any sequence-classification checkpoint; K is its number of labels. One forward pass of
    the backbone serves all heads. Rewards are the logits less ``config.reward_offsets``.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        if model.config.pad_token_id is None:  # without it, models refuse batches of texts
            model.config.pad_token_id = tokenizer.pad_token_id
        self.tokenizer = _within(tokenizer, model)
        self.batch_tokens = batch_tokens
        linear = final_linear(model)[1]
        offsets = reward_offsets(model, linear.out_features)
        self.weight = linear.weight.float().cpu()
        bias = torch.zeros(len(self.weight)) if linear.bias is None else linear.bias.float().cpu()
        self.bias = bias - torch.tensor(offsets)

    @classmethod
    def load(
        cls,
        path: str | Path,
        batch_tokens: int = BATCH_TOKENS,
        revision: str | None = None,
    ) -> RewardEnsemble:
        """Loads a checkpoint; ``InputError`` if it lacks a weight or a template."""
        return cls(*load_classifier(path, revision), batch_tokens)

    @property
    def heads(self) -> int:
        """The number of heads K."""
        return len(self.weight)

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Rewards:
        """The heads' rewards [B, K] and the features [B, d], float32 on the CPU."""
        features = extract(self.model, self.tokenizer, prompts, responses, self.batch_tokens)
        return self.from_features(features)

    def from_features(self, features: torch.Tensor) -> Rewards:
        """The heads' rewards of features [B, d] of this backbone."""
        return Rewards(self.rewards(features), features=features)

    def rewards(self, features: torch.Tensor) -> torch.Tensor:
        """Rewards [B, K] from features [B, d] of this backbone."""
        return self.finite(features @ self.weight.T + self.bias)

    def finite(self, rewards: torch.Tensor) -> torch.Tensor:
        """Returns the rewards [B, K]; ``InputError`` unless they are finite."""
        if not rewards.isfinite().all():
            row, head = (~rewards.isfinite()).nonzero()[0].tolist()
            raise InputError(
                f"{self.model.name_or_path}: the reward of head {head} is {rewards[row, head]} for "
                f"the response {row}; expected finite rewards"
            )
        return rewards


def _within(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> PreTrainedTokenizerBase:
    """The tokenizer; if it has no length limit, a copy that cuts texts to the model's limit."""
    limit = positions(model.config.to_dict()) or MAX_LENGTH
    if tokenizer.model_max_length <= limit:
        return tokenizer
    cutting = copy.copy(tokenizer)
    cutting.model_max_length = limit
    return cutting


def mean_rewards(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
) -> list[float]:
    """Each head's mean logit [K] over some texts, to be subtracted from its rewards.

    A Bradley-Terry reward is defined only up to a constant. Without this step, the spread of the
    members includes the spread of their arbitrary constants.
    """
    linear = final_linear(model)[1]
    mean = extract(model, tokenizer, prompts, responses).mean(0)
    with torch.no_grad():
        return linear(mean.to(linear.weight)).float().cpu().tolist()


def load_classifier(
    path: str | Path, revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A trained sequence classifier, and its tokenizer with the chat template.

    ``InputError`` if a weight or the template is missing, or if the parts do not fit together.
    """
    tokenizer = load_tokenizer(path, revision)
    if tokenizer.chat_template is None:
        raise InputError(
            f"{path}: the reward model's tokenizer has no chat template, so it is not known "
            "how it reads a prompt and a response; store one with the checkpoint"
        )
    check_template(tokenizer, path)
    model = load_reward_model(path, tokenizer.model_max_length, revision)
    check_tokenizer(tokenizer, model, path)
    check_length(model, _longest(tokenizer, model), "the tokenizer's model_max_length is")
    return model, tokenizer


def reward_offsets(model: PreTrainedModel, heads: int) -> list[float]:
    """``config.reward_offsets``: what to subtract from each head's or member's logits."""
    offsets = getattr(model.config, "reward_offsets", None)
    if offsets is None:
        return [0.0] * heads
    if not finite_numbers(offsets) or len(offsets) != heads:
        raise InputError(
            f"{model.name_or_path}: config.reward_offsets is {quoted(offsets)}, expected {heads} "
            "finite numbers, one for each head"
        )
    return offsets


def finite_numbers(values: Any) -> bool:
    """Whether a value of a JSON file is a list of numbers that float32 can hold."""
    return isinstance(values, list) and all(
        isinstance(number, int | float)
        and not isinstance(number, bool)
        and abs(number) <= torch.finfo(torch.float32).max  # not infinity, NaN, or a long integer
        for number in values
    )


def _longest(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """The tokenizer's length limit, or the model's if the tokenizer has none."""
    limit = tokenizer.model_max_length
    if limit == MAX_LENGTH:
        limit = tokenizer.model_max_length = positions(model.config.to_dict()) or MAX_LENGTH
    return limit


@dataclass
class Heads:
    """Trained heads: weight [K, d], bias [K] or None, offsets [K] to subtract from the logits."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    offsets: torch.Tensor
    losses: pd.DataFrame
    untrained: dict[str, torch.Tensor] | None = None
    """The heads before training: weight [K, d], offsets [K], and any other tensors of the kind."""


def save_ensemble(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    heads: Heads,
    path: str | Path,
    kind: str = "heads",
    std: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Writes the base model with its head replaced by K heads, as a checkpoint with K labels.

    ``config.reward_offsets`` holds what to subtract from the logits for centred rewards, and
    ``config.reward_ensemble`` the kind. The heads before training are written to
    untrained.safetensors, and ``std``, a kind's other tensors per head, to std.safetensors.
    """
    name, linear = final_linear(base)
    count, width = heads.weight.shape
    replaced = nn.Linear(width, count, bias=linear.bias is not None)
    with torch.no_grad():
        replaced.weight.copy_(heads.weight)
        if heads.bias is not None:
            replaced.bias.copy_(heads.bias)

    def more(folder: Path) -> None:
        if heads.untrained is not None:
            save_tensors(heads.untrained, folder / "untrained.safetensors")
        if std is not None:
            save_tensors(std, folder / "std.safetensors")

    written = _with_module(base, name.split("."), replaced.to(linear.weight))
    written.config = copy.deepcopy(base.config)
    written.config.num_labels = count
    written.config.reward_offsets = heads.offsets.tolist()
    written.config.reward_ensemble = kind
    save_checkpoint(written, tokenizer, path, more=more)


def _with_module(model: nn.Module, names: list[str], module: nn.Module) -> nn.Module:
    """A model with another module in that place, which shares all others with ``model``."""
    if not names:
        return module
    copied = copy.copy(model)
    copied._modules = dict(model._modules)
    copied._modules[names[0]] = _with_module(model._modules[names[0]], names[1:], module)
    return copied
