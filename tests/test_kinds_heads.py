"""Heads against AdamW written out in float64."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ensemble_contract import PROMPTS, RESPONSES, FrozenBaseContract, close
from tiny_material import tiny_material
from torch import nn

from prudent.errors import InputError
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import save_features
from prudent.rewards.interface import Rewards
from prudent.rewards.kinds import heads as kind
from prudent.rewards.kinds.heads import HeadSettings, train_heads
from prudent.rewards.material import draw_labels
from prudent.seeding import generator
from prudent.tables import file_digest

ROOT = 11
D, N, TRAINING, COUNT = 6, 50, 40, 3
SETTINGS = HeadSettings(
    epochs=4, batch_size=16, learning_rate=0.05, weight_decay=0.1, stop_loss=0.0
)


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


def train(settings: HeadSettings = SETTINGS, ensemble: int = 0, base=None, seed=ROOT, data=None):
    return train_heads(*(data or features()), base or base_layer(), settings, COUNT, seed, ensemble)


def initial(ensemble: int, settings: HeadSettings = SETTINGS) -> np.ndarray:
    stream = generator(ROOT, "heads", ensemble, "init")
    return torch.randn(COUNT, D, generator=stream).double().numpy() * settings.init_std


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
    for head in range(COUNT):
        weight, expected = one_head(settings, ensemble, head)
        np.testing.assert_allclose(heads.weight[head].numpy(), weight, rtol=1e-4, atol=1e-5)
        found = losses.loc[losses["head"] == head, "loss"]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_heads_are_torchs_own_training_of_a_linear_layer():
    chosen, rejected, mask, _ = features()
    layer = nn.Linear(D, COUNT, bias=False)
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
        assert len({tuple(row.tolist()) for row in weight}) == COUNT
    assert not np.allclose(initial(0), initial(1))
    wider = train(still.replace(init_std=0.2)).weight
    torch.testing.assert_close(wider, train(still).weight * 10)


def test_training_is_a_function_of_the_root_seed_and_the_ensemble():
    first, again = train(), train()
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, train(seed=ROOT + 1).weight)
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


def test_heads_whose_loss_is_not_finite_are_refused():
    with pytest.raises(InputError, match="the loss of head 0 is nan, expected a finite one"):
        train(SETTINGS.replace(learning_rate=1e36))


# --- as a kind of ensemble ------------------------------------------------------------------------


class TestTrainedHeads(FrozenBaseContract):
    @staticmethod
    def train(given, path):
        return kind.train(given, SETTINGS, 3, 5, 1, path)

    def test_before_its_training_it_is_the_initial_weights(self, given, ensemble, backbone):
        base = RewardEnsemble.load(given.base)
        weight = torch.randn(3, 16, generator=generator(5, "heads", 1, "init")) * SETTINGS.init_std
        features = base(PROMPTS, RESPONSES).features
        mask = given.features.of("train")
        sides = torch.cat([given.features.chosen[mask], given.features.rejected[mask]])
        expected = features @ weight.T - (sides @ weight.T).mean(0)
        close(ensemble.untrained(backbone)(PROMPTS, RESPONSES), Rewards(expected, None, features))


def test_stored_labels_are_those_of_ensemble_0_with_streams_of_ones_own(tmp_path):
    """What pilots are trained on, which stand for the policies of one ensemble."""
    given = tiny_material(tmp_path)
    uncertain = torch.full_like(given.features.probability, 0.5)
    given = replace(given, features=replace(given.features, probability=uncertain))
    settings = SETTINGS.replace(order="own")
    paths = [tmp_path / name for name in ("stored", "fresh", "zero", "given")]
    stored = replace(given, stored_labels=True)
    certain = replace(given.features, probability=torch.ones_like(uncertain))
    materials = (stored, given, stored, replace(given, features=certain))
    for material, draw, path in zip(materials, (1, 1, 0, 1), paths, strict=True):
        kind.train(material, settings, 3, 5, draw, path)
    digests = [file_digest(path) for path in paths]
    assert digests[0] == digests[3] and len(set(digests)) == 3
    labels = replace(given, stored_labels=True).labels(5, 1, "heads")
    assert labels["chosen"].tolist() == given.preferences["chosen"].tolist()


def test_features_may_be_a_file(tmp_path):
    given = tiny_material(tmp_path)
    save_features(given.features, tmp_path / "f.safetensors")
    kind.train(given, SETTINGS, 3, 5, 0, tmp_path / "one")
    other = replace(given, features=tmp_path / "f.safetensors")
    kind.train(other, SETTINGS, 3, 5, 0, tmp_path / "other")
    assert file_digest(tmp_path / "one") == file_digest(tmp_path / "other")
