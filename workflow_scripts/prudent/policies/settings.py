"""Settings of language models: how responses are drawn, and where the reference comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from prudent.settings import Count, Positive, Settings, Text


class SamplingSettings(Settings):
    """How all responses of policies are drawn."""

    temperature: Positive = 1.0
    """Temperature of the softmax."""
    response_length: Count = 10
    """Length of a response in tokens."""


class ReferenceSettings(Settings):
    """The reference policy."""

    checkpoint: Text | None = None
    """Checkpoint to start from, a folder or a hub id; null trains a GPT-2 architecture from
    scratch, including the tokenizer."""
    revision: str | None = None
    """Revision of the hub id."""
    train: bool = True
    """Whether it is trained on the texts; false uses the checkpoint unchanged."""
    layers: Count = 2
    """Layers, from scratch."""
    width: Count = 64
    """Width of the hidden states, from scratch."""
    heads: Count = 4
    """Attention heads, from scratch; they divide the width."""
    vocabulary: Annotated[int, Field(ge=260)] = 2048
    """Size of the tokenizer's vocabulary, from scratch."""
    context: Annotated[int, Field(ge=4)] = 64
    """Longest sequence in tokens, from scratch and in training; the rest of a text is cut off,
    because policies only continue the beginning of a text."""
    epochs: Count = 3
    """Passes over the texts (AdamW, cosine schedule to zero)."""
    batch_size: Count = 64
    """Texts per step."""
    learning_rate: Positive = 2e-3
    """Peak learning rate."""

    def rules(self) -> Iterator[tuple[str, str]]:
        """There is a model to start from, and heads share the width evenly."""
        if self.checkpoint is None and not self.train:
            yield (
                "checkpoint",
                "is empty (null) and `train` is false; expected a checkpoint, or `train: true`",
            )
        if self.checkpoint is None and self.width % self.heads:
            yield "heads", f"is {self.heads}; expected a divisor of `width`, {self.width}"

    def weights(self) -> int:
        """The number of weights of the model from scratch."""
        block = 12 * self.width**2 + 13 * self.width
        return (self.vocabulary + self.context + 2) * self.width + self.layers * block
