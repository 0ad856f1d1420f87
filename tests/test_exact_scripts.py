"""The scripts of exact policies, from files to files."""

import functools
from dataclasses import replace
from pathlib import Path

import exact_kinds
import exact_policies
import numpy as np
import pandas as pd
import pytest
import sample_reference
import score_reference
import torch
import train_ensemble
import train_policy
import train_replicate
from tiny_material import REWARD, save_backbone, tiny_pairs
from tiny_models import tiny_model, tiny_prompts, tiny_tokenizer
from tiny_rewards import save_reward_model

from prudent.checkpoint_files import read_json
from prudent.errors import InputError
from prudent.exact import samples as exact_samples
from prudent.exact.scores import fresh_heads, load_scores
from prudent.policies.settings import SamplingSettings
from prudent.ppo.settings import TrainingSettings
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import load_features, pair_features, save_features
from prudent.rewards.loading import draws_of, load_rewards
from prudent.rewards.settings import KINDS, SpreadSettings
from prudent.rewards.training import train_reward_model
from prudent.tables import file_digest, metadata, read_csv, read_table, write_json, write_parquet

SEED, P, N, K, DRAWS = 3, 4, 40, 3, 2
HEADS = KINDS["heads"](bootstrap=True, ridge=1.0)
SAMPLING = SamplingSettings(response_length=4)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with all that the scripts read, made by the stages before."""
    folder = tmp_path_factory.mktemp("exact")
    write_parquet(tiny_pairs(), folder / "preferences.parquet", "preferences")
    pairs = read_table(folder / "preferences.parquet", "preferences")
    save_backbone(folder / "backbone")
    train_reward_model(pairs, "train", folder / "backbone", REWARD, SEED, folder / "base")
    base = RewardEnsemble.load(folder / "base")
    save_features(pair_features(base.model, base.tokenizer, pairs), folder / "features.safetensors")
    write_json(metadata({}, base=folder / "base"), folder / "features.json")
    shared = {
        "preferences": folder / "preferences.parquet",
        "backbone": folder / "backbone",
        "kind": "heads",
        "settings": HEADS.model_dump(),
        "reward": REWARD,
        "size": K,
        "seed": SEED,
    }
    train_ensemble.main(
        train_ensemble.Args(
            **shared,
            ensemble=folder / "ensemble",
            loss=folder / "loss.csv",
            draws=DRAWS,
            base=folder / "base",
            features=folder / "features.safetensors",
        )
    )
    for number in range(3):
        train_replicate.main(
            train_replicate.Args(
                **shared,
                checkpoint=folder / f"replicates/{number}",
                loss=folder / "loss.csv",
                models=0,
                replicate=number,
            )
        )
    tiny_model("gpt2", 0).save_pretrained(folder / "reference")
    tiny_tokenizer().save_pretrained(folder / "reference")
    prompts = tiny_prompts(P + 2)
    table = pd.DataFrame({"prompt": prompts, "source": "here", "tokens": 1, "split": "test"})
    table.loc[0, "split"] = "train"
    write_parquet(table, folder / "prompts.parquet", "prompts")
    save_reward_model(folder / "judge", seed=9)
    return folder


def sample_args(folder: Path, output: Path, **changes) -> sample_reference.Args:
    given = {
        "reference": folder / "reference",
        "prompts": folder / "prompts.parquet",
        "samples": output / "samples.parquet",
        "metadata": output / "samples.json",
        "prompt_count": P,
        "sample_count": N,
        "sampling": SAMPLING,
        "seed": SEED,
        "checkpoints": output / "parts",
    }
    return sample_reference.Args(**given | changes)


@pytest.fixture(scope="module")
def scored(files) -> score_reference.Args:
    sample_reference.main(sample_args(files, files))
    args = score_reference.Args(
        samples=files / "samples.parquet",
        ensemble=files / "ensemble",
        scores=files / "scores.safetensors",
        metadata=files / "scores.json",
        model=str(files / "judge"),
        replicates=[files / f"replicates/{number}" for number in range(3)],
        base=files / "base",
    )
    score_reference.main(args)
    return args


# --- Samples --------------------------------------------------------------------------------------


def test_as_many_responses_to_each_test_prompt(files, scored):
    table = read_table(scored.samples, "exact_samples")
    prompts = read_table(files / "prompts.parquet", "prompts")
    test = prompts.loc[prompts["split"] == "test", "prompt"].tolist()[:P]
    assert table["prompt"].tolist() == [prompt for prompt in test for _ in range(N)]
    assert (table["log_probability"] < 0).all() and table["response"].nunique() > N
    assert not (files / "parts").exists()


def test_sampling_that_was_stopped_ends_in_the_same_responses(files, scored, tmp_path, monkeypatch):
    monkeypatch.setattr(exact_samples, "BATCH", 2 * N)
    sample_reference.main(sample_args(files, tmp_path / "whole"))
    original, calls = exact_samples.sample_with_log_probs, []

    def stopped(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(exact_samples, "sample_with_log_probs", stopped)
    args = sample_args(files, tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        sample_reference.main(args)
    sample_reference.main(args)
    assert len(calls) == 3, "the first batch was kept"
    whole = (tmp_path / "whole/samples.parquet").read_bytes()
    assert args.samples.read_bytes() == whole


def test_responses_may_come_from_a_file(tmp_path):
    rows = [(p, f" r{n}", -1.5) for n in range(3) for p in ("a film", "a play")]
    table = pd.DataFrame(rows, columns=["prompt", "response", "log_probability"])
    path = tmp_path / "given.csv"
    table.to_csv(path, index=False)
    sample_reference.main(
        sample_args(tmp_path, tmp_path, reference=None, prompts=None, responses=path)
    )
    found = read_table(tmp_path / "samples.parquet", "exact_samples")
    assert found["prompt"].tolist() == ["a film"] * 3 + ["a play"] * 3
    assert found["response"].tolist() == [" r0", " r1", " r2"] * 2
    table.drop(columns="log_probability").to_parquet(tmp_path / "given.parquet")
    found, count = exact_samples.given_table(tmp_path / "given.parquet")
    assert count == 3 and found["log_probability"].isna().all()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a film", None, -1.0), "row 5: response is None; expected a text"),
        (("", " r", -1.0), "row 5: prompt is ''; expected a text"),
        (("a film", " r", 0.5), "row 5: log_probability is 0.5; expected a number that is not"),
        (("a film", " r", -1.0), "found 2 response(s) to 'a play' and up to 3 to others"),
    ],
)
def test_a_bad_file_of_responses_is_refused_by_row(tmp_path, row, message):
    rows = [(p, f" r{n}", -1.5) for n in range(2) for p in ("a film", "a play")]
    table = pd.DataFrame([*rows, row], columns=["prompt", "response", "log_probability"])
    table.to_json(tmp_path / "given.jsonl", orient="records", lines=True)
    with pytest.raises(InputError) as refused:
        exact_samples.given_table(tmp_path / "given.jsonl")
    assert message in str(refused.value)


# --- Scores ---------------------------------------------------------------------------------------


def test_scores_are_what_each_model_says(files, scored):
    table = read_table(scored.samples, "exact_samples")
    texts = table["prompt"].tolist(), table["response"].tolist()
    found = load_scores(scored.scores, P * N)
    close = functools.partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)
    close(found.judge.float(), load_rewards(files / "judge")(*texts).mean[:, 0])
    for rewards, path in zip(found.draws, draws_of(files / "ensemble"), strict=True):
        close(rewards.mean, load_rewards(path)(*texts).mean)
    for rewards, path in zip(found.anew, scored.replicates, strict=True):
        close(rewards.mean, load_rewards(path)(*texts).mean)
    with pytest.raises(InputError, match=f"expected finite numbers of {P * N - 1} responses"):
        load_scores(scored.scores, P * N - 1)


def test_fresh_heads_are_those_that_the_ensembles_stage_trains(files, scored):
    found = load_scores(scored.scores, P * N)
    pairs = load_features(files / "features.safetensors", found.features.shape[1])
    given = (files / "base", pairs, found.features, HEADS, K, SEED, 4)
    fresh = list(fresh_heads(*given))
    for own, drawn in zip(fresh, found.draws, strict=False):
        torch.testing.assert_close(own.mean, drawn.mean, rtol=1e-4, atol=1e-5)
    assert len({rewards.mean.sum().item() for rewards in fresh}) == 4


# --- Policies -------------------------------------------------------------------------------------


def exact_args(folder: Path, output: Path, **changes) -> exact_policies.Args:
    def method(objective: str, unit: str = "member", control: bool = False, **parameters) -> dict:
        said = {"objective": objective, "parameters": parameters}
        return said | {"unit": unit, "control": control, "spread": {"shuffled": control}}

    given = {
        "samples": folder / "samples.parquet",
        "scores": folder / "scores.safetensors",
        "policies": output / "policies.parquet",
        "summary": output / "summary.csv",
        "best": output / "best.csv",
        "methods": {
            "vanilla": method("vanilla"),
            "squared": method("variance_aware", power=2),
            "shuffled": method("variance_aware", control=True),
            "mean": method("mean", "ensemble"),
        },
        "kl": [0.02, 0.1],
        "ensembles": 5,
        "heads": HEADS,
        "size": K,
        "baseline": "vanilla",
        "seed": SEED,
        "base": folder / "base",
        "features": folder / "features.safetensors",
    }
    return exact_policies.Args(**given | changes)


def test_a_row_for_each_level_kl_and_method(files, scored, tmp_path):
    args = exact_args(files, tmp_path)
    exact_policies.main(args)
    summary = read_csv(args.summary, "exact_summary")
    assert len(summary) == 3 * 2 * 4
    assert set(summary.loc[summary["control"] == "yes", "method"]) == {"shuffled"}
    first = summary[summary["kl_target"] == 0.1].drop_duplicates("level")
    assert first["replicates"].tolist() == [5, 3, 3]
    policies = read_table(args.policies, "exact_policies")
    assert np.abs(policies["kl"] / policies["kl_target"] - 1).max() < 1e-6
    one = policies[(policies["level"] == "given the backbone") & (policies["method"] == "mean")]
    assert (one["head"] == -1).all() and one["replicate"].tolist() == [*range(5)] * 2
    best = read_csv(args.best, "best_of")
    assert set(best["scorer"]) == {"one member", "mean of the members"}


def test_of_every_ensemble_that_is_checked_a_row_for_each_kl_and_method(files, scored, tmp_path):
    """Those of the ensemble that rewards the policies are its draws' exact policies."""
    exact = exact_args(files, tmp_path)
    shared = {name: getattr(exact, name) for name in ("samples", "scores", "methods", "baseline")}
    table = tmp_path / "kinds.csv"
    folders = [files / "ensemble", files / "replicates"]
    exact_kinds.main(
        exact_kinds.Args(
            **shared,
            ensembles=folders,
            names=["first", "other"],
            table=table,
            kl=exact.kl,
            seed=SEED,
        )
    )
    found = read_csv(table, "exact_kinds")
    assert len(found) == 2 * 2 * 4 and list(found["ensemble"].unique()) == ["first", "other"]
    assert set(found.loc[found["control"] == "yes", "method"]) == {"shuffled"}
    counts = found.groupby("ensemble")["replicates"].unique().map(list).to_dict()
    assert counts == {"first": [DRAWS], "other": [3]}
    plain = exact_args(files, tmp_path, base=None, features=None)
    exact_policies.main(plain)
    summary = read_csv(plain.summary, "exact_summary")
    given = summary[summary["level"] == "given the backbone"].reset_index(drop=True)
    first = found[found["ensemble"] == "first"].reset_index(drop=True)
    same = [name for name in given.columns if name != "level"]
    pd.testing.assert_frame_equal(first[same], given[same])


def test_without_fresh_heads_the_draws_are_the_ensembles(files, scored, tmp_path):
    plain = replace(scored, base=None, replicates=[], scores=tmp_path / "scores.safetensors")
    score_reference.main(replace(plain, metadata=tmp_path / "scores.json"))
    args = exact_args(files, tmp_path, scores=plain.scores, base=None, features=None)
    exact_policies.main(args)
    summary = read_csv(args.summary, "exact_summary")
    assert set(summary["level"]) == {"given the backbone"}
    assert set(summary["replicates"]) == {DRAWS}


def test_a_last_layer_is_that_of_the_training_pairs(files, scored, tmp_path):
    """In exact policies given the backbone, whose features are known, and in PPO."""
    spread = {"of": "last_layer", "center": "prompt"}
    said = {"objective": "variance_aware", "parameters": {}, "unit": "member", "control": False}
    methods = {"vanilla": said | {"objective": "vanilla", "spread": {}}}
    methods["layer"] = said | {"spread": spread}
    methods["adv_po"] = said | {"objective": "adv_po", "spread": {}}
    args = exact_args(files, tmp_path, methods=methods)
    exact_policies.main(args)
    summary = read_csv(args.summary, "exact_summary")
    assert summary.loc[summary["method"] == "layer", "level"].tolist() == ["given the backbone"] * 2
    assert "adv_po" not in set(summary["method"])

    prompts = pd.DataFrame({"prompt": tiny_prompts(20), "source": "here", "tokens": 1})
    write_parquet(prompts.assign(split="train"), tmp_path / "prompts.parquet", "prompts")
    given = {
        **{"reference": files / "reference", "ensemble": files / "ensemble"},
        **{"prompts": tmp_path / "prompts.parquet", "policy": tmp_path / "policy"},
        **{"training_log": tmp_path / "log.csv", "checkpoints": tmp_path / "checkpoints"},
        **{"objective": "adv_po", "parameters": {"width": 2.0}, "beta": 0.1, "draw": 0, "head": 1},
        "settings": TrainingSettings(batch_size=8, minibatch_size=8, steps=2, learning_rate=1e-3),
        "spread": SpreadSettings(of="last_layer", scale="reference"),
        **{"sampling": SAMPLING, "run_seed": 0, "seed": SEED},
    }
    files_of = {"base": files / "base", "features": files / "features.safetensors"}
    train_policy.main(train_policy.Args(**given, **files_of))
    log = pd.read_csv(tmp_path / "log.csv")
    assert (log["distance"] > 0).all()
    sheet = read_json(tmp_path / "policy/metadata.json")
    assert sheet["settings"]["spread"]["of"] == "last_layer"
    assert sheet["inputs"]["features"] == file_digest(files / "features.safetensors")
    del given["parameters"]
    with pytest.raises(InputError, match="features of the reward model's training pairs are not"):
        train_policy.main(train_policy.Args(**given))
    given["objective"] = "variance_aware"
    train_policy.main(train_policy.Args(**given, **files_of))
    log = pd.read_csv(tmp_path / "log.csv")
    assert log["kl_coefficient"].mean() == pytest.approx(0.1, rel=0.5), "scaled to a mean of 1"
    assert log["sigma"].notna().all()
