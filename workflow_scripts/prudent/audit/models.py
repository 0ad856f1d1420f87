"""The scores that reward models and ensembles give to the responses of an audit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from prudent.audit.forms import Labelled
from prudent.audit.scores import NORM, UNTRAINED, Scored
from prudent.checkpoints import look_for
from prudent.data.settings import SIDES
from prudent.errors import InputError, quoted
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.interface import Rewards
from prudent.rewards.loading import load_rewards
from prudent.rewards.scoring import score_responses
from prudent.rewards.text import Prompt

BLOCK = 256  # texts between two steps of the progress bar


def look_for_models(checkpoints: Sequence[str]) -> None:
    """``InputError`` where one of the checkpoints is not there, before any is loaded."""
    for checkpoint in checkpoints:
        look_for(checkpoint)
        if os.path.isdir(checkpoint) and not (Path(checkpoint) / "config.json").is_file():
            raise InputError(
                f"{checkpoint}: has no config.json; expected the folder of a checkpoint"
            )


def score(labelled: Labelled, checkpoints: Sequence[str]) -> tuple[Scored, list[str]]:
    """The rewards of each response by all members of all checkpoints, and the members' names.

    One checkpoint is in memory at a time (``prudent.rewards.loading.load_rewards``), and a bar
    shows its progress. For a single ensemble whose members read the same features, the norms of the
    pairs' differences in features are known, and the spread before training where the checkpoint
    kept its heads of then. Members' own standard deviations are not used. Raises InputError where a
    checkpoint cannot be loaded, or a reward is not finite.
    """
    prompts, responses = [], []
    for row in labelled.rows:
        prompts += [row.prompt] * (len(row.chosen) + len(row.rejected))
        responses += [*row.chosen, *row.rejected]
    tables, names = [], []
    known: dict[str, list[np.ndarray]] = {}
    for checkpoint in checkpoints:
        model = load_rewards(checkpoint)
        rewards = _rewards(model, prompts, responses, str(checkpoint))
        tables.append(_finite(rewards.mean.double().numpy(), labelled, checkpoint))
        members = range(rewards.members)
        names += [f"{checkpoint} {k}" for k in members] if len(members) > 1 else [str(checkpoint)]
        if len(checkpoints) == 1 and len(members) > 1 and isinstance(model, RewardEnsemble):
            known = _known(labelled, model, rewards.features)
    chosen, rejected = [], []
    for better, worse in _sides(labelled, np.concatenate(tables, axis=1)):
        chosen.append(better)
        rejected.append(worse)
    return Scored(labelled, chosen, rejected, known), names


def _finite(rewards: np.ndarray, labelled: Labelled, checkpoint: str) -> np.ndarray:
    """The rewards [responses, K]; ``InputError`` with the row where one is not finite."""
    for row, sides in zip(labelled.rows, _sides(labelled, rewards), strict=True):
        for side, values in zip(SIDES, sides, strict=True):
            if not np.isfinite(values).all():
                bad = values[~np.isfinite(values)][0]
                raise InputError(
                    f"{checkpoint}: found the reward {bad} for row {row.number}, column "
                    f"{quoted(side)}, expected a finite one"
                )
    return rewards


def _rewards(model: Any, prompts: Sequence[Prompt], responses: Sequence[str], name: str) -> Rewards:
    if isinstance(model, RewardEnsemble):
        return score_responses([model], prompts, responses, progress=name)[0]
    parts = []
    with tqdm(desc=name, total=len(responses), unit=" texts", mininterval=2) as bar:
        for start in range(0, len(responses), BLOCK):
            block = slice(start, start + BLOCK)
            parts += score_responses([model], prompts[block], responses[block])
            bar.update(len(responses[block]))
    return Rewards.joined(parts)


def _known(labelled: Labelled, model: Any, features: Tensor) -> dict[str, list[np.ndarray]]:
    """What may explain the spread of heads that read features [responses, d], for each row."""
    found = {
        NORM: [
            np.linalg.norm(_differences(better, worse), axis=1)
            for better, worse in _sides(labelled, features.double().numpy())
        ]
    }
    before = getattr(model, "untrained", lambda: None)()
    if before is not None:
        rewards = before.from_features(features).mean.double().numpy()
        found[UNTRAINED] = [
            _differences(better, worse).std(1, ddof=1)
            for better, worse in _sides(labelled, rewards)
        ]
    return found


def _sides(labelled: Labelled, table: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each row's part of a table of all responses, for the chosen and for the rejected ones."""
    found, start = [], 0
    for row in labelled.rows:
        middle = start + len(row.chosen)
        end = middle + len(row.rejected)
        found.append((table[start:middle], table[middle:end]))
        start = end
    return found


def _differences(chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
    """Each chosen response's numbers less those of each rejected one [c r, q]."""
    return (chosen[:, None] - rejected[None]).reshape(-1, chosen.shape[1])
