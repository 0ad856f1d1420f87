"""Base reward models on toy pairs that one word tells apart."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cluster import HANG
from conftest import ROOT, environment
from tiny_models import tiny_model, tiny_tokenizer
from tiny_rewards import REWARD_CONFIGS, bert_tokenizer
from transformers import AutoModelForSequenceClassification, BertModel

from prudent import precision
from prudent.checkpoints import load_tokenizer
from prudent.errors import InputError
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.losses import bradley_terry
from prudent.rewards.models import new_reward_model
from prudent.rewards.templates import TEMPLATES
from prudent.rewards.text import encode, reward_tokenizer
from prudent.rewards.training import RewardSettings, tokenized_pairs, train_reward_model
from prudent.seeding import derive_seed
from prudent.tables import file_digest, write_parquet

SETTINGS = RewardSettings(
    template="continuation",
    max_length=16,
    epochs=3,
    batch_size=8,
    learning_rate=3e-3,
    stop_loss=0.0,
)
GOOD, BAD = 7, 8


def preferences(counts: dict[str, int], seed: int = 0) -> pd.DataFrame:
    """Pairs of random words in which the chosen response has a good word, the other a bad one."""
    rng = np.random.default_rng(seed)

    def words(*more: int) -> str:
        chosen = [*rng.integers(9, 23, rng.integers(1, 5)), *more]
        return "".join(f" w{i}" for i in rng.permutation(chosen))

    rows = [
        ([{"role": "user", "content": words()}], words(GOOD), words(BAD), split)
        for split, count in counts.items()
        for _ in range(count)
    ]
    return pd.DataFrame(rows, columns=["prompt", "chosen", "rejected", "split"])


PAIRS = preferences({"train": 96, "validation": 24, "judge": 40})


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("backbone")
    tiny_model(spread=3.0).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def trained(backbone, tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    path = tmp_path_factory.mktemp("trained") / "base"
    return path, train_reward_model(PAIRS, "train", backbone, SETTINGS, 0, path)


def margins(path: Path, pairs: pd.DataFrame) -> torch.Tensor:
    model, prompts = RewardEnsemble.load(path), pairs["prompt"].tolist()
    sides = (model(prompts, pairs[side].tolist()).mean[:, 0] for side in ("chosen", "rejected"))
    return next(sides) - next(sides)


def test_it_learns_what_tells_the_pairs_apart(trained):
    path, losses = trained
    curves = {split: rows.set_index("step") for split, rows in losses.groupby("split")}
    assert curves["train"]["loss"].iloc[0] > 0.5 > 0.3 > curves["train"]["loss"].iloc[-1]
    assert curves["validation"]["accuracy"].iloc[-1] > 0.9
    fresh = preferences({"train": 200}, seed=1)
    assert (margins(path, fresh) > 0).float().mean() > 0.9


@pytest.mark.parametrize(
    "memory",
    [
        {"gradient_accumulation_steps": 4},
        {"gradient_checkpointing": True},
        {"gradient_accumulation_steps": 8, "gradient_checkpointing": True},
    ],
)
def test_less_memory_gives_the_same_model(backbone, tmp_path, memory):
    """But for the order of sums, which AdamW makes larger where a gradient is nearly 0. Gradients
    are clipped here, so that their scale counts."""
    settings = SETTINGS.replace(epochs=1)
    losses, found = [], []
    for name, changes in (("plain", {}), ("less", memory)):
        path = tmp_path / name
        losses.append(
            train_reward_model(PAIRS, "train", backbone, settings.replace(**changes), 0, path)
        )
        found.append(margins(path, PAIRS[PAIRS["split"] == "validation"]))
    assert losses[0]["step"].tolist() == losses[1]["step"].tolist()
    assert losses[1]["loss"].to_numpy() == pytest.approx(losses[0]["loss"].to_numpy(), abs=1e-4)
    assert torch.allclose(*found, atol=2e-3) and found[0].std() > 0.1


def test_the_table_of_losses(trained):
    losses = trained[1]
    assert list(losses.columns) == ["step", "loss", "accuracy", "split"]
    assert set(losses["split"]) == {"train", "validation"}
    assert not losses.duplicated(["step", "split"]).any()
    assert losses["loss"].notna().all() and losses["accuracy"].between(0, 1).all()
    steps = losses.groupby("split")["step"].max()
    assert steps["validation"] == SETTINGS.epochs * 96 / SETTINGS.batch_size


def test_the_last_validation_row_is_that_of_the_saved_model(trained):
    path, losses = trained
    last = losses[losses["split"] == "validation"].iloc[-1]
    found = margins(path, PAIRS[PAIRS["split"] == "validation"])
    assert last["loss"] == pytest.approx(bradley_terry(found[:, None]).item(), rel=1e-3)
    assert last["accuracy"] == pytest.approx((found > 0).float().mean().item())


def test_the_trainers_loss_is_bradley_terry_of_the_models_margins(backbone, tmp_path):
    pairs = PAIRS[PAIRS["split"] == "train"].head(40)
    settings = SETTINGS.replace(epochs=1, learning_rate=1e-30)  # five batches, then one line of log
    losses = train_reward_model(pairs, "train", backbone, settings, 4, tmp_path / "r")
    tokenizer = reward_tokenizer(backbone, settings.template, settings.max_length)
    seed = derive_seed(4, "reward", "train", "training") % 2**32
    model = new_reward_model(backbone, tokenizer, seed).eval()
    rewards = []
    for side in ("chosen", "rejected"):
        ids = encode(tokenizer, pairs["prompt"].tolist(), pairs[side].tolist())
        with torch.no_grad():  # one text at a time
            rewards.append([model(input_ids=torch.tensor([row])).logits.item() for row in ids])
    difference = np.subtract(*rewards)
    assert np.abs(difference).mean() > 0.01
    assert len(losses) == 1
    expected = np.log1p(np.exp(-difference)).mean()
    assert abs(expected - np.log(2)) > 1e-3, "the loss of no rewards at all: the test shows nothing"
    assert losses["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert losses["accuracy"].item() == pytest.approx((difference > 0).mean())


def test_the_checkpoint_keeps_how_texts_are_read(trained, backbone):
    tokenizer = load_tokenizer(trained[0])
    asked = reward_tokenizer(backbone, SETTINGS.template, SETTINGS.max_length)
    assert tokenizer.chat_template == asked.chat_template
    long = [" w3" * 30], [" w4 w5"]
    assert encode(tokenizer, *long) == encode(asked, *long)
    assert len(encode(tokenizer, *long)[0]) == SETTINGS.max_length
    assert tokenizer.truncation_side == "left"


def test_a_low_loss_stops_the_training(trained, backbone, tmp_path):
    losses = train_reward_model(
        PAIRS, "train", backbone, SETTINGS.replace(stop_loss=0.45), 0, tmp_path / "r"
    )
    curve = losses[losses["split"] == "train"].set_index("step")["loss"]
    means = curve.rolling(4).mean()
    assert means.iloc[-1] < 0.45 and not (means.iloc[:-1] < 0.45).any()
    assert losses["step"].max() < trained[1]["step"].max()
    last = losses[losses["split"] == "validation"].iloc[-1]
    assert last["step"] == curve.index[-1], "the model was not judged where it stopped"


def test_training_repeats_bit_for_bit_and_hangs_on_the_seed(backbone, tmp_path):
    settings = SETTINGS.replace(epochs=0.5)
    tables = {}
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        torch.manual_seed(len(name))
        tables[name] = train_reward_model(PAIRS, "train", backbone, settings, seed, tmp_path / name)
    assert file_digest(tmp_path / "first") == file_digest(tmp_path / "again")
    assert file_digest(tmp_path / "first") != file_digest(tmp_path / "other")
    pd.testing.assert_frame_equal(tables["first"], tables["again"])


def test_bfloat16_is_for_computing_and_not_for_the_weights(
    trained, backbone, tmp_path, monkeypatch
):
    monkeypatch.setattr(precision, "native", lambda device: True)
    settings = SETTINGS.replace(bfloat16=True)
    losses = train_reward_model(PAIRS, "train", backbone, settings, 0, tmp_path / "r")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "r")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    first = [table["loss"].iloc[0] for table in (losses, trained[1])]
    assert first[0] != first[1] and first[0] == pytest.approx(first[1], rel=0.05)
    assert losses["accuracy"].iloc[-1] > 0.9


def test_a_judge_is_trained_on_its_own_pairs_alone(backbone, tmp_path):
    settings = SETTINGS.replace(epochs=1)
    train_reward_model(PAIRS, "judge", backbone, settings, 0, tmp_path / "judge")
    alone = PAIRS[PAIRS["split"] != "train"]
    train_reward_model(alone, "judge", backbone, settings, 0, tmp_path / "alone")
    assert file_digest(tmp_path / "judge") == file_digest(tmp_path / "alone")
    # Not the base model's stream either: on the same pairs the two still differ.
    renamed = alone.assign(split=alone["split"].replace("judge", "train"))
    train_reward_model(renamed, "train", backbone, settings, 0, tmp_path / "base")
    assert file_digest(tmp_path / "judge") != file_digest(tmp_path / "base")


def test_an_encoder_learns_too_without_validation_pairs(tmp_path):
    torch.manual_seed(0)
    BertModel(REWARD_CONFIGS["bert"], add_pooling_layer=False).save_pretrained(tmp_path / "bert")
    bert_tokenizer().save_pretrained(tmp_path / "bert")
    pairs = PAIRS[PAIRS["split"] == "train"]
    settings = SETTINGS.replace(template="dialogue", max_length=24, epochs=6)
    losses = train_reward_model(pairs, "train", tmp_path / "bert", settings, 0, tmp_path / "r")
    assert set(losses["split"]) == {"train"}
    assert losses["loss"].iloc[-1] < 0.4
    assert (margins(tmp_path / "r", pairs) > 0).float().mean() > 0.9


def test_pairs_are_tokenized_as_they_are_scored(backbone):
    tokenizer = reward_tokenizer(backbone, "continuation", 16)
    pairs = PAIRS.head(5)
    dataset = tokenized_pairs(tokenizer, pairs)
    for side in ("chosen", "rejected"):
        expected = encode(tokenizer, pairs["prompt"].tolist(), pairs[side].tolist())
        assert dataset[f"{side}_ids"][:] == expected
    lengths = [
        max(map(len, row))
        for row in zip(dataset["chosen_ids"], dataset["rejected_ids"], strict=True)
    ]
    assert dataset["length"][:] == lengths
    assert len(tokenized_pairs(tokenizer, pairs.head(0))) == 0


def test_responses_that_are_cut_are_counted_in_the_log(backbone, caplog):
    tokenizer = reward_tokenizer(backbone, "continuation", 16)
    pairs = PAIRS.head(5).copy()
    with caplog.at_level(logging.WARNING, "prudent"):
        tokenized_pairs(tokenizer, pairs)
        assert not caplog.records
        pairs.loc[1, "chosen"] = " w9" * 17
        pairs.loc[3, "rejected"] = " w9" * 40
        pairs.loc[4, "rejected"] = " w9" * 15  # and EOS
        tokenized_pairs(tokenizer, pairs)
    (record,) = caplog.records
    assert "2 of 10 responses alone are longer than max_length, 16 tokens" in record.message


@pytest.mark.parametrize("equal", [1, 2])
def test_pairs_whose_difference_is_cut_off_are_refused(backbone, equal):
    """They would teach nothing: of a long response the end is read."""
    tokenizer = reward_tokenizer(backbone, "continuation", max_length=4)
    long = " w9" * 4
    pairs = pd.DataFrame(
        {
            "prompt": " w10",
            "chosen": [f" w7{long}"] * equal + [" w7"] * (100 - equal),
            "rejected": [f" w8{long}"] * equal + [" w8"] * (100 - equal),
        }
    )
    if equal == 1:  # of a hundred
        tokenized_pairs(tokenizer, pairs)
        return
    expected = r"same tokens for both responses of 2 of 100 pairs, expected so of at most 1%"
    with pytest.raises(InputError, match=expected):
        tokenized_pairs(tokenizer, pairs)


def test_without_pairs_it_is_refused(backbone, tmp_path):
    pairs = PAIRS[PAIRS["split"] != "judge"]
    with pytest.raises(InputError, match="'judge'.*nothing to train on"):
        train_reward_model(pairs, "judge", backbone, SETTINGS, 0, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_padding_that_also_ends_texts_becomes_a_token_of_its_own(tmp_path):
    """GPT-2's tokenizer has none, and those of Llama 3's and Qwen's bases name EOS."""
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "gpt2")
    tiny_model(spread=3.0).save_pretrained(tmp_path / "gpt2")
    train_reward_model(PAIRS, "train", tmp_path / "gpt2", SETTINGS, 0, tmp_path / "r")
    ensemble = RewardEnsemble.load(tmp_path / "r")
    rows = tiny_model().config.vocab_size
    assert ensemble.tokenizer.pad_token == "<|pad|>"
    assert ensemble.tokenizer.pad_token_id == ensemble.model.config.pad_token_id == rows
    assert (margins(tmp_path / "r", PAIRS) > 0).float().mean() > 0.9
    prompts, responses = PAIRS["prompt"][:9].tolist(), PAIRS["chosen"][:9].tolist()
    alone = [ensemble([p], [r]).mean for p, r in zip(prompts, responses, strict=True)]
    torch.testing.assert_close(ensemble(prompts, responses).mean, torch.cat(alone))


def test_an_end_that_the_model_would_take_for_padding_is_refused(backbone, tmp_path):
    settings = SETTINGS.model_copy(
        update={"template": TEMPLATES["continuation"].replace("eos_token", "pad_token")}
    )
    with pytest.raises(InputError, match="'<|pad|>', which is also the padding"):
        train_reward_model(PAIRS, "train", backbone, settings, 0, tmp_path / "r")


def start_script(
    folder: Path, backbone: Path, settings: RewardSettings, gpus: str
) -> subprocess.Popen[str]:
    """Starts the script by hand, as a job that was given these GPUs."""
    folder.mkdir()
    pairs = PAIRS.assign(
        id=[str(row) for row in range(len(PAIRS))], source="toy", probability=float("nan")
    )
    write_parquet(pairs, folder / "preferences.parquet", "preferences")
    options = {
        "preferences": folder / "preferences.parquet",
        "checkpoint": folder / "base",
        "digest": folder / "base.sha256",
        "loss": folder / "loss.csv",
        "settings": json.dumps(settings.model_dump()),
        "split": "train",
        "checkpoints": folder / "checkpoints",
        "seed": 0,
        "backbone": backbone,
        "threads": 2,
    }
    return subprocess.Popen(
        [
            *(sys.executable, ROOT / "workflow_scripts/train_reward_base.py"),
            *(f"--{name}={value}" for name, value in options.items()),
        ],
        env=environment(folder) | {"CUDA_VISIBLE_DEVICES": gpus},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPUs are made up")
def test_two_processes_train_as_one(backbone, tmp_path):
    """Also two such jobs at once on one machine, each at a port of its own."""
    jobs = {"alone": "", "two": "0,1", "two more": "2,3"}
    running = [
        start_script(tmp_path / name, backbone, SETTINGS, gpus) for name, gpus in jobs.items()
    ]
    printed = [process.communicate(timeout=HANG)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], printed
    alone, *others = (pd.read_csv(tmp_path / name / "loss.csv") for name in jobs)
    assert len(alone) > 10
    for output, losses in zip(printed[1:], others, strict=True):
        assert "training in 2 processes" in output
        assert output.count("step 5 of 36: train loss") == 1, "both report"
        pd.testing.assert_frame_equal(losses[:1], alone[:1], rtol=1e-6)
        pd.testing.assert_frame_equal(losses, alone, rtol=1e-3)  # Adam makes rounding larger


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPUs are made up")
def test_processes_that_cannot_share_a_batch(backbone, tmp_path):
    process = start_script(tmp_path / "job", backbone, SETTINGS, "0,1,2")
    output, _ = process.communicate(timeout=HANG)
    assert process.returncode == 1
    assert "reward.batch_size: 8 pairs at once cannot be shared by 3 processes" in output
    assert "Traceback" not in output


def test_a_training_that_diverges_is_an_error_and_leaves_nothing(backbone, tmp_path):
    wild = SETTINGS.replace(learning_rate=1e10)
    with pytest.raises(InputError, match="finite"):
        train_reward_model(PAIRS, "train", backbone, wild, 0, tmp_path / "base")
    assert not (tmp_path / "base").exists()
