"""The scripts of the grid of regimes, from files to files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import regime_policies
import tabulate_regimes
import torch
import train_pool
from tiny_material import REWARD, save_backbone, tiny_pairs

from prudent.data.draws import draw_of_regime
from prudent.errors import InputError
from prudent.exact.pools import draw_of_pool, rewards_of_pool, stream_of
from prudent.exact.scores import Scores, save_scores
from prudent.rewards.features import pair_features
from prudent.rewards.interface import Rewards
from prudent.rewards.kinds import heads
from prudent.rewards.loading import load_rewards
from prudent.rewards.material import Material
from prudent.rewards.settings import KINDS
from prudent.tables import file_digest, read_csv, read_table, write_parquet

SEED, P, N, PAIRS, NOISE = 3, 3, 24, 12, 2.0
HEADS = KINDS["heads"](bootstrap=True, ridge=1.0)
ENSEMBLES = {
    "resampled": {"kind": "heads", "settings": HEADS.model_dump()},
    "members": {"kind": "members", "settings": KINDS["members"]().model_dump()},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("regimes")
    write_parquet(tiny_pairs(), folder / "preferences.parquet", "preferences")
    save_backbone(folder / "backbone")
    draw = np.random.default_rng(0)
    words = [f"w{number}" for number in range(2, 10)]
    table = pd.DataFrame(
        {
            "prompt": np.repeat([f"w5 {word}" for word in words[:P]], N),
            "response": [" ".join(draw.choice(words, 4)) for _ in range(P * N)],
        }
    )
    write_parquet(table.assign(log_probability=-1.0), folder / "samples.parquet", "exact_samples")
    judge = torch.tensor(draw.normal(size=P * N))
    save_scores(Scores(judge, [Rewards(-judge[:, None])], []), folder / "scores.safetensors")
    for first in (0, 5):
        train_pool.main(pool_args(folder, folder / f"models/{first}", first))
    return folder


def pool_args(folder: Path, models: Path, first: int = 0, **changes) -> train_pool.Args:
    given = {
        "preferences": folder / "preferences.parquet",
        "models": models,
        "pairs": PAIRS,
        "noise": NOISE,
        "replicates": list(range(first, first + 5)),
        "reward": REWARD,
        "seed": SEED,
        "backbone": folder / "backbone",
    }
    return train_pool.Args(**given | changes)


def policy_args(folder: Path, policies: Path, **changes) -> regime_policies.Args:
    said = {"parameters": {}, "spread": {}, "control": False}
    given = {
        "samples": folder / "samples.parquet",
        "scores": folder / "scores.safetensors",
        "preferences": folder / "preferences.parquet",
        "models": [folder / "models/0", folder / "models/5"],
        "policies": policies,
        "pairs": PAIRS,
        "noise": NOISE,
        "ensembles": ENSEMBLES,
        "members": [2, 3],
        "reward": REWARD,
        "methods": {
            "vanilla": {"objective": "vanilla", "unit": "member", **said},
            "mean": {"objective": "mean", "unit": "ensemble", **said},
        },
        "kl": [0.1],
        "seed": SEED,
        "backbone": folder / "backbone",
    }
    return regime_policies.Args(**given | changes)


def test_a_replicate_depends_on_its_number_and_cell_alone(files, tmp_path):
    train_pool.main(pool_args(files, tmp_path / "again", replicates=[6]))
    first, again = (files / "models/5/6", tmp_path / "again/6")
    assert file_digest(first / "model.safetensors") == file_digest(again / "model.safetensors")
    train_pool.main(pool_args(files, tmp_path / "other", replicates=[6], noise=1.0))
    other = tmp_path / "other/6/model.safetensors"
    assert file_digest(other) != file_digest(first / "model.safetensors")


def test_rewards_are_those_of_the_base_models_and_of_heads_on_them(files, tmp_path):
    preferences = read_table(files / "preferences.parquet", "preferences")
    responses = read_table(files / "samples.parquet", "exact_samples")
    path = files / "models/0/2"
    pool, found = rewards_of_pool(
        *({2: path}, preferences, responses, PAIRS, NOISE),
        {"resampled": ENSEMBLES["resampled"]},
        *(3, REWARD, files / "backbone", SEED),
    )
    asked = responses["prompt"].tolist(), responses["response"].tolist()
    base = load_rewards(path)
    own = base(*asked).mean.double()
    assert torch.allclose(pool[0].mean, own - own.mean())
    drawn = draw_of_pool(preferences, PAIRS, NOISE, SEED, 2)
    whole = draw_of_regime(preferences, PAIRS, NOISE, SEED, 2)
    assert list(drawn["id"]) == list(whole.loc[whole["split"] == "train", "id"])
    assert len(drawn) == PAIRS
    features = pair_features(base.model, base.tokenizer, drawn)
    material = Material(drawn, files / "backbone", REWARD, base=path, features=features)
    stream = stream_of(PAIRS, NOISE, SEED, 2)
    heads.train(material, HEADS, 3, stream, 0, tmp_path / "heads")
    assert torch.allclose(found["resampled"][0].mean, load_rewards(tmp_path / "heads")(*asked).mean)


def test_from_files_to_the_table(files, tmp_path):
    args = policy_args(files, tmp_path / "policies.parquet")
    regime_policies.main(args)
    policies = read_table(args.policies, "regime_policies")
    # Ten on base models, and sixty of the pool for each size: of ten, five pairs and three trios.
    sizes = policies.groupby(["ensemble", "members", "method"]).size()
    for method in ("vanilla", "mean"):
        assert [sizes["resampled", m, method] for m in (2, 3)] == [10, 10]
        assert [sizes["members", m, method] for m in (2, 3)] == [60, 60]
    assert set(policies["pairs"]) == {PAIRS} and set(policies["noise"]) == {NOISE}
    table = tmp_path / "regimes.csv"
    tabulate_regimes.main(
        tabulate_regimes.Args(
            policies=[args.policies], table=table, baseline="vanilla", controls={"mean": []}
        )
    )
    found = read_csv(table, "regimes")
    assert len(found) == 2 * 2 * 2
    assert np.isfinite(found.loc[found["method"] == "mean", "ratio_high"]).all()
    assert set(found["ensembles"]) == {10, 5, 3}


def test_all_pairs_are_those_that_are_not_kept(files, tmp_path):
    preferences = read_table(files / "preferences.parquet", "preferences")
    count = int((preferences["split"] == "train").sum())
    train_pool.main(pool_args(files, tmp_path / "all", pairs=None, replicates=[0]))
    train_pool.main(pool_args(files, tmp_path / "count", pairs=count, replicates=[0]))
    first, second = (
        file_digest(tmp_path / name / "0/model.safetensors") for name in ("all", "count")
    )
    assert first == second
    with pytest.raises(InputError, match=f"regimes.pools.pairs: is {count + 1}; expected at most"):
        train_pool.main(pool_args(files, tmp_path / "more", pairs=count + 1))
    assert not (tmp_path / "more").exists()
