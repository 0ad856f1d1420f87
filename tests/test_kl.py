"""The KL estimators against the exact divergence of small distributions."""

import itertools

import pytest
import torch

from prudent.ppo import kl

P = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
Q = torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64)


@pytest.mark.parametrize("estimator", [kl.k1, kl.k3])
def test_expectation_is_the_divergence(estimator):
    """Over all sequences of two tokens, weighted by their probability."""
    sequences = torch.tensor(list(itertools.product(range(3), repeat=2)))
    log_ratio = (P / Q).log()[sequences]
    weights = P[sequences].prod(dim=1)
    estimate = (weights * estimator(log_ratio, torch.ones_like(log_ratio))).sum()
    assert estimate.item() == pytest.approx(2 * (P * (P / Q).log()).sum().item(), rel=1e-12)


def test_k3_is_never_negative_and_k1_may_be():
    log_ratio = torch.linspace(-3, 3, 101, dtype=torch.float64)[:, None]
    mask = torch.ones_like(log_ratio)
    assert (kl.k3(log_ratio, mask) >= 0).all()
    assert (kl.k1(log_ratio, mask) < 0).any()


@pytest.mark.parametrize("estimator", [kl.k1, kl.k3])
def test_only_masked_tokens_count_and_equal_policies_give_zero(estimator):
    log_ratio = torch.tensor([[0.5, -0.2, 9.0]], dtype=torch.float64)
    short = estimator(log_ratio[:, :2], torch.ones(1, 2))
    assert estimator(log_ratio, torch.tensor([[1.0, 1.0, 0.0]])).item() == short.item() != 0
    assert estimator(torch.zeros(2, 3), torch.ones(2, 3)).tolist() == [0, 0]
