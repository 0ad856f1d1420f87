"""The command ``prudent plan``: what a scenario takes, before it is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from prudent.errors import InputError
from prudent.plan.costs import stages, study
from prudent.plan.table import plan_table, sentences

DEFAULTS = Path(__file__).resolve().parents[3] / "config.yaml"


def made(config: dict[str, Any], rows: Mapping[str, int | None]) -> tuple[pd.DataFrame, list[str]]:
    """The plan of an effective configuration: its table, and what it says in words."""
    table = plan_table(stages(study(config, rows)), config["plan"])
    return table, sentences(table, rows, config["plan"])


def plan(files: Sequence[Path]) -> list[str]:
    """What the default scenario takes with these files over it, in words."""
    from prudent.workflow.checks import effective_config, row_counts
    from prudent.workflow.configfiles import merged, read_config
    from prudent.workflow.remembered import Memory

    if not DEFAULTS.is_file():
        raise InputError(
            f"{DEFAULTS}: there is no such file; `prudent plan` reads the default scenario of a "
            "clone, so install the package from one (pip install -e)"
        )
    values = read_config(DEFAULTS)
    for file in files:
        values = merged(values, read_config(file))
    memory = Memory(Path(".snakemake/prudent/files.json"))
    config = effective_config(values, memory)
    return made(config, row_counts(config, memory))[1]
