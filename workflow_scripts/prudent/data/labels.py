"""Labels of preference pairs, drawn by Bradley-Terry from gold scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from prudent.data.rows import Message, Pair, shown
from prudent.data.settings import PreferenceSettings
from prudent.errors import InputError

Gold = Callable[[list[list[Message]], list[str]], np.ndarray]
"""Returns scores [n] of n responses to n prompts, from which labels are drawn."""


def draw_labels(
    gold_a: np.ndarray,
    gold_b: np.ndarray,
    sharpness: float,
    label_noise: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws which of two responses is chosen, by Bradley-Terry on gold scores [n].

    p(a is chosen) = (1 - noise) sigmoid(sharpness (gold_a - gold_b)) + noise (1 - sigmoid(...)).
    ``label_noise`` is the probability that a label is flipped (Gao et al. 2210.10760 label by gold
    scores, Coste et al. 2310.02743 flip labels). Returns whether a is chosen [n] (bool) and p [n].
    """
    margin = sharpness * (np.asarray(gold_a, dtype=float) - np.asarray(gold_b, dtype=float))
    clean_probability = np.exp(-np.logaddexp(0.0, -margin))
    probability = clean_probability + label_noise * (1 - 2 * clean_probability)
    return rng.random(len(probability)) < probability, probability


def label_pairs(
    pairs: list[Pair], settings: PreferenceSettings, gold: Gold | None, stream: int
) -> tuple[list[Pair], list[float]]:
    """The pairs with the chosen response first, and the probability of that preference."""
    if gold is None:
        raise InputError(
            "preferences: found a source that is labelled by gold, expected `gold:` to name the "
            "labeller"
        )
    if not pairs:
        return [], []
    prompts = [prompt for prompt, _, _ in pairs]
    scores = np.asarray(gold(prompts * 2, [p[1] for p in pairs] + [p[2] for p in pairs]), float)
    if not np.isfinite(scores).all():
        bad = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise InputError(
            f"preferences: gold gave {scores[bad]} to a response, expected finite scores; its "
            f"prompt: {shown(prompts[bad % len(pairs)][-1]['content'])}"
        )
    chosen_a, probability = draw_labels(
        scores[: len(pairs)],
        scores[len(pairs) :],
        settings.sharpness,
        settings.label_noise,
        np.random.default_rng(stream),
    )
    ordered = [
        (prompt, a, b) if a_is_chosen else (prompt, b, a)
        for (prompt, a, b), a_is_chosen in zip(pairs, chosen_a, strict=True)
    ]
    return ordered, np.where(chosen_a, probability, 1 - probability).tolist()
