"""WARM against averages by hand."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from ensemble_contract import PROMPTS, RESPONSES
from safetensors.torch import load_file, save_file
from tiny_material import REWARD, tiny_material, tiny_pairs
from tiny_rewards import reward_tokenizer_of, tiny_reward_model

from prudent.errors import InputError
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.kinds.heads import HeadEnsemble
from prudent.rewards.kinds.members import train_member
from prudent.rewards.kinds.warm import train
from prudent.rewards.loading import load_rewards
from prudent.rewards.material import Material
from prudent.rewards.settings import WarmSettings

SETTINGS = WarmSettings(models=3, learning_rates=[1e-2, 5e-3], dropouts=[0.0, 0.1])


@pytest.fixture(scope="module", params=["gpt2", "bert"])
def given(request, tmp_path_factory) -> Material:
    folder = tmp_path_factory.mktemp(request.param)
    material = tiny_material(folder, request.param)
    paths = tuple(folder / str(member) for member in range(3))
    for member, path in enumerate(paths):
        train_member(material, SETTINGS, 5, member, path, "warm")
    return replace(material, members=paths)


def test_weights_are_the_models_average(given, tmp_path):
    losses = train(given, SETTINGS, 1, 5, 2, tmp_path / "warm")
    found = load_file(tmp_path / "warm/model.safetensors")
    models = [load_file(path / "model.safetensors") for path in given.members]
    assert found.keys() == models[0].keys()
    for name, value in found.items():
        expected = torch.stack([model[name].double() for model in models]).mean(0).float()
        assert torch.equal(value, expected), name
    assert any(not torch.equal(value, models[0][name]) for name, value in found.items())
    assert set(losses["ensemble"]) == {2} and set(losses["head"]) == {0, 1, 2}
    assert len(losses) == sum(len(pd.read_csv(path / "losses.csv")) for path in given.members)


def test_it_is_an_ordinary_reward_model_that_is_centred(given, tmp_path):
    train(given, SETTINGS, 1, 5, 0, tmp_path / "warm")
    found = load_rewards(tmp_path / "warm")
    assert isinstance(found, HeadEnsemble) and found.heads == 1
    rewards = found(*given.centring_texts(5)).mean
    assert abs(rewards.mean()) < 1e-5 < rewards.std()
    assert found.untrained(given.backbone) is None


def test_models_begin_as_the_base_model(given):
    base = load_file(given.base / "model.safetensors")
    for path in given.members:
        began = load_file(path / "untrained.safetensors")
        assert all(torch.equal(base[name], began[name]) for name in began if name != "offset")


def test_of_linear_heads_on_one_body_the_average_is_the_mean_reward(tmp_path):
    tokenizer = reward_tokenizer_of("gpt2")
    model = tiny_reward_model("gpt2", tokenizer)
    paths, rewards = [], []
    for number in range(3):
        path = tmp_path / str(number)
        draws = torch.Generator().manual_seed(number)
        with torch.no_grad():
            model.score.weight.copy_(torch.randn(1, 16, generator=draws))
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        losses = {"member": [number], "step": [1], "loss": [0.5], "accuracy": [0.7]}
        pd.DataFrame(losses | {"split": ["train"]}).to_csv(path / "losses.csv", index=False)
        paths.append(path)
        rewards.append(RewardEnsemble.load(path)(PROMPTS, RESPONSES).mean)
    material = Material(tiny_pairs(), "none", REWARD, members=tuple(paths))
    train(material, SETTINGS, 1, 5, 0, tmp_path / "warm")
    found = load_rewards(tmp_path / "warm")
    offset = torch.tensor(found.model.config.reward_offsets)
    torch.testing.assert_close(
        found(PROMPTS, RESPONSES).mean + offset, torch.stack(rewards).mean(0), rtol=1e-4, atol=1e-3
    )


def test_models_that_do_not_fit_are_refused(given, tmp_path):
    with pytest.raises(InputError, match="ensemble 0: found 3 models to average, expected 5"):
        train(given, SETTINGS.replace(models=5), 1, 5, 0, tmp_path / "warm")
    other = Path(tmp_path / "other")
    kind = "bert" if "score.weight" in load_file(given.members[0] / "model.safetensors") else "gpt2"
    tokenizer = reward_tokenizer_of(kind)
    tiny_reward_model(kind, tokenizer).save_pretrained(other)
    tokenizer.save_pretrained(other)
    (other / "losses.csv").write_text((given.members[0] / "losses.csv").read_text())
    with pytest.raises(InputError, match=f"{other}: its weights are not those of "):
        members = (*given.members[:2], other)
        train(replace(given, members=members), SETTINGS, 1, 5, 0, tmp_path / "warm")
    weights = load_file(other / "model.safetensors")
    name = next(iter(weights))
    weights[name] = torch.full_like(weights[name], torch.nan)
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"{other}: the weights .* are not finite"):
        train(replace(given, members=members), SETTINGS, 1, 5, 0, tmp_path / "warm")
    assert not (tmp_path / "warm").exists()
