"""What a minibatch adds to the gradient: its form, its company, its parts, and penalties."""

import math
from dataclasses import replace

import pytest
import torch
from tiny_models import EXACT, VOCABULARY, exact_model
from tiny_runs import PROMPTS, exact, make, one_step, recorded_gradients, same_gradients

from prudent.objectives.signal import Signal
from prudent.policies.sampling import response_statistics
from prudent.ppo.minibatch import Experience, minibatch_loss


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


@pytest.mark.parametrize("penalty", [torch.square, lambda x: torch.expm1(-x) + x])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_penalty_is_exact_against_autograd_through_the_whole_model(penalty, architecture):
    """In float64, the fused loss's gradients against those of the loss as it is written down."""
    coefficients = torch.linspace(0.5, 2.0, 8, dtype=torch.float64)
    trainer = exact(
        policy=exact_model(architecture, 0),
        reference=exact_model(architecture, 1),
        objective=lambda r, b, *, head: Signal(
            r.mean[:, head], 0.1 * coefficients, penalty=penalty, penalty_coefficient=coefficients
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
