"""Settings of the plan: what it reckons with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from prudent.settings import Positive, Settings

Part = Annotated[float, Field(gt=0, le=1)]


class PlanSettings(Settings):
    """What `snakemake plan` reckons with. No result depends on it."""

    gpu: Literal["A40", "A100", "H100"] = "A40"
    """GPU whose memory and peak are taken."""
    flops: Positive | None = None
    """Operations a second that were measured; null takes the GPU's peak and the shares below."""
    training: Part = 0.4
    """Share of the peak that training reaches."""
    generation: Part = 0.3
    """Share of the peak that sampling and scoring reach."""
