"""Independent reward models, each with its own initial head, data order, labels and backbone.

The "independently trained reward models" of 2410.23726 and the ensembles of Coste et al.
(2310.02743). A pool of them is trained one by one; an ensemble is a folder with part of the pool.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from prudent.checkpoint_files import read_json
from prudent.checkpoints import load_tensors, save_checkpoint, save_tensors
from prudent.errors import InputError, quoted
from prudent.resuming import TrainingCheckpoints
from prudent.rewards.ensemble import RewardEnsemble, mean_rewards
from prudent.rewards.features import BATCH_TOKENS, extract_ids
from prudent.rewards.interface import Rewards
from prudent.rewards.material import Material
from prudent.rewards.models import backbone_with_head, final_linear, head_state
from prudent.rewards.settings import MemberSettings, RewardSettings
from prudent.rewards.text import Prompt, checked_texts, encode, reading
from prudent.rewards.training import fit_reward_model, start_reward_model
from prudent.seeding import derive_seed
from prudent.tables import atomic_path, file_digest, write_csv, write_json

_PLAIN = re.compile(r"\w+")


class MemberEnsemble:
    """K reward models with one way to read texts: ``ensemble(prompts, responses) -> Rewards``."""

    def __init__(self, models: Sequence[RewardEnsemble], batch_tokens: int = BATCH_TOKENS) -> None:
        self.models = list(models)
        self.tokenizer = self.models[0].tokenizer
        self.batch_tokens = batch_tokens

    @classmethod
    def load(cls, path: str | Path, batch_tokens: int = BATCH_TOKENS) -> MemberEnsemble:
        """Loads a checkpoint of ``train``; ``InputError`` if a member is missing, broken, or reads
        texts differently from the first."""
        models = [RewardEnsemble.load(folder) for folder in _folders(Path(path))]
        first = models[0].tokenizer
        for model in models:
            name = model.model.name_or_path
            if model.heads != 1:
                raise InputError(f"{name}: has {model.heads} rewards, expected a member's one")
            if reading(model.tokenizer) != reading(first):
                raise InputError(
                    f"{name}: its tokenizer, template or longest text is not that of "
                    f"{models[0].model.name_or_path}; expected members of one pool"
                )
        return cls(models, batch_tokens)

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Rewards:
        """The members' rewards [B, K], float32 on the CPU."""
        prompts, responses = checked_texts(prompts, responses)
        ids, pad = encode(self.tokenizer, prompts, responses), self.tokenizer.pad_token_id
        columns = [
            model.rewards(extract_ids(model.model, ids, pad, responses, self.batch_tokens))
            for model in self.models
        ]
        return Rewards(torch.cat(columns, dim=1))

    def untrained(self, backbone: str | Path) -> UntrainedMembers | None:
        """The members before training: fresh heads on the backbone; None if they were not kept."""
        paths = [Path(model.model.name_or_path) / "untrained.safetensors" for model in self.models]
        if not all(path.is_file() for path in paths):
            return None
        states = [load_tensors(path, {"offset": (1,)}) for path in paths]
        return UntrainedMembers(backbone, self.tokenizer, states, self.batch_tokens)


class UntrainedMembers:
    """Fresh heads on one backbone: ``ensemble(prompts, responses) -> Rewards``."""

    def __init__(
        self,
        backbone: str | Path,
        tokenizer: PreTrainedTokenizerBase,
        states: Sequence[dict[str, torch.Tensor]],
        batch_tokens: int,
    ) -> None:
        self.offsets = torch.cat([state["offset"] for state in states])
        self.heads = [{k: v for k, v in state.items() if k != "offset"} for state in states]
        self.model = backbone_with_head(backbone, self.heads[0], tokenizer)
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Rewards:
        """The rewards [B, K] of the fresh heads, float32 on the CPU."""
        prompts, responses = checked_texts(prompts, responses)
        ids = encode(self.tokenizer, prompts, responses)
        name, linear = final_linear(self.model)
        columns, features = [], None
        for head in self.heads:
            self.model.load_state_dict(head, strict=False)
            # A decoder's heads share their input; an encoder's heads have own layers before it.
            if features is None or any(not key.startswith(f"{name}.") for key in head):
                features = extract_ids(
                    self.model, ids, self.tokenizer.pad_token_id, responses, self.batch_tokens
                )
            columns.append(linear(features.to(self.model.device)).float().cpu())
        return Rewards(torch.cat(columns, dim=1) - self.offsets)


def train_member(
    material: Material,
    settings: MemberSettings,
    seed: int,
    member: int,
    output: str | Path,
    stage: str = "members",
    checkpoints: TrainingCheckpoints | None = None,
) -> pd.DataFrame:
    """Trains member ``member`` of the pool ``stage``, writes it, and returns its losses.

    The checkpoint is a reward model whose rewards are centred on training responses, with its head
    before training (untrained.safetensors) and its losses (losses.csv): member, step, loss,
    accuracy, split. It depends only on the seed, the pool and the member's number. After an
    interruption it goes on from ``checkpoints``.
    """
    reward = member_settings(material.reward, settings, member)
    start = material.backbone if settings.start == "backbone" else material.base_model()
    model, tokenizer = start_reward_model(start, reward, derive_seed(seed, stage, member, "init"))
    texts = material.centring_texts(seed)
    untrained = head_state(model) | {
        "offset": torch.tensor(mean_rewards(model, tokenizer, *texts)),
    }
    own = settings.labels == "own"
    losses = fit_reward_model(
        model,
        tokenizer,
        material.labels(seed, member, stage) if own else material.preferences,
        "train",
        reward,
        derive_seed(seed, stage, member, "training"),
        evaluations=1,  # a pool would spend much of its time on more
        checkpoints=checkpoints,
    )
    losses.insert(0, "member", member)
    model.config.reward_offsets = mean_rewards(model, tokenizer, *texts)

    def more(folder: Path) -> None:
        save_tensors(untrained, folder / "untrained.safetensors")
        write_csv(losses, folder / "losses.csv", "member_losses")

    save_checkpoint(model, tokenizer, output, more=more)
    return losses


def member_settings(
    reward: RewardSettings, settings: MemberSettings, member: int
) -> RewardSettings:
    """A member's settings: those of the base reward model, except for the member's own."""
    changes: dict[str, float] = {}
    if settings.learning_rates is not None:
        changes["learning_rate"] = settings.learning_rates[member % len(settings.learning_rates)]
    if settings.dropouts is not None:
        changes["dropout"] = settings.dropouts[member % len(settings.dropouts)]
    if settings.epochs is not None:
        changes["epochs"] = settings.epochs
    return reward.replace(**changes)


def train(
    material: Material,
    settings: MemberSettings,
    count: int,
    seed: int,
    draw: int,
    output: str | Path,
) -> pd.DataFrame:
    """Makes ensemble ``draw`` from ``material.members``, ``count`` of the pool, and returns their
    losses. Files are hard links where the file system allows them, and copies elsewhere."""
    paths = material.members
    if len(paths) != count:
        raise InputError(f"ensemble {draw}: found {len(paths)} members, expected {count}")
    losses = material.member_losses(draw)
    with atomic_path(output) as folder:
        names = [f"member_{head}" for head in range(count)]
        for name, path in zip(names, paths, strict=True):
            shutil.copytree(
                path,
                folder / name,
                copy_function=_link,
                ignore=shutil.ignore_patterns(".*"),  # Snakemake's
            )
        members = [{"folder": name, "digest": file_digest(folder / name)} for name in names]
        write_json({"reward_ensemble": "members", "members": members}, folder / "config.json")
    return losses


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _folders(path: Path) -> list[Path]:
    """The members' folders; ``InputError`` where config.json names none inside ``path``."""
    members = read_json(path / "config.json").get("members")
    names = [
        entry.get("folder") if isinstance(entry, dict) else None
        for entry in (members if isinstance(members, list) else [])
    ]
    if not names or not all(isinstance(name, str) and _PLAIN.fullmatch(name) for name in names):
        raise InputError(
            f"{path}: config.json: members is {quoted(members)}; expected a list of objects, each "
            "with the name of a member's folder"
        )
    return [path / name for name in names]
