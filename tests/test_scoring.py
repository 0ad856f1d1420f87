"""Long tables of member scores against the models called directly."""

import numpy as np
import pandas as pd
import pytest
import score_benchmark
import torch
from tiny_rewards import random_texts, reward_tokenizer_of, tiny_reward_model

from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.heads import Heads, save_ensemble
from prudent.rewards.scoring import long_table, score_pairs, score_responses
from prudent.tables import read_table, write_parquet

N = 9
PAIRS = pd.DataFrame(
    {
        "prompt": [[{"role": "user", "content": text}] for text in random_texts(N, seed=1)],
        "chosen": random_texts(N, seed=2),
        "rejected": random_texts(N, seed=3),
        "subset": ["easy", "hard", "odd"] * 3,
        "section": ["A", "B", "B"] * 3,
        "id": [f"row{i}" for i in range(N)],
    },
    index=range(100, 100 + N),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folders of a base model and of two ensembles, of 3 heads each, on its backbone."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = reward_tokenizer_of("gpt2")
    base = tiny_reward_model("gpt2", tokenizer)
    base.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    for ensemble in range(2):
        stream = torch.Generator().manual_seed(ensemble)
        weight = torch.randn(3, 16, generator=stream)
        heads = Heads(weight, None, torch.randn(3, generator=stream), pd.DataFrame())
        save_ensemble(base, tokenizer, heads, folder / f"ensemble_{ensemble}")
    return [folder / "base", folder / "ensemble_0", folder / "ensemble_1"]


def load(paths) -> list[RewardEnsemble]:
    return [RewardEnsemble.load(path) for path in paths]


def test_responses_are_scored_as_by_each_model_itself(models):
    prompts, responses = PAIRS["prompt"].tolist(), PAIRS["chosen"].tolist()
    scores = score_responses(load(models), prompts, responses, batch_tokens=30)
    assert [table.shape for table in scores] == [(N, 1), (N, 3), (N, 3)]
    for table, model in zip(scores, load(models), strict=True):
        torch.testing.assert_close(table, model(prompts, responses).mean, rtol=1e-4, atol=1e-4)


def test_pairs_become_one_row_per_side_ensemble_and_head(models):
    table = score_pairs(PAIRS, load(models), batch_tokens=30)
    assert list(table.columns) == ["id", "subset", "section", "side", "ensemble", "head", "reward"]
    assert len(table) == 2 * N * 7
    keyed = table.set_index(["side", "ensemble", "head", "id"])["reward"]
    assert keyed.index.is_unique
    for side in ("chosen", "rejected"):
        for number, model in enumerate(load(models), start=-1):
            rewards = model(PAIRS["prompt"].tolist(), PAIRS[side].tolist()).mean.double().numpy()
            for column in range(rewards.shape[1]):
                found = keyed[side, number, column if number >= 0 else -1]
                assert found.index.tolist() == PAIRS["id"].tolist()
                np.testing.assert_allclose(found, rewards[:, column], rtol=1e-4, atol=1e-4)
    subsets = table.drop_duplicates("id").set_index("id")
    assert subsets["subset"].to_dict() == dict(zip(PAIRS["id"], PAIRS["subset"], strict=True))
    assert subsets["section"].to_dict() == dict(zip(PAIRS["id"], PAIRS["section"], strict=True))


def test_the_benchmarks_script_writes_that_table(models, tmp_path):
    write_parquet(PAIRS, tmp_path / "benchmark.parquet", "benchmark")
    score_benchmark.main(
        score_benchmark.Args(
            benchmark=tmp_path / "benchmark.parquet",
            base=models[0],
            ensembles=models[1:],
            scores=tmp_path / "scores.parquet",
            batch_tokens=30,
        )
    )
    found = read_table(tmp_path / "scores.parquet", "scores")
    pd.testing.assert_frame_equal(found, score_pairs(PAIRS, load(models), 30), check_dtype=False)


def test_a_long_table_goes_by_ensemble_head_and_row():
    keys = pd.DataFrame({"row": ["a", "b"]})
    rewards = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0], [6.0]])]
    table = long_table(keys, rewards)
    assert table.to_dict("list") == {
        "row": ["a", "b"] * 3,
        "ensemble": [0, 0, 0, 0, 1, 1],
        "head": [0, 0, 1, 1, 0, 0],
        "reward": [1.0, 3.0, 2.0, 4.0, 5.0, 6.0],
    }
    assert table["reward"].dtype == np.float64
