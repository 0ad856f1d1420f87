"""Heads that are trained to convergence, against Newton's method."""

import pytest
import torch
from torch import nn

from prudent.errors import InputError
from prudent.rewards.fitting import fit_to_convergence, resamples
from prudent.rewards.kinds.heads import HeadSettings, train_heads

STREAM = torch.Generator().manual_seed(0)
PAIRS = torch.randn(60, 5, generator=STREAM)
CONVERGED = HeadSettings(bootstrap=True, ridge=0.5)


def newton(pairs: torch.Tensor, times: torch.Tensor, ridge: float) -> torch.Tensor:
    """The optimum, by second derivatives written out."""
    weight = torch.zeros(pairs.shape[1], dtype=torch.float64)
    for _ in range(50):
        wrong = torch.sigmoid(-(pairs @ weight))
        slope = ridge * weight - pairs.T @ (times * wrong)
        curvature = pairs.T @ (pairs * (times * wrong * (1 - wrong))[:, None])
        weight = weight - torch.linalg.solve(curvature + ridge * torch.eye(len(weight)), slope)
    return weight


@pytest.mark.parametrize("ridge", [0.01, 0.5, 10.0])
def test_each_head_is_at_its_optimum(ridge):
    sample = torch.randint(60, (3, 60), generator=STREAM)
    found = fit_to_convergence(PAIRS, sample, ridge)
    for weight, numbers in zip(found, sample, strict=True):
        times = torch.bincount(numbers, minlength=60).double()
        expected = newton(PAIRS.double(), times, ridge)
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)


def test_heads_of_an_ensemble_are_the_optima_of_their_resamples():
    probability = torch.full((80,), 0.7)
    train = torch.arange(80) < 60
    chosen, rejected = torch.randn(80, 5, generator=STREAM), torch.randn(80, 5, generator=STREAM)
    given = (chosen, rejected, train, probability, nn.Linear(5, 1, bias=False), CONVERGED, 3, 7, 0)
    heads = train_heads(*given)
    sample = resamples(CONVERGED, 3, 60, 7, "heads", 0)
    times = torch.bincount(sample[1], minlength=60).double()
    expected = newton((chosen - rejected)[train].double(), times, 0.5)
    torch.testing.assert_close(heads.weight[1].double(), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(heads.weight[0], heads.weight[1], atol=0.01)
    last = heads.losses.groupby(["head", "split"]).last()
    margins = (chosen - rejected)[~train] @ heads.weight.T
    for head in range(3):
        wanted = nn.functional.softplus(-margins[:, head]).mean().item()
        assert last.loc[(head, "validation"), "loss"] == pytest.approx(wanted, rel=1e-5)
    began = heads.losses[heads.losses["step"] == 0].groupby("split")["loss"].mean()
    ended = heads.losses[heads.losses["step"] == 1].groupby("split")["loss"].mean()
    assert ended["train"] < began["train"] - 0.05
    assert train_heads(*given).weight.equal(heads.weight)


def test_a_ridge_without_resamples_is_refused():
    with pytest.raises(InputError, match="`ridge` is 1 and `bootstrap` is false"):
        HeadSettings(ridge=1.0)
    with pytest.raises(InputError, match="`ridge` is 1 and `first` is base"):
        HeadSettings(ridge=1.0, bootstrap=True, first="base")
