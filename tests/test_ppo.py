"""The PPO trainer against an independent reference, its invariants, learning and resuming."""

import functools
import inspect
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import train_policy
from tiny_models import (
    CONFIGS,
    EOS,
    EXACT,
    VOCABULARY,
    exact_model,
    tiny_model,
    tiny_prompts,
    tiny_tokenizer,
)
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from prudent.errors import InputError
from prudent.objectives.controls import shuffled
from prudent.objectives.pessimistic import centred_spread
from prudent.objectives.signal import Signal
from prudent.objectives.single import vanilla
from prudent.objectives.weighted import variance_aware
from prudent.policies import lm_head
from prudent.policies.sampling import response_statistics
from prudent.ppo import losses
from prudent.ppo.checkpoint import CheckpointFolder
from prudent.ppo.trainer import (
    Experience,
    NonFiniteError,
    PPOSettings,
    PPOTrainer,
    minibatch_loss,
    prompt_rows,
)
from prudent.rewards.interface import Rewards
from prudent.seeding import generator
from prudent.tables import write_parquet

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


# --- One step against plain loops -----------------------------------------------------------------


class LoopPPO:
    """PPO steps in float64: token by token, row by row, without padding, cache or tricks."""

    def __init__(self, trainer: PPOTrainer) -> None:
        self.settings, self.trainer = trainer.settings, trainer
        self.policy = tiny_model("gpt2", 0).double()
        self.reference = tiny_model("gpt2", 1).double()
        self.weight = trainer.value.head.weight.detach().clone().requires_grad_()
        self.bias = trainer.value.head.bias.detach().clone().requires_grad_()
        self.parameters = [*self.policy.parameters(), self.weight, self.bias]
        self.critic = self.policy.transformer
        if self.settings.value_network == "separate":
            self.critic = tiny_model("gpt2", 0).double().transformer
            self.parameters += self.critic.parameters()
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.gradients: list[list[torch.Tensor]] = []

    def draw(self, *words: str | int) -> torch.Generator:
        return generator(SEED, "policy", RUN_SEED, *words)

    def rate(self, step: int) -> float:
        share = step / self.settings.steps
        factors = {"linear": 1 - share, "cosine": 0.5 + 0.5 * math.cos(math.pi * share)}
        return self.settings.learning_rate * factors.get(self.settings.schedule, 1.0)

    def logits(self, model, ids: list[int]) -> torch.Tensor:
        """What the model says after the last token."""
        hidden = model.transformer(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        return model.transformer.wte.weight @ hidden / self.settings.temperature

    def value(self, ids: list[int], place: int) -> torch.Tensor:
        """The value of the state in which the token at ``place`` was chosen."""
        hidden = self.critic(input_ids=torch.tensor([ids[:place]])).last_hidden_state[0, -1]
        return (self.weight[0] * hidden).sum() + self.bias[0]

    def log_prob(self, model, ids: list[int], place: int) -> torch.Tensor:
        """Log-probability of the token at ``place``."""
        logits = self.logits(model, ids[:place])
        return logits[ids[place]] - torch.log(torch.exp(logits).sum())

    def rollout(self, prompt: list[int], uniforms: list[float]) -> list[int]:
        ids = list(prompt)
        for uniform in uniforms:
            logits = self.logits(self.policy, ids)
            shares = torch.exp(logits) / torch.exp(logits).sum()
            cumulative, token = 0.0, -1
            while cumulative <= uniform:
                token += 1
                cumulative += shares[token].item()
            ids.append(token)
            if token == EOS:
                break
        return ids

    def step(self, step: int) -> dict[str, float]:
        s, tokenizer = self.settings, self.trainer.tokenizer
        rows = prompt_rows(len(PROMPTS), s.batch_size, step, SEED, RUN_SEED)
        prompts = [PROMPTS[row] for row in rows]
        uniforms = torch.rand(
            (s.batch_size, s.response_length), generator=self.draw("sampling", step)
        )
        samples = []
        for b, prompt in enumerate(prompts):
            start = tokenizer(prompt)["input_ids"]
            with torch.no_grad():
                ids = self.rollout(start, uniforms[b].tolist())
                places = range(len(start), len(ids))
                old = [self.log_prob(self.policy, ids, t).item() for t in places]
                base = [self.log_prob(self.reference, ids, t).item() for t in places]
                values = [self.value(ids, t).item() for t in places]
            words = [f" w{i}" if i > 1 else " <pad>" for i in ids[len(start) :] if i != EOS]
            text = "".join(word for word in words if word != " <pad>")
            samples.append({"ids": ids, "places": places, "old": old, "base": base})
            samples[-1].update(values=values, text=text)
        scores = rewards(prompts, [sample["text"] for sample in samples]).tolist()
        for sample, row in zip(samples, scores, strict=True):
            mean = sum(row) / len(row)
            sigma = math.sqrt(sum((r - mean) ** 2 for r in row) / (len(row) - 1))
            coefficient = self.trainer.beta * sigma
            ratio = [p - q for p, q in zip(sample["old"], sample["base"], strict=True)]
            gains = [-coefficient * x for x in ratio]
            gains[-1] += row[self.trainer.head]
            after = [*sample["values"][1:], 0.0]
            deltas = [
                g + s.gamma * n - v for g, n, v in zip(gains, after, sample["values"], strict=True)
            ]
            sample["advantages"] = [
                sum((s.gamma * s.lam) ** (k - t) * deltas[k] for k in range(t, len(deltas)))
                for t in range(len(deltas))
            ]
            sample["returns"] = [
                a + v for a, v in zip(sample["advantages"], sample["values"], strict=True)
            ]
            sample.update(kl=sum(ratio), sigma=sigma)
        pooled = [a for sample in samples for a in sample["advantages"]]
        mean = sum(pooled) / len(pooled)
        variance = sum((a - mean) ** 2 for a in pooled) / (len(pooled) - 1)
        for sample in samples:
            sample["advantages"] = [
                (a - mean) / math.sqrt(variance + 1e-8) for a in sample["advantages"]
            ]
        terms = self.update(step, samples)
        count = len(samples)
        return {
            "kl": sum(sample["kl"] for sample in samples) / count,
            "proxy_reward": sum(row[self.trainer.head] for row in scores) / count,
            "sigma": sum(sample["sigma"] for sample in samples) / count,
            "tokens": len(pooled),
            "learning_rate": self.rate(step),
            **{name: sum(t[name] for t in terms) / len(terms) for name in terms[0]},
        }

    def update(self, step: int, samples: list[dict]) -> list[dict[str, float]]:
        s = self.settings
        terms = []
        for epoch in range(s.epochs):
            order = torch.randperm(len(samples), generator=self.draw("minibatches", step, epoch))
            for start in range(0, len(order), s.minibatch_size):
                chosen = [samples[i] for i in order[start : start + s.minibatch_size]]
                policy_loss, value_loss, clipped, tokens = 0.0, 0.0, 0, 0
                for sample in chosen:
                    for k, place in enumerate(sample["places"]):
                        ids = sample["ids"]
                        new = self.log_prob(self.policy, ids, place)
                        value = self.value(ids, place)
                        ratio = torch.exp(new - sample["old"][k])
                        bounded = torch.clamp(ratio, 1 - s.clip_range, 1 + s.clip_range)
                        a, old = sample["advantages"][k], sample["values"][k]
                        policy_loss = policy_loss - torch.minimum(ratio * a, bounded * a)
                        clipped += (bounded * a < ratio * a).item()
                        near = old + torch.clamp(
                            value - old, -s.value_clip_range, s.value_clip_range
                        )
                        target = sample["returns"][k]
                        value_loss = value_loss + 0.5 * torch.maximum(
                            (value - target) ** 2, (near - target) ** 2
                        )
                        tokens += 1
                policy_loss, value_loss = policy_loss / tokens, value_loss / tokens
                loss = policy_loss + s.value_coefficient * value_loss
                gradients = list(torch.autograd.grad(loss, self.parameters))
                if s.max_grad_norm is not None:
                    norm = math.sqrt(sum((g**2).sum().item() for g in gradients))
                    scale = min(1.0, s.max_grad_norm / (norm + 1e-6))
                    gradients = [g * scale for g in gradients]
                self.gradients.append(gradients)
                time = len(self.gradients)
                adam = zip(self.parameters, gradients, self.first, self.second, strict=True)
                with torch.no_grad():
                    for p, g, m, v in adam:
                        m.copy_(0.9 * m + 0.1 * g)
                        v.copy_(0.999 * v + 0.001 * g**2)
                        root = torch.sqrt(v / (1 - 0.999**time)) + 1e-8
                        p.sub_(self.rate(step) * (m / (1 - 0.9**time)) / root)
                terms.append(
                    {
                        "policy_loss": policy_loss.item(),
                        "value_loss": value_loss.item(),
                        "clip_fraction": clipped / tokens,
                    }
                )
        return terms


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_grad_norm": 0.05, "temperature": 1.3},
        {"value_network": "separate"},
        {"schedule": "linear", "gradient_accumulation_steps": 2},
        {"value_network": "separate", "schedule": "cosine", "gradient_accumulation_steps": 4}
        | {"max_grad_norm": 0.05, "temperature": 1.3},
    ],
)
def test_steps_equal_an_independent_float64_reference(monkeypatch, settings):
    """Log, every minibatch's gradients, and new weights, with padding and EOS inside responses."""
    # Logits of 7 tokens at a time.
    monkeypatch.setitem(lm_head.CHUNK_BYTES, "cpu", 7 * VOCABULARY * 8)
    trainer = make(
        policy=tiny_model("gpt2", 0).double(),
        reference=tiny_model("gpt2", 1).double(),
        settings={"gamma": 0.97, "steps": 2, **settings},
    )
    loops = LoopPPO(trainer)
    expected = [loops.step(step) for step in range(2)]
    gradients = recorded_gradients(trainer)
    log = trainer.train(PROMPTS)

    for row, wanted in zip(log, expected, strict=True):
        assert row["tokens"] < 8 * 5, "no response ended early: the test shows nothing"
        assert row["clip_fraction"] > 0
        for name, value in wanted.items():
            assert row[name] == pytest.approx(value, rel=1e-8), name
    assert len(gradients) == 8
    for found, wanted in zip(gradients, loops.gradients, strict=True):
        for g, w in zip(found, wanted, strict=True):
            torch.testing.assert_close(g, w, rtol=1e-8, atol=1e-8 * w.abs().max().item())
    for p, w in zip(trainer.parameters.values(), loops.parameters, strict=True):
        torch.testing.assert_close(p, w, rtol=1e-8, atol=1e-8)


# --- Invariants -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "dtype", "tolerance"),
    [(name, torch.float32, 1e-5) for name in CONFIGS]
    + [(name, torch.float64, 1e-10) for name in EXACT],
)
def test_before_an_update_kl_is_zero_and_each_tokens_ratio_is_one(
    monkeypatch, architecture, dtype, tolerance
):
    def model():
        single = dtype == torch.float32
        return tiny_model(architecture, spread=15.0) if single else exact_model(architecture)

    still = {"steps": 1, "epochs": 1, "learning_rate": 1e-30}
    trainer = make(policy=model(), reference=model(), settings=still)
    calls = recorded_calls(monkeypatch, "policy_loss")
    experience, row = one_step(trainer)
    # What the minibatches' forward passes said, and what sampling had said.
    new, old = (torch.cat([call[i].detach() for call in calls]) for i in (0, 1))
    real = old != 0
    assert real.sum() == row["tokens"]
    assert new.dtype == dtype
    assert (torch.exp(new - old)[real] - 1).abs().max() <= tolerance
    assert abs(row["kl"]) <= 5 * tolerance
    assert 0 <= row["kl_k3"] <= tolerance
    assert row["clip_fraction"] == 0


def test_the_logged_kl_is_the_penalised_kl():
    """With lambda = gamma = 1, no reward and values 0, the first return is -coef * KL."""
    trainer = make(
        reward_fn=lambda p, r: torch.zeros(len(p), 2),
        objective=vanilla,
        settings={"lam": 1.0, "steps": 1, "epochs": 1, "minibatch_size": 8, "learning_rate": 1e-30},
    )
    with torch.no_grad():
        trainer.value.head.weight.zero_()
        trainer.value.head.bias.zero_()
    seen: list[Experience] = []
    update = trainer._update
    trainer._update = lambda step, texts, experience, penalty: (
        seen.append(experience) or update(step, texts, experience)
    )
    (row,) = trainer.train(PROMPTS)
    returns = seen[0].returns[:, 0].mean().item()
    assert returns == pytest.approx(-0.3 * row["kl"], rel=1e-5)
    assert abs(row["kl"]) > 0.1


def test_the_reference_stays_frozen_and_the_policy_moves():
    trainer = make(settings={"steps": 2})
    reference = {name: p.clone() for name, p in trainer.reference.named_parameters()}
    before = weights(trainer)
    trainer.train(PROMPTS)
    for name, p in trainer.reference.named_parameters():
        assert torch.equal(p, reference[name])
        assert not p.requires_grad
    after = weights(trainer)
    assert all(not torch.equal(after[name], before[name]) for name in before)


def test_no_dropout_at_any_time():
    assert CONFIGS["gpt2"].resid_pdrop > 0
    # A caller may hand the policy over in training mode.
    runs = [make(policy=tiny_model().train(), settings={"steps": 2}) for _ in range(2)]
    for trainer, seed in zip(runs, (1, 2), strict=True):
        torch.manual_seed(seed)
        trainer.train(PROMPTS)
        assert not trainer.policy.training
    first, second = map(weights, runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_minibatch_far_from_the_old_policy_gets_no_gradient():
    trainer = make(settings={"batch_size": 4, "minibatch_size": 4, "epochs": 1})
    trainer.settings = trainer.settings.replace(learning_rate=1e-30)
    stream = torch.Generator().manual_seed(0)
    ids = torch.randint(2, VOCABULARY, (4, 8), generator=stream)
    ones = torch.ones(4, 5)
    with torch.no_grad():
        log_probs, _ = response_statistics(
            trainer.policy, ids, torch.ones_like(ids), 5, temperature=1.0
        )
    for shift, moves in ((math.log(9.9), True), (math.log(10.1), False)):
        batch = Experience(
            *(ids, torch.ones_like(ids), ones, log_probs - shift, ones, -ones, 2 * ones),
            *(log_probs, 0 * ones),
        )
        trainer._update(0, ["a prompt"] * 4, batch)
        assert any(p.grad.any() for p in trainer.parameters.values()) == moves


def test_each_samples_kl_is_penalised_by_its_own_coefficient_and_logged(monkeypatch):
    coefficients = torch.linspace(0.1, 2.0, 8, dtype=torch.float64)
    scores = []

    def objective(rewards, head, beta):
        scores.append(rewards.mean[:, head])
        return Signal(scores[-1], coefficients)

    calls = recorded_calls(monkeypatch, "gae")
    trainer = exact(objective=objective, settings={"learning_rate": 1e-30})
    experience, row = one_step(trainer)
    penalties = -calls[0][0].sum(dim=1) + scores[0]
    log_probs, _ = response_statistics(
        trainer.reference,
        *(experience.ids, experience.attention_mask, experience.mask.shape[1], 1.0),
    )
    divergence = ((experience.log_probs - log_probs) * experience.mask).sum(dim=1)
    torch.testing.assert_close(penalties / coefficients, divergence, rtol=1e-10, atol=1e-10)
    assert row["kl"] == pytest.approx(divergence.mean().item(), rel=1e-10)
    assert (divergence.abs() > 0.1).all()


@pytest.mark.parametrize("sample", [0, 5])
def test_a_samples_coefficient_changes_its_own_token_rewards_alone(monkeypatch, sample):
    calls = recorded_calls(monkeypatch, "gae")
    coefficients = torch.linspace(0.1, 2.0, 8)
    doubled = torch.where(torch.arange(8) == sample, 2 * coefficients, coefficients)
    for values in (coefficients, doubled):
        trainer = make(
            reward_fn=lambda p, r: torch.zeros(len(p), 2),
            objective=lambda r, head, beta, values=values: Signal(r.mean[:, head], values),
            settings={"steps": 1, "learning_rate": 1e-30},
        )
        one_step(trainer)
    before, after = (call[0] for call in calls)
    expected = before.clone()
    expected[sample] *= 2
    assert expected[sample].any()
    assert torch.equal(after, expected)


@pytest.mark.parametrize("parts", [1, 2])
def test_an_epoch_visits_every_response_exactly_once(monkeypatch, parts):
    calls = recorded_calls(monkeypatch, "policy_loss")
    settings = {"epochs": 3, "learning_rate": 1e-30, "gradient_accumulation_steps": parts}
    experience, _ = one_step(exact(settings=settings))
    # Responses are known by the log-probability of their first token.
    first = experience.log_probs[:, 0]
    assert len(first.unique()) == 8
    old = torch.cat([call[1] for call in calls]).view(3, 8, -1)[:, :, 0]
    for epoch in old:
        assert torch.equal(epoch.sort().values, first.sort().values)
    assert not torch.equal(old[0], old[1])


@pytest.mark.parametrize("value_network", ["shared", "separate"])
@pytest.mark.parametrize("architecture", EXACT)
def test_order_company_and_padding_of_a_minibatch_change_nothing(architecture, value_network):
    trainer = exact(architecture, settings={"value_network": value_network})
    experience, _ = one_step(trainer)  # the policy has moved, so ratios and values have too
    rows, width = experience.mask.shape
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))

    def padded(before: int, behind: int) -> Experience:
        """With more columns of padding, in which anything may stand."""
        values = {"ids": 7, "attention_mask": 0, "mask": 0}
        return Experience(
            **{
                name: torch.nn.functional.pad(
                    getattr(experience, name),
                    (before if name in ("ids", "attention_mask") else 0, behind),
                    value=values.get(name, -3.0),
                )
                for name in vars(experience)
            }
        )

    def outcome(*parts: Experience) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Terms and gradients of all parts together."""
        tokens = experience.mask.sum()
        trainer.optimizer.zero_grad()
        history = []
        for part in parts:
            loss, terms = minibatch_loss(
                trainer.policy, trainer.value, part, trainer.settings, tokens
            )
            loss.backward()
            history.append(torch.stack([loss.detach(), *terms.values()]))
        return sum(history), [p.grad.clone() for p in trainer.parameters.values()]

    terms, gradients = outcome(experience)
    assert terms.all(), "a term is 0: the test shows nothing"
    for parts in (
        [experience.rows(order)],
        [padded(3, 0)],
        [padded(0, 4)],
        [experience.rows(row[None]) for row in order],
        list(map(experience.rows, order.split(3))),
    ):
        found = outcome(*parts)
        torch.testing.assert_close(found[0], terms, rtol=0, atol=1e-9)
        same_gradients(found[1], gradients, 1e-9)


def test_gradient_accumulation_changes_nothing():
    """Also where the parts differ in tokens, and with clipping of the whole gradient."""
    runs = {}
    for parts in (1, 2, 4):
        settings = {"steps": 3, "gradient_accumulation_steps": parts, "max_grad_norm": 0.3}
        trainer = exact(settings=settings)
        gradients = recorded_gradients(trainer)
        log = trainer.train(PROMPTS)
        assert log[0]["tokens"] < 8 * 5
        runs[parts] = log, gradients
    for parts in (2, 4):
        for row, wanted in zip(runs[parts][0], runs[1][0], strict=True):
            for name in row.keys() - {"seconds"}:
                assert row[name] == pytest.approx(wanted[name], rel=1e-9, abs=1e-12), name
        for found, wanted in zip(runs[parts][1], runs[1][1], strict=True):
            same_gradients(found, wanted, 1e-10)


def test_a_separate_value_network_and_the_policy_leave_each_other_alone():
    def gradients(value_network: str, **changes) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The policy's and the value function's."""
        trainer = exact(settings={"value_network": value_network, "learning_rate": 1e-30})
        experience, _ = one_step(trainer)
        settings = trainer.settings
        if "advantages" in changes:
            experience = replace(experience, advantages=0 * experience.advantages)
        else:
            settings = settings.replace(**changes)
        trainer.optimizer.zero_grad()
        loss, _ = minibatch_loss(
            trainer.policy, trainer.value, experience, settings, experience.mask.sum()
        )
        loss.backward()
        parts = trainer.policy.parameters(), trainer.value.parameters()
        return tuple([p.grad.clone() for p in part] for part in parts)

    policy, value = gradients("separate")
    assert all(g.any() for g in policy + value)
    without_values = gradients("separate", value_coefficient=0.0)
    assert all(map(torch.equal, without_values[0], policy))
    assert not any(g.any() for g in without_values[1])
    without_advantages = gradients("separate", advantages=0)
    assert not any(g.any() for g in without_advantages[0])
    assert all(map(torch.equal, without_advantages[1], value))
    # With a shared network it is otherwise.
    shared, _ = gradients("shared")
    assert any(g.any() for g in gradients("shared", advantages=0)[0])
    assert not all(map(torch.equal, gradients("shared", value_coefficient=0.0)[0], shared))


def test_a_separate_value_network_starts_as_the_policys_backbone():
    settings = {"learning_rate": 1e-30}
    shared, _ = one_step(exact(settings=settings))
    separate, _ = one_step(exact(settings=settings | {"value_network": "separate"}))
    real = shared.mask.bool()
    torch.testing.assert_close(separate.values[real], shared.values[real], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("cosine", [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]),
    ],
)
def test_the_learning_rate_follows_its_schedule(schedule, factors):
    """In the log, and at every update of the step."""
    trainer = make(settings={"schedule": schedule, "steps": 4})
    used: list[float] = []
    trainer.optimizer.register_step_pre_hook(
        lambda optimizer, *_: used.extend({group["lr"] for group in optimizer.param_groups})
    )
    log = trainer.train(PROMPTS)
    expected = [SETTINGS.learning_rate * factor for factor in factors]
    assert [row["learning_rate"] for row in log] == pytest.approx(expected, rel=1e-12)
    assert used == pytest.approx([rate for rate in expected for _ in range(4)], rel=1e-12)


# --- Streams --------------------------------------------------------------------------------------


def test_prompts_are_permuted_each_epoch_and_the_rest_is_dropped():
    epochs = [
        torch.cat([prompt_rows(30, 8, 3 * epoch + i, SEED, RUN_SEED) for i in range(3)]).tolist()
        for epoch in range(2)
    ]
    for rows in epochs:
        assert len(set(rows)) == 24
    assert epochs[0] != epochs[1]
    other = prompt_rows(30, 8, 0, SEED, RUN_SEED + 1).tolist()
    assert other != epochs[0][:8]


def test_methods_of_one_seed_see_the_same_prompts_and_draws():
    """With a policy that never moves, equal responses at every step mean equal draws."""

    def run(objective, beta, run_seed):
        seen = []

        def recording(prompts, responses):
            seen.append((prompts, responses))
            return rewards(prompts, responses)

        settings = {"learning_rate": 1e-30, "steps": 5}
        trainer = make(recording, objective, beta=beta, run_seed=run_seed, settings=settings)
        trainer.train(PROMPTS)
        return seen, weights(trainer)["value.head.weight"]

    plain, head = run(vanilla, 0.1, 3)
    aware, aware_head = run(variance_aware, 0.7, 3)
    other, other_head = run(vanilla, 0.1, 4)
    assert plain == aware
    assert torch.equal(head, aware_head)
    assert not torch.equal(head, other_head)
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in zip(plain, other, strict=True))
    assert plain[0] != plain[3], "a new epoch has new prompts and draws"


# --- Learning -------------------------------------------------------------------------------------


def test_a_policy_learns_to_say_what_is_rewarded():
    """Reward: the share of one word, in 0 to 1; it starts near 1 / 23."""

    def share(prompts, responses):
        return torch.tensor(
            [[r.split().count("w7") / max(1, len(r.split()))] * 2 for r in responses]
        )

    settings = {"batch_size": 64, "minibatch_size": 64, "epochs": 4, "steps": 25}
    trainer = make(
        share,
        vanilla,
        policy=tiny_model(spread=1.0),
        reference=tiny_model(spread=1.0),
        beta=0.01,
        settings=settings,
    )
    log = pd.DataFrame(trainer.train(tiny_prompts(200)))
    assert log["proxy_reward"][0] < 0.15
    assert log["proxy_reward"].iloc[-3:].mean() > 0.5
    assert log["kl"].iloc[-1] > 1
    assert log["entropy"].iloc[-1] < log["entropy"][0]


# --- Checkpoints ----------------------------------------------------------------------------------


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


@pytest.fixture(scope="module")
def uninterrupted():
    trainer = make()
    log = trainer.train(PROMPTS)
    return weights(trainer), log


@pytest.mark.parametrize(("stop_at", "left"), [(1, 6), (2, 6), (4, 4), (6, 2)])
def test_an_interrupted_run_ends_bit_identical(tmp_path, uninterrupted, stop_at, left):
    folder = tmp_path / "checkpoints"
    with pytest.raises(Preempted):
        make(CountingRewards(stop_at), checkpoints=folder).train(PROMPTS)
    again = CountingRewards()
    trainer = make(again, checkpoints=folder)
    log = trainer.train(PROMPTS)
    assert again.calls == left
    assert same_log(log, uninterrupted[1])
    assert [row["step"] for row in log] == list(range(6))
    found = weights(trainer)
    assert all(torch.equal(found[name], wanted) for name, wanted in uninterrupted[0].items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": {"clip_range": 0.1}}, "ppo.clip_range: 0.2 in the checkpoint, 0.1 now"),
        ({"objective": vanilla}, "objective.name: variance_aware in the checkpoint, v"),
        ({"beta": 0.4}, "beta: 0.3 in the checkpoint, 0.4 now"),
        ({"run_seed": 4}, "run_seed: 3 in the checkpoint, 4 now"),
        ({"fingerprint": {"code": "a"}}, "code: nothing in the checkpoint, a now"),
        ({"prompts": PROMPTS[::-1]}, "prompts: "),
        ({"damage": True}, "found one that cannot be read"),
    ],
)
def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(tmp_path, options, message):
    folder = tmp_path / "checkpoints"
    with pytest.raises(Preempted):
        make(CountingRewards(4), checkpoints=folder).train(PROMPTS)
    file = folder / "checkpoint.safetensors"
    options = dict(options)
    prompts = options.pop("prompts", PROMPTS)
    if options.pop("damage", False):
        file.write_bytes(file.read_bytes()[:-100])
    content = file.read_bytes()
    again = CountingRewards()
    with pytest.raises(InputError, match=re.escape(message)) as error:
        make(again, checkpoints=folder, **options).train(prompts)
    assert str(file) in str(error.value) and f"delete the folder {folder}" in str(error.value)
    assert again.calls == 0
    assert [path.name for path in folder.iterdir()] == [file.name]
    assert file.read_bytes() == content


@pytest.mark.parametrize("call", [3, 4])
def test_sigterm_ends_the_run_after_the_step_and_a_checkpoint(
    tmp_path, caplog, uninterrupted, call
):
    def terminated(prompts, responses):
        if counting.calls + 1 == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return counting(prompts, responses)

    counting = CountingRewards()
    trainer = make(terminated, checkpoints=tmp_path)
    saved = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.INFO):
        save = CheckpointFolder.save
        patch.setattr(
            CheckpointFolder, "save", lambda *args: saved.append(len(args[2])) or save(*args)
        )
        with pytest.raises(SystemExit) as end:
            trainer.train(PROMPTS)
    assert end.value.code == 143
    assert f"SIGTERM: checkpoint written after step {call}" in caplog.text
    assert saved == [2, call], "one each, also where the step has one anyway"
    assert signal.getsignal(signal.SIGTERM) == before
    again = CountingRewards()
    trainer = make(again, checkpoints=tmp_path)
    log = trainer.train(PROMPTS)
    assert again.calls == 6 - call
    assert same_log(log, uninterrupted[1])
    found = weights(trainer)
    assert all(torch.equal(found[name], wanted) for name, wanted in uninterrupted[0].items())


def test_sigterm_in_the_last_step_lets_the_run_finish(tmp_path):
    def terminated(prompts, responses):
        if counting.calls == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return counting(prompts, responses)

    counting = CountingRewards()
    assert len(make(terminated, checkpoints=tmp_path).train(PROMPTS)) == 6


def test_without_checkpoints_sigterm_does_what_it_did():
    def looking(prompts, responses):
        seen.add(signal.getsignal(signal.SIGTERM))
        return rewards(prompts, responses)

    seen = set()
    make(looking).train(PROMPTS)
    assert seen == {signal.getsignal(signal.SIGTERM)}


def test_what_is_not_finite_leaves_the_last_checkpoint(tmp_path, uninterrupted):
    def broken(prompts, responses):
        values = counting(prompts, responses)
        return values * float("nan") if counting.calls == 4 else values

    counting = CountingRewards()
    with pytest.raises(NonFiniteError, match="step 3: the reward"):
        make(broken, checkpoints=tmp_path).train(PROMPTS)
    again = CountingRewards()
    assert same_log(make(again, checkpoints=tmp_path).train(PROMPTS), uninterrupted[1])
    assert again.calls == 4


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 8, "minibatch_size": 3}, "`minibatch_size` is 3; expected a divisor of"),
        ({"minibatch_size": 8, "gradient_accumulation_steps": 3}, "a divisor of `minibatch_size`"),
        ({"epochs": 0}, "`epochs` is 0; expected a whole number >= 1"),
        ({"steps": 2.0}, "`steps` is 2.0; expected a whole number"),
        ({"temperature": 0.0}, "`temperature` is 0.0; expected a number > 0"),
        ({"temperature": float("inf")}, "`temperature` is inf"),
        ({"gamma": 2.0}, "`gamma` is 2.0; expected a number > 0 and <= 1"),
        ({"lam": -1.0}, "`lam` is -1.0; expected a number >= 0 and <= 1"),
        ({"clip_range": -0.1}, "`clip_range` is -0.1"),
        ({"value_clip_range": float("nan")}, "`value_clip_range` is nan"),
        ({"max_grad_norm": 0}, "`max_grad_norm` is 0; expected a number > 0 or null"),
        ({"learning_rate": "1e-5"}, "`learning_rate` is the text '1e-5'"),
        ({"schedule": "linea"}, "did you mean `linear`"),
        ({"batchsize": 8}, "unknown key `batchsize`, did you mean `batch_size`"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    """With the bounds of the configuration, which are these settings' own."""
    with pytest.raises(InputError, match=message):
        SETTINGS.replace(**options)


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="fewer than ppo.batch_size"):
        make().train(PROMPTS[:7])
    with pytest.raises(InputError, match="reads at most 64"):
        make(settings={"response_length": 60}).train(PROMPTS)
    with pytest.raises(InputError, match="has 3 heads"):
        make(head=3).train(PROMPTS)
    with pytest.raises(InputError, match="shape"):
        make(reward_fn=lambda p, r: torch.zeros(len(p))).train(PROMPTS)
    model = tiny_model()
    with pytest.raises(InputError, match="have to be two"):
        make(policy=model, reference=model)


def test_what_is_not_finite_stops_the_run_with_step_and_term():
    def broken(prompts, responses):
        calls.append(prompts)
        values = rewards(prompts, responses)
        if len(calls) == 3:
            values[5, 0] = float("nan")
        return values

    calls: list[list[str]] = []
    with pytest.raises(NonFiniteError, match="step 2: the reward is not finite") as error:
        make(broken).train(PROMPTS)
    assert repr(calls[-1][5]) in str(error.value)
    with pytest.raises(NonFiniteError, match="step 0, epoch 0, minibatch 0: the policy loss is"):
        make(lambda p, r: torch.full((len(p), 2), 1e30)).train(PROMPTS)
    wild = make(settings={"learning_rate": 1e30})
    with pytest.raises(NonFiniteError, match="step 0, epoch 0, minibatch 1") as error:
        wild.train(PROMPTS)
    batch = prompt_rows(len(PROMPTS), 8, 0, SEED, RUN_SEED)[wild._order(0, 0)]
    assert all(repr(PROMPTS[row]) in str(error.value) for row in batch[4:7])
    assert "and 1 more" in str(error.value)
    # The last update of a step breaks the policy, and the next step's sampling meets it.
    wild = make(settings={"learning_rate": 1e30, "epochs": 1, "minibatch_size": 8})
    with pytest.raises(NonFiniteError, match="step 1: the policy's log-probability is not finite"):
        wild.train(PROMPTS)
    with pytest.raises(NonFiniteError, match="step 0: the objective's KL coefficient") as error:
        make(objective=lambda r, h, b: Signal(r.mean[:, h], r.mean[:, 0] / 0)).train(PROMPTS)
    assert repr(PROMPTS[prompt_rows(len(PROMPTS), 8, 0, SEED, RUN_SEED)[0]]) in str(error.value)


# --- Signals beyond a score and a coefficient ----------------------------------------------------


@pytest.mark.parametrize("penalty", [torch.square, lambda x: torch.expm1(-x) + x])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_penalty_is_exact_against_autograd_through_the_whole_model(penalty, architecture):
    """In float64, the fused loss's gradients against those of the loss as it is written down."""
    coefficients = torch.linspace(0.5, 2.0, 8, dtype=torch.float64)
    trainer = exact(
        policy=exact_model(architecture, 0),
        reference=exact_model(architecture, 1),
        objective=lambda r, h, b: Signal(
            r.mean[:, h], 0.1 * coefficients, penalty=penalty, penalty_coefficient=coefficients
        ),
        settings={"learning_rate": 1e-30, "gradient_accumulation_steps": 2, "epochs": 1},
    )
    gradients = recorded_gradients(trainer)
    experience, _ = one_step(trainer)
    rows = trainer._order(0, 0)[:4]
    batch = experience.rows(rows)

    def without_penalty() -> torch.Tensor:
        tokens = batch.mask.sum()
        return minibatch_loss(trainer.policy, trainer.value, batch, trainer.settings, tokens)[0]

    # Transformers' own logits, and their log-softmax.
    ids, mask = batch.ids, batch.attention_mask
    positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
    length = batch.mask.shape[1]
    logits = trainer.policy(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    log_probs = logits[:, -length - 1 : -1].log_softmax(dim=-1)
    log_probs = log_probs.gather(2, ids[:, -length:, None])[..., 0]
    log_ratio = (log_probs - batch.reference_log_probs) * batch.mask
    penalties = coefficients[rows, None] * penalty(log_ratio) * batch.mask
    loss = without_penalty() + penalties.sum() / batch.mask.sum()
    parameters = list(trainer.parameters.values())
    wanted = torch.autograd.grad(loss, parameters, allow_unused=True)
    plain = torch.autograd.grad(without_penalty(), parameters, allow_unused=True)
    # Llama's norms compute in float32, whatever the model's type is.
    same_gradients(gradients[0], wanted, 1e-6 if architecture == "llama" else 1e-12)
    assert max(float((a - b).abs().max()) for a, b in zip(wanted, plain, strict=True)) > 1e-3


def test_weights_multiply_the_whitened_advantages(monkeypatch):
    calls = recorded_calls(monkeypatch, "masked_whiten")
    weights = torch.linspace(0.0, 2.0, 8, dtype=torch.float64)
    trainer = exact(
        objective=lambda r, h, b: constant(r, weights=weights), settings={"learning_rate": 1e-30}
    )
    experience, _ = one_step(trainer)
    whitened = losses.masked_whiten(*calls[0])
    torch.testing.assert_close(experience.advantages, whitened * weights[:, None])
    assert not experience.advantages[0].any() and experience.advantages[7].any()


def test_metrics_stand_in_the_log_and_draws_and_memory_are_the_runs_own():
    log = make(objective=functools.partial(centred_spread, decay=0.5)).train(PROMPTS)
    assert all(row["level"] > 0 for row in log) and len({row["level"] for row in log}) == 6
    level = log[0]["sigma"]
    for row in log:
        level = 0.5 * level + 0.5 * row["sigma"]
        assert row["level"] == pytest.approx(level, rel=1e-5)
    first, again, other = (
        make(objective=shuffled, run_seed=seed, settings={"learning_rate": 1e-30}).train(PROMPTS)
        for seed in (3, 3, 4)
    )
    assert [row["score"] for row in first] == [row["score"] for row in again]
    # The same draws of everything else as a method without any.
    plain = make(objective=variance_aware, settings={"learning_rate": 1e-30}).train(PROMPTS)
    assert [row["proxy_reward"] for row in first] == [row["proxy_reward"] for row in plain]
    assert [row["proxy_reward"] for row in first] != [row["proxy_reward"] for row in other]


@pytest.mark.parametrize("objective", [centred_spread, shuffled])
def test_a_memory_and_draws_are_resumed_bit_for_bit(tmp_path, objective):
    expected = make(objective=objective)
    log = expected.train(PROMPTS)
    with pytest.raises(Preempted):
        make(CountingRewards(4), objective, checkpoints=tmp_path).train(PROMPTS)
    resumed = make(objective=objective, checkpoints=tmp_path)
    for row, wanted in zip(resumed.train(PROMPTS), log, strict=True):
        assert {**row, "seconds": 0} == {**wanted, "seconds": 0}
    before, after = weights(expected), weights(resumed)
    assert all(torch.equal(after[name], part) for name, part in before.items())
    assert resumed.run.state.keys() == expected.run.state.keys()
    for name, part in expected.run.state.items():
        assert torch.equal(resumed.run.state[name], part)


def test_the_callers_models_and_process_are_left_as_they_were():
    policy, reference = tiny_model("gpt2", 0), tiny_model("gpt2", 1)
    kinds = [[type(module) for module in model.modules()] for model in (policy, reference)]
    before = torch.get_rng_state(), torch.get_num_threads(), logging.getLogger().level
    make(policy=policy, reference=reference, settings={"steps": 1}).train(PROMPTS)
    after = torch.get_rng_state(), torch.get_num_threads(), logging.getLogger().level
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    assert kinds == [[type(module) for module in model.modules()] for model in (policy, reference)]


# --- What a caller may give, and what not --------------------------------------------------------


def test_texts_and_rewards_may_be_arrays_and_columns():
    def listed(prompts, responses):
        return rewards(prompts, responses).tolist()

    expected = make(settings={"steps": 2}).train(PROMPTS)
    for prompts, reward in (
        (np.array(PROMPTS), listed),
        (pd.Series(PROMPTS, index=range(5, 35)), lambda p, r: np.array(listed(p, r))),
        (tuple(PROMPTS), lambda p, r: pd.DataFrame(listed(p, r)).to_numpy()),
    ):
        log = make(reward, settings={"steps": 2}).train(prompts)
        for row, wanted in zip(log, expected, strict=True):
            assert {**row, "seconds": 0} == {**wanted, "seconds": 0}


def constant(rewards, beta=0.1, **more):
    return Signal(rewards.mean[:, 0], beta * torch.ones(len(rewards.mean)), **more)


def frozen():
    return tiny_model("gpt2", 0).requires_grad_(False)


def tied_to(reference):
    policy = tiny_model("gpt2", 0)
    policy.transformer.wpe = reference.transformer.wpe
    return policy


REFERENCE = tiny_model("gpt2", 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": frozen()}, "the policy is frozen: none of its parameters"),
        (
            {"policy": tied_to(REFERENCE), "reference": REFERENCE},
            "the policy shares transformer.wpe.weight with the reference",
        ),
        ({"seed": 0.5}, "`seed` is 0.5; expected a whole number"),
        ({"run_seed": "3"}, "`run_seed` is the text '3'; expected a whole number"),
        ({"seed": True}, "`seed` is true; expected a whole number"),
        ({"head": 1.0}, "`head` is 1.0; expected a whole number >= 0"),
        ({"head": -1}, "`head` is -1; expected a whole number >= 0"),
        ({"beta": "0.1"}, "`beta` is the text '0.1'; expected a number"),
        ({"beta": float("inf")}, "`beta` is inf; expected a number >= 0"),
        ({"beta": -0.1}, "`beta` is -0.1; expected a number >= 0"),
        ({"settings": {"gamma": 2.0}}, "`gamma` is 2.0; expected a number > 0 and <= 1"),
        ({"settings": {"lam": -1.0}}, "`lam` is -1.0; expected a number >= 0 and <= 1"),
        ({"settings": {"clip_range": -0.2}}, "`clip_range` is -0.2; expected a number > 0"),
        ({"settings": {"max_grad_norm": 0.0}}, "`max_grad_norm` is 0.0; expected a number > 0"),
        ({"settings": {"temperature": math.inf}}, "`temperature` is inf; expected a number > 0"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_changed(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make(**options)
    model = options.get("reference", options.get("policy"))
    assert model is None or model is not REFERENCE or model.lm_head.weight.requires_grad


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("This film is", "prompts: found str, expected a list of texts"),
        ([*PROMPTS, 5], "prompts[30]: found int, expected a text"),
        ([*PROMPTS, None], "prompts[30]: found NoneType, expected a text"),
        ([*PROMPTS, "half \ud800"], "prompts[30]: found 'half \\ud800', expected Unicode text"),
        (PROMPTS[:7], "7 training prompts are fewer than ppo.batch_size, 8"),
    ],
)
def test_prompts_that_are_no_texts_are_refused(prompts, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make().train(prompts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward_fn": lambda p, r: None}, "the reward function returned a NoneType"),
        ({"reward_fn": lambda p, r: [["a"]] * 8}, "the reward function returned a list"),
        (
            {"reward_fn": lambda p, r: [1.0] * 8},
            "shape (8,) for 8 responses; expected [8, members]",
        ),
        ({"reward_fn": lambda p, r: np.ones((8, 1))}, "the policy's head is 1, and the reward"),
        (
            {"objective": lambda r, h, b: r.mean[:, h]},
            "<lambda> returned Tensor; expected a Signal",
        ),
        ({"objective": lambda r, h, b: (r.mean[:, h], b)}, "returned tuple; expected a Signal"),
        (
            {"objective": lambda r, h, b: Signal(r.mean[:, h], r.mean)},
            "a KL coefficient of shape (8, 3); expected a tensor [8], one number a response",
        ),
        ({"objective": lambda r, h, b: Signal(r.mean[:, h], b)}, "a KL coefficient of float; exp"),
        (
            {"objective": lambda r, h, b: Signal(r.mean.mean(), r.mean[:, h])},
            "a score of shape (); expected a tensor [8]",
        ),
        (
            {"objective": lambda r, h, b: constant(r, weights=torch.ones(3))},
            "a weight of shape (3,); expected a tensor [8]",
        ),
        (
            {"objective": lambda r, h, b: constant(r, penalty=torch.square)},
            "a penalty coefficient of NoneType; expected a tensor [8]",
        ),
        (
            {"objective": lambda r, h, b: constant(r, metrics={"kl": 1.0})},
            "has the metric 'kl', which is a column of every training log",
        ),
        (
            {"reward_fn": lambda p, r: Rewards(torch.ones(8, 3), std=torch.ones(8))},
            "standard deviations of shape (8,); expected [8, 3]",
        ),
        (
            {"reward_fn": lambda p, r: Rewards(torch.ones(8, 3), features=torch.ones(3, 8))},
            "features of shape (3, 8); expected [8, width]",
        ),
    ],
)
def test_rewards_and_objectives_of_other_forms_are_refused(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make(**options).train(PROMPTS)


def test_a_reference_that_is_not_finite_is_named():
    reference = tiny_model("gpt2", 1)
    reference.transformer.wpe.weight.data.fill_(math.nan)
    with pytest.raises(NonFiniteError, match="step 0: the reference's log-probability is not"):
        make(reference=reference).train(PROMPTS)


class Weighted:
    """A callable object, with a state of its own."""

    def __init__(self, weight):
        self.weight = weight

    def __call__(self, rewards, head, beta):
        return Signal(rewards.mean[:, head] * self.weight, beta * rewards.spread())


def weighted(rewards, head, beta, weight=1.0):
    return Weighted(weight)(rewards, head, beta)


def closing_over(weight):
    return lambda rewards, head, beta: weighted(rewards, head, beta, weight)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda r, h, b: constant(r, b), lambda r, h, b: constant(r, 2 * b)),
        (functools.partial(weighted, weight=1.0), functools.partial(weighted, weight=2.0)),
        (Weighted(1.0), Weighted(2.0)),
        (Weighted(torch.ones(8)), Weighted(2 * torch.ones(8))),
        (Weighted(1.0).__call__, Weighted(2.0).__call__),
        (closing_over(1.0), closing_over(2.0)),
    ],
)
def test_a_run_is_not_resumed_with_another_objective_of_the_same_name(tmp_path, first, second):
    with pytest.raises(Preempted):
        make(CountingRewards(4), first, checkpoints=tmp_path).train(PROMPTS)
    with pytest.raises(InputError, match=r"objective.digest: \w{16} in the checkpoint, \w{16} now"):
        make(objective=second, checkpoints=tmp_path).train(PROMPTS)
    assert len(make(objective=first, checkpoints=tmp_path).train(PROMPTS)) == 6


# --- The script -----------------------------------------------------------------------------------


def script_args(tmp_path, **settings) -> train_policy.Args:
    """Arguments of the script, and the files that they name."""
    tokenizer = tiny_tokenizer()
    tiny_model("gpt2", 0).save_pretrained(tmp_path / "reference")
    tokenizer.save_pretrained(tmp_path / "reference")
    config = CONFIGS["llama"].to_dict() | {"num_labels": 3, "pad_token_id": 1}
    config = type(CONFIGS["llama"])(**config)
    torch.manual_seed(0)
    ensemble = AutoModelForSequenceClassification.from_config(config)
    ensemble.save_pretrained(tmp_path / "ensemble")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(tmp_path / "ensemble")
    prompts = pd.DataFrame({"prompt": PROMPTS, "source": "here", "tokens": 1, "split": "train"})
    prompts.loc[20:, "split"] = "test"
    write_parquet(prompts, tmp_path / "prompts.parquet", "prompts")

    return train_policy.Args(
        reference=tmp_path / "reference",
        ensemble=tmp_path / "ensemble",
        prompts=tmp_path / "prompts.parquet",
        policy=tmp_path / "policy",
        training_log=tmp_path / "policy.csv",
        objective="variance_aware",
        beta=0.1,
        head=2,
        settings={"batch_size": 8, "minibatch_size": 8, "steps": 3, "checkpoint_every": 2}
        | {"learning_rate": 1e-3, **settings},
        sampling={"response_length": 5, "temperature": 1.0},
        checkpoints=tmp_path / "checkpoints",
        run_seed=2,
        seed=0,
        threads=torch.get_num_threads(),
    )


def test_the_script_writes_a_policy_that_loads_and_its_log(tmp_path):
    args = script_args(tmp_path)
    train_policy.main(args)

    log = pd.read_csv(args.training_log)
    assert (
        log.columns.tolist()
        == (
            "step kl kl_k3 proxy_reward ensemble_reward sigma kl_coefficient score entropy "
            "clip_fraction policy_loss value_loss learning_rate tokens seconds"
        ).split()
    )
    assert log["step"].tolist() == [0, 1, 2]
    assert (log["sigma"] > 0).all()
    assert not (tmp_path / "checkpoints").exists()
    policy = AutoModelForCausalLM.from_pretrained(args.policy)
    assert AutoTokenizer.from_pretrained(args.policy).vocab_size == VOCABULARY
    assert policy.lm_head.weight is policy.transformer.wte.weight
    before = tiny_model("gpt2", 0).state_dict()
    assert not torch.equal(
        policy.state_dict()["transformer.ln_f.weight"], before["transformer.ln_f.weight"]
    )
    sheet = json.loads((args.policy / "metadata.json").read_text())
    assert sheet["settings"]["beta"] == 0.1
    assert sheet["settings"]["epochs"] == 4
    assert set(sheet["inputs"]) == {"reference", "ensemble", "prompts"}

    # The same arguments give the same weights: nothing depends on anything else.
    again = replace(args, policy=tmp_path / "again", training_log=tmp_path / "again.csv")
    train_policy.main(again)
    for file in args.policy.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_the_script_killed_and_terminated_ends_with_the_same_policy(tmp_path):
    args = script_args(tmp_path, steps=16, checkpoint_every=1)
    train_policy.main(args)
    again = replace(args, policy=tmp_path / "again", training_log=tmp_path / "again.csv")
    command = [sys.executable, train_policy.__file__]
    for field in fields(again):
        value = getattr(again, field.name)
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        command += [f"--{field.name.replace('_', '-')}", text]

    def stopped(number: int) -> tuple[int, str]:
        """Status and output of a process that is sent a signal after its first checkpoint."""
        before = {path.stat().st_mtime_ns for path in args.checkpoints.glob("*/checkpoint*")}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            while {path.stat().st_mtime_ns for path in args.checkpoints.glob("*/check*")} == before:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.001)
            process.send_signal(number)
            return process.wait(), process.stderr.read()

    assert stopped(signal.SIGKILL)[0] == -signal.SIGKILL
    status, output = stopped(signal.SIGTERM)
    assert status == 143
    assert "taken over from process" in output and "the process has ended" in output
    step = re.search(r"SIGTERM: checkpoint written after step (\d+)", output)[1]
    assert not again.policy.exists()
    output = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True).stderr
    assert f"going on after step {step}" in output
    for file in args.policy.iterdir():
        assert file.read_bytes() == (again.policy / file.name).read_bytes()
    logs = [pd.read_csv(a.training_log).drop(columns="seconds") for a in (args, again)]
    pd.testing.assert_frame_equal(*logs, check_exact=True)
    assert not args.checkpoints.exists()


def test_after_an_edit_of_the_settings_the_script_starts_afresh(tmp_path, monkeypatch):
    args = script_args(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("prudent.rewards.ensemble.RewardEnsemble.__call__", CountingRewards(3))
        with pytest.raises(Preempted):
            train_policy.main(args)
    assert len(list(args.checkpoints.iterdir())) == 1
    train_policy.main(replace(args, settings=args.settings | {"learning_rate": 1e-4}))
    assert pd.read_csv(args.training_log)["step"].tolist() == [0, 1, 2]
    assert not args.checkpoints.exists(), "nor is the checkpoint of the first run left"


# --- The example ----------------------------------------------------------------------------------


def test_the_docstrings_example_runs_as_it_stands_and_stands_in_the_readme(tmp_path):
    _, example = inspect.getdoc(PPOTrainer).split("::\n\n")
    code = textwrap.dedent(example.split("\n\n``policy``")[0]).strip()
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert code in readme

    tiny_model().save_pretrained(tmp_path / "gpt2")
    tiny_tokenizer().save_pretrained(tmp_path / "gpt2")
    names: dict = {}
    code = code.replace('"gpt2"', repr(str(tmp_path / "gpt2")))
    exec(code.replace("steps=100", "steps=2"), names)
    assert [row["step"] for row in names["log"]] == [0, 1]
    assert names["log"][0]["sigma"] > 0
