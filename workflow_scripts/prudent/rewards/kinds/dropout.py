"""MC dropout (Gal and Ghahramani, 1506.02142): a member is one draw of a reward model's masks.

One model is trained with dropout. Member k keeps one mask for each module that drops hidden states,
the same for all positions and texts (the tied masks of the same authors' 1512.05287), so a member's
reward of a text never changes. Attention probabilities are dropped in training only. If an
architecture drops no hidden states (Llama), the inputs of the final layer are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prudent.checkpoints import load_tensors, save_checkpoint, save_tensors
from prudent.errors import InputError, quoted
from prudent.rewards.ensemble import load_classifier, reward_offsets
from prudent.rewards.features import BATCH_TOKENS, extract_ids
from prudent.rewards.interface import Rewards
from prudent.rewards.material import Material
from prudent.rewards.models import (
    backbone_with_head,
    final_linear,
    head_state,
    hidden_dropouts,
)
from prudent.rewards.settings import DropoutSettings
from prudent.rewards.text import Prompt, checked_texts, encode
from prudent.rewards.training import fit_reward_model, start_reward_model
from prudent.seeding import derive_seed, generator


class DropoutEnsemble:
    """One reward model under K draws of its masks: ``ensemble(prompts, responses) -> Rewards``."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        count: int,
        rate: float,
        stream: int,
        offsets: Sequence[float] | Tensor,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.rate, self.stream = rate, stream
        self.offsets = torch.as_tensor(offsets, dtype=torch.float32)
        self.batch_tokens = batch_tokens
        widths = hidden_dropouts(model)
        layer = final_linear(model)[1]
        self.masks = {
            name: torch.stack([mask(width, rate, stream, name, k) for k in range(count)])
            for name, width in (widths or {"features": layer.in_features}).items()
        }
        self.modules = {name: model.get_submodule(name) for name in widths}

    @classmethod
    def load(cls, path: str | Path, batch_tokens: int = BATCH_TOKENS) -> DropoutEnsemble:
        """Loads a checkpoint of ``train``, whose config.json says how to draw the masks."""
        model, tokenizer = load_classifier(path)
        if final_linear(model)[1].out_features != 1:
            raise InputError(f"{path}: config.json: num_labels: expected one reward")
        count = _number(model, path, "reward_members", int, lambda value: 1 <= value < 10_000)
        rate = _number(model, path, "reward_dropout", int | float, lambda value: 0 <= value < 1)
        stream = _number(model, path, "reward_stream", int, lambda value: 0 <= value < 2**63)
        return cls(
            model, tokenizer, count, rate, stream, reward_offsets(model, count), batch_tokens
        )

    @property
    def members(self) -> int:
        """The number of members K."""
        return len(self.offsets)

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Rewards:
        """The members' rewards [B, K], float32 on the CPU."""
        prompts, responses = checked_texts(prompts, responses)
        ids = encode(self.tokenizer, prompts, responses)
        linear = final_linear(self.model)[1]
        columns, features = [], None
        for member in range(self.members):
            if features is None or self.modules:
                with self._masked(member):
                    features = extract_ids(
                        self.model, ids, self.tokenizer.pad_token_id, responses, self.batch_tokens
                    )
            seen = features if self.modules else features * self.masks["features"][member]
            with torch.no_grad():
                columns.append(linear(seen.to(linear.weight)).float().cpu())
        return Rewards(torch.cat(columns, dim=1) - self.offsets)

    def untrained(self, backbone: str | Path) -> DropoutEnsemble | None:
        """The same masks on the backbone with the fresh head; None if the head was not kept."""
        path = Path(self.model.name_or_path) / "untrained.safetensors"
        if not path.is_file():
            return None
        head = load_tensors(path, {"offsets": (self.members,)})
        offsets = head.pop("offsets")
        model = backbone_with_head(backbone, head, self.tokenizer)
        return DropoutEnsemble(
            model,
            self.tokenizer,
            self.members,
            self.rate,
            self.stream,
            offsets,
            self.batch_tokens,
        )

    @contextmanager
    def _masked(self, member: int) -> Iterator[None]:
        """The model with a member's masks."""
        hooks = []
        for name, module in self.modules.items():
            kept = self.masks[name][member].to(self.model.device)
            hooks.append(
                module.register_forward_pre_hook(lambda _, inputs, kept=kept: (inputs[0] * kept,))
            )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def mask(width: int, rate: float, stream: int, module: str, member: int) -> Tensor:
    """A member's mask [width] for a module: 0 with probability ``rate``, else 1 / (1 - rate)."""
    draws = torch.rand(width, generator=generator(stream, "masks", module, member))
    return (draws >= rate).float() / (1 - rate)


def train(
    material: Material,
    settings: DropoutSettings,
    count: int,
    seed: int,
    draw: int,
    output: str | Path,
) -> pd.DataFrame:
    """Trains the model of ensemble ``draw``, writes it with ``count`` members, and returns the
    losses, all as head 0's: there is only one model."""
    changes = {} if settings.epochs is None else {"epochs": settings.epochs}
    reward = material.reward.replace(dropout=settings.dropout, **changes)
    stream = derive_seed(seed, "dropout", draw, "training")
    masks = derive_seed(seed, "dropout", draw, "masks")
    model, tokenizer = start_reward_model(material.backbone, reward, stream)
    texts = material.centring_texts(seed)

    def means() -> Tensor:
        members = DropoutEnsemble(
            model, tokenizer, count, settings.dropout, masks, torch.zeros(count)
        )
        return members(*texts).mean.mean(0)

    untrained = head_state(model) | {"offsets": means()}
    pairs = material.labels(seed, draw, "dropout")
    losses = fit_reward_model(model, tokenizer, pairs, "train", reward, stream)
    model.config.reward_ensemble = "dropout"
    model.config.reward_members = count
    model.config.reward_dropout = settings.dropout
    model.config.reward_stream = masks
    model.config.reward_offsets = means().tolist()
    save_checkpoint(
        model,
        tokenizer,
        output,
        more=lambda folder: save_tensors(untrained, folder / "untrained.safetensors"),
    )
    losses = losses.assign(ensemble=draw, head=0)
    return losses[["ensemble", "head", "step", "loss", "accuracy", "split"]]


def _number(
    model: PreTrainedModel, path: str | Path, key: str, kind: Any, fits: Callable[[Any], bool]
) -> Any:
    value = getattr(model.config, key, None)
    if isinstance(value, bool) or not isinstance(value, kind) or not fits(value):
        raise InputError(
            f"{path}: config.json: {key} is {quoted(value)}; expected what the ensemble was "
            "trained with"
        )
    return value
