"""The objectives against their definitions."""

import inspect
from pathlib import Path

import pytest
import torch

from prudent import objectives
from prudent.errors import InputError

PUBLIC = [
    function
    for name, function in inspect.getmembers(objectives, inspect.isfunction)
    if function.__module__ == objectives.__name__ and not name.startswith("_")
]


@pytest.mark.parametrize("objective", PUBLIC, ids=lambda function: function.__name__)
def test_every_public_function_is_an_objective(objective):
    scores = torch.randn(5, 4, dtype=torch.float64)
    score, coefficient = objective(scores, 2, 0.1)
    assert list(inspect.signature(objective).parameters) == ["scores", "head", "beta"]
    assert score.shape == coefficient.shape == (5,)
    assert score.dtype == coefficient.dtype == torch.float64


def test_vanilla_is_the_own_heads_reward_at_one_coefficient():
    scores = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]])
    score, coefficient = objectives.vanilla(scores, 1, 0.2)
    assert score.tolist() == [2.0, 5.0]
    assert coefficient.tolist() == pytest.approx([0.2, 0.2])


def test_variance_aware_multiplies_by_the_sample_standard_deviation():
    # 1, 2, 3 has the sample variance 1, and 4, 5, 9 has ((-2)^2 + (-1)^2 + 3^2) / 2 = 7.
    scores = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 9.0]], dtype=torch.float64)
    score, coefficient = objectives.variance_aware(scores, 0, 0.5)
    assert score.tolist() == [1.0, 4.0]
    assert coefficient.tolist() == pytest.approx([0.5, 0.5 * 7**0.5])


def test_variance_aware_needs_two_heads():
    with pytest.raises(InputError, match="at least 2"):
        objectives.variance_aware(torch.ones(3, 1), 0, 0.1)


def test_the_readmes_new_method_works_as_it_stands_there():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (example,) = [part for part in readme.split("```python\n")[1:] if part.startswith("def ")]
    names = dict(vars(objectives))
    exec(example.split("```")[0], names)
    scores = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    score, coefficient = names["lower_confidence_bound"](scores, 0, 0.3)
    assert score.tolist() == [1.0, 0.0]  # mean 2 less standard deviation 1
    assert coefficient.tolist() == pytest.approx([0.3, 0.3])
