"""Random streams."""

import subprocess
import sys

import numpy as np
import torch

from prudent.seeding import derive_seed, generator, seed_parts


def test_the_same_words_give_the_same_seed_in_another_process():
    code = "from prudent.seeding import derive_seed; print(derive_seed(0, 'policy', 3, 'x'))"
    path = [p for p in sys.path if p.endswith("workflow_scripts")]
    printed = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert int(printed) == derive_seed(0, "policy", 3, "x")


def test_every_word_its_type_and_its_place_count():
    seeds = {
        derive_seed(0, "a"),
        derive_seed(1, "a"),
        derive_seed(0, "b"),
        derive_seed(0, "a", 1),
        derive_seed(0, "a", "1"),
        derive_seed(0, "a", 1, 2),
        derive_seed(0, "a", 2, 1),
        derive_seed(0, "a", 12),
    }
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_spread_over_their_range():
    # The mean of 2,000 uniform draws has a standard error of 0.0065.
    draws = [derive_seed(0, "spread", i) / 2**63 for i in range(2000)]
    assert abs(sum(draws) / len(draws) - 0.5) < 0.03
    assert min(draws) < 0.01 and max(draws) > 0.99


def test_generators_of_one_stream_draw_the_same():
    first, second = (torch.rand(5, generator=generator(0, "s", 1)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(5, generator=generator(0, "s", 2)))


def test_torch_takes_the_low_32_bits_of_a_seed_and_numpy_all():
    """As the docstrings say; a torch that takes more makes this fail, and them too modest."""
    seed = derive_seed(0, "s")
    low = seed % 2**32
    assert low != seed

    def of_torch(seed):
        return torch.rand(5, generator=torch.Generator().manual_seed(seed))

    def of_numpy(seed):
        return np.random.default_rng(seed).random(5).tolist()

    assert torch.equal(of_torch(seed), of_torch(low))
    assert not torch.equal(of_torch(seed), of_torch(low ^ 2**31))
    assert of_numpy(seed) != of_numpy(low)


def test_seeds_go_through_ensembles_then_heads_then_trials():
    parts = [seed_parts(seed, ensembles=2, heads=3) for seed in range(12)]
    assert parts == [(e, k, t) for t in range(2) for k in range(3) for e in range(2)]
    assert [seed_parts(seed, 1, 10) for seed in (0, 9, 13)] == [(0, 0, 0), (0, 9, 0), (0, 3, 1)]
