"""Reward ensembles: K linear heads on one frozen backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prudent.checkpoint_files import positions
from prudent.checkpoints import MAX_LENGTH, check_length, check_tokenizer, load_tokenizer
from prudent.errors import InputError
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
        if model.config.pad_token_id is None:  # without it a model refuses more than one text
            model.config.pad_token_id = tokenizer.pad_token_id
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        linear = final_linear(model)[1]
        offsets = _offsets(model, linear.out_features)
        self.weight = linear.weight.float().cpu()
        bias = torch.zeros(len(self.weight)) if linear.bias is None else linear.bias.float().cpu()
        self.bias = bias - torch.tensor(offsets)

    @classmethod
    def load(cls, path: str | Path, batch_tokens: int = BATCH_TOKENS) -> RewardEnsemble:
        """Loads a checkpoint; ``InputError`` if a weight of it is missing or it has no template."""
        tokenizer = load_tokenizer(path)
        if tokenizer.chat_template is None:
            raise InputError(
                f"{path}: the reward model's tokenizer has no chat template, so it is not known "
                "how it reads a prompt and a response; store one with the checkpoint"
            )
        check_template(tokenizer, path)
        model = load_reward_model(path, tokenizer.model_max_length)
        check_tokenizer(tokenizer, model, path)
        check_length(model, _longest(tokenizer, model), "the tokenizer's model_max_length is")
        return cls(model, tokenizer, batch_tokens)

    @property
    def heads(self) -> int:
        """The number of heads K."""
        return len(self.weight)

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Rewards:
        """The heads' rewards [B, K] and the features [B, d], float32 on the CPU."""
        features = extract(self.model, self.tokenizer, prompts, responses, self.batch_tokens)
        return Rewards(self.rewards(features), features=features)

    def rewards(self, features: torch.Tensor) -> torch.Tensor:
        """Rewards [B, K] from features [B, d] of this backbone."""
        rewards = features @ self.weight.T + self.bias
        if not rewards.isfinite().all():
            row, head = (~rewards.isfinite()).nonzero()[0].tolist()
            raise InputError(
                f"{self.model.name_or_path}: the reward of head {head} is {rewards[row, head]} for "
                f"the response {row}; expected finite rewards"
            )
        return rewards


def _offsets(model: PreTrainedModel, heads: int) -> list[float]:
    """What to subtract from each head's logits."""
    offsets = getattr(model.config, "reward_offsets", None)
    if offsets is None:
        return [0.0] * heads
    numbers = isinstance(offsets, list) and all(
        isinstance(number, int | float) and math.isfinite(number) for number in offsets
    )
    if not numbers or len(offsets) != heads:
        raise InputError(
            f"{model.name_or_path}: config.reward_offsets is {offsets}, expected {heads} finite "
            "numbers, one for each head"
        )
    return offsets


def _longest(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """The longest text that the tokenizer leaves; one without a limit takes the model's."""
    limit = tokenizer.model_max_length
    if limit == MAX_LENGTH:
        limit = tokenizer.model_max_length = positions(model.config.to_dict()) or MAX_LENGTH
    return limit
