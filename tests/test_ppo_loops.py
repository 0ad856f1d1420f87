"""PPO steps against an independent reference in plain loops."""

import math

import pytest
import torch
from tiny_models import EOS, VOCABULARY, tiny_model
from tiny_runs import PROMPTS, RUN_SEED, SEED, make, recorded_gradients, rewards

from prudent.policies import lm_head
from prudent.ppo.schedule import prompt_rows
from prudent.ppo.trainer import PPOTrainer
from prudent.seeding import generator


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
