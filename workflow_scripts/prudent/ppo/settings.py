"""Settings of PPO; the defaults are the paper's (2410.23726, Table 6) and TRL 0.11's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from prudent.policies.settings import SamplingSettings
from prudent.settings import Amount, Automatic, Count, Nonnegative, Positive, Seed, Settings


class TrainingSettings(Settings):
    """Training of the policies."""

    batch_size: Count = 128
    """Prompts per step."""
    minibatch_size: Count = 128
    """Responses per update; it divides the batch."""
    epochs: Count = 4
    """Passes over each batch."""
    steps: Count = 192
    """Steps, each a batch of new responses and its updates."""
    learning_rate: Positive = 1.414e-5
    """Learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """The learning rate over the steps: constant, or linear or cosine down to 0."""
    clip_range: Positive = 0.2
    """Clipping of the probability ratio."""
    value_clip_range: Positive = 0.2
    """Clipping of the value's change."""
    value_network: Literal["shared", "separate"] = "shared"
    """Values from the policy's own hidden states (`shared`), or from a separate network that starts
    as the policy's backbone (`separate`)."""
    value_coefficient: Nonnegative = 0.1
    """Weight of the value loss."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Discount."""
    lam: Annotated[float, Field(ge=0, le=1)] = 0.95
    """GAE's lambda."""
    max_grad_norm: Positive | None = None
    """Clipping of the gradient's norm; null does not clip."""
    gradient_accumulation_steps: Count = 1
    """Parts in which a minibatch is computed, one after the other, to save memory; it divides the
    minibatch."""
    bfloat16: Automatic = False
    """Compute in bfloat16 (autocast); weights, losses and optimizer stay in float32. `auto` does
    where the GPU or the processor has instructions for it; elsewhere both `auto` and `true` compute
    in float32, and the log says so."""
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    """Precision of float32 matrix products, as in torch; below `highest` they are faster and less
    exact on hardware with TF32 or bfloat16."""
    checkpoint_every: Count = 50
    """Steps between checkpoints of the training."""

    def rules(self) -> Iterator[tuple[str, str]]:
        """The batch is cut into equal minibatches, and these into equal parts."""
        for whole, part in (
            ("batch_size", "minibatch_size"),
            ("minibatch_size", "gradient_accumulation_steps"),
        ):
            size, count = getattr(self, whole), getattr(self, part)
            if size % count:
                yield part, f"is {count}; expected a divisor of `{whole}`, {size}"


class PPOSettings(TrainingSettings, SamplingSettings):
    """Settings of one run: its training, and how responses are drawn."""


class RunSettings(Settings):
    """The settings by which the runs of a study differ."""

    beta: Nonnegative
    """The method's KL coefficient."""
    head: Amount = 0
    """The reward head that the policy is trained against."""
    seed: Seed = 0
    """The study's seed."""
    run_seed: Seed = 0
    """The run's own seed."""
