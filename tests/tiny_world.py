"""Rewards and reviews of the embedded world."""

import numpy as np
import pytest

from prudent.world.grammar import (
    split,
)
from prudent.world.reviews import reviews as draw_reviews
from prudent.world.reward import genre_of, gold_reward, judgements


def reward(prompt: str, response: str) -> float:
    return gold_reward([prompt], [response])[0]


def values(prompt: str, response: str) -> list[float]:
    before, words = split(prompt), split(response)
    return judgements(before + words, len(before), genre_of(before + words))


@pytest.fixture(scope="module")
def reviews() -> list[str]:
    return draw_reviews(300, np.random.default_rng(0))
