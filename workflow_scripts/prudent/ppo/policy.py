"""The training of one policy from files, for trained policies and pilots."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prudent.policies.models import load_causal_lm, load_policy, use_fused_gelu
from prudent.ppo.memory import keep_freed_memory
from prudent.ppo.trainer import Judge, Objective, PPOSettings, PPOTrainer
from prudent.rewards.interface import RewardFunction
from prudent.rewards.last_layer import LastLayer
from prudent.rewards.settings import SpreadSettings


@contextlib.contextmanager
def variant(folder: Path, fingerprint: dict[str, Any]) -> Iterator[Path]:
    """The folder for the checkpoints of one variant of a run, deleted after success.

    After an edit of the configuration the new variant starts afresh, and finds no checkpoint that
    it would have to refuse. Other variants' checkpoints and other files in ``folder`` stay.
    """
    digest = hashlib.sha256(json.dumps(fingerprint).encode()).hexdigest()[:16]
    yield folder / digest
    # A network file system may still hold a file; that is not a failure.
    shutil.rmtree(folder / digest, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


@dataclass(frozen=True)
class PolicyRecipe:
    """The common inputs of all policies of a method."""

    reference: Path
    """Checkpoint that they start from and stay near."""
    prompts: list[str]
    """The training prompts."""
    rewards: RewardFunction
    objective: Objective
    settings: PPOSettings
    spread: SpreadSettings = SpreadSettings()  # noqa: RUF009, it is frozen
    last_layer: LastLayer | None = None
    judge: Judge | None = None
    """Scores each step's responses for the log."""

    def policy(
        self, beta: float, head: int, seed: int, run_seed: int, **checkpoints: Any
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[dict[str, float]]]:
        """A trained policy, its tokenizer, and the training log.

        ``seed`` is the study's, ``run_seed`` the policy's own; ``checkpoints`` and ``fingerprint``
        are those of ``PPOTrainer``.
        """
        policy, tokenizer = load_policy(self.reference)
        reference = load_causal_lm(self.reference)
        for model in (policy, reference):
            use_fused_gelu(model)
        if policy.device.type == "cpu":
            keep_freed_memory()
        trainer = PPOTrainer(
            policy,
            reference,
            tokenizer,
            self.rewards,
            self.objective,
            beta=beta,
            head=head,
            settings=self.settings,
            seed=seed,
            run_seed=run_seed,
            spread=self.spread,
            last_layer=self.last_layer,
            judge=self.judge,
            **checkpoints,
        )
        return policy, tokenizer, trainer.train(self.prompts)
