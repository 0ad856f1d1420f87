"""The diagnosis of rewards against numpy's and scipy's own functions."""

import math
import warnings

import diagnose_rewards
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from scipy import stats
from tiny_models import tiny_model, tiny_prompts, tiny_tokenizer
from tiny_rewards import random_texts, reward_tokenizer_of, save_reward_model, tiny_reward_model

from prudent.rewards.diagnosis import (
    WORLD_TARGETS,
    diagnose,
    diagnosis_table,
    pair_accuracy,
    true_errors,
    within_prompt_correlation,
)
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import extract
from prudent.rewards.heads import Heads, save_ensemble
from prudent.rewards.judges import load_judge
from prudent.tables import write_parquet

P, R, K = 12, 6, 4


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rewards [P, R, K] that know something of the truth [P, R]; prompts differ in level."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(P, R)) + 3 * rng.normal(size=(P, 1))
    noise = rng.normal(size=(P, R, K)) * rng.uniform(0.1, 2, size=(P, R, 1))
    return truth[:, :, None] * rng.uniform(0.5, 2, K) + noise + rng.normal(size=K), truth


def test_the_correlation_is_the_mean_of_the_prompts_own():
    rewards, truth = data()
    expected = [np.corrcoef(rewards[p, :, 0], truth[p])[0, 1] for p in range(P)]
    assert within_prompt_correlation(rewards[:, :, 0], truth) == pytest.approx(np.mean(expected))
    pooled = np.corrcoef(rewards[:, :, 0].ravel(), truth.ravel())[0, 1]
    assert abs(pooled - np.mean(expected)) > 0.05


def test_prompts_without_variation_are_left_out():
    rewards, truth = data()
    rewards = rewards[:, :, 0]
    rewards[2], truth[5] = 0.1, -7.3
    expected = [np.corrcoef(rewards[p], truth[p])[0, 1] for p in range(P) if p not in (2, 5)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert within_prompt_correlation(rewards, truth) == pytest.approx(np.mean(expected))
        assert math.isnan(within_prompt_correlation(np.full((P, R), 0.1), truth))


def test_the_correlation_knows_no_scale_and_no_level_of_a_prompt():
    rewards, truth = data()
    moved = 5 * rewards[:, :, 0] + np.arange(P)[:, None]
    expected = within_prompt_correlation(rewards[:, :, 0], truth)
    assert within_prompt_correlation(moved, truth) == pytest.approx(expected)
    assert within_prompt_correlation(-truth, truth) == pytest.approx(-1)


def test_rewards_that_are_lines_of_the_truth_have_no_error():
    truth = data()[1].ravel()
    rewards = np.stack([2 * truth + 1, -0.3 * truth, np.full_like(truth, 4.0)], axis=1)
    np.testing.assert_allclose(true_errors(rewards, truth), 0, atol=1e-12)


def test_errors_are_the_mean_residuals_of_each_heads_line():
    rewards, truth = data()
    flat, true = rewards.reshape(-1, K), truth.ravel()
    residuals = []
    for k in range(K):
        line = stats.linregress(true, flat[:, k])
        residuals.append(np.abs(flat[:, k] - line.intercept - line.slope * true))
    np.testing.assert_allclose(true_errors(flat, true), np.mean(residuals, axis=0))


def test_the_numbers_of_an_ensemble():
    rewards, truth = data()
    found = diagnose(rewards, truth)
    pairs = [(p, r) for p in range(P) for r in range(R)]
    sigma = np.array([np.sqrt(np.var(rewards[p, r], ddof=1)) for p, r in pairs])
    mean = np.array([np.abs(rewards[p, r].mean()) for p, r in pairs])
    errors = true_errors(rewards.reshape(-1, K), truth.ravel())
    deciles = np.percentile(sigma, [10, 90])
    within = [
        np.mean([np.corrcoef(values[p], truth[p])[0, 1] for p in range(P)])
        for values in [*(rewards[:, :, k] for k in range(K)), rewards.mean(2)]
    ]
    expected = {
        "sd of the true reward within prompts": np.mean([np.std(row, ddof=1) for row in truth]),
        "within-prompt correlation with the truth: one head": np.mean(within[:K]),
        "within-prompt correlation with the truth: ensemble mean": within[K],
        "sigma: median": np.median(sigma),
        "sigma: 90th over 10th percentile": deciles[1] / deciles[0],
        "sigma and the true error: rank correlation": stats.spearmanr(sigma, errors).statistic,
        "sigma and |mean reward|: rank correlation": stats.spearmanr(sigma, mean).statistic,
    }
    assert found == pytest.approx(expected)
    assert found["within-prompt correlation with the truth: ensemble mean"] > np.mean(within[:K])


def test_one_head_has_no_sigma():
    rewards, truth = data()
    found = diagnose(rewards[:, :, :1], truth)
    unknown = {name for name, value in found.items() if math.isnan(value)}
    assert unknown == {name for name in found if name.startswith("sigma")}


def test_targets_stand_only_in_the_worlds_table():
    rewards, truth = data()
    flat = [rewards.reshape(-1, K), 2 * rewards.reshape(-1, K)[:, ::-1]]
    verdict = {"score": truth.reshape(-1), "grammatical": np.ones(truth.size)}
    accuracies = {"accuracy on unseen pairs: base model": 0.7}
    world, other = (
        diagnosis_table(accuracies, flat, verdict, R, targets=targets) for targets in (True, False)
    )
    each = [diagnose(one.reshape(*truth.shape, K), truth) for one in flat]
    expected = {name: (each[0][name] + each[1][name]) / 2 for name in each[0]}
    expected |= accuracies | {"grammatical responses": 1.0}
    for table in (world, other):
        assert list(table.columns) == ["quantity", "value", "low", "high"]
        assert dict(zip(table["quantity"], table["value"], strict=True)) == pytest.approx(expected)
    assert other[["low", "high"]].isna().all(axis=None)
    ranges = world.dropna(subset="low").set_index("quantity")
    assert {name: (row["low"], row["high"]) for name, row in ranges.iterrows()} == WORLD_TARGETS


def test_a_judge_that_knows_no_grammar_says_nothing_of_it():
    rewards, truth = data()
    table = diagnosis_table({}, [rewards.reshape(-1, K)], {"score": truth.reshape(-1)}, R, True)
    assert "grammatical responses" not in set(table["quantity"])


def test_pair_accuracy_by_hand():
    difference = np.array([[1.0, 0.0], [-1.0, 2.0], [0.0, -1.0], [3.0, 3.0]])
    heads = np.array([[1.0, 0.0], [0.0, 1.0]])  # right on rows 0 and 3, and on rows 1 and 3
    found = pair_accuracy(difference, np.array([[1.0, 1.0]]), [heads, heads])
    assert found == {
        "accuracy on unseen pairs: base model": 0.75,
        "accuracy on unseen pairs: one head": 0.5,
        "accuracy on unseen pairs: ensemble mean": 0.75,
    }


def test_the_diagnosis_from_files(tmp_path):
    tiny_model().save_pretrained(tmp_path / "reference")
    tiny_tokenizer().save_pretrained(tmp_path / "reference")
    tokenizer = reward_tokenizer_of("gpt2")
    base = tiny_reward_model("gpt2", tokenizer)
    save_reward_model(tmp_path / "base")
    paths = [tmp_path / "ensemble_0", tmp_path / "ensemble_1"]
    for seed, path in enumerate(paths):
        weight = torch.randn(K, 16, generator=torch.Generator().manual_seed(seed))
        save_ensemble(base, tokenizer, Heads(weight, None, torch.zeros(K), pd.DataFrame()), path)

    prompts = pd.DataFrame({"prompt": tiny_prompts(20), "source": "test", "tokens": 3})
    prompts["split"] = ["train", "test"] * 10
    write_parquet(prompts, tmp_path / "prompts.parquet", "prompts")
    texts = {side: random_texts(30, seed=seed) for seed, side in enumerate(["chosen", "rejected"])}
    pairs = pd.DataFrame({"prompt": [[{"role": "user", "content": "w3"}]] * 30, **texts})
    pairs = pairs.assign(
        source="test", split=["judge", "validation", "train"] * 10, probability=0.9
    )
    write_parquet(pairs, tmp_path / "preferences.parquet", "preferences")
    used = pairs[pairs["split"] != "judge"]
    features = {
        side: extract(base, tokenizer, used["prompt"].tolist(), used[side].tolist())
        for side in texts
    }
    save_file(features, tmp_path / "features.safetensors")
    judge = save_reward_model(tmp_path / "judge", "bert")

    args = diagnose_rewards.Args(
        reference=tmp_path / "reference",
        base=tmp_path / "base",
        ensembles=paths,
        prompts=tmp_path / "prompts.parquet",
        features=tmp_path / "features.safetensors",
        preferences=tmp_path / "preferences.parquet",
        samples=tmp_path / "samples.parquet",
        table=tmp_path / "table.csv",
        settings={"prompts": 5, "responses": R},
        scorer="trained",
        sampling={"response_length": 6, "temperature": 1.0},
        seed=0,
        judge=judge,
    )
    diagnose_rewards.main(args)

    samples = pd.read_parquet(args.samples)
    assert len(samples) == 5 * R * 2 * K
    tested = prompts.loc[prompts["split"] == "test", "prompt"].tolist()[:5]
    assert samples.groupby("prompt_index")["prompt"].unique().map(list).tolist() == [
        [prompt] for prompt in tested
    ]
    rows = samples[(samples["ensemble"] == 0) & (samples["head"] == 0)]
    assert rows["response"].nunique() > 20
    asked, given = rows["prompt"].tolist(), rows["response"].tolist()
    truth = load_judge(judge)(asked, given)["score"]
    np.testing.assert_allclose(rows["score"], truth, rtol=1e-5)
    models = [RewardEnsemble.load(path) for path in paths]
    numbers = []
    for ensemble, model in enumerate(models):
        rewards = model(asked, given).mean.double().numpy()
        for head in range(K):
            one = samples[(samples["ensemble"] == ensemble) & (samples["head"] == head)]
            np.testing.assert_allclose(one["reward"], rewards[:, head], rtol=1e-3, atol=1e-4)
        numbers.append(diagnose(rewards.reshape(5, R, K), truth.reshape(5, R)))

    table = pd.read_csv(args.table).set_index("quantity")
    assert table[["low", "high"]].isna().all(axis=None)  # not the embedded world
    for name in numbers[0]:
        expected = np.mean([one[name] for one in numbers])
        assert table.loc[name, "value"] == pytest.approx(expected, rel=1e-3)
    unseen = pairs[pairs["split"] == "validation"]
    asked = unseen["prompt"].tolist()
    margins = [
        (
            model(asked, unseen["chosen"].tolist()).mean
            - model(asked, unseen["rejected"].tolist()).mean
        ).numpy()
        for model in [RewardEnsemble.load(tmp_path / "base"), *models]
    ]
    for name, expected in {
        "base model": (margins[0] > 0).mean(),
        "one head": np.mean([(margin > 0).mean() for margin in margins[1:]]),
        "ensemble mean": np.mean([(margin.mean(1) > 0).mean() for margin in margins[1:]]),
    }.items():
        assert table.loc[f"accuracy on unseen pairs: {name}", "value"] == pytest.approx(expected)
