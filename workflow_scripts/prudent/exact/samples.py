"""The responses that stand for the reference policy: sampled from it, or given in a file."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pandas as pd

from prudent.data.settings import Source
from prudent.data.sources import read_source
from prudent.errors import InputError, quoted
from prudent.policies.respond import sample_with_log_probs
from prudent.seeding import generator
from prudent.tables import read_table, write_parquet

logger = logging.getLogger(__name__)

BATCH = 4096
"""Responses after which a part is saved."""


def sample_table(
    reference: str | Path,
    prompts: list[str],
    per_prompt: int,
    sampling: dict[str, Any],
    seed: int,
    parts: Path,
) -> pd.DataFrame:
    """``per_prompt`` responses to each prompt, in the schema "exact_samples".

    Batches of prompts are kept in the folder ``parts``. Each is drawn from its own stream, so
    sampling that was stopped goes on with the next batch and ends with the same responses.
    """
    parts.mkdir(parents=True, exist_ok=True)
    each = max(1, BATCH // per_prompt)
    tables = []
    for number, start in enumerate(range(0, len(prompts), each)):
        asked = prompts[start : start + each]
        path = parts / f"{number}.parquet"
        if not path.exists():
            repeated = [prompt for prompt in asked for _ in range(per_prompt)]
            draws = generator(seed, "exact", "sampling", number)
            responses, log_probs = sample_with_log_probs(
                reference, repeated, sampling["response_length"], sampling["temperature"], draws
            )
            table = pd.DataFrame({"prompt": repeated, "response": responses})
            table["log_probability"] = log_probs.numpy()
            write_parquet(table, path, "exact_samples")
        tables.append(read_table(path, "exact_samples"))
        done = min(start + each, len(prompts))
        logger.info("responses to %d of %d prompts", done, len(prompts))
    return pd.concat(tables, ignore_index=True)


def given_table(path: str | Path) -> tuple[pd.DataFrame, int]:
    """The responses of a file in the schema "exact_samples", ordered by prompt, and their number
    per prompt; ``InputError`` names the row of a bad one."""
    source = Source(path=str(path))
    rows = read_source(source, ["prompt", "response"], ["log_probability"], 0)
    found: dict[str, list[tuple[str, float]]] = {}
    for number, row in rows.numbered():
        for column in ("prompt", "response"):
            if not isinstance(row[column], str) or (column == "prompt" and not row[column].strip()):
                raise InputError(
                    f"{path}: row {number}: {column} is {quoted(row[column])}; expected a text"
                )
        value = row.get("log_probability")
        if value in (None, ""):
            value = math.nan
        try:
            value = float(value)
        except (TypeError, ValueError):
            value = math.inf
        if value > 0:
            raise InputError(
                f"{path}: row {number}: log_probability is {quoted(row['log_probability'])}; "
                "expected a number that is not above 0, or nothing"
            )
        found.setdefault(row["prompt"], []).append((row["response"], value))
    sizes = {prompt: len(of_prompt) for prompt, of_prompt in found.items()}
    if not sizes or min(sizes.values()) < 2 or len(set(sizes.values())) > 1:
        least = min(sizes, key=sizes.get) if sizes else ""
        raise InputError(
            f"{path}: found {min(sizes.values(), default=0)} response(s) to {quoted(least)} and up "
            f"to {max(sizes.values(), default=0)} to others; expected as many for each prompt, two "
            "at least"
        )
    columns = [(prompt, *one) for prompt, of_prompt in found.items() for one in of_prompt]
    table = pd.DataFrame(columns, columns=["prompt", "response", "log_probability"])
    return table, next(iter(sizes.values()))
