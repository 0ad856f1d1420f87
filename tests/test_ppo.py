"""The PPO trainer against an independent reference, its invariants, learning and resuming."""

import functools
import inspect
import logging
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import CONFIGS, EXACT, exact_model, tiny_model, tiny_prompts, tiny_tokenizer
from tiny_runs import (
    PROMPTS,
    RUN_SEED,
    SEED,
    SETTINGS,
    constant,
    exact,
    make,
    one_step,
    recorded_calls,
    rewards,
    same_log,
    weights,
)

from prudent.objectives.pessimistic import centred_spread
from prudent.objectives.signal import Signal
from prudent.objectives.single import vanilla
from prudent.objectives.weighted import variance_aware
from prudent.policies.sampling import response_statistics
from prudent.ppo import losses
from prudent.ppo.minibatch import Experience
from prudent.ppo.schedule import prompt_rows
from prudent.ppo.trainer import REFERENCE_BATCHES, PPOTrainer
from prudent.rewards.settings import SpreadSettings

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


def test_each_samples_kl_is_penalised_by_its_own_coefficient_and_logged(monkeypatch):
    coefficients = torch.linspace(0.1, 2.0, 8, dtype=torch.float64)
    scores = []

    def objective(rewards, beta, *, head):
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


def test_an_objective_is_given_prompts_and_where_it_asks_the_references_responses():
    seen = []

    def asking(rewards, beta, *, run):
        seen.append((rewards.prompt, run.reference))
        return constant(rewards, beta)

    asked = make(objective=asking).train(PROMPTS)
    plain = make(objective=lambda rewards, beta: constant(rewards, beta)).train(PROMPTS)
    assert same_log(asked, plain), "the reference's responses took draws of the policy's"
    for step, (prompt, reference) in enumerate(seen):
        assert torch.equal(prompt, prompt_rows(len(PROMPTS), 8, step, SEED, RUN_SEED))
        assert reference is seen[0][1]
    assert reference.mean.shape == (REFERENCE_BATCHES * 8, 3)
    assert torch.equal(reference.prompt[8:16], seen[1][0])
    again = make(objective=asking, policy=tiny_model("gpt2", 2)).train(PROMPTS)
    assert len(again) == 6 and torch.equal(seen[-1][1].mean, reference.mean), "not the reference's"


@pytest.mark.parametrize("sample", [0, 5])
def test_a_samples_coefficient_changes_its_own_token_rewards_alone(monkeypatch, sample):
    calls = recorded_calls(monkeypatch, "gae")
    coefficients = torch.linspace(0.1, 2.0, 8)
    doubled = torch.where(torch.arange(8) == sample, 2 * coefficients, coefficients)
    for values in (coefficients, doubled):
        trainer = make(
            reward_fn=lambda p, r: torch.zeros(len(p), 2),
            objective=lambda r, beta, *, head, values=values: Signal(r.mean[:, head], values),
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


def test_weights_multiply_the_whitened_advantages(monkeypatch):
    calls = recorded_calls(monkeypatch, "masked_whiten")
    weights = torch.linspace(0.0, 2.0, 8, dtype=torch.float64)
    trainer = exact(
        objective=lambda r, b: constant(r, weights=weights), settings={"learning_rate": 1e-30}
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
        make(
            run_seed=seed, spread=SpreadSettings(shuffled=True), settings={"learning_rate": 1e-30}
        ).train(PROMPTS)
        for seed in (3, 3, 4)
    )
    assert [row["score"] for row in first] == [row["score"] for row in again]
    # The same draws of everything else as a method without any.
    plain = make(objective=variance_aware, settings={"learning_rate": 1e-30}).train(PROMPTS)
    assert [row["proxy_reward"] for row in first] == [row["proxy_reward"] for row in plain]
    assert [row["proxy_reward"] for row in first] != [row["proxy_reward"] for row in other]


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
        (tuple(PROMPTS), lambda p, r: pd.DataFrame(listed(p, r), index=r)),
    ):
        log = make(reward, settings={"steps": 2}).train(prompts)
        for row, wanted in zip(log, expected, strict=True):
            assert {**row, "seconds": 0} == {**wanted, "seconds": 0}


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
