"""Settings of reward models: the base model, and the heads of the ensembles."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from prudent.settings import Count, Nonnegative, Positive, Settings, Text


class RewardSettings(Settings):
    """The base reward model, trained on the pairs of split `train`."""

    checkpoint: Text = "reference"
    """Backbone, the reference policy (`reference`), the packaged all-MiniLM-L6-v2 (`minilm`), or a
    folder or hub id."""
    revision: str | None = None
    """Revision of the hub id."""
    template: Text | None = "continuation"
    """How prompt and response become one text, `continuation` (the bare texts), `dialogue` (Human
    and Assistant turns), a Jinja chat template, or null for the checkpoint's own."""
    max_length: Annotated[int, Field(ge=4)] = 64
    """Longest text in tokens; a longer one loses its beginning."""
    epochs: Positive = 1.0
    """Passes over the pairs (AdamW, cosine schedule to zero)."""
    batch_size: Count = 32
    """Pairs a step."""
    learning_rate: Positive = 3e-4
    """Peak learning rate."""
    weight_decay: Nonnegative = 0.001
    """AdamW's weight decay."""
    stop_loss: Nonnegative = 0.3
    """Stop when the mean training loss of the last 20 steps falls below it (2410.23726: 0.3); 0
    never stops."""
    bfloat16: bool = False
    """Compute in bfloat16 (weights and optimizer stay in float32)."""


class HeadSettings(Settings):
    """The ensemble, heads on the frozen base model."""

    count: Annotated[int, Field(ge=2)] = 10
    """Heads of an ensemble (K)."""
    ensembles: Count = 1
    """Independent ensembles (E), each with fresh labels and a fresh initialisation."""
    first: Literal["fresh", "base"] = "fresh"
    """Head 0, fresh as the others or the base model's own (the paper's section 4 says "9
    additional", its appendix "10 heads")."""
    order: Literal["shared", "own"] = "shared"
    """Order of the data, one for all heads (the paper) or each its own."""
    bootstrap: bool = False
    """Whether each head sees its own resample of the pairs."""
    init_std: Nonnegative = 0.02
    """Standard deviation of a fresh head's weights (Hugging Face's default is 0.02)."""
    center: bool = True
    """Whether each head's rewards are centred on the training responses. A Bradley-Terry reward is
    defined only up to a constant, so without it the spread of the heads also holds the spread of
    their arbitrary constants."""
    epochs: Count = 10
    """Passes over the pairs (AdamW, cosine schedule to zero)."""
    batch_size: Count = 32
    """Pairs a step."""
    learning_rate: Positive = 1e-3
    """Peak learning rate."""
    weight_decay: Nonnegative = 0.001
    """AdamW's weight decay."""
    stop_loss: Nonnegative = 0.2
    """Stop after an epoch whose mean training loss per head is below it (the paper: 0.2); 0 never
    stops."""
