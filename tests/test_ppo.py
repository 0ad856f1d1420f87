"""The PPO trainer against an independent reference, its invariants, learning and resuming."""

import json
import logging
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
import train_policy
from tiny_models import (
    CONFIGS,
    EOS,
    VOCABULARY,
    tiny_model,
    tiny_prompts,
    tiny_tokenizer,
)
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from prudent import objectives
from prudent.errors import InputError
from prudent.ppo import (
    Experience,
    NonFiniteError,
    PPOSettings,
    PPOTrainer,
    minibatch_loss,
    prompt_rows,
)
from prudent.sampling import response_statistics
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


def make(reward_fn=rewards, objective=objectives.variance_aware, **options) -> PPOTrainer:
    settings = replace(SETTINGS, **options.pop("settings", {}))
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


# --- One step against plain loops -----------------------------------------------------------------


class LoopPPO:
    """One PPO step in float64: token by token, row by row, without padding, cache or tricks."""

    def __init__(self, trainer: PPOTrainer, draws: dict[str, torch.Tensor]) -> None:
        self.settings, self.trainer, self.draws = trainer.settings, trainer, draws
        self.policy = tiny_model("gpt2", 0).double()
        self.reference = tiny_model("gpt2", 1).double()
        self.weight = trainer.value_head.weight.detach().clone().requires_grad_()
        self.bias = trainer.value_head.bias.detach().clone().requires_grad_()
        self.parameters = [*self.policy.parameters(), self.weight, self.bias]
        self.gradients: list[list[torch.Tensor]] = []

    def logits_and_value(self, model, ids: list[int], place: int):
        """What the model says after the token at ``place``."""
        hidden = model.transformer(input_ids=torch.tensor([ids])).last_hidden_state[0, place]
        logits = model.transformer.wte.weight @ hidden / self.settings.temperature
        return logits, (self.weight[0] * hidden).sum() + self.bias[0]

    def log_prob(self, model, ids: list[int], place: int) -> torch.Tensor:
        """Log-probability of the token at ``place``."""
        logits, _ = self.logits_and_value(model, ids[:place], place - 1)
        return logits[ids[place]] - torch.log(torch.exp(logits).sum())

    def rollout(self, prompt: list[int], uniforms: list[float]) -> list[int]:
        ids = list(prompt)
        for uniform in uniforms:
            logits, _ = self.logits_and_value(self.policy, ids, len(ids) - 1)
            shares = torch.exp(logits) / torch.exp(logits).sum()
            cumulative, token = 0.0, -1
            while cumulative <= uniform:
                token += 1
                cumulative += shares[token].item()
            ids.append(token)
            if token == EOS:
                break
        return ids

    def step(self, prompts: list[str]) -> dict[str, float]:
        s, tokenizer = self.settings, self.trainer.tokenizer
        samples = []
        for b, prompt in enumerate(prompts):
            start = tokenizer(prompt)["input_ids"]
            with torch.no_grad():
                ids = self.rollout(start, self.draws["uniforms"][b].tolist())
                places = range(len(start), len(ids))
                old = [self.log_prob(self.policy, ids, t).item() for t in places]
                base = [self.log_prob(self.reference, ids, t).item() for t in places]
                values = [self.logits_and_value(self.policy, ids, t - 1)[1].item() for t in places]
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
        terms = self.update(samples)
        count = len(samples)
        return {
            "kl": sum(sample["kl"] for sample in samples) / count,
            "proxy_reward": sum(row[self.trainer.head] for row in scores) / count,
            "sigma": sum(sample["sigma"] for sample in samples) / count,
            "tokens": len(pooled),
            **{name: sum(t[name] for t in terms) / len(terms) for name in terms[0]},
        }

    def update(self, samples: list[dict]) -> list[dict[str, float]]:
        s = self.settings
        first = [torch.zeros_like(p) for p in self.parameters]
        second = [torch.zeros_like(p) for p in self.parameters]
        terms, time = [], 0
        for order in self.draws["orders"]:
            for start in range(0, len(order), s.minibatch_size):
                chosen = [samples[i] for i in order[start : start + s.minibatch_size]]
                policy_loss, value_loss, clipped, tokens = 0.0, 0.0, 0, 0
                for sample in chosen:
                    for k, place in enumerate(sample["places"]):
                        ids = sample["ids"]
                        new = self.log_prob(self.policy, ids, place)
                        _, value = self.logits_and_value(self.policy, ids, place - 1)
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
                time += 1
                with torch.no_grad():
                    for p, g, m, v in zip(self.parameters, gradients, first, second, strict=True):
                        m.copy_(0.9 * m + 0.1 * g)
                        v.copy_(0.999 * v + 0.001 * g**2)
                        root = torch.sqrt(v / (1 - 0.999**time)) + 1e-8
                        p.sub_(s.learning_rate * (m / (1 - 0.9**time)) / root)
                terms.append(
                    {
                        "policy_loss": policy_loss.item(),
                        "value_loss": value_loss.item(),
                        "clip_fraction": clipped / tokens,
                    }
                )
        return terms


@pytest.mark.parametrize("max_grad_norm", [None, 0.05])
@pytest.mark.parametrize("temperature", [1.0, 1.3])
def test_a_step_equals_an_independent_float64_reference(max_grad_norm, temperature):
    """Log, every minibatch's gradients, and new weights, with padding and EOS inside responses."""
    trainer = make(
        policy=tiny_model("gpt2", 0).double(),
        reference=tiny_model("gpt2", 1).double(),
        settings={"max_grad_norm": max_grad_norm, "temperature": temperature, "gamma": 0.97},
    )
    draws = {
        "uniforms": torch.rand(8, 5, generator=generator(SEED, "policy", RUN_SEED, "sampling", 0)),
        "orders": [
            torch.randperm(8, generator=generator(SEED, "policy", RUN_SEED, "minibatches", 0, e))
            for e in range(2)
        ],
    }
    loops = LoopPPO(trainer, draws)
    rows = prompt_rows(len(PROMPTS), 8, 0, SEED, RUN_SEED)
    expected = loops.step([PROMPTS[i] for i in rows])

    gradients: list[list[torch.Tensor]] = []
    trainer.optimizer.register_step_pre_hook(
        lambda *_: gradients.append([p.grad.clone() for p in trainer.parameters.values()])
    )
    trainer.settings = replace(trainer.settings, steps=1)
    (row,) = trainer.train(PROMPTS)

    assert row["tokens"] < 8 * 5, "no response ended early: the test shows nothing"
    assert row["clip_fraction"] > 0
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=1e-8), name
    assert len(gradients) == 4
    for found, wanted in zip(gradients, loops.gradients, strict=True):
        for g, w in zip(found, wanted, strict=True):
            torch.testing.assert_close(g, w, rtol=1e-8, atol=1e-8 * w.abs().max().item())
    for p, w in zip(trainer.parameters.values(), loops.parameters, strict=True):
        torch.testing.assert_close(p, w, rtol=1e-8, atol=1e-8)


# --- Invariants -----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", CONFIGS)
def test_before_the_first_update_kl_is_zero_and_the_ratio_is_one(architecture):
    trainer = make(
        policy=tiny_model(architecture),
        reference=tiny_model(architecture),
        settings={"steps": 1, "epochs": 1, "minibatch_size": 8},
    )
    (row,) = trainer.train(PROMPTS)
    assert row["kl"] == pytest.approx(0, abs=2e-5)
    assert row["kl_k3"] == pytest.approx(0, abs=1e-8)
    assert row["clip_fraction"] == 0
    # At ratio 1 the policy loss is minus the mean of the whitened advantages.
    assert row["policy_loss"] == pytest.approx(0, abs=1e-5)
    assert row["entropy"] > 0


def test_the_logged_kl_is_the_penalised_kl():
    """With lambda = gamma = 1, no reward and values 0, the first return is -coef * KL."""
    trainer = make(
        reward_fn=lambda p, r: torch.zeros(len(p), 2),
        objective=objectives.vanilla,
        settings={"lam": 1.0, "steps": 1, "epochs": 1, "minibatch_size": 8, "learning_rate": 0.0},
    )
    with torch.no_grad():
        trainer.value_head.weight.zero_()
        trainer.value_head.bias.zero_()
    seen: list[Experience] = []
    update = trainer._update
    trainer._update = lambda step, experience: (seen.append(experience), update(step, experience))[
        1
    ]
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
    trainer = make()
    stream = torch.Generator().manual_seed(0)
    ids = torch.randint(2, VOCABULARY, (4, 8), generator=stream)
    ones = torch.ones(4, 5)
    with torch.no_grad():
        log_probs, _ = response_statistics(
            trainer.policy, ids, torch.ones_like(ids), 5, temperature=1.0
        )
    for shift, moves in ((math.log(9.9), True), (math.log(10.1), False)):
        batch = Experience(
            ids, torch.ones_like(ids), ones, log_probs - shift, ones, -ones, 2 * ones
        )
        loss, _ = minibatch_loss(trainer.policy, trainer.value_head, batch, SETTINGS)
        trainer.optimizer.zero_grad()
        loss.backward()
        assert any(p.grad.any() for p in trainer.parameters.values()) == moves


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

        settings = {"learning_rate": 0.0, "steps": 5}
        trainer = make(recording, objective, beta=beta, run_seed=run_seed, settings=settings)
        trainer.train(PROMPTS)
        return seen, weights(trainer)["value_head.weight"]

    vanilla, head = run(objectives.vanilla, 0.1, 3)
    aware, aware_head = run(objectives.variance_aware, 0.7, 3)
    other, other_head = run(objectives.vanilla, 0.1, 4)
    assert vanilla == aware
    assert torch.equal(head, aware_head)
    assert not torch.equal(head, other_head)
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in zip(vanilla, other, strict=True))
    assert vanilla[0] != vanilla[3], "a new epoch has new prompts and draws"


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
        objectives.vanilla,
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
    trainer.remove_checkpoints()
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["settings", "fingerprint", "prompts", "truncated"])
def test_a_checkpoint_of_another_run_is_not_taken(tmp_path, caplog, damage):
    folder = tmp_path / "checkpoints"
    with pytest.raises(Preempted):
        make(CountingRewards(4), checkpoints=folder).train(PROMPTS)
    options, prompts = {}, PROMPTS
    if damage == "settings":
        options["settings"] = {"clip_range": 0.1}
    elif damage == "fingerprint":
        options["fingerprint"] = "other code"
    elif damage == "prompts":
        prompts = PROMPTS[::-1]
    else:
        file = folder / "checkpoint.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
    again = CountingRewards()
    trainer = make(again, checkpoints=folder, **options)
    fresh = make(**options)
    with caplog.at_level(logging.WARNING):
        log = trainer.train(prompts)
    assert "starting afresh" in caplog.text
    assert again.calls == 6
    assert same_log(log, fresh.train(prompts))
    # What it replaced it with is its own.
    assert make(CountingRewards(), checkpoints=folder, **options).train(prompts)[:4] == log[:4]


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 8, "minibatch_size": 3}, "does not divide"),
        ({"epochs": 0}, "ppo.epochs"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        replace(SETTINGS, **options)


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
    with pytest.raises(NonFiniteError, match="step 0: the policy loss is not"):
        make(lambda p, r: torch.full((len(p), 2), 1e30)).train(PROMPTS)
    with pytest.raises(NonFiniteError, match="step 0: the objective's KL coefficient"):
        make(beta=float("inf")).train(PROMPTS)


# --- The script -----------------------------------------------------------------------------------


def test_the_script_writes_a_policy_that_loads_and_its_log(tmp_path):
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

    args = train_policy.Args(
        reference=tmp_path / "reference",
        ensemble=tmp_path / "ensemble",
        prompts=tmp_path / "prompts.parquet",
        policy=tmp_path / "policy",
        training_log=tmp_path / "policy.csv",
        objective="variance_aware",
        beta=0.1,
        head=2,
        settings={"batch_size": 8, "minibatch_size": 8, "steps": 3, "checkpoint_every": 2}
        | {"learning_rate": 1e-3},
        sampling={"response_length": 5, "temperature": 1.0},
        checkpoints=tmp_path / "checkpoints",
        run_seed=2,
        seed=0,
    )
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
