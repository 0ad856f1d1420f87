"""The LM head in chunks, against plain logits."""

import pytest
import torch
from tiny_models import CONFIGS, tiny_model
from torch import nn

from prudent.policies import lm_head

N, WIDTH, VOCABULARY = 21, 8, 37


def case(bias: bool, dtype=torch.float64) -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=dtype)
        states = torch.randn(N, WIDTH, dtype=dtype, requires_grad=True)
        return head, states, torch.randint(0, VOCABULARY, (N,))


def plain(head, states, tokens, temperature):
    logits = head(states) / temperature
    return logits.log_softmax(dim=1)[torch.arange(len(tokens)), tokens]


WEIGHTS = torch.randn(N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def loss_of(log_probs: torch.Tensor, rows: slice) -> torch.Tensor:
    """Not linear in the log-probabilities, and of another weight for each row."""
    return (WEIGHTS[rows].to(log_probs) * torch.exp(0.3 * log_probs)).sum()


@pytest.mark.parametrize("rows", [1, 4, 7, 100])
@pytest.mark.parametrize("temperature", [1.0, 1.3])
@pytest.mark.parametrize("bias", [False, True])
def test_loss_and_gradients_equal_those_of_plain_logits(monkeypatch, rows, temperature, bias):
    monkeypatch.setitem(lm_head.CHUNK_BYTES, "cpu", rows * VOCABULARY * 8)
    head, states, tokens = case(bias)
    expected = plain(head, states, tokens, temperature)
    expected_loss = loss_of(expected, slice(None))
    # A factor behind the loss reaches the gradients.
    inputs = [states, *head.parameters()]
    gradients = torch.autograd.grad(2.5 * expected_loss, inputs)

    loss, log_probs = lm_head.fused_loss(head, states, tokens, temperature, loss_of)
    found = torch.autograd.grad(2.5 * loss, inputs)

    torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(log_probs, expected.detach(), rtol=1e-12, atol=0)
    assert not log_probs.requires_grad
    for gradient, wanted in zip(found, gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-11, atol=1e-14)
    with torch.no_grad():
        chosen = lm_head.chosen_log_probs(head, states, tokens, temperature)
    torch.testing.assert_close(chosen, expected.detach(), rtol=1e-12, atol=0)


def test_a_frozen_head_gets_no_gradient_and_its_states_do():
    head, states, tokens = case(bias=True)
    head.requires_grad_(False)
    loss, _ = lm_head.fused_loss(head, states, tokens, 1.0, loss_of)
    loss.backward()
    assert head.weight.grad is None
    assert states.grad.any()


def test_in_bfloat16_losses_stay_in_float32_and_gradients_are_near(monkeypatch):
    monkeypatch.setitem(lm_head.CHUNK_BYTES, "cpu", 4 * VOCABULARY * 4)
    head, states, tokens = case(bias=True, dtype=torch.float32)
    inputs = [states, *head.parameters()]
    exact, _ = lm_head.fused_loss(head, states, tokens, 1.0, loss_of)
    wanted = torch.autograd.grad(exact, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, log_probs = lm_head.fused_loss(head, states, tokens, 1.0, loss_of)
        found = torch.autograd.grad(loss, inputs)
    assert log_probs.dtype == loss.dtype == torch.float32
    assert loss.item() != exact.item(), "nothing was computed in bfloat16"
    torch.testing.assert_close(loss, exact, rtol=2e-2, atol=2e-2)
    for gradient, want in zip(found, wanted, strict=True):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, want, rtol=0.05, atol=0.05 * want.abs().max().item())


def test_improbable_tokens_have_finite_log_probabilities():
    head = nn.Linear(1, 3, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.0], [500.0], [-500.0]]))
    states = torch.ones(1, 1, requires_grad=True)
    loss, log_probs = lm_head.fused_loss(
        head, states, torch.tensor([2]), 1.0, lambda chosen, rows: chosen.sum()
    )
    loss.backward()
    assert log_probs.tolist() == [-1000.0]
    assert states.grad.isfinite().all()


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_linear_head_explains_the_models_logits_and_no_other_is_found(architecture):
    model = tiny_model(architecture)
    head = lm_head.linear_head(model)
    # Gemma 2 bends its logits; OPT's backbone goes by another way than its causal LM.
    assert (head is None) == (architecture in ("gemma2", "opt"))
    if head is not None:
        ids = torch.tensor([[3, 4, 5]])
        states = model.base_model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(head(states), model(input_ids=ids).logits)


def test_bent_logits_are_seen_though_they_begin_small():
    model = tiny_model("gemma2")
    model.config.final_logit_softcapping = 30.0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e-2)
    assert lm_head.linear_head(model) is None
