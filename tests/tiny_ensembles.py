"""Rewards and truths for the tests of the diagnosis."""

import math

import numpy as np

from prudent.rewards import resampling
from prudent.rewards.disagreement import (
    Sample,
    measures,
)

P, R, K = 12, 6, 4


def rng(seed=0):
    return np.random.default_rng(seed)


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rewards [P, R, K] that know something of the truth [P, R]; prompts differ in level."""
    draw = rng(seed)
    truth = draw.normal(size=(P, R)) + 3 * draw.normal(size=(P, 1))
    noise = draw.normal(size=(P, R, K)) * draw.uniform(0.1, 2, size=(P, R, 1))
    return truth[:, :, None] * draw.uniform(0.5, 2, K) + noise + draw.normal(size=K), truth


def simulated(scale=1.0, shared=0.0, prompts=200, responses=6, members=10, seed=0):
    """Rewards with noise of sd ``scale`` (a number, or [P, R]), ``shared`` of its variance common
    to all members."""
    draw = rng(seed)
    truth = draw.normal(size=(prompts, responses))
    common = draw.normal(size=(prompts, responses, 1))
    own = draw.normal(size=(prompts, responses, members))
    noise = math.sqrt(shared) * common + math.sqrt(1 - shared) * own
    return truth[:, :, None] + np.asarray(scale)[..., None] * noise, truth


def scales(seed=5, prompts=200, responses=6):
    return np.exp(0.7 * rng(seed).normal(size=(prompts, responses)))


def one(rewards, truth, **given):
    """Every statistic of the sample itself."""
    found = measures(Sample(rewards, truth, **given), resampling.once(len(truth)))
    return {name: float(values[0]) for name, values in found.items()}
