"""Ensembles of heads against Hugging Face's own loading, and as a kind of reward ensemble."""

import math
from pathlib import Path

import pytest
import torch
from ensemble_contract import EnsembleContract
from tiny_rewards import (
    KINDS,
    random_texts,
    reward_tokenizer_of,
    save_reward_model,
    tiny_reward_model,
)
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prudent.batches import collate
from prudent.errors import InputError
from prudent.rewards.ensemble import Heads, RewardEnsemble, save_ensemble
from prudent.rewards.features import extract
from prudent.rewards.kinds.heads import HeadSettings, train_heads
from prudent.rewards.models import final_linear
from prudent.rewards.text import encode

SETTINGS = HeadSettings(epochs=4, batch_size=16, learning_rate=0.05)
PROMPTS, RESPONSES = random_texts(17, seed=3), random_texts(17, seed=4)


def random_heads(count: int, width: int, bias: bool) -> Heads:
    stream = torch.Generator().manual_seed(5)
    return Heads(
        torch.randn(count, width, generator=stream),
        torch.randn(count, generator=stream) if bias else None,
        torch.randn(count, generator=stream),
        None,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_ensemble_is_a_checkpoint_with_k_labels(kind, tmp_path):
    tokenizer = reward_tokenizer_of(kind)
    base = tiny_reward_model(kind, tokenizer).requires_grad_(False)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    config = base.config.to_dict()
    name, linear = final_linear(base)
    heads = random_heads(4, 16, linear.bias is not None)
    save_ensemble(base, tokenizer, heads, tmp_path / "ensemble")

    expected = extract(base, tokenizer, PROMPTS, RESPONSES) @ heads.weight.T - heads.offsets
    if heads.bias is not None:
        expected += heads.bias
    ensemble = RewardEnsemble.load(tmp_path / "ensemble")
    assert ensemble.heads == 4
    rewards = ensemble(PROMPTS, RESPONSES).mean
    assert rewards.shape == (17, 4) and not rewards.requires_grad
    torch.testing.assert_close(rewards, expected, rtol=1e-4, atol=1e-4)

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "ensemble").eval()
    assert model.config.num_labels == 4
    ids = encode(AutoTokenizer.from_pretrained(tmp_path / "ensemble"), PROMPTS, RESPONSES)
    batch = collate(ids, tokenizer.pad_token_id, torch.device("cpu"))
    with torch.no_grad():
        logits = model(**batch).logits
    offsets = torch.tensor(model.config.reward_offsets)
    torch.testing.assert_close(rewards, logits - offsets, rtol=1e-4, atol=1e-4)

    # The base model is as it was: its head, its weights and its config, also the parts' config.
    assert final_linear(base) == (name, linear)
    after = base.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert not any(parameter.requires_grad for parameter in base.parameters())
    assert base.config.to_dict() == config
    assert base.base_model.config.num_labels == 1


def test_a_failed_save_leaves_the_base_model_and_no_file(tmp_path):
    tokenizer = reward_tokenizer_of("gpt2")
    base = tiny_reward_model("gpt2", tokenizer)
    linear = final_linear(base)[1]
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        save_ensemble(base, tokenizer, random_heads(2, 16, False), tmp_path / "file" / "ensemble")
    assert final_linear(base)[1] is linear and base.config.num_labels == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_ordinary_reward_model_is_an_ensemble_of_one(tmp_path):
    path = save_reward_model(tmp_path, "bert")
    ensemble = RewardEnsemble.load(path)
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    ids = encode(AutoTokenizer.from_pretrained(path), PROMPTS[:1], RESPONSES[:1])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(ids)).logits
    assert ensemble.heads == 1
    rewards = ensemble(PROMPTS[:1], RESPONSES[:1]).mean
    torch.testing.assert_close(rewards, logits, rtol=1e-4, atol=1e-4)


def test_a_decoder_whose_config_names_no_padding_reads_batches(tmp_path):
    tokenizer = reward_tokenizer_of("gpt2")
    model = tiny_reward_model("gpt2", tokenizer)
    expected = RewardEnsemble(model, tokenizer)(PROMPTS, RESPONSES).mean
    model.config.pad_token_id = None
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    torch.testing.assert_close(RewardEnsemble.load(tmp_path)(PROMPTS, RESPONSES).mean, expected)


def test_a_tokenizer_without_a_limit_cuts_to_what_the_model_reads():
    tokenizer = reward_tokenizer_of("gpt2")
    model = tiny_reward_model("gpt2", tokenizer)
    longest = model.config.n_positions
    tokenizer.model_max_length = 10**30
    long = [" w5" * (longest - 1), " w4" + " w5" * (longest - 1), " w3" * 900 + " w5"]
    rewards = RewardEnsemble(model, tokenizer)([""] * 3, long).mean
    assert torch.equal(rewards[0], rewards[1]) and not torch.equal(rewards[0], rewards[2])
    assert tokenizer.model_max_length == 10**30, "the caller's own is as it was"


def test_a_reward_model_without_a_template_is_refused(tmp_path):
    tokenizer = reward_tokenizer_of("gpt2")
    tiny_reward_model("gpt2", tokenizer).save_pretrained(tmp_path)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path}: .*no chat template"):
        RewardEnsemble.load(tmp_path)


def test_rewards_of_trained_heads_survive_the_checkpoint(tmp_path):
    tokenizer = reward_tokenizer_of("gpt2")
    base = tiny_reward_model("gpt2", tokenizer)
    chosen, rejected = (
        extract(base, tokenizer, PROMPTS, random_texts(17, seed=seed)) for seed in (6, 7)
    )
    train = torch.arange(17) < 12
    heads = train_heads(
        chosen,
        rejected,
        train,
        torch.full((17,), math.nan),
        final_linear(base)[1],
        SETTINGS,
        3,
        0,
        0,
    )
    save_ensemble(base, tokenizer, heads, tmp_path / "ensemble")
    ensemble = RewardEnsemble.load(tmp_path / "ensemble")
    expected = chosen @ heads.weight.T - heads.offsets
    torch.testing.assert_close(ensemble.rewards(chosen), expected, rtol=1e-4, atol=1e-5)
    found = ensemble(PROMPTS, random_texts(17, seed=6)).mean
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_dialogue_that_the_template_cannot_render_is_named(tmp_path):
    path = save_reward_model(tmp_path)
    (path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ raise_exception('no system') if m['role'] == 'system' }}"
        "{{ m['content'] }}{% endfor %}"
    )
    prompts = ["w3", [{"role": "system", "content": "w4"}, {"role": "user", "content": "w5"}]]
    with pytest.raises(InputError, match="dialogue 1, of the roles system, user, assistant: no sy"):
        RewardEnsemble.load(path)(prompts, ["w6", "w7"])


def test_rewards_that_are_not_finite_are_named(tmp_path):
    loaded = RewardEnsemble.load(save_reward_model(tmp_path))
    features = torch.ones(3, loaded.weight.shape[1])
    features[2] = torch.inf
    with pytest.raises(InputError, match=r"the reward of head 0 is \S+ for the response 2"):
        loaded.rewards(features)


# --- as a kind of ensemble ------------------------------------------------------------------------


class TestHeads(EnsembleContract):
    """Heads on the frozen backbones of four architectures."""

    @pytest.fixture(scope="class", params=KINDS)
    @classmethod
    def checkpoint(cls, request, tmp_path_factory) -> Path:
        path = tmp_path_factory.mktemp(request.param)
        tokenizer = reward_tokenizer_of(request.param)
        base = tiny_reward_model(request.param, tokenizer)
        has_bias = final_linear(base)[1].bias is not None
        save_ensemble(base, tokenizer, random_heads(cls.MEMBERS, 16, has_bias), path / "ensemble")
        return path / "ensemble"
