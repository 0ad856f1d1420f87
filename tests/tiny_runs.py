"""Short runs of the PPO trainer, and what the tests of them share."""

import math

import torch
from tiny_models import exact_model, tiny_model, tiny_prompts, tiny_tokenizer

from prudent.objectives.signal import Signal
from prudent.objectives.weighted import variance_aware
from prudent.ppo import losses
from prudent.ppo.minibatch import Experience
from prudent.ppo.settings import PPOSettings
from prudent.ppo.trainer import PPOTrainer

SETTINGS = PPOSettings(
    batch_size=8,
    minibatch_size=4,
    epochs=2,
    steps=6,
    learning_rate=1e-2,
    response_length=5,
    checkpoint_every=2,
)
PROMPTS = tiny_prompts(30)
SEED, RUN_SEED = 5, 3


def rewards(prompts: list[str], responses: list[str]) -> torch.Tensor:
    """Three heads' rewards, arbitrary but fixed functions of the text."""
    rows = [
        [math.sin(k + 0.37 * sum((i + 1) * ord(c) for i, c in enumerate(p + r))) for k in range(3)]
        for p, r in zip(prompts, responses, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def make(reward_fn=rewards, objective=variance_aware, **options) -> PPOTrainer:
    settings = SETTINGS.replace(**options.pop("settings", {}))
    arguments = {
        "policy": tiny_model("gpt2", 0),
        "reference": tiny_model("gpt2", 1),
        "tokenizer": tiny_tokenizer(),
        "head": 1,
        "beta": 0.3,
        "seed": SEED,
        "run_seed": RUN_SEED,
        **options,
    }
    return PPOTrainer(reward_fn=reward_fn, objective=objective, settings=settings, **arguments)


def weights(trainer: PPOTrainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.parameters.items()}


def recorded_gradients(trainer: PPOTrainer) -> list[list[torch.Tensor]]:
    """The gradients that the optimizer will be given, a list of all parameters' each time."""
    gradients: list[list[torch.Tensor]] = []
    trainer.optimizer.register_step_pre_hook(
        lambda *_: gradients.append([p.grad.clone() for p in trainer.parameters.values()])
    )
    return gradients


def recorded_calls(monkeypatch, function: str) -> list[tuple]:
    """The arguments that a function of prudent.losses will be called with."""
    calls: list[tuple] = []
    original = getattr(losses, function)
    monkeypatch.setattr(losses, function, lambda *a: calls.append(a) or original(*a))
    return calls


def one_step(trainer: PPOTrainer) -> tuple[Experience, dict[str, float]]:
    """Trains for the one step that the trainer is set to: what it learned from, and its log."""
    seen: list[Experience] = []
    update = trainer._update
    trainer._update = lambda *a: seen.append(a[2]) or update(*a)
    (row,) = trainer.train(PROMPTS)
    (experience,) = seen
    assert not experience.attention_mask[:, 0].all(), "no padded prompt: the test shows nothing"
    assert not experience.mask.all(), "no response ended early: the test shows nothing"
    return experience, row


def exact(architecture: str = "gpt2", **options) -> PPOTrainer:
    """A trainer in float64 for one step, with peaked policies."""
    options["settings"] = {"steps": 1, **options.get("settings", {})}
    models = {name: exact_model(architecture, i) for i, name in enumerate(("policy", "reference"))}
    return make(**models | options)


def same_gradients(found, wanted, tolerance: float) -> None:
    """Equal to within that share of the largest number of all (a gradient may well be 0)."""
    scale = max(gradient.abs().max().item() for gradient in wanted)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * scale)


class Preempted(Exception):
    """Stands for the end of the job."""


class CountingRewards:
    """The rewards, and the end of the job at a call."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.calls, self.stop_at = 0, stop_at

    def __call__(self, prompts: list[str], responses: list[str]) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.stop_at:
            raise Preempted
        return rewards(prompts, responses)


def same_log(first: list[dict], second: list[dict]) -> bool:
    drop = [{k: v for k, v in row.items() if k != "seconds"} for row in first + second]
    return drop[: len(first)] == drop[len(first) :]


def constant(rewards, beta=0.1, **more):
    return Signal(rewards.mean[:, 0], beta * torch.ones(len(rewards.mean)), **more)
