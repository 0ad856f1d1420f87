"""The scripts of features and heads, from files to files."""

import json

import compute_features
import pandas as pd
import pytest
import torch
import train_ensemble
from tiny_rewards import random_texts, save_reward_model

from prudent.errors import InputError
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import extract, load_features
from prudent.rewards.kinds.heads import HeadSettings, train_heads
from prudent.rewards.loading import draws_of
from prudent.rewards.models import final_linear
from prudent.rewards.settings import RewardSettings
from prudent.tables import write_parquet

ROOT = 11
PROMPTS, RESPONSES = random_texts(17, seed=3), random_texts(17, seed=4)


def test_features_and_heads_from_files(tmp_path):
    splits = ["train"] * 6 + ["judge"] * 3 + ["validation"] * 3 + ["train"] * 5
    pairs = pd.DataFrame(
        {
            "id": [f"0:{row}" for row in range(17)],
            "prompt": [[{"role": "user", "content": prompt}] for prompt in PROMPTS],
            "chosen": RESPONSES,
            "rejected": random_texts(17, seed=6),
            "source": "test",
            "split": splits,
            "probability": [0.6, None] * 8 + [0.6],
        }
    )
    preferences, base = tmp_path / "preferences.parquet", save_reward_model(tmp_path / "base")
    write_parquet(pairs, preferences, "preferences")
    files = {"base": base, "features": tmp_path / "f.safetensors", "preferences": preferences}
    compute_features.main(
        compute_features.Args(**files, metadata=tmp_path / "f.json", batch_tokens=30)
    )

    used = pairs[pairs["split"] != "judge"]
    features, model = load_features(files["features"], 16), RewardEnsemble.load(base)
    assert features.id == used["id"].tolist() and features.split == used["split"].tolist()
    for side in ("chosen", "rejected"):
        expected = extract(
            model.model, model.tokenizer, used["prompt"].tolist(), used[side].tolist()
        )
        torch.testing.assert_close(getattr(features, side), expected, rtol=1e-4, atol=1e-4)

    args = train_ensemble.Args(
        **files,
        ensemble=tmp_path / "ensemble",
        loss=tmp_path / "loss.csv",
        kind="heads",
        settings={"epochs": 2, "first": "base"},
        reward=RewardSettings(),
        size=3,
        draws=2,
        seed=ROOT,
    )
    train_ensemble.main(args)
    losses = pd.read_csv(args.loss)
    for ensemble, path in enumerate(draws_of(args.ensemble)):
        heads = train_heads(
            features.chosen,
            features.rejected,
            torch.tensor((used["split"] == "train").tolist()),
            torch.tensor(used["probability"].astype(float).tolist()),
            final_linear(model.model)[1],
            HeadSettings(epochs=2, first="base"),
            3,
            ROOT,
            ensemble,
        )
        torch.testing.assert_close(RewardEnsemble.load(path).weight, heads.weight)
        found = losses[losses["ensemble"] == ensemble].reset_index(drop=True)
        pd.testing.assert_frame_equal(found, heads.losses, check_dtype=False, rtol=1e-5)
        sheet = json.loads((path / "metadata.json").read_text())
        assert set(sheet["inputs"]) == {"base", "features", "preferences"}
        assert (sheet["settings"]["kind"], sheet["settings"]["count"]) == ("heads", 3)

    save_reward_model(base, seed=1)
    with pytest.raises(InputError, match="delete them to have them computed"):
        train_ensemble.main(args)
