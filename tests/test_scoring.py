"""Long tables of member scores against the models called directly."""

import numpy as np
import pandas as pd
import pytest
import score_benchmark
import torch
from tiny_rewards import random_texts, reward_tokenizer_of, save_reward_model, tiny_reward_model

from prudent.rewards.ensemble import Heads, RewardEnsemble, save_ensemble
from prudent.rewards.features import extract
from prudent.rewards.interface import Rewards
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
        save_ensemble(base, tokenizer, heads, folder / f"ensemble/{ensemble}")
    return [folder / "base", folder / "ensemble/0", folder / "ensemble/1"]


def load(paths) -> list[RewardEnsemble]:
    return [RewardEnsemble.load(path) for path in paths]


def test_responses_are_scored_as_by_each_model_itself(models):
    prompts, responses = PAIRS["prompt"].tolist(), PAIRS["chosen"].tolist()
    scores = score_responses(load(models), prompts, responses, batch_tokens=30)
    assert [found.mean.shape for found in scores] == [(N, 1), (N, 3), (N, 3)]
    for found, model in zip(scores, load(models), strict=True):
        alone = model(prompts, responses)
        torch.testing.assert_close(found.mean, alone.mean, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.features, alone.features, rtol=1e-4, atol=1e-4)


@pytest.fixture
def passes(monkeypatch):
    """The models whose bodies were run, one for each time."""
    run = []

    def counted(model, *arguments, **options):
        run.append(model)
        return extract(model, *arguments, **options)

    for module in ("scoring", "ensemble"):
        monkeypatch.setattr(f"prudent.rewards.{module}.extract", counted)
    return run


def scored_alone(models, texts) -> list[torch.Tensor]:
    return [model(*texts).mean for model in models]


def test_a_body_that_several_share_is_run_once(models, passes):
    texts = PAIRS["prompt"].tolist(), PAIRS["chosen"].tolist()
    shared = load(models)
    scores = score_responses(shared, *texts)
    assert passes == [shared[0].model]
    for found, expected in zip(scores, scored_alone(shared, texts), strict=True):
        torch.testing.assert_close(found.mean, expected, rtol=1e-4, atol=1e-4)
    passes.clear()
    twice = score_responses([shared[1], shared[1]], *texts)
    assert len(passes) == 1 and torch.equal(twice[0].mean, twice[1].mean)


def of_another_layer(model):
    model.model.transformer.h[0].mlp.c_fc.weight.data[0] += 1.0


def of_another_position(model):
    model.model.transformer.wpe.weight.data[1, 0] += 9.0


def of_another_template(model):
    model.tokenizer.chat_template = "{% for m in messages %}w5 {{ m['content'] }}{% endfor %}"


@pytest.mark.parametrize("edit", [of_another_layer, of_another_position, of_another_template])
def test_bodies_that_differ_are_run_each(models, passes, edit):
    texts = PAIRS["prompt"].tolist(), PAIRS["chosen"].tolist()
    mixed = load([*models, models[1]])
    edit(mixed[1])
    scores = score_responses(mixed, *texts)
    # The second one's body is its own; that of the others is run for all of them at once.
    assert passes == [mixed[0].model, mixed[1].model]
    for found, expected in zip(scores, scored_alone(mixed, texts), strict=True):
        torch.testing.assert_close(found.mean, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(mixed[1].weight, mixed[3].weight), "the same heads"
    assert not torch.equal(scores[1].mean, scores[3].mean)


def test_another_architecture_and_what_is_no_body_with_heads_are_run_each(models, passes, tmp_path):
    texts = PAIRS["prompt"].tolist(), PAIRS["chosen"].tolist()
    llama = RewardEnsemble.load(save_reward_model(tmp_path / "llama", "llama", labels=2))
    calls = []

    def function(prompts, responses):
        calls.append(len(responses))
        return Rewards(torch.arange(2.0 * len(responses)).reshape(-1, 2))

    base, heads = load(models[:2])
    scores = score_responses([function, base, llama, function, heads], *texts)
    assert calls == [N, N] and passes == [base.model, llama.model]
    assert torch.equal(scores[0].mean, scores[3].mean)
    expected = scored_alone([base, llama, heads], texts)
    for found, wanted in zip([scores[1], scores[2], scores[4]], expected, strict=True):
        torch.testing.assert_close(found.mean, wanted, rtol=1e-4, atol=1e-4)


def test_nothing_to_score_with_is_nothing():
    assert score_responses([], ["a"], ["b"]) == []


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
            ensemble=models[1].parent,
            scores=tmp_path / "scores.parquet",
            batch_tokens=30,
        )
    )
    found = read_table(tmp_path / "scores.parquet", "scores")
    pd.testing.assert_frame_equal(found, score_pairs(PAIRS, load(models), 30), check_dtype=False)


def test_a_long_table_goes_by_ensemble_head_and_row():
    keys = pd.DataFrame({"row": ["a", "b"]})
    rewards = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0], [6.0]])]
    table = long_table(keys, [Rewards(table) for table in rewards])
    assert table.to_dict("list") == {
        "row": ["a", "b"] * 3,
        "ensemble": [0, 0, 0, 0, 1, 1],
        "head": [0, 0, 1, 1, 0, 0],
        "reward": [1.0, 3.0, 2.0, 4.0, 5.0, 6.0],
    }
    assert table["reward"].dtype == np.float64
