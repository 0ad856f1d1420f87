"""Heads against AdamW written out in float64, and ensembles against Hugging Face's own loading."""

import itertools
import math

import compute_features
import numpy as np
import pandas as pd
import pytest
import torch
import train_reward_heads
from safetensors.torch import load_file
from tiny_rewards import (
    KINDS,
    random_texts,
    reward_tokenizer_of,
    save_reward_model,
    tiny_reward_model,
)
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prudent.errors import InputError
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import collate, extract
from prudent.rewards.heads import Heads, HeadSettings, draw_labels, save_ensemble, train_heads
from prudent.rewards.models import final_linear
from prudent.rewards.text import encode
from prudent.seeding import generator
from prudent.tables import write_parquet

ROOT = 11
D, N, TRAINING = 6, 50, 40
SETTINGS = HeadSettings(
    count=3, epochs=4, batch_size=16, learning_rate=0.05, weight_decay=0.1, stop_loss=0.0
)
PROMPTS, RESPONSES = random_texts(17, seed=3), random_texts(17, seed=4)


def features() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """chosen, rejected [N, D], train [N] (not the first rows), probability [N]."""
    stream = torch.Generator().manual_seed(0)
    rejected = torch.randn(N, D, generator=stream)
    chosen = rejected + torch.randn(N, D, generator=stream) + torch.linspace(-0.5, 1.0, D)
    train = torch.arange(N) >= N - TRAINING
    return chosen, rejected, train, 0.5 + 0.5 * torch.rand(N, generator=stream).double()


def base_layer(bias: bool = False) -> nn.Linear:
    layer = nn.Linear(D, 1, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, D))
        if bias:
            layer.bias.fill_(0.7)
    return layer


def train(settings: HeadSettings = SETTINGS, ensemble: int = 0, base=None, root=ROOT, data=None):
    return train_heads(*(data or features()), base or base_layer(), settings, root, ensemble)


def initial(ensemble: int, settings: HeadSettings = SETTINGS) -> np.ndarray:
    stream = generator(ROOT, "heads", ensemble, "init")
    return torch.randn(settings.count, D, generator=stream).double().numpy() * settings.init_std


def one_head(settings: HeadSettings, ensemble: int, head: int) -> tuple[np.ndarray, list[float]]:
    """A single head's weights and batch losses: Bradley-Terry, AdamW and a cosine, in float64."""
    chosen, rejected, train, probability = features()
    signs = draw_labels(probability, ROOT, ensemble)
    pairs = ((chosen - rejected) * signs[:, None])[train].double().numpy()
    if settings.bootstrap:
        stream = generator(ROOT, "heads", ensemble, "bootstrap", head)
        pairs = pairs[torch.randint(TRAINING, (TRAINING,), generator=stream).numpy()]
    weight = initial(ensemble, settings)[head]
    first, second, step, losses = np.zeros(D), np.zeros(D), 0, []
    steps = settings.epochs * math.ceil(TRAINING / settings.batch_size)
    for epoch in range(settings.epochs):
        own = head if settings.order == "own" else 0
        stream = generator(ROOT, "heads", ensemble, "order", epoch, own)
        order = torch.randperm(TRAINING, generator=stream).numpy()
        for start in range(0, TRAINING, settings.batch_size):
            batch = pairs[order[start : start + settings.batch_size]]
            margins = batch @ weight
            losses.append(np.log1p(np.exp(-margins)).mean())
            gradient = -(batch / (1 + np.exp(margins))[:, None]).mean(0)
            rate = settings.learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
            step += 1
            weight = weight * (1 - rate * settings.weight_decay)
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            scale = np.sqrt(second / (1 - 0.999**step)) + 1e-8
            weight = weight - rate * first / (1 - 0.9**step) / scale
    return weight, losses


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "bootstrap", "ensemble"),
    list(itertools.product(["shared", "own"], [False, True], [0, 1])),
)
def test_heads_together_are_each_head_alone_in_float64(order, bootstrap, ensemble):
    settings = SETTINGS.replace(order=order, bootstrap=bootstrap)
    heads = train(settings, ensemble)
    losses = heads.losses[heads.losses["split"] == "train"]
    for head in range(settings.count):
        weight, expected = one_head(settings, ensemble, head)
        np.testing.assert_allclose(heads.weight[head].numpy(), weight, rtol=1e-4, atol=1e-5)
        found = losses.loc[losses["head"] == head, "loss"]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_heads_are_torchs_own_training_of_a_linear_layer():
    chosen, rejected, mask, _ = features()
    layer = nn.Linear(D, SETTINGS.count, bias=False)
    layer.load_state_dict({"weight": torch.tensor(initial(0)).float()})
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.05, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4 * 3)
    for epoch in range(SETTINGS.epochs):
        order = torch.randperm(TRAINING, generator=generator(ROOT, "heads", 0, "order", epoch, 0))
        for rows in order.split(SETTINGS.batch_size):
            margins = layer(chosen[mask][rows]) - layer(rejected[mask][rows])
            optimizer.zero_grad()
            (-nn.functional.logsigmoid(margins)).mean(0).sum().backward()
            optimizer.step()
            schedule.step()
    torch.testing.assert_close(train().weight, layer.weight.detach(), rtol=1e-4, atol=1e-5)


def test_initial_weights_come_from_the_ensembles_stream():
    still = SETTINGS.replace(learning_rate=1e-30, center=False)
    for ensemble in (0, 1):
        weight = train(still, ensemble).weight
        np.testing.assert_allclose(weight, initial(ensemble), rtol=1e-6)
        assert len({tuple(row.tolist()) for row in weight}) == SETTINGS.count
    assert not np.allclose(initial(0), initial(1))
    wider = train(still.replace(init_std=0.2)).weight
    torch.testing.assert_close(wider, train(still).weight * 10)


def test_training_is_a_function_of_the_root_seed_and_the_ensemble():
    first, again = train(), train()
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, train(root=ROOT + 1).weight)
    assert not torch.equal(first.weight, train(ensemble=1).weight)


def test_the_table_of_losses():
    heads = train(ensemble=1)
    table = heads.losses
    assert list(table.columns) == ["ensemble", "head", "step", "loss", "accuracy", "split"]
    assert set(table["ensemble"]) == {1} and set(table["head"]) == {0, 1, 2}
    steps = {split: sorted(set(rows["step"])) for split, rows in table.groupby("split")}
    assert steps == {"train": list(range(1, 13)), "validation": [0, 3, 6, 9, 12]}
    assert not table.duplicated(["head", "step", "split"]).any()
    chosen, rejected, mask, _ = features()
    margins = (chosen - rejected)[~mask] @ heads.weight.T
    last = table[(table["split"] == "validation") & (table["step"] == 12)]
    np.testing.assert_allclose(last["accuracy"], (margins > 0).float().mean(0), rtol=1e-6)
    expected = -nn.functional.logsigmoid(margins).mean(0)
    np.testing.assert_allclose(last["loss"], expected, rtol=1e-5)


def test_without_validation_pairs_there_are_no_validation_losses():
    chosen, rejected, _, probability = features()
    heads = train(data=(chosen, rejected, torch.ones(N, dtype=torch.bool), probability))
    assert set(heads.losses["split"]) == {"train"}


def test_without_training_pairs_it_is_refused():
    chosen, rejected, _, probability = features()
    with pytest.raises(InputError, match="no training pairs"):
        train(data=(chosen, rejected, torch.zeros(N, dtype=torch.bool), probability))


def test_training_ends_after_the_epoch_whose_mean_loss_is_low_enough():
    full = train().losses
    full = full[full["split"] == "train"]
    sizes = [16, 16, 8]
    epochs = [
        np.average(
            full[full["step"].between(3 * e + 1, 3 * e + 3)].groupby("step")["loss"].mean(),
            weights=sizes,
        )
        for e in range(4)
    ]
    assert epochs[0] > epochs[1] > epochs[2]
    for level, last in ((epochs[1] * 1.0001, 6), (epochs[1] * 0.9999, 9)):
        stopped = train(SETTINGS.replace(stop_loss=level)).losses
        assert stopped["step"].max() == last
        assert (stopped.loc[stopped["split"] == "validation", "step"] == last).any()


@pytest.mark.parametrize("center", [True, False])
def test_head_0_can_be_the_base_models_bit_for_bit(center):
    settings = SETTINGS.replace(first="base", center=center)
    base = base_layer(bias=True)
    heads = train(settings, base=base)
    assert torch.equal(heads.weight[0], base.weight.detach()[0])
    plain = train(settings.replace(first="fresh"), base=base)
    assert torch.equal(heads.weight[1:], plain.weight[1:])  # the others do not notice
    if not center:
        expected = base(features()[0]).detach()[:, 0]
        found = features()[0] @ heads.weight.T + heads.bias - heads.offsets
        torch.testing.assert_close(found[:, 0], expected)


def test_a_low_loss_of_the_base_head_does_not_stop_the_others():
    base = base_layer()
    base.load_state_dict({"weight": train(SETTINGS.replace(epochs=200)).weight[:1]})
    settings = SETTINGS.replace(first="base", epochs=2, learning_rate=1e-30)
    losses = train(settings, base=base).losses
    means = losses[losses["split"] == "train"].groupby("head")["loss"].mean()
    assert means[0] < 0.6 < means[1]
    level = 0.99 * means[1:].mean()
    assert means.mean() < level
    stopped = train(settings.replace(stop_loss=level), base=base).losses
    assert stopped["step"].max() == 6


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("first", ["fresh", "base"])
def test_centred_rewards_have_mean_0_over_the_training_responses(bias, first):
    heads = train(SETTINGS.replace(first=first), base=base_layer(bias))
    assert (heads.bias is not None) == bias
    chosen, rejected, mask, _ = features()
    logits = torch.cat([chosen[mask], rejected[mask]]) @ heads.weight.T
    rewards = logits + (heads.bias if bias else 0.0) - heads.offsets
    torch.testing.assert_close(rewards.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    assert heads.offsets.abs().min() > 1e-3
    assert not train(SETTINGS.replace(center=False)).offsets.any()


def test_fresh_labels_differ_from_stored_ones_as_often_as_the_labeller_does():
    n = 200_000
    probability = torch.tensor([0.9, 0.6, 0.25, 1.0, 0.0, float("nan")]).repeat(n).double()
    assert (draw_labels(probability, ROOT, 0) == 1).all()
    signs = [draw_labels(probability, ROOT, ensemble) for ensemble in (1, 2)]
    assert not torch.equal(*signs)
    assert torch.equal(draw_labels(probability, ROOT, 1), signs[0])
    for drawn in signs:
        assert set(drawn.unique().tolist()) == {-1.0, 1.0}
        kept = (drawn == 1).double().reshape(n, 6).mean(0)
        expected = torch.tensor([0.9, 0.6, 0.25, 1.0, 0.0, 1.0]).double()
        assert (kept - expected).abs().max() < 0.006  # five standard errors
        assert kept[[3, 4, 5]].tolist() == [1.0, 0.0, 1.0]


# --- checkpoints ----------------------------------------------------------------------------------


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
        chosen, rejected, train, torch.full((17,), math.nan), final_linear(base)[1], SETTINGS, 0, 0
    )
    save_ensemble(base, tokenizer, heads, tmp_path / "ensemble")
    ensemble = RewardEnsemble.load(tmp_path / "ensemble")
    expected = chosen @ heads.weight.T - heads.offsets
    torch.testing.assert_close(ensemble.rewards(chosen), expected, rtol=1e-4, atol=1e-5)
    found = ensemble(PROMPTS, random_texts(17, seed=6)).mean
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


# --- scripts --------------------------------------------------------------------------------------


def test_features_and_heads_from_files(tmp_path):
    splits = ["train"] * 6 + ["judge"] * 3 + ["validation"] * 3 + ["train"] * 5
    pairs = pd.DataFrame(
        {
            "prompt": [[{"role": "user", "content": prompt}] for prompt in PROMPTS],
            "chosen": RESPONSES,
            "rejected": random_texts(17, seed=6),
            "source": "test",
            "split": splits,
            "probability": [0.6, None] * 8 + [0.6],
        }
    )
    preferences, base = tmp_path / "preferences.parquet", save_reward_model(tmp_path / "base")
    write_parquet(pairs, preferences, "preferences")
    files = {"base": base, "preferences": preferences}
    files |= {"features": tmp_path / "f.safetensors", "sidecar": tmp_path / "f.json"}
    compute_features.main(compute_features.Args(**files, batch_tokens=30))

    used = pairs[pairs["split"] != "judge"]
    features, model = load_file(files["features"]), RewardEnsemble.load(base)
    for side in ("chosen", "rejected"):
        expected = extract(
            model.model, model.tokenizer, used["prompt"].tolist(), used[side].tolist()
        )
        torch.testing.assert_close(features[side], expected, rtol=1e-4, atol=1e-4)

    paths = [tmp_path / f"ensemble_{ensemble}" for ensemble in range(2)]
    args = train_reward_heads.Args(
        **files,
        ensembles=paths,
        loss=tmp_path / "loss.csv",
        settings={"count": 3, "epochs": 2, "first": "base"},
        seed=ROOT,
    )
    train_reward_heads.main(args)
    losses = pd.read_csv(args.loss)
    for ensemble, path in enumerate(paths):
        heads = train_heads(
            features["chosen"],
            features["rejected"],
            torch.tensor((used["split"] == "train").tolist()),
            torch.tensor(used["probability"].astype(float).tolist()),
            final_linear(model.model)[1],
            HeadSettings(count=3, epochs=2, first="base"),
            ROOT,
            ensemble,
        )
        torch.testing.assert_close(RewardEnsemble.load(path).weight, heads.weight)
        found = losses[losses["ensemble"] == ensemble].reset_index(drop=True)
        pd.testing.assert_frame_equal(found, heads.losses, check_dtype=False, rtol=1e-5)

    write_parquet(pairs.head(16), preferences, "preferences")
    with pytest.raises(InputError, match="delete them to have them computed"):
        train_reward_heads.main(args)


# --- what a caller may give -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> RewardEnsemble:
    return RewardEnsemble.load(save_reward_model(tmp_path_factory.mktemp("loaded")))


def test_texts_may_be_arrays_and_columns(loaded):
    expected = loaded(PROMPTS, RESPONSES).mean
    for prompts, responses in (
        (np.array(PROMPTS), np.array(RESPONSES)),
        (pd.Series(PROMPTS, index=range(3, 20)), tuple(RESPONSES)),
        (iter(PROMPTS), iter(RESPONSES)),
        ([[{"role": "user", "content": prompt}] for prompt in PROMPTS], RESPONSES),
    ):
        assert torch.equal(loaded(prompts, responses).mean, expected)
    assert loaded([], []).mean.shape == (0, 1)


@pytest.mark.parametrize(
    ("prompts", "responses", "says"),
    [
        (["w3"], [], "found 1 prompts and 0 responses, expected a response for each prompt"),
        (["w3", "w4"], ["w5"], "found 2 prompts and 1 responses"),
        ("w3", ["w4"], "prompts: found str, expected a list of texts"),
        (["w3"], "w4", "responses: found str, expected a list of texts"),
        (None, ["w4"], "prompts: found NoneType, expected a list of texts"),
        ({"w3": 1}, ["w4"], "prompts: found dict, expected a list of texts"),
        (["w3"], [None], r"responses\[0\]: found NoneType, expected a text"),
        (["w3"], [float("nan")], r"responses\[0\]: found float, expected a text"),
        ([{"role": "user"}], ["w4"], r"prompts\[0\]: found dict, expected a text or a list of mes"),
        ([[{"role": "user"}]], ["w4"], r"prompts\[0\]: found \{'role': 'user'\}, expected a role"),
        ([[]], ["w4"], r"prompts\[0\]: found list, expected a text or a list of messages"),
        (["half \ud800"], ["w4"], r"prompts\[0\]: found 'half \\ud800', expected Unicode text"),
        (["w3"], [b"w4"], r"responses\[0\]: found bytes, expected a text"),
    ],
)
def test_what_is_no_text_is_refused(loaded, prompts, responses, says):
    with pytest.raises(InputError, match=says):
        loaded(prompts, responses)


def test_a_dialogue_that_the_template_cannot_render_is_named(tmp_path):
    path = save_reward_model(tmp_path)
    (path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ raise_exception('no system') if m['role'] == 'system' }}"
        "{{ m['content'] }}{% endfor %}"
    )
    prompts = ["w3", [{"role": "system", "content": "w4"}, {"role": "user", "content": "w5"}]]
    with pytest.raises(InputError, match="dialogue 1, of the roles system, user, assistant: no sy"):
        RewardEnsemble.load(path)(prompts, ["w6", "w7"])


def test_rewards_that_are_not_finite_are_named(loaded):
    features = torch.ones(3, loaded.weight.shape[1])
    features[2] = torch.inf
    with pytest.raises(InputError, match=r"the reward of head 0 is \S+ for the response 2"):
        loaded.rewards(features)


def test_heads_whose_loss_is_not_finite_are_refused():
    with pytest.raises(InputError, match="the loss of head 0 is nan, expected a finite one"):
        train(SETTINGS.replace(learning_rate=1e36))
