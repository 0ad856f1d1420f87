"""Settings of reward models: the base model, and each kind of ensemble."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from prudent.settings import Automatic, Count, Nonnegative, Positive, Settings, Share, Text


class RewardSettings(Settings):
    """The base reward model, trained on the pairs of split `train`."""

    checkpoint: Text = "reference"
    """Backbone, the reference policy (`reference`), the packaged all-MiniLM-L6-v2 (`minilm`), or a
    folder or hub id."""
    revision: str | None = None
    """Revision of the hub id."""
    template: Text | None = "continuation"
    """How prompt and response become one text, `continuation` (the bare texts), `dialogue` (Human
    and Assistant turns), a Jinja chat template, or null for the checkpoint's own. One that prints
    today's date prints 26 Jul 2024."""
    max_length: Annotated[int, Field(ge=4)] = 64
    """Longest text in tokens. A longer one loses its beginning, the prompt's first. A response that
    is too long by itself is cut too, and training warns of it."""
    epochs: Positive = 1.0
    """Passes over the pairs (AdamW, cosine schedule to zero)."""
    batch_size: Count = 32
    """Pairs per step."""
    gradient_accumulation_steps: Count = 1
    """Parts in which a batch is computed, one after the other, to save memory; it divides the
    batch."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again in the backward pass, layer by layer, which saves
    memory and costs a third more time."""
    learning_rate: Positive = 3e-4
    """Peak learning rate."""
    weight_decay: Nonnegative = 0.001
    """AdamW's weight decay."""
    stop_loss: Nonnegative = 0.3
    """Stop when the mean training loss of the last 20 steps falls below this (2410.23726: 0.3); 0
    never stops."""
    bfloat16: Automatic = False
    """Compute in bfloat16 (weights and optimizer stay in float32). `auto` does where the GPU or the
    processor has instructions for it; elsewhere both `auto` and `true` compute in float32, and the
    log says so."""
    dropout: Share = 0.0
    """Dropout in training, for everything that the architecture can drop."""

    def rules(self) -> Iterator[tuple[str, str]]:
        if self.batch_size % self.gradient_accumulation_steps:
            yield (
                "gradient_accumulation_steps",
                f"is {self.gradient_accumulation_steps}; expected a divisor of `batch_size`, "
                f"{self.batch_size}",
            )


class HeadFitting(Settings):
    """Settings of everything that is trained from the base model's cached features."""

    order: Literal["shared", "own"] = "shared"
    """Order of the data, one for all heads (the paper) or one per head."""
    bootstrap: bool = False
    """Whether each head sees its own resample of the pairs."""
    center: bool = True
    """Whether each head's rewards are centred on the training responses. A Bradley-Terry reward is
    defined only up to a constant; without centring, the spread of the heads includes the spread of
    their arbitrary constants."""
    epochs: Count = 10
    """Passes over the pairs (AdamW, cosine schedule to zero)."""
    batch_size: Count = 32
    """Pairs per step."""
    learning_rate: Positive = 1e-3
    """Peak learning rate."""
    weight_decay: Nonnegative = 0.001
    """AdamW's weight decay."""
    stop_loss: Nonnegative = 0.2
    """Stop after an epoch whose mean training loss per head is below this (the paper: 0.2); 0 never
    stops."""


class HeadTraining(HeadFitting):
    """Settings that all linear heads on the frozen base model share."""

    first: Literal["fresh", "base"] = "fresh"
    """Head 0, fresh like the others or the base model's own (the paper's section 4 says "9
    additional", its appendix "10 heads")."""
    init_std: Nonnegative = 0.02
    """Standard deviation of a fresh head's weights (Hugging Face's default is 0.02)."""


class HeadSettings(HeadTraining):
    """Linear heads on the frozen base model, trained from its cached features (2410.23726)."""

    ridge: Positive | None = None
    """Trains each head to convergence instead (L-BFGS, float64), on the sum of its pairs' losses
    and half this number times the squared length of its weights; then `order`, `epochs`,
    `batch_size`, `learning_rate`, `weight_decay` and `stop_loss` do nothing. The optimum is unique,
    so heads differ only by their resamples. null is the paper's way, AdamW for some epochs."""

    def rules(self) -> Iterator[tuple[str, str]]:
        if self.ridge is not None and not self.bootstrap:
            yield (
                "ridge",
                f"is {self.ridge:g} and `bootstrap` is false, so that all heads end as one; "
                "expected `bootstrap: true` with a ridge",
            )
        if self.ridge is not None and self.first == "base":
            yield (
                "ridge",
                f"is {self.ridge:g} and `first` is base; expected `first: fresh` with a ridge",
            )


class GaussianSettings(HeadTraining):
    """Heads that give a mean and a standard deviation of their own (BRME, 2409.15360)."""

    min_std: Positive = 1e-3
    """Least standard deviation that a head can give."""


class MLPSettings(HeadFitting):
    """Small networks on the frozen base model, each held near its start (RewardUQ, 2602.24040)."""

    hidden: Annotated[list[Count], Field(min_length=1)] = [128, 128]
    """Widths of the hidden layers, each followed by a ReLU."""
    pull: Nonnegative = 0.1
    """Weight, in the loss, of the mean squared distance of a network's weights from their initial
    values."""


class LastLayerSettings(Settings):
    """Linear heads drawn from the Laplace posterior of one linear head on the frozen base model.

    Its likelihood is Bradley-Terry's, its prior is Gaussian around 0. The mode is that of `heads`
    with the same `ridge`, and the precision there is `ridge` I + the sum of p (1 - p) d d' over the
    training pairs, d the chosen response's features less the rejected one's and p the probability
    that the mode gives the label. Only the draws are random.
    """

    ridge: Positive = 1.0
    """Precision of a weight's prior."""
    center: bool = True
    """Whether each head's rewards are centred on the training responses."""


class MemberSettings(Settings):
    """Independent reward models: own head, data order, labels and training of the backbone.

    All else is as in `reward`. The members take the values of each list in turn, in cycles.
    """

    labels: Literal["own", "shared"] = "own"
    """Whether each member's labels are drawn anew, where their probability is known."""
    learning_rates: Annotated[list[Positive], Field(min_length=1)] | None = None
    """Peak learning rates; null takes that of `reward`."""
    dropouts: Annotated[list[Share], Field(min_length=1)] | None = None
    """Dropout of the backbone in training; null takes that of `reward`."""
    epochs: Positive | None = None
    """Passes over the pairs; null takes those of `reward`."""
    start: Literal["backbone", "base"] = "backbone"
    """The model that members start from: the backbone, each with its own fresh head, or the trained
    base reward model with its head."""
    per_job: Count = 1
    """Members that one job trains; more than one if training takes less time than a job's start."""


class AdapterSettings(Settings):
    """LoRA adapters with a head each on one backbone, trained together (UP-RLHF, 2401.00243)."""

    rank: Count = 8
    """Rank of an adapter."""
    alpha: Positive = 16.0
    """Scale of an adapter: its product is multiplied by `alpha` / `rank`."""
    start: Literal["backbone", "base"] = "backbone"
    """Which model the adapters go into: the one that reward models start from, or the trained base
    reward model (as in 2401.16635)."""
    embeddings: bool = False
    """Whether the token embeddings also get an adapter, like the attention layers that peft chooses
    for the architecture."""
    loss: Literal["members", "mean"] = "members"
    """Bradley-Terry loss of each member, or of the members' mean reward (UP-RLHF)."""
    diversity: Nonnegative = 0.0
    """Weight of UP-RLHF's diversity, the nuclear norm of the members' stacked A matrices over their
    Frobenius norm."""
    order: Literal["shared", "own"] = "own"
    """Order of the data, one for all members or one per member; with `loss: mean` it is shared."""
    epochs: Positive = 1.0
    """Passes over the pairs (AdamW, cosine schedule to zero)."""
    batch_size: Count = 32
    """Pairs per step."""
    learning_rate: Positive = 2e-3
    """Peak learning rate."""
    weight_decay: Nonnegative = 0.001
    """AdamW's weight decay."""


class DropoutSettings(Settings):
    """One reward model trained with dropout; a member is one draw of its masks (MC dropout)."""

    dropout: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of units that are dropped, in training and in the members."""
    epochs: Positive | None = None
    """Passes over the pairs; null takes those of `reward`."""


class WarmSettings(MemberSettings):
    """One model that averages the weights of several members (WARM, 2401.12187)."""

    models: Annotated[int, Field(ge=2)] = 5
    """Models that are averaged."""
    start: Literal["backbone", "base"] = "base"
    """The model that they start from: the backbone, each with its own fresh head, or the trained
    base reward model with its head."""


class SpreadSettings(Settings):
    """How a method takes the spread sigma of a response."""

    of: Literal["members", "last_layer"] = "members"
    """The standard deviation of the members' rewards (ddof 1), or that of a Bayesian last layer on
    the base model's features h, sqrt(h' A^-1 h) with A = `ridge` I + the sum of d d' over the
    training pairs, d the chosen response's features less the rejected one's."""
    ridge: Positive = 1.0
    """Ridge of the last layer."""
    center: Literal["none", "reference", "prompt"] = "none"
    """What is subtracted from each member's reward or from the features: nothing (the papers),
    their mean over responses of the reference policy, or their mean over the responses to the same
    prompt. Bradley-Terry identifies only differences within a prompt. PPO has one response per
    prompt, so the last is for exact policies."""
    scale: Literal["none", "reference"] = "none"
    """Whether the spread is divided by its mean over responses of the reference policy."""
    low: Nonnegative | None = None
    """Least spread; smaller ones are raised to it."""
    high: Positive | None = None
    """Largest spread; larger ones are lowered to it."""
    shuffled: bool = False
    """Whether each response is given the spread of another one in the batch, as a control. The
    spreads stay the same, but say nothing about their responses; each step draws a new order."""

    def rules(self) -> Iterator[tuple[str, str]]:
        if self.low is not None and self.high is not None and self.low > self.high:
            yield "low", f"is {self.low:g}; expected at most `high`, {self.high:g}"


ON_BASE = ("heads", "last_layer", "mlp", "gaussian")
"""The kinds whose members are heads on the base reward model's features."""

AS_HEADS = ("last_layer", "warm")
"""The kinds whose checkpoints are of the kind heads."""

KINDS: dict[str, type[Settings]] = {
    "heads": HeadSettings,
    "last_layer": LastLayerSettings,
    "mlp": MLPSettings,
    "gaussian": GaussianSettings,
    "members": MemberSettings,
    "adapters": AdapterSettings,
    "dropout": DropoutSettings,
    "warm": WarmSettings,
}
"""The kinds of ensembles, each with its settings."""
