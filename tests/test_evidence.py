"""What a diagnosis is given of ensembles, against the models called one by one."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_rewards import random_texts

from prudent.rewards.evidence import evidence_of
from prudent.rewards.interface import Rewards

P, R, K, N = 3, 4, 2, 5
PROMPTS = [prompt for prompt in random_texts(P, seed=1) for _ in range(R)]
RESPONSES = random_texts(P * R, seed=2)
PAIRS = pd.DataFrame(
    {
        "prompt": [[{"role": "user", "content": text}] for text in random_texts(N, seed=3)],
        "chosen": random_texts(N, seed=4),
        "rejected": random_texts(N, seed=5),
    },
    index=range(70, 70 + N),
)


def number(text: str) -> float:
    """A fixed number of each text."""
    return sum((place + 1) * ord(letter) for place, letter in enumerate(text)) % 97 / 10


class Told:
    """An ensemble of two members with rewards of its own, and what else one may give."""

    def __init__(self, factor, std=False, features=False, before=None):
        self.factor, self.std, self.features, self.before = factor, std, features, before
        self.asked = []

    def __call__(self, prompts, responses):
        values = torch.tensor([number(response) for response in responses])
        mean = torch.stack([self.factor * values, -values], dim=1)
        return Rewards(
            mean,
            std=mean.abs() + 1 if self.std else None,
            features=torch.stack([values, values + 1, 2 * values], dim=1)
            if self.features
            else None,
        )

    def untrained(self, backbone):
        self.asked.append(backbone)
        return self.before


def table(texts: list[str]) -> np.ndarray:
    return np.array([number(text) for text in texts])


def gathered(models):
    return list(evidence_of(models, PROMPTS, RESPONSES, R, PAIRS, "the backbone"))


def test_rewards_stand_by_prompt_response_and_member():
    ((rewards, found),) = gathered([Told(3.0)])
    values = table(RESPONSES)
    assert rewards.mean.shape == (P * R, K)
    assert found.rewards.shape == (P, R, K) and found.rewards.dtype == np.float64
    np.testing.assert_allclose(found.rewards[..., 0], 3 * values.reshape(P, R), rtol=1e-6)
    np.testing.assert_allclose(found.rewards[1, 2], [3 * values[R + 2], -values[R + 2]], rtol=1e-6)


def test_margins_are_those_of_the_pairs():
    ((_, found),) = gathered([Told(3.0)])
    margin = table(PAIRS["chosen"].tolist()) - table(PAIRS["rejected"].tolist())
    np.testing.assert_allclose(found.margins, np.stack([3 * margin, -margin], 1), rtol=1e-5)


def test_what_an_ensemble_does_not_give_is_none():
    model = Told(1.0)
    ((_, found),) = gathered([model])
    assert found.untrained is None and found.norm is None and found.std is None
    assert model.asked == ["the backbone"]


def test_deviations_norms_and_members_before_training_are_in_place():
    model = Told(2.0, std=True, features=True, before=Told(5.0))
    ((_, found),) = gathered([model])
    values = table(RESPONSES).reshape(P, R)
    np.testing.assert_allclose(found.std[..., 0], 2 * values + 1, rtol=1e-6)
    np.testing.assert_allclose(found.norm, values**2 + (values + 1) ** 2 + 4 * values**2, rtol=1e-5)
    np.testing.assert_allclose(found.untrained[..., 0], 5 * values, rtol=1e-6)
    assert found.untrained.shape == (P, R, K)


def test_every_draw_has_evidence_of_its_own_in_order():
    found = gathered([Told(float(factor)) for factor in range(1, 4)])
    assert len(found) == 3
    for factor, (rewards, evidence) in enumerate(found, start=1):
        values = table(RESPONSES).reshape(P, R)
        np.testing.assert_allclose(evidence.rewards[..., 0], factor * values, rtol=1e-6)
        assert rewards.mean[0, 0] == pytest.approx(factor * values[0, 0])


def test_no_pairs_have_no_margins():
    (found,) = evidence_of([Told(1.0)], PROMPTS, RESPONSES, R, PAIRS.iloc[:0], "the backbone")
    assert found[1].margins.shape == (0, K)
