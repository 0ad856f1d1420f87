"""Features against the model's own logits, and batches against brute force."""

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import VOCABULARY
from tiny_rewards import KINDS, random_texts, reward_tokenizer_of, tiny_reward_model

from prudent.batches import collate
from prudent.errors import InputError
from prudent.rewards.features import (
    PairFeatures,
    batches_by_length,
    check_features,
    extract,
    load_features,
    save_features,
)
from prudent.rewards.models import final_linear
from prudent.rewards.text import encode

PROMPTS, RESPONSES = random_texts(23, seed=1), random_texts(23, longest=5, seed=2)


def make(kind: str):
    tokenizer = reward_tokenizer_of(kind)
    return tiny_reward_model(kind, tokenizer), tokenizer


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_batches_cover_each_row_once_within_the_limit_of_tokens(seed):
    stream = torch.Generator().manual_seed(seed)
    count = int(torch.randint(1, 60, (1,), generator=stream))
    lengths = torch.randint(1, 40, (count,), generator=stream).tolist()
    limit = int(torch.randint(1, 200, (1,), generator=stream))
    batches = list(batches_by_length(lengths, limit))
    assert sorted(row for batch in batches for row in batch) == list(range(count))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= limit
    for batch, following in zip(batches, batches[1:], strict=False):
        assert min(lengths[row] for row in batch) >= max(lengths[row] for row in following)
        # No batch has room for the next row.
        assert (len(batch) + 1) * lengths[batch[0]] > limit


def test_there_are_no_batches_of_nothing():
    assert list(batches_by_length([], 100)) == []


def test_collate_pads_on_the_right():
    batch = collate([[5, 6, 7], [8]], 9, torch.device("cpu"))
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


# --- features -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_final_layer_of_the_features_is_the_models_own_logit(kind):
    model, tokenizer = make(kind)
    features = extract(model, tokenizer, PROMPTS, RESPONSES, batch_tokens=64)
    linear = final_linear(model)[1]
    with torch.no_grad():
        expected = [  # one text at a time: without batches, padding or a hook
            model(input_ids=torch.tensor([ids])).logits[0]
            for ids in encode(tokenizer, PROMPTS, RESPONSES)
        ]
        found = linear(features)
    assert features.shape == (23, 16) and features.dtype == torch.float32
    assert torch.stack(expected).std() > 0.1, "all rewards are alike: the test shows nothing"
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_order_and_padding_change_nothing(kind):
    model, tokenizer = make(kind)
    features = extract(model, tokenizer, PROMPTS, RESPONSES)
    for limit in (1, 40, 10**6):
        again = extract(model, tokenizer, PROMPTS, RESPONSES, batch_tokens=limit)
        torch.testing.assert_close(again, features, rtol=1e-4, atol=1e-4)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(0)).tolist()
    permuted = extract(
        model, tokenizer, [PROMPTS[i] for i in order], [RESPONSES[i] for i in order], 40
    )
    torch.testing.assert_close(permuted, features[order], rtol=1e-4, atol=1e-4)


def test_a_model_in_training_is_read_without_dropout_and_goes_on_training():
    model, tokenizer = make("gpt2")  # GPT-2's dropout is 0.1
    expected = extract(model, tokenizer, PROMPTS, RESPONSES)
    model.train()
    torch.testing.assert_close(extract(model, tokenizer, PROMPTS, RESPONSES), expected)
    assert model.training


def test_no_hook_stays_behind():
    model, tokenizer = make("gpt2")
    extract(model, tokenizer, PROMPTS, RESPONSES)
    assert not final_linear(model)[1]._forward_pre_hooks
    with pytest.raises(IndexError):  # a token that the model has no embedding for
        tokenizer.add_tokens("w99")
        assert len(tokenizer) > VOCABULARY
        extract(model, tokenizer, [" w99"], [" w3"])
    assert not final_linear(model)[1]._forward_pre_hooks


def test_an_eos_that_is_also_the_padding_is_refused_at_a_texts_end():
    tokenizer = reward_tokenizer_of("gpt2")
    tokenizer.pad_token = tokenizer.eos_token
    model = tiny_reward_model("gpt2", tokenizer)
    with pytest.raises(InputError, match="'score'.*padding token of its own"):
        extract(model, tokenizer, PROMPTS, RESPONSES)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert extract(model, tokenizer, PROMPTS, RESPONSES).shape == (23, 16)


def test_no_texts_have_no_features():
    model, tokenizer = make("gpt2")
    assert extract(model, tokenizer, [], []).shape == (0, 16)


def test_a_progress_bar_is_shown_only_where_it_is_asked_for(capsys):
    model, tokenizer = make("gpt2")
    extract(model, tokenizer, PROMPTS, RESPONSES)
    assert capsys.readouterr() == ("", "")
    extract(model, tokenizer, PROMPTS, RESPONSES, progress="some texts")
    shown = capsys.readouterr().err
    assert "some texts: 100%" in shown and "23/23" in shown


# --- files ----------------------------------------------------------------------------------------


def both(rows: int = 4, width: int = 3, **others) -> PairFeatures:
    parts = {
        "id": [f"0:{row}" for row in range(rows)],
        "split": ["train", "validation"] * (rows // 2) + ["train"] * (rows % 2),
        "probability": torch.tensor([0.75, torch.nan] * rows)[:rows].double(),
        "chosen": torch.randn(rows, width),
        "rejected": torch.randn(rows, width),
    }
    return PairFeatures(**parts | others)


def test_features_survive_their_file(tmp_path):
    features = both()
    save_features(features, tmp_path / "f.safetensors")
    found = load_features(tmp_path / "f.safetensors", 3)
    assert (found.id, found.split) == (features.id, features.split)
    assert found.of("train").tolist() == [True, False, True, False]
    for name in ("chosen", "rejected", "probability"):
        one, other = getattr(found, name), getattr(features, name)
        assert one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num())


@pytest.mark.parametrize(
    ("features", "says"),
    [
        (
            both(chosen=torch.ones(3, 3)),
            r"chosen: found \[3, 3\], expected \[4, 3\], by the",
        ),
        (both(width=2), r"chosen: found \[4, 2\], expected \[4, 3\]"),
        (both(probability=torch.ones(4, 1)), r"probability: found \[4, 1\], expected \[4\]"),
        (both(probability=torch.full((4,), torch.inf)), "probability: found numbers that are not"),
        (both(rejected=torch.full((4, 3), torch.nan)), "rejected: found numbers that are"),
        (both(chosen=torch.ones(4, 3).long()), r"chosen: found torch\.int64, expected floats"),
        (both(rejected=torch.ones(4, 3).bool()), r"rejected: found torch\.bool, expected floats"),
        (both(chosen=torch.ones(4, 3) + 0j), r"chosen: found torch\.complex64, expected floats"),
        (both(id=["a", "b", "c", "a"]), "found 4 splits and 3 different ids for 4 pairs"),
        (both(split=["train"]), "found 1 splits and 4 different ids for 4 pairs"),
        (both(split=[1, 2, 3, 4]), "split: found no list of texts in its metadata"),
    ],
)
def test_features_of_another_form_are_refused(tmp_path, features, says):
    save_features(features, tmp_path / "f.safetensors")
    with pytest.raises(InputError, match=f"f.safetensors: {says}"):
        load_features(tmp_path / "f.safetensors", 3)


def test_features_of_another_program_are_refused(tmp_path):
    save_file({"chosen": torch.ones(4, 3)}, tmp_path / "f.safetensors")
    with pytest.raises(InputError, match="id: found no list of texts in its metadata; delete"):
        load_features(tmp_path / "f.safetensors", 3)


@pytest.mark.parametrize("keep", [0, 5, 60, 150])
def test_features_that_are_cut_off_are_refused(tmp_path, keep):
    path = tmp_path / "f.safetensors"
    save_features(both(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="f.safetensors: not a readable safetensors file"):
        load_features(path, 3)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"inputs": 5}', '{"inputs": {"base": "a"}}']
)
def test_features_with_metadata_of_another_model_are_refused(tmp_path, text):
    (tmp_path / "base").write_text("a model")
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(InputError, match="f.json: "):
        check_features(tmp_path / "f.safetensors", tmp_path / "base")


def test_features_that_are_not_finite_are_named():
    model, tokenizer = make("gpt2")
    with torch.no_grad():
        model.transformer.wte.weight[5] = torch.inf
    with pytest.raises(InputError, match="the features of text 1, ' w5', are not finite"):
        extract(model, tokenizer, ["w3", "w4", "w3"], [" w4", " w5", " w6"])
