"""One loader for every kind of reward ensemble; the checkpoint names its kind."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PreTrainedConfig

from prudent.checkpoints import look_for, why
from prudent.errors import InputError, quoted

KINDS: dict[str, str] = {
    "heads": "HeadEnsemble",
    "mlp": "MLPEnsemble",
    "gaussian": "GaussianEnsemble",
    "members": "MemberEnsemble",
    "adapters": "AdapterEnsemble",
    "dropout": "DropoutEnsemble",
}
"""Maps each kind of ensemble, ``reward_ensemble`` in a checkpoint's config.json, to the class in
the kind's module. The module is imported when a checkpoint is loaded."""


def load_rewards(path: str | Path, revision: str | None = None) -> Any:
    """The reward ensemble in a checkpoint: a function ``(prompts, responses) -> Rewards``.

    A checkpoint that names no kind is one of heads, as any sequence classifier is. Raises
    InputError if its kind is unknown or it cannot be loaded.
    """
    look_for(path)
    try:
        config, _ = PreTrainedConfig.get_config_dict(path, revision=revision)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no reward model can be loaded: {why(error)}") from error
    kind = config.get("reward_ensemble", "heads")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(
            f"{path}: config.json: reward_ensemble is {quoted(kind)}; "
            f"expected one of {', '.join(KINDS)}"
        )
    if kind == "heads":
        return kind_module(kind).HeadEnsemble.load(path, revision=revision)
    if revision is not None:
        raise InputError(
            f"{path}: found an ensemble of {kind} and the revision {quoted(revision)}; expected a "
            "folder, since only sequence classifiers are taken from the hub"
        )
    return getattr(kind_module(kind), KINDS[kind]).load(path)


def draws_of(folder: str | Path) -> list[Path]:
    """The checkpoints of an ensemble's draws, in order; ``InputError`` if there are none."""
    paths = [path for path in Path(folder).glob("*") if path.name.isdecimal()]
    if not paths:
        raise InputError(f"{folder}: found no draw of an ensemble; expected folders 0, 1, ...")
    return sorted(paths, key=lambda path: int(path.name))


def train_function(kind: str) -> Callable[..., pd.DataFrame]:
    """The function ``train`` of a kind's module; see ``prudent.rewards.kinds``."""
    return kind_module(kind).train


def kind_module(kind: str) -> Any:
    """The module of a kind in ``prudent.rewards.settings.KINDS``."""
    return import_module(f"prudent.rewards.kinds.{kind}")
