"""Memory by parts, in bytes, from the sizes of models.

Weights, gradients and AdamW's two moments are in float32, as everywhere here. Activations are the
tensors that the backward pass reads, counted layer by layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from prudent.plan.models import Model

SINGLE, HALF = 4, 2
"""Bytes of a number in float32 and in bfloat16."""
LOGITS = 4
"""Tensors of the logits' size in a loss of all tokens: they, their log-softmax, two gradients."""
BUFFER = 1 << 30
"""Bytes of logits that PPO has at once on a GPU (``prudent.policies.lm_head``)."""


@dataclass(frozen=True)
class Memory:
    """Parts of a job's memory, and the most that is there at once."""

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    cache: float = 0.0
    passing: float = 0.0
    """The largest tensors of passes without gradients, which are gone after each layer or token."""

    @property
    def peak(self) -> float:
        """The most at once.

        Gradients grow as the backward pass frees activations, and sampling keeps the last step's
        gradients beside its cache.
        """
        without = self.gradients + self.cache + self.passing
        return self.weights + self.optimizer + max(self.activations, without)


def activations(
    model: Model, rows: int, length: int, bfloat16: bool = False, eager: bool = False
) -> float:
    """What a forward pass over rows of that length keeps for the backward pass.

    The stream between the layers and its norms stay in float32; what matrices give has the
    precision of the computation, in which there is also a copy of the matrices.
    """
    width = model.width
    stream = width * (6 if model.gated else 4)
    inner = model.inner * (4 if model.gated else 5 if model.slow_gelu else 2)
    # Keys and values are repeated for all heads that share them.
    products = 4 * model.queries + inner
    if eager:
        products += model.heads * length
    products += 2 * width if bfloat16 else 0  # copies of what enters the matrices
    size = HALF if bfloat16 else SINGLE
    token = model.layers * (SINGLE * stream + size * products) + 3 * SINGLE * width
    return rows * length * token + (HALF * model.matrices if bfloat16 else 0)


def passing(model: Model, rows: int, length: int, bfloat16: bool = False) -> float:
    """The largest tensors at once in a forward pass without gradients: those of an MLP."""
    size = HALF if bfloat16 else SINGLE
    token = 2 * SINGLE * model.width + size * model.inner * (3 if model.gated else 2)
    return rows * length * token + (HALF * model.matrices if bfloat16 else 0)


def keys_and_values(model: Model, rows: int, length: int, bfloat16: bool = False) -> float:
    """A cache of keys and values."""
    size = HALF if bfloat16 else SINGLE
    return 2 * size * model.layers * model.keys * rows * length


def trained(weights: int, forward: float) -> Memory:
    """Training of all of a model's weights with AdamW, given its activations."""
    return Memory(
        weights=SINGLE * weights,
        gradients=SINGLE * weights,
        optimizer=2 * SINGLE * weights,
        activations=forward,
    )


def language_training(model: Model, rows: int, length: int, bfloat16: bool, eager: bool) -> Memory:
    """Training of a language model on the loss of all tokens."""
    logits = LOGITS * SINGLE * rows * length * model.vocabulary
    kept = activations(model, rows, length, bfloat16, eager)
    return trained(model.policy, kept + logits)


def reward_training(
    model: Model,
    pairs: int,
    length: int,
    bfloat16: bool,
    eager: bool = False,
    checkpointing: bool = False,
) -> Memory:
    """Training of a reward model, both responses of all pairs at once in one forward pass; with
    ``checkpointing`` each layer's input is kept, and the activations of one layer at a time."""
    rows = 2 * pairs
    kept = activations(model, rows, length, bfloat16, eager)
    if checkpointing:
        one = activations(replace(model, layers=1), rows, length, bfloat16, eager)
        kept = one + model.layers * SINGLE * rows * length * model.width
    return trained(model.reward, kept)


def sampling(model: Model, rows: int, prompt: int, response: int, bfloat16: bool = False) -> Memory:
    """Sampling of responses: the larger one of the pass over the prompts and a token's logits."""
    logits = 3 * SINGLE * rows * model.vocabulary
    return Memory(
        weights=SINGLE * model.policy,
        cache=keys_and_values(model, rows, prompt + response, bfloat16),
        passing=max(logits, passing(model, rows, prompt, bfloat16)),
    )


def scoring(weights: float, model: Model, rows: int, length: int) -> Memory:
    """Scoring of texts by models of these weights in all."""
    return Memory(weights=SINGLE * weights, passing=passing(model, rows, length))
