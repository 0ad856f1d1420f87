"""One reward model that averages the weights of several (WARM, 2401.12187, equation 1).

The models differ in the order of their data, the learning rate and the dropout. Weights can only be
averaged if the models stay close to each other, so they start from one that is already trained: the
paper's from a common backbone with a head that was fitted first, ours from the base model. The
result is an ordinary sequence classifier, an ensemble with one member of the kind ``heads``, for
methods that use one reward.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from prudent.checkpoints import load_tokenizer, save_checkpoint
from prudent.errors import InputError
from prudent.rewards.ensemble import mean_rewards
from prudent.rewards.material import Material
from prudent.rewards.models import load_reward_model
from prudent.rewards.settings import WarmSettings


def train(
    material: Material,
    settings: WarmSettings,
    count: int,
    seed: int,
    draw: int,
    output: str | Path,
) -> pd.DataFrame:
    """Averages ``material.members``, writes the model, and returns their losses by member.

    Its rewards are centred on training responses. ``InputError`` unless there are
    ``settings.models`` members, with the same weights by name and shape. ``count`` is ignored: the
    ensemble has one member.
    """
    paths = material.members
    if len(paths) != settings.models:
        raise InputError(
            f"ensemble {draw}: found {len(paths)} models to average, expected {settings.models}"
        )
    losses = material.member_losses(draw)
    model, tokenizer = load_reward_model(paths[0]), load_tokenizer(paths[0])
    totals = {name: value.detach().double() for name, value in model.named_parameters()}
    with torch.no_grad():
        for path in paths[1:]:
            other = dict(load_reward_model(path).named_parameters())
            shapes = [{name: value.shape for name, value in one.items()} for one in (other, totals)]
            if shapes[0] != shapes[1]:
                raise InputError(
                    f"{path}: its weights are not those of {paths[0]} by name and shape; expected "
                    "models that began from one backbone"
                )
            for name, total in totals.items():
                total += other[name].double()
        for name, parameter in model.named_parameters():
            parameter.copy_(totals[name] / len(paths))
    model.config.reward_ensemble = "heads"
    model.config.reward_offsets = mean_rewards(model, tokenizer, *material.centring_texts(seed))
    save_checkpoint(model, tokenizer, output)
    return losses
