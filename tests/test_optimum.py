"""Optimal policies against closed forms, brute force, and what must change nothing."""

import math

import pytest
import torch

from prudent.exact.optimum import Terms, matched, optimum

E, P, N = 3, 4, 8


def terms(seed: int = 0, size: tuple[int, ...] = (E, P, N), constant: bool = False) -> Terms:
    draws = torch.Generator().manual_seed(seed)
    score = torch.randn(*size, generator=draws, dtype=torch.float64)
    coefficient = torch.rand(*size, generator=draws, dtype=torch.float64) + 0.2
    return Terms(score, torch.ones_like(score) if constant else coefficient)


def objective(probability, score, coefficient) -> torch.Tensor:
    """E_pi[s - c log(pi / pi0)] of one prompt, pi0 uniform."""
    log_ratio = (probability * len(probability)).log()
    return (probability * (score - coefficient * log_ratio)).sum()


def ascent(score, coefficient, held: bool, steps: int = 4_000) -> torch.Tensor:
    """The policy at which gradient ascent on logits ends; ``held``: PPO's gradient, in which a
    sampled response's score less its penalty is a constant."""
    logits = torch.zeros_like(score, requires_grad=True)
    for _ in range(steps):
        probability = logits.softmax(0)
        if held:
            log_ratio = (probability.detach() * len(score)).log()
            value = (probability * (score - coefficient * log_ratio)).sum()
        else:
            value = objective(probability, score, coefficient)
        (gradient,) = torch.autograd.grad(value, logits)
        # A natural gradient: of softmax policies, it is the gradient over the probability.
        logits = (logits + 0.1 * gradient / probability).detach().requires_grad_()
    return logits.softmax(0).detach()


def test_a_constant_coefficient_gives_the_softmax():
    given = terms(constant=True)
    beta = torch.tensor([0.3, 1.0, 5.0], dtype=torch.float64)
    found = optimum(given, beta)
    expected = (given.score / beta[:, None, None]).softmax(-1)
    torch.testing.assert_close(found.probability, expected, rtol=0, atol=1e-12)
    kl = (expected * (expected * N).log()).sum(-1).mean(-1)
    torch.testing.assert_close(found.kl, kl, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("beta", [0.2, 1.0])
def test_ppos_own_gradient_ends_there(beta):
    """Ascent by the gradient that takes score and penalty as constants, on eight responses."""
    given = terms(1)
    found = optimum(given, torch.full((E,), beta, dtype=torch.float64))
    expected = ascent(given.score[0, 0], beta * given.coefficient[0, 0], held=True)
    torch.testing.assert_close(found.probability[0, 0], expected, rtol=0, atol=1e-6)
    elsewhere = ascent(given.score[0, 0], beta * given.coefficient[0, 0], held=False)
    assert (found.probability[0, 0] - elsewhere).abs().max() > 1e-3, "the test tells nothing apart"


def test_with_its_slope_it_is_the_objectives_own_maximum():
    """s1 = -c makes the held constant's gradient that of E_pi[s - beta c log(pi / pi0)]."""
    given = terms(2)
    found = optimum(
        given._replace(slope=-given.coefficient), torch.full((E,), 0.7, dtype=torch.float64)
    )
    expected = ascent(given.score[0, 0], 0.7 * given.coefficient[0, 0], held=False)
    torch.testing.assert_close(found.probability[0, 0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kl", [0.01, 0.3, 1.0, 1.5])
@pytest.mark.parametrize("constant", [False, True])
def test_the_kl_is_reached(kl, constant):
    found = matched(terms(3, (5, 6, 64), constant), kl)
    assert (found.kl / kl - 1).abs().max() < 1e-6
    assert found.probability.sum(-1) == pytest.approx(torch.ones(5, 6, dtype=torch.float64))
    again = optimum(terms(3, (5, 6, 64), constant), found.beta)
    torch.testing.assert_close(again.kl, found.kl, rtol=1e-7, atol=0)


@pytest.mark.parametrize("constant", [False, True])
def test_the_kl_falls_as_beta_grows(constant):
    """With coefficients that differ, only where the KL is not near its largest: there a policy
    leaves a response of a small coefficient for a better one, and its KL may fall with beta."""
    betas = torch.logspace(-2, 2, 40, dtype=torch.float64)
    for seed in range(20):
        given = terms(seed, (1, P, N), constant)
        wide = Terms(*(part.expand(40, -1, -1) for part in given[:2]))
        kl = optimum(wide, betas).kl
        falls = kl.diff() < 1e-9
        assert falls[(kl < 1.2)[:-1]].all() and kl[0] > kl[20] > kl[-1]
        assert falls.all() or not constant


def test_what_changes_nothing():
    given, kl = terms(4), 0.5
    found = matched(given, kl)
    moved = matched(given._replace(score=given.score + torch.randn(E, P, 1)), kl)
    torch.testing.assert_close(moved.probability, found.probability, rtol=0, atol=1e-8)
    order = torch.randperm(N)
    turned = matched(Terms(given.score[..., order], given.coefficient[..., order]), kl)
    torch.testing.assert_close(turned.probability, found.probability[..., order], rtol=0, atol=1e-8)
    twice = matched(Terms(*(torch.cat([part, part], -1) for part in given[:2])), kl)
    torch.testing.assert_close(twice.probability[..., :N] * 2, found.probability, rtol=0, atol=1e-8)
    larger = matched(Terms(3 * given.score, 7 * given.coefficient), kl)
    torch.testing.assert_close(larger.probability, found.probability, rtol=0, atol=1e-8)
    torch.testing.assert_close(larger.beta * 7 / 3, found.beta, rtol=1e-6, atol=0)


def test_a_coefficient_of_nothing_bounds_nothing():
    """A response without any penalty takes what its score earns, and nothing is infinite."""
    given = terms(5)
    given.coefficient[:, :, 0] = 0.0
    found = matched(given, 0.5)
    assert found.log_ratio.isfinite().all() and (found.kl / 0.5 - 1).abs().max() < 1e-6


def test_no_beta_reaches_what_is_out_of_reach():
    constant_score = Terms(torch.ones(1, P, N), torch.ones(1, P, N))
    assert matched(constant_score, 0.5).kl.isnan().all()
    assert matched(terms(6), math.log(N) + 0.1).kl.isnan().all()
    both = Terms(torch.stack([terms(6).score[0], torch.ones(P, N)]), torch.ones(2, P, N))
    found = matched(both, 0.5)
    assert found.kl.isnan().tolist() == [False, True]
    assert found.beta.isnan().tolist() == [False, True]


def test_the_effective_size():
    found = optimum(Terms(torch.zeros(1, 1, N), torch.ones(1, 1, N)), torch.ones(1))
    assert found.effective_size().item() == pytest.approx(N)
    peaked = Terms(torch.tensor([[[100.0, *[0.0] * (N - 1)]]]), torch.ones(1, 1, N))
    assert optimum(peaked, torch.ones(1)).effective_size().item() == pytest.approx(1)
