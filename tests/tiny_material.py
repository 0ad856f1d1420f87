"""Material for tiny ensembles of every kind: pairs that a word tells apart, and models of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tiny_models import tiny_model
from tiny_rewards import REWARD_CONFIGS, reward_tokenizer_of
from torch import nn
from transformers import AutoModel

from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import PairFeatures, extract
from prudent.rewards.material import Material
from prudent.rewards.settings import RewardSettings
from prudent.rewards.training import train_reward_model

REWARD = RewardSettings(
    template="continuation",
    max_length=24,
    epochs=1,
    batch_size=8,
    learning_rate=1e-2,
    stop_loss=0.0,
)
GOOD, BAD = 7, 8


def tiny_pairs(train: int = 48, validation: int = 16, seed: int = 0) -> pd.DataFrame:
    """The schema "preferences": the chosen response has a good word, the other a bad one."""
    rng = np.random.default_rng(seed)

    def words(*more: int) -> str:
        chosen = [*rng.integers(9, 23, rng.integers(1, 5)), *more]
        return "".join(f" w{i}" for i in rng.permutation(chosen))

    splits = ["train"] * train + ["validation"] * validation
    return pd.DataFrame(
        {
            "id": [f"0:{row}" for row in range(len(splits))],
            "prompt": [[{"role": "user", "content": words()}] for _ in splits],
            "chosen": [words(GOOD) for _ in splits],
            "rejected": [words(BAD) for _ in splits],
            "source": "toy",
            "split": splits,
            "probability": rng.uniform(0.5, 1.0, len(splits)),
        }
    )


def save_backbone(path: Path, kind: str = "gpt2") -> Path:
    """Writes a tiny body without a reward model's head, with a tokenizer."""
    if kind in ("bert", "roberta"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = AutoModel.from_config(REWARD_CONFIGS[kind], add_pooling_layer=False)
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.data.mul_(15.0)
    else:
        model = tiny_model(kind, spread=3.0)
    model.save_pretrained(path)
    reward_tokenizer_of(kind).save_pretrained(path)
    return path


def tiny_material(folder: Path, kind: str = "gpt2") -> Material:
    """Pairs, a backbone, a base model that was trained on it, and its features."""
    pairs, backbone = tiny_pairs(), save_backbone(folder / "backbone", kind)
    train_reward_model(pairs, "train", backbone, REWARD, 0, folder / "base")
    base = RewardEnsemble.load(folder / "base")
    sides = {
        side: extract(base.model, base.tokenizer, pairs["prompt"].tolist(), pairs[side].tolist())
        for side in ("chosen", "rejected")
    }
    features = PairFeatures(
        id=pairs["id"].tolist(),
        split=pairs["split"].tolist(),
        probability=torch.tensor(pairs["probability"].to_numpy()),
        **sides,
    )
    return Material(pairs, backbone, REWARD, folder / "base", features)


def tiny_features(rows: int = 60, width: int = 5) -> PairFeatures:
    """Features of pairs whose chosen responses' are larger, a fifth of them for validation."""
    draws = torch.Generator().manual_seed(0)
    rejected = torch.randn(rows, width, generator=draws)
    return PairFeatures(
        id=[str(row) for row in range(rows)],
        split=["train"] * (rows - 12) + ["validation"] * 12,
        probability=torch.full((rows,), 0.8).double(),
        chosen=rejected + torch.randn(rows, width, generator=draws) + 0.5,
        rejected=rejected,
    )


def tiny_layer(bias: bool = False) -> nn.Linear:
    """A base model's final layer on such features."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Linear(5, 1, bias=bias)
