"""How a spread is taken, by hand, and the Bayesian last layer."""

import pytest
import torch

from prudent.errors import InputError
from prudent.objectives.signal import Run
from prudent.rewards.features import PairFeatures
from prudent.rewards.interface import Rewards, Unavailable
from prudent.rewards.last_layer import LastLayer
from prudent.rewards.settings import SpreadSettings
from prudent.rewards.spread import spread_of

# Two prompts, two responses each, two members: the spread is |difference| / sqrt(2).
GIVEN = Rewards(
    torch.tensor([[0.0, 2.0], [4.0, 2.0], [1.0, 5.0], [1.0, -1.0]], dtype=torch.float64),
    features=torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [2.0, 2.0]], dtype=torch.float64),
    prompt=torch.tensor([5, 5, 3, 3]),
)
REFERENCE = Rewards(
    torch.tensor([[0.0, 1.0], [0.0, 3.0]], dtype=torch.float64),
    features=torch.tensor([[0.0, 0.0], [2.0, 2.0]], dtype=torch.float64),
)
LAYER = LastLayer(torch.tensor([[1.0, 0.0], [0.0, 3**0.5]]))  # A = diag(2, 4) with a ridge of 1


def taken(given: Rewards = GIVEN, layer: LastLayer | None = LAYER, **settings) -> list[float]:
    stream = torch.Generator().manual_seed(0)
    return spread_of(given, SpreadSettings(**settings), lambda: REFERENCE, layer, stream).tolist()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [2, 2, 4, 2]),
        # Less the members' means over the reference's, 0 and 2.
        ({"center": "reference"}, [0, 4, 2, 4]),
        # Less their means 2, 2 and 1, 2 over the prompts' own.
        ({"center": "prompt"}, [2, 2, 3, 3]),
        # The reference's spreads are 1 and 3, and once centred 1 and 1.
        ({"scale": "reference"}, [1, 1, 2, 1]),
        ({"scale": "reference", "center": "reference"}, [0, 4, 2, 4]),
        ({"low": 3 / 2**0.5}, [3, 3, 4, 3]),
        ({"high": 3 / 2**0.5, "center": "reference"}, [0, 3, 2, 3]),
    ],
)
def test_the_members_spread_by_hand(settings, expected):
    unit = 1.0 if settings.get("scale") else 2**0.5
    assert taken(**settings) == pytest.approx([value / unit for value in expected])


@pytest.mark.parametrize(
    ("settings", "squares"),
    [
        ({}, [1 / 2, 9 / 2, 4 / 4, 4 / 2 + 4 / 4]),
        ({"ridge": 4.0}, [1 / 5, 9 / 5, 4 / 7, 4 / 5 + 4 / 7]),
        ({"center": "reference"}, [0 + 1 / 4, 4 / 2 + 1 / 4, 1 / 2 + 1 / 4, 1 / 2 + 1 / 4]),
        ({"center": "prompt"}, [1 / 2] * 4),
        # The reference's are 0 and sqrt(4 / 2 + 4 / 4).
        ({"scale": "reference"}, [2 / 3, 6, 4 / 3, 4]),
    ],
)
def test_the_last_layers_spread_by_hand(settings, squares):
    found = taken(of="last_layer", **settings)
    assert found == pytest.approx([value**0.5 for value in squares])


def test_the_last_layers_spread_is_the_posteriors():
    """Of ridge regression on the pairs' differences: the standard deviation of drawn weights."""
    draws = torch.Generator().manual_seed(0)
    pairs, features = (torch.randn(n, 5, generator=draws, dtype=torch.float64) for n in (40, 7))
    covariance = torch.linalg.inv(0.5 * torch.eye(5, dtype=torch.float64) + pairs.T @ pairs)
    expected = torch.einsum("bi,ij,bj->b", features, covariance, features).sqrt()
    torch.testing.assert_close(LastLayer(pairs).whitened(features, 0.5).norm(dim=1), expected)
    found = LastLayer(pairs.float()).whitened(features.float(), 0.5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), expected.float())


def test_a_shuffled_spread_is_another_order_of_the_same():
    plain = taken()
    found = taken(shuffled=True)
    assert found != plain and sorted(found) == pytest.approx(sorted(plain))


def test_the_reference_is_asked_only_where_it_is_needed():
    def none() -> Rewards:
        raise AssertionError

    for settings in ({}, {"center": "prompt"}, {"of": "last_layer"}, {"low": 0.1}):
        assert len(spread_of(GIVEN, SpreadSettings(**settings), none, LAYER)) == 4


def test_a_runs_reference_spread_is_never_shuffled():
    run = Run(0, 0, sample_reference=lambda: GIVEN, spread=SpreadSettings(shuffled=True))
    assert torch.equal(run.reference_spread, GIVEN.spread())
    assert run.spread_of(GIVEN).sort().values.tolist() == GIVEN.spread().sort().values.tolist()


@pytest.mark.parametrize(
    ("given", "settings", "error", "says"),
    [
        (
            Rewards(GIVEN.mean[:, :1]),
            {"center": "reference"},
            InputError,
            r"1 member\(s\); a spread needs at least 2",
        ),
        (Rewards(GIVEN.mean), {"center": "prompt"}, Unavailable, "belongs to is not known"),
        (
            Rewards(GIVEN.mean, prompt=torch.arange(4)),
            {"center": "prompt"},
            Unavailable,
            "a prompt has one response; expected several",
        ),
        (Rewards(GIVEN.mean), {"of": "last_layer"}, Unavailable, "come without features"),
        (
            Rewards(GIVEN.mean, features=torch.ones(4, 3)),
            {"of": "last_layer"},
            InputError,
            "is of 2 features, and the responses have 3",
        ),
    ],
)
def test_what_is_not_there_is_named(given, settings, error, says):
    with pytest.raises(error, match=says):
        taken(given, **settings)


def test_what_else_is_wrong_is_named():
    with pytest.raises(Unavailable, match="features of the training pairs are not known"):
        taken(layer=None, of="last_layer")
    same = Rewards(torch.ones(3, 2))
    with pytest.raises(InputError, match="spread of all of the reference policy's responses is 0"):
        spread_of(GIVEN, SpreadSettings(scale="reference"), lambda: same)
    for pairs in (torch.ones(3), torch.ones(0, 3), torch.full((2, 2), float("nan"))):
        with pytest.raises(InputError, match="pairs: found a tensor of shape"):
            LastLayer(pairs)


def test_differences_are_of_one_split():
    features = PairFeatures(
        id=["a", "b", "c"],
        split=["train", "validation", "train"],
        probability=torch.ones(3),
        chosen=torch.tensor([[1.0], [2.0], [4.0]]),
        rejected=torch.tensor([[0.5], [0.0], [1.0]]),
    )
    assert features.differences("train").tolist() == [[0.5], [3.0]]
