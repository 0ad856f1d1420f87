"""Adapters against their products merged by hand, and members trained together against alone."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from conftest import environment
from ensemble_contract import PROMPTS, RESPONSES, EnsembleContract, close
from safetensors.torch import load_file, save_file
from tiny_material import REWARD, save_backbone, tiny_material, tiny_pairs
from transformers import AutoModelForSequenceClassification

from prudent import precision
from prudent.errors import InputError
from prudent.rewards.ensemble import RewardEnsemble, load_classifier
from prudent.rewards.interface import Rewards
from prudent.rewards.kinds import adapters
from prudent.rewards.kinds.adapters import diversity, train
from prudent.rewards.loading import load_rewards
from prudent.rewards.material import Material
from prudent.rewards.settings import AdapterSettings
from prudent.rewards.text import encode
from prudent.tables import file_digest

SETTINGS = AdapterSettings(rank=3, alpha=6.0, batch_size=8, learning_rate=1e-2)
TARGETS = {"gpt2": {"c_attn"}, "llama": {"q_proj", "v_proj"}, "bert": {"query", "value"}}


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Material:
    return tiny_material(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def made(given, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("made") / "ensemble"
    losses = train(given, SETTINGS, 3, 5, 1, path)
    assert list(losses.columns) == ["ensemble", "head", "step", "loss", "accuracy", "split"]
    assert set(losses["ensemble"]) == {1} and set(losses["head"]) == {0, 1, 2}
    steps = {split: sorted(set(rows["step"])) for split, rows in losses.groupby("split")}
    assert steps == {"train": list(range(1, 7)), "validation": [0, 6]}
    return path


def member(path: Path, number: int) -> dict[str, torch.Tensor]:
    return load_file(path / f"member_{number}" / "adapter_model.safetensors")


@pytest.mark.parametrize("able", [True, False])
def test_bfloat16_is_for_machines_that_have_it(given, made, tmp_path, monkeypatch, able):
    monkeypatch.setattr(precision, "native", lambda device: able)
    asked = replace(given, reward=given.reward.replace(bfloat16=True))
    train(asked, SETTINGS, 3, 5, 1, tmp_path / "ensemble")
    trained, exact = member(tmp_path / "ensemble", 0), member(made, 0)
    assert all(value.dtype == torch.float32 for value in trained.values())
    assert all(torch.equal(trained[name], exact[name]) for name in exact) is not able


def merged(path: Path, number: int) -> torch.Tensor:
    """A member's rewards [n] of the contract's texts, one text at a time, of the backbone with
    W + alpha / rank B A in place of each W, without peft."""
    model, tokenizer = load_classifier(path / "backbone")
    config = json.loads((path / f"member_{number}" / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    modules = dict(model.named_modules())
    left = member(path, number)
    with torch.no_grad():
        for name in [name for name in left if name.endswith(".lora_A.weight")]:
            product = left.pop(name.replace("lora_A", "lora_B")) @ left.pop(name)
            module = modules[name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")]
            turned = module.weight.shape != product.shape or config["fan_in_fan_out"]
            module.weight += scale * (product.T if turned else product)
        for name in [name for name in left if name.endswith("lora_embedding_A")]:
            product = left.pop(name.replace("embedding_A", "embedding_B")) @ left.pop(name)
            name = name.removeprefix("base_model.model.").removesuffix(".lora_embedding_A")
            modules[name].weight += scale * product.T
        parameters = dict(model.named_parameters())
        for name, value in left.items():
            parameters[name.removeprefix("base_model.model.")].copy_(value)
        rows = encode(tokenizer, PROMPTS, RESPONSES)
        logits = [model(input_ids=torch.tensor([ids])).logits[0, 0] for ids in rows]
    offsets = json.loads((path / "config.json").read_text())["reward_offsets"]
    return torch.stack(logits) - offsets[number]


# --- training -------------------------------------------------------------------------------------


def test_training_is_a_function_of_the_seed_and_the_ensemble(given, made, tmp_path):
    torch.manual_seed(77)
    train(given, SETTINGS, 3, 5, 1, tmp_path / "again")
    assert file_digest(tmp_path / "again") == file_digest(made)
    train(given, SETTINGS, 3, 5, 2, tmp_path / "other")
    assert not torch.equal(*(next(iter(member(p, 0).values())) for p in (made, tmp_path / "other")))


def test_each_member_is_trained_as_if_it_were_alone(given, made, tmp_path):
    """With a loss of its own; with its mean reward's loss it is not."""
    for settings, same in ((SETTINGS, True), (SETTINGS.replace(loss="mean"), False)):
        tables = [
            train(given, settings, count, 5, 1, tmp_path / f"{settings.loss}_{count}")
            for count in (1, 3)
        ]
        found = [member(tmp_path / f"{settings.loss}_{count}", 0) for count in (1, 3)]
        equal = all(torch.equal(found[0][name], found[1][name]) for name in found[0])
        assert equal == same
        first = [table[(table["head"] == 0) & (table["step"] == 6)]["loss"] for table in tables]
        assert np.allclose(*first, rtol=1e-5) == same


@pytest.mark.parametrize("loss", ["members", "mean"])
def test_every_weight_of_every_member_is_trained(given, tmp_path, loss):
    train(given, SETTINGS.replace(loss=loss, embeddings=True), 3, 5, 0, tmp_path / "ensemble")
    before = load_file(tmp_path / "ensemble/untrained.safetensors")
    for number in range(3):
        found = member(tmp_path / "ensemble", number)
        left = [value for name, value in found.items() if "lora_B" in name]
        assert len(left) == 2 and all((value != 0).any() for value in left)
        assert (found["base_model.model.transformer.wte.lora_embedding_A"] != 0).any()
        (head,) = [value for name, value in found.items() if "score" in name]
        assert not torch.equal(head[0], before["weight"][number])


def test_own_and_shared_orders(given, tmp_path):
    """With one order and one start members would be one; heads and A differ here all the same."""
    tables = {
        order: train(given, SETTINGS.replace(order=order), 2, 5, 0, tmp_path / order)
        for order in ("own", "shared")
    }
    one, two = (member(tmp_path / order, 0) for order in ("own", "shared"))
    assert all(torch.equal(one[name], two[name]) for name in one), "member 0 has the first order"
    one, two = (member(tmp_path / order, 1) for order in ("own", "shared"))
    assert not all(torch.equal(one[name], two[name]) for name in one)
    assert not tables["own"]["loss"].equals(tables["shared"]["loss"])


def test_diversity_of_rows_that_are_one_and_that_are_orthogonal():
    one = torch.outer(torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.randn(7))
    assert diversity([one]).item() == pytest.approx(1.0, abs=1e-5)
    orthogonal = torch.linalg.qr(torch.randn(7, 7))[0][:4] * 3
    assert diversity([orthogonal]).item() == pytest.approx(2.0, abs=1e-5)
    assert diversity([one, orthogonal]).item() == pytest.approx(1.5, abs=1e-5)
    matrix = torch.randn(4, 7, dtype=torch.float64)
    singular = torch.linalg.svdvals(matrix)
    assert diversity([matrix]).item() == pytest.approx(
        (singular.sum() / singular.square().sum().sqrt()).item()
    )


def test_diversity_grows_where_it_is_asked_for(given, tmp_path):
    found = {}
    for weight in (0.0, 3.0):
        path = tmp_path / str(weight)
        train(given, SETTINGS.replace(diversity=weight, epochs=3.0), 3, 5, 0, path)
        files = [member(path, number) for number in range(3)]
        names = [name for name in files[0] if name.endswith("lora_A.weight")]
        stacked = [torch.cat([file[name] for file in files]) for name in names]
        assert len(stacked) == 2 and stacked[0].shape == (9, 16)
        found[weight] = diversity(stacked).item()
    assert found[0.0] + 0.02 < found[3.0] <= 3.0


def test_members_are_centred_on_the_training_responses(given, made):
    rewards = load_rewards(made)(*given.centring_texts(5)).mean
    torch.testing.assert_close(rewards.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    before = load_rewards(made).untrained(given.backbone)(*given.centring_texts(5)).mean
    torch.testing.assert_close(before.mean(0), torch.zeros(3), atol=1e-5, rtol=0)


def test_before_training_it_is_what_a_training_leaves_that_changes_nothing(given, made, tmp_path):
    train(given, SETTINGS.replace(learning_rate=1e-30), 3, 5, 1, tmp_path / "still")
    found = load_rewards(made).untrained(given.backbone)(PROMPTS, RESPONSES)
    close(Rewards(found.mean), load_rewards(tmp_path / "still")(PROMPTS, RESPONSES))


def test_adapters_may_start_from_the_base_model(given, tmp_path):
    settings = SETTINGS.replace(start="base", learning_rate=1e-30)
    train(given, settings, 2, 5, 0, tmp_path / "ensemble")
    body = load_file(tmp_path / "ensemble/backbone/model.safetensors")
    base = load_file(given.base / "model.safetensors")
    assert all(torch.equal(base[name], value) for name, value in body.items())
    weight = load_file(tmp_path / "ensemble/untrained.safetensors")["weight"]
    assert 0.01 < weight.std() < 0.04, "heads are fresh"
    with pytest.raises(InputError, match="base reward model"):
        train(replace(given, base=None), settings, 2, 5, 0, tmp_path / "none")


def test_what_cannot_be_trained_is_refused(given, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="step 2 of 6: .* loss of member 0 is nan"):
        train(given, SETTINGS.replace(learning_rate=1e37), 2, 5, 0, tmp_path / "ensemble")
    alone = replace(given, preferences=given.preferences.assign(split="validation"))
    with pytest.raises(InputError, match="nothing to train on"):
        train(alone, SETTINGS, 2, 5, 0, tmp_path / "ensemble")
    monkeypatch.setattr(adapters, "DEFAULT_TARGETS", {})
    with pytest.raises(InputError, match="peft knows no place for adapters in .* gpt2"):
        train(given, SETTINGS, 2, 5, 0, tmp_path / "ensemble")
    assert not list(tmp_path.iterdir())


# --- the checkpoint -------------------------------------------------------------------------------


def test_a_member_is_an_adapter_that_peft_reads(made):
    assert {file.suffix for file in made.rglob("*") if file.is_file()} == {
        ".json", ".safetensors", ".jinja"
    }  # fmt: skip
    config = json.loads((made / "member_1/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "backbone" and config["inference_mode"]
    model = AutoModelForSequenceClassification.from_pretrained(made / "backbone").eval()
    tokenizer = RewardEnsemble.load(made / "backbone").tokenizer
    model = peft.PeftModel.from_pretrained(model, made / "member_1").eval()
    rows = encode(tokenizer, PROMPTS[:4], RESPONSES[:4])
    with torch.no_grad():
        found = [model(input_ids=torch.tensor([ids])).logits.item() for ids in rows]
    offset = json.loads((made / "config.json").read_text())["reward_offsets"][1]
    expected = load_rewards(made)(PROMPTS[:4], RESPONSES[:4]).mean[:, 1] + offset
    torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=1e-5)


def without(file: str):
    return lambda path: (path / file).unlink()


def json_entries(file: str, **values):
    def spoil(path: Path) -> None:
        content = json.loads((path / file).read_text()) | values
        (path / file).write_text(json.dumps(content))

    return spoil


def tensors(file: str, **change):
    def spoil(path: Path) -> None:
        found = load_file(path / file)
        name = next(name for name in found if "lora_A" in name)
        if "value" in change:
            found[name] = torch.full_like(found[name], change["value"])
        else:
            del found[name]
        save_file(found, path / file)

    return spoil


WEIGHTS, CONFIG = "member_1/adapter_model.safetensors", "member_1/adapter_config.json"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: shutil.rmtree(path / "member_1"), f"{CONFIG}: there is no such file"),
        (without(CONFIG), f"{CONFIG}: there is no such file"),
        (without(WEIGHTS), f"{WEIGHTS}: not a readable safetensors file"),
        (tensors(WEIGHTS), f"{WEIGHTS}: base_model.*lora_A.weight: found nothing, expected"),
        (tensors(WEIGHTS, value=math.nan), f"{WEIGHTS}: .*: found numbers that are not finite"),
        (json_entries(CONFIG, r=5), rf"{WEIGHTS}: .*: found \[3, 16\], expected \[5, 16\]"),
        (json_entries(CONFIG, r=-1), "member_1: adapter_config.json: no adapter of the backbone"),
        (json_entries(CONFIG, target_modules=["none"]), "member_1: adapter_config.json: no adap"),
        (json_entries(CONFIG, peft_type="IA3"), "member_1: adapter_config.json: "),
        (json_entries("config.json", reward_offsets=[]), r"config.json: reward_offsets is \[\]"),
        (json_entries("config.json", reward_offsets=["0"]), "config.json: reward_offsets is "),
        (json_entries("config.json", reward_offsets=[True] * 3), "config.json: reward_offsets is "),
        (json_entries("config.json", reward_offsets=[1e39] * 3), "config.json: reward_offsets is "),
        (json_entries("config.json", reward_offsets=[0.0] * 4), "member_3/adapter_config.json: "),
    ],
)
def test_broken_parts_are_named(made, tmp_path, spoil, says):
    path = Path(shutil.copytree(made, tmp_path / "copy"))
    spoil(path)
    with pytest.raises(InputError, match=f"^{path}/{says}|^{path}: {says}"):
        load_rewards(path)


def test_only_adapters_need_peft(made, tmp_path):
    code = f"""
import sys
sys.modules["peft"] = None
from prudent.errors import InputError
from prudent.rewards.loading import KINDS, kind_module, load_rewards
for kind in [*KINDS, "warm"]:
    if kind != "adapters":
        kind_module(kind)
load_rewards({str(made / "backbone")!r})
try:
    load_rewards({str(made)!r})
except InputError as error:
    print(error)
"""
    output = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path, Path(adapters.__file__).parents[3]),
        capture_output=True,
        text=True,
    )
    assert output.returncode == 0, output.stderr
    assert "need the package peft" in output.stdout
    assert "pip install 'prudent[adapters]'" in output.stdout


def test_loading_heads_imports_neither_peft_nor_a_trainer(made):
    """Each takes seconds of every job."""
    code = f"""
import sys
from prudent.rewards.loading import load_rewards
load_rewards({str(made / "backbone")!r})
print("peft" in sys.modules, "trl" in sys.modules)
"""
    path = Path(adapters.__file__).parents[3]
    output = subprocess.run(
        [sys.executable, "-c", code], env=environment(path, path), capture_output=True, text=True
    )
    assert output.stdout.split() == ["False", "False"], output.stderr


class TestAdapters(EnsembleContract):
    """As a kind of ensemble."""

    MEMBERS = 3
    MODEL = "backbone"
    TRAINED = True

    @pytest.fixture(scope="class", params=["gpt2", "llama", "bert", "roberta"])
    @classmethod
    def kind(cls, request) -> str:
        return request.param

    @pytest.fixture(scope="class")
    @classmethod
    def backbone(cls, kind, tmp_path_factory) -> Path:
        return save_backbone(tmp_path_factory.mktemp(kind) / "backbone", kind)

    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, kind, backbone, tmp_path_factory) -> Path:
        path = tmp_path_factory.mktemp("ensemble") / "ensemble"
        settings = SETTINGS.replace(embeddings=kind in ("gpt2", "bert"))
        train(Material(tiny_pairs(), backbone, REWARD), settings, 3, 5, 0, path)
        return path

    def test_members_are_the_backbone_with_the_products_added(self, kind, checkpoint, rewards):
        config = json.loads((checkpoint / "member_0/adapter_config.json").read_text())
        words = {"gpt2": {"wte"}, "bert": {"word_embeddings"}}.get(kind, set())
        if kind in TARGETS:
            assert set(config["target_modules"]) == TARGETS[kind] | words
        expected = torch.stack([merged(checkpoint, number) for number in range(3)], dim=1)
        close(rewards, Rewards(expected))
