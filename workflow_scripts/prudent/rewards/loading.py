"""One loader for every kind of reward ensemble: what the checkpoint says decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from prudent.checkpoints import why
from prudent.errors import InputError
from prudent.rewards.ensemble import RewardEnsemble

KINDS: dict[str, Any] = {"heads": RewardEnsemble}
"""The kinds of ensembles, by what ``reward_ensemble`` in a checkpoint's config.json says."""


def load_rewards(path: str | Path, revision: str | None = None) -> Any:
    """The reward ensemble in a checkpoint: a function ``(prompts, responses) -> Rewards``.

    A checkpoint that says nothing of its kind is one of heads, as any sequence classifier is.
    Raises InputError where it is of an unknown kind or cannot be loaded.
    """
    try:
        config, _ = PreTrainedConfig.get_config_dict(path, revision=revision)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no reward model can be loaded: {why(error)}") from error
    kind = config.get("reward_ensemble", "heads")
    if kind not in KINDS:
        raise InputError(
            f"{path}: config.json: reward_ensemble is {kind!r}; expected one of {', '.join(KINDS)}"
        )
    return KINDS[kind].load(path)
