"""The plan as a table, and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from prudent.plan.costs import Stage

GB, HOUR = 1e9, 3600.0
PARTS = ("weights", "gradients", "optimizer", "activations", "cache", "passing")


@dataclass(frozen=True)
class Card:
    """A GPU: memory in GB, and dense peaks in operations a second."""

    memory: float
    bfloat16: float
    float32: float


CARDS = {
    "A40": Card(48, 149.7e12, 37.4e12),
    "A100": Card(80, 312e12, 19.5e12),
    "H100": Card(80, 989.4e12, 66.9e12),
}
"""As the vendor prints them: tensor cores for bfloat16, none for float32."""


def plan_table(stages: Sequence[Stage], settings: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each rule; nan where a number of rows is not known.

    Memory is one job's, everything else all jobs' together. ``settings`` are ``PlanSettings``.
    """
    card, measured = CARDS[settings["gpu"]], settings["flops"]
    rows = []
    for stage in stages:
        peak = card.bfloat16 if stage.bfloat16 else card.float32
        speeds = [measured or peak * settings[key] for key in ("training", "generation")]
        work = [math.nan if w is None else w for w in (stage.training, stage.generation)]
        memory = stage.memory.peak / GB
        hours = sum(w / speed for w, speed in zip(work, speeds, strict=True)) / HOUR
        unknown = ["what depends on rows that are not known"] * math.isnan(hours)
        rows.append(
            {
                "rule": stage.rule,
                "jobs": stage.jobs,
                **{f"{part}_gb": getattr(stage.memory, part) / GB for part in PARTS},
                "memory_gb": memory,
                "disk_gb": math.nan if stage.disk is None else stage.disk / GB,
                "operations": sum(work),
                "hours": hours,
                "fits": "yes" if memory <= card.memory else "no",
                "left_out": "; ".join([*unknown, *filter(None, [stage.left_out])]) or "nothing",
            }
        )
    return pd.DataFrame(rows)


def sentences(
    table: pd.DataFrame, rows: Mapping[str, int | None], settings: Mapping[str, Any]
) -> list[str]:
    """The table in words, a line each."""
    said = [
        f"{'rule':<20}{'jobs':>6}{'weights':>9}{'grads':>9}{'optim.':>9}{'activ.':>9}"
        f"{'cache':>9}{'passing':>9}{'at once':>9}{'disk':>9}{'FLOPs':>9}{'hours':>9}"
    ]
    said[0] += "   (GB of one job's memory; disk, FLOPs and hours of all jobs)"
    for row in table.to_dict("records"):
        numbers = [row[f"{part}_gb"] for part in PARTS]
        numbers += [row[key] for key in ("memory_gb", "disk_gb", "operations", "hours")]
        said.append(f"{row['rule']:<20}{row['jobs']:>6}" + "".join(map(_cell, numbers)))
    known = table[table["hours"].notna()]
    disk = table["disk_gb"].sum()
    said.append(
        f"In all {table['jobs'].sum()} jobs with a model, {known['hours'].sum():.3g} hours of "
        f"{_gpu(settings)}, {known['operations'].sum():.3g} FLOPs, {disk:.3g} GB of disk; one "
        f"job has at most {table['memory_gb'].max():.3g} GB at once."
    )
    card = CARDS[settings["gpu"]]
    for row in table[table["fits"] == "no"].to_dict("records"):
        said.append(
            f"Does not fit: {row['rule']} needs {row['memory_gb']:.3g} GB, and an "
            f"{settings['gpu']} has {card.memory:g}."
        )
    if (table["fits"] == "yes").all():
        said.append(f"All of it fits on an {settings['gpu']} ({card.memory:g} GB).")
    unknown = [f"`{section}.sources`" for section, count in rows.items() if count is None]
    if unknown:
        names = ", ".join(table.loc[table["hours"].isna(), "rule"]) or "none"
        said.append(
            f"Unknown: the rows of {', '.join(unknown)}, which are counted when they are read. The "
            f"sums leave out the hours of {names}."
        )
    for row in table.to_dict("records"):
        if math.isfinite(row["hours"]) and row["left_out"] != "nothing":
            said.append(f"Left out of {row['rule']}: {row['left_out']}.")
    said.append(
        "Left out of all: the start of jobs, reading and writing, waits for memory, rules without "
        "a model. Texts count as long as they may be, and no training stops early."
    )
    return said


def _gpu(settings: Mapping[str, Any]) -> str:
    if settings["flops"]:
        return f"a machine with {settings['flops']:.3g} measured FLOP/s"
    card = CARDS[settings["gpu"]]
    return (
        f"an {settings['gpu']} ({card.bfloat16 / 1e12:g} TFLOP/s in bfloat16, "
        f"{card.float32 / 1e12:g} in float32; assumed shares: {settings['training']:.0%} in "
        f"training, {settings['generation']:.0%} in sampling and scoring)"
    )


def _cell(value: float) -> str:
    return f"{'unknown' if math.isnan(value) else f'{value:.2g}':>9}"
