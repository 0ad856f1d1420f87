"""KLs of optimal policies at one coefficient, and the coefficients for a KL."""

import pytest
import torch

from prudent.errors import InputError
from prudent.exact.coefficient import betas_for, common_beta, kls_at, policy_terms, slope_at
from prudent.exact.evaluate import Method
from prudent.exact.optimum import Terms
from prudent.objectives.pooled import mean
from prudent.objectives.single import vanilla
from prudent.rewards.interface import Rewards


def terms(scales=(1.0, 2.0, 0.5), prompts=16, samples=64):
    draws = torch.Generator().manual_seed(0)
    scores = torch.randn(prompts, samples, generator=draws, dtype=torch.float64)
    score = torch.stack([scale * scores for scale in scales])
    return Terms(score, torch.ones_like(score))


def brute_kl(score, beta):
    """Of softmax(score / beta) on a uniform reference, prompt by prompt."""
    probability = (score / beta).softmax(-1)
    size = score.shape[-1]
    return (probability * (probability * size).log()).sum(-1).mean().item()


@pytest.mark.parametrize("beta", [0.4, 1.0, 5.0])
def test_kls_are_those_of_softmaxes(beta):
    given = terms()
    expected = [brute_kl(score, beta) for score in given.score]
    assert kls_at(given, beta).tolist() == pytest.approx(expected, abs=1e-12)


def test_a_head_of_twice_the_scale_needs_twice_the_coefficient():
    one, double, half = betas_for(terms(), 0.6, 1.0).tolist()
    assert (double, half) == pytest.approx((2 * one, one / 2))
    assert brute_kl(terms().score[0], one) == pytest.approx(0.6)


@pytest.mark.parametrize("kl", [0.05, 0.6, 2.0])
def test_one_coefficient_for_all_has_the_mean_kl(kl):
    beta = common_beta(terms(), kl)
    assert kls_at(terms(), beta).mean().item() == pytest.approx(kl, rel=1e-5)


def test_what_no_coefficient_reaches_is_refused_or_has_another():
    flat = terms((1.0, 0.0))
    assert betas_for(flat, 0.5, 7.0)[1] == 7.0
    with pytest.raises(InputError, match=r"is 0.5, .*no coefficient takes 1 of 2 of them there"):
        common_beta(flat, 0.5)
    with pytest.raises(InputError, match="takes 3 of 3"):
        common_beta(terms(samples=8), 3.0)


def test_near_the_reference_the_kl_falls_with_the_square():
    assert slope_at(terms(), 50.0) == pytest.approx(-2, abs=0.01)
    assert -2 < slope_at(terms(), 0.5) < -0.5


def test_policies_have_the_draws_and_members_that_are_asked_for():
    draws = torch.Generator().manual_seed(1)
    given = [Rewards(torch.randn(6, 3, generator=draws)) for _ in range(2)]
    found = policy_terms(Method(vanilla, own=True), given, [(1, 2), (0, 0), (1, 2)], 3, 0)
    assert found.score.shape == (3, 2, 3)
    assert found.score[0].flatten().tolist() == pytest.approx(given[1].mean[:, 2].tolist())
    assert found.score[1].flatten().tolist() == pytest.approx(given[0].mean[:, 0].tolist())
    assert torch.equal(found.score[0], found.score[2])
    pooled = policy_terms(Method(mean, own=False), given, [(1, 0)], 3, 0)
    assert pooled.score.flatten().tolist() == pytest.approx(given[1].mean.mean(1).tolist())
