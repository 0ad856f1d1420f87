"""The losses against loops and closed forms, in float64."""

import math

import numpy as np
import pytest
import torch

from prudent.ppo import losses
from prudent.rewards.losses import bradley_terry

B, T = 6, 7


def batch(seed: int = 0) -> tuple[torch.Tensor, list[int]]:
    """A mask of mixed lengths, 1 and T included."""
    lengths = [1, T, 3, 5, 2, T - 1]
    mask = torch.zeros(B, T, dtype=torch.float64)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
    return mask, lengths


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(
        *(shape or (B, T)), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def test_masked_whiten_is_numpys_standardisation_with_bessels_correction():
    mask, _ = batch()
    values = 3 * normal(1) + 5
    inside = values[mask.bool()].numpy()
    expected = (inside - inside.mean()) / np.sqrt(inside.var(ddof=1) + 1e-8)
    assert losses.masked_mean(values, mask).item() == pytest.approx(inside.mean(), rel=1e-12)
    whitened = losses.masked_whiten(values, mask)[mask.bool()].numpy()
    np.testing.assert_allclose(whitened, expected, rtol=1e-12)
    kept = losses.masked_whiten(values, mask, shift_mean=False)[mask.bool()].numpy()
    np.testing.assert_allclose(kept, expected + inside.mean(), rtol=1e-12)


def test_one_value_alone_is_its_mean():
    """A batch of one response of one token."""
    value, mask = torch.tensor([[3.0]]), torch.ones(1, 1)
    assert losses.masked_whiten(value, mask).item() == 0
    assert losses.masked_whiten(value, mask, shift_mean=False).item() == 3


def test_masked_whiten_ignores_what_is_outside_the_mask():
    mask, _ = batch()
    values = normal(1)
    changed = torch.where(mask.bool(), values, 1e6)
    inside = mask.bool()
    assert torch.equal(
        losses.masked_whiten(values, mask)[inside], losses.masked_whiten(changed, mask)[inside]
    )


def test_token_rewards_against_a_loop():
    mask, lengths = batch()
    log_ratio, score, coefficient = normal(1), normal(2, B), normal(3, B).abs()
    rewards = losses.token_rewards(log_ratio, mask, score, coefficient)
    for b, length in enumerate(lengths):
        for t in range(T):
            expected = -coefficient[b] * log_ratio[b, t] if t < length else 0.0
            expected += score[b] if t == length - 1 else 0.0
            assert rewards[b, t].item() == pytest.approx(float(expected), rel=1e-14)


def test_a_samples_kl_coefficient_multiplies_exactly_its_tokens():
    mask, lengths = batch()
    log_ratio, score, coefficient = normal(1), normal(2, B), torch.ones(B, dtype=torch.float64)
    before = losses.token_rewards(log_ratio, mask, score, coefficient)
    coefficient[3] = 11
    difference = losses.token_rewards(log_ratio, mask, score, coefficient) - before
    expected = torch.zeros(B, T, dtype=torch.float64)
    expected[3, : lengths[3]] = -10 * log_ratio[3, : lengths[3]]
    torch.testing.assert_close(difference, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7), (1.0, 1.0), (0.8, 0.0)])
def test_gae_against_its_definition(gamma, lam):
    mask, lengths = batch()
    rewards, values = normal(1), normal(2)
    advantages, returns = losses.gae(rewards, values, mask, gamma, lam)
    for b, length in enumerate(lengths):
        r, v = rewards[b, :length].tolist(), [*values[b, :length].tolist(), 0.0]
        deltas = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(T):
            expected = sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, length))
            assert advantages[b, t].item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
            value = v[t] if t < length else 0.0
            assert returns[b, t].item() == pytest.approx(expected + value, rel=1e-12, abs=1e-12)


def test_returns_without_discount_are_the_rewards_to_come():
    mask, lengths = batch()
    rewards = normal(1)
    _, returns = losses.gae(rewards, normal(2), mask, 1.0, 1.0)
    for b, length in enumerate(lengths):
        assert returns[b, 0].item() == pytest.approx(rewards[b, :length].sum().item(), rel=1e-12)


def test_policy_loss_against_a_loop():
    mask, _ = batch()
    log_probs, old, advantages = normal(1), normal(2), normal(3)
    loss, binds = losses.policy_loss(log_probs, old, advantages, 0.2)
    terms, clipped = [], []
    for b in range(B):
        for t in range(T):
            if mask[b, t]:
                ratio = math.exp(log_probs[b, t] - old[b, t])
                advantage = advantages[b, t].item()
                surrogate = ratio * advantage
                bounded = min(max(ratio, 0.8), 1.2) * advantage
                terms.append(-min(surrogate, bounded))
                clipped.append(bounded < surrogate)
    assert loss[mask == 1].tolist() == pytest.approx(terms, rel=1e-12)
    assert binds[mask == 1].tolist() == clipped
    assert 0 < np.mean(clipped) < 1


def test_value_loss_against_a_loop():
    mask, _ = batch()
    values, old, returns = normal(1), normal(2), normal(3)
    loss = losses.value_loss(values, old, returns, 0.2)
    terms, clipped = [], []
    for b in range(B):
        for t in range(T):
            if mask[b, t]:
                v, o, r = (x[b, t].item() for x in (values, old, returns))
                near = o + min(max(v - o, -0.2), 0.2)
                terms.append(0.5 * max((v - r) ** 2, (near - r) ** 2))
                clipped.append((near - r) ** 2 > (v - r) ** 2)
    assert loss[mask == 1].tolist() == pytest.approx(terms, rel=1e-12)
    assert 0 < np.mean(clipped) < 1


def test_bradley_terry_closed_form_and_stability():
    difference = torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64)
    expected = np.log1p(np.exp([-0.0, -1.0, 2.0])).mean()
    assert bradley_terry(difference[:, None]).tolist() == pytest.approx([expected])
    extreme = torch.tensor([[1e4], [-1e4]])
    assert bradley_terry(extreme).tolist() == pytest.approx([5e3])


def test_bradley_terry_of_heads_is_additive():
    margins = normal(1, 9, 4).requires_grad_()
    each = bradley_terry(margins)
    (together,) = torch.autograd.grad(each.sum(), margins)
    for k in range(4):
        alone = bradley_terry(margins[:, k : k + 1])
        assert alone.item() == each[k].item()
        (gradient,) = torch.autograd.grad(alone.sum(), margins)
        torch.testing.assert_close(gradient[:, k], together[:, k], rtol=1e-14, atol=0)
