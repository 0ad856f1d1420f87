"""What the tables between the stages hold: their columns, and what their rows satisfy.

One check is made of a table that is read and of one that is written: one that was cut off, edited
by hand or made of other settings is refused, and never gives a result that is empty or wrong.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from prudent.errors import InputError, cut, quoted

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
WORD, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()
"""Types of columns in parquet."""
TEXT, NUMBER, MAYBE, BOUND = "text", "number", "number or nothing", "number, inf or nothing"
"""Kinds of columns in CSV: whether a cell may be empty, and whether an interval may be open."""
OTHER = None
"""Neither: a column that may be there or not."""


@dataclass(frozen=True)
class Rows:
    """What the rows of a table satisfy."""

    key: tuple[tuple[str, ...], ...] = ()
    """The columns that tell rows apart, in groups: each value of a group goes with each of the
    others, so that a row which is missing is seen. A group of one column of words has all words."""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The words that a column may hold."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """The least and the largest number of a column, both included, where a number is known. A
    column that the schema does not name may be missing."""
    known: tuple[str, ...] = ()
    """The columns of ``ranges`` in parquet whose numbers are all known."""
    empty: bool = False
    """Whether there may be no rows."""


SHARE, CORRELATION, COUNT = (0.0, 1.0), (-1.0, 1.0), (0.0, math.inf)
FINITE = (-sys.float_info.max, sys.float_info.max)
NUMBERED = (-1.0, math.inf)
"""An ensemble's or head's number, where -1 is the base model or an ensemble's mean."""
ROUNDING = 1e-9

SCHEMAS: dict[str, pa.Schema] = {}
"""Tables in parquet: their columns and types."""
CSV_SCHEMAS: dict[str, dict[str, str]] = {}
"""Tables in CSV: their columns and kinds."""
ROWS: dict[str, Rows] = {}
"""The rows of both."""


def _table(name: str, key: str, *columns: tuple, known: str = "", empty: bool = False) -> None:
    """Names a table. ``key``: the groups of ``Rows.key``, with commas between; each of ``columns``:
    a type or kind, names, and the range or the words of these columns, if any."""
    types: dict[str, Any] = {}
    words: dict[str, tuple[str, ...]] = {}
    ranges: dict[str, tuple[float, float]] = {}
    for kind, names, *limits in columns:
        for column in names.split():
            if kind is not OTHER:
                types[column] = kind
            for limit in limits:
                (words if isinstance(limit[0], str) else ranges)[column] = limit
    if any(isinstance(kind, str) for kind in types.values()):
        CSV_SCHEMAS[name] = types
    else:
        SCHEMAS[name] = pa.schema(list(types.items()))
    groups = tuple(tuple(group.split()) for group in key.split(",") if group)
    ROWS[name] = Rows(groups, words, ranges, tuple(known.split()), empty)


def _with_interval(*names: str) -> str:
    return " ".join(f"{name} {name}_low {name}_high" for name in names)


# --- Data

SPLIT = ("train", "validation")
_table("texts", "text", (WORD, "text source"), (WORD, "split", SPLIT))
_table(
    *("prompts", "prompt"),
    (WORD, "prompt source"),
    (WORD, "split", ("train", "test")),
    (WHOLE, "tokens", COUNT),
)
_table(
    *("preferences", "id"),
    (WORD, "id"),
    (MESSAGES, "prompt"),
    (WORD, "chosen rejected source"),
    (WORD, "split", ("train", "validation", "judge", "spare")),
    (REAL, "probability", SHARE),
)
PAIR, SIDES = "section subset id", ("chosen", "rejected")
_table(
    *("benchmark", PAIR),
    (MESSAGES, "prompt"),
    (WORD, "chosen rejected subset section id"),
)

# --- Rewards

HEAD = "ensemble head"
_table(
    *("scores", f"{PAIR},side,{HEAD}"),
    (WORD, "id subset section"),
    (WORD, "side", SIDES),
    (WHOLE, HEAD, NUMBERED),
    (REAL, "reward", FINITE),
    known="reward",
)
# Rewards of the reference policy's responses, prompt by prompt; a response may come twice. Other
# columns are the judge's own.
_table(
    *("reward_samples", ""),
    (WHOLE, "prompt_index", COUNT),
    (WORD, "prompt response"),
    (REAL, "score", FINITE),
    (OTHER, "grammatical", SHARE),
    (WHOLE, HEAD, COUNT),
    (REAL, "reward", FINITE),
    known="score grammatical reward",
)
# A reference policy that is only read has no losses.
_table(
    *("losses", "step split"),
    (NUMBER, "step", COUNT),
    (NUMBER, "loss"),
    (TEXT, "split", SPLIT),
    empty=True,
)
for of, number in (("head", HEAD), ("member", "member")):
    _table(
        *(f"{of}_losses", f"{number} step split"),
        (NUMBER, f"{number} step", COUNT),
        (NUMBER, "loss"),
        (NUMBER, "accuracy", SHARE),
        (TEXT, "split", SPLIT),
    )
# Of each ensemble of rewards; what is no ensemble's own has the ensemble "".
_table(
    *("diagnosis", "ensemble quantity"),
    (TEXT, "ensemble quantity"),
    (BOUND, "value low high noise noise_low noise_high untrained promised_low promised_high"),
)
# What is said of an ensemble, and the same by several judges.
OF_KIND = (
    (TEXT, "ensemble"),
    (MAYBE, "accuracy_member accuracy_mean", SHARE),
    (MAYBE, "within_member within_mean", CORRELATION),
    (BOUND, "sigma_ratio sigma_ratio_noise", COUNT),
    (BOUND, "leave_one_out"),
    (MAYBE, "leave_one_out_untrained leave_one_out_noise"),
    (MAYBE, "leave_one_out_beyond error_correlation", CORRELATION),
    (MAYBE, "ece_mean ece_mean_noise ece_scaled ece_scaled_noise"),
)
_table("kinds", "ensemble", *OF_KIND)
_table("kinds_by_judge", "judge ensemble", (TEXT, "judge"), *OF_KIND)
# A judge of no words gives no counts.
_table(
    *("frequency", "ensemble bin"),
    (TEXT, "ensemble"),
    (NUMBER, "bin count_low count_high n pairs", COUNT),
    (MAYBE, _with_interval("accuracy_member", "accuracy_mean"), SHARE),
    (MAYBE, _with_interval("error_member", "error_mean", "sigma"), COUNT),
    empty=True,
)
_table(
    *("accuracy", f"section subset level,model {HEAD}"),
    (TEXT, "subset section"),
    (TEXT, "level", ("subset", "section", "overall")),
    (TEXT, "model", ("base", "head", "mean")),
    (NUMBER, HEAD, NUMBERED),
    (NUMBER, "accuracy", SHARE),
    (NUMBER, "se ties rows", COUNT),
)
_table(
    *("variance", "section subset,side,ensemble"),
    (TEXT, "section subset"),
    (TEXT, "side", ("accepted", "difference")),
    (NUMBER, "ensemble rows", COUNT),
    (MAYBE, "mean median max q10 q25 q75 q90", COUNT),
)

# Every measurement of an audit of scores.
_table(
    *("audit", "section subset quantity"),
    (TEXT, "section subset quantity"),
    (BOUND, "value low high noise noise_low noise_high"),
    (NUMBER, "n", COUNT),
    (MAYBE, "p", SHARE),
)

# --- Optimal policies

# Responses of the reference policy, prompt by prompt and as many to each; one may come twice.
_table(
    *("exact_samples", ""),
    (WORD, "prompt response"),
    (REAL, "log_probability", (-math.inf, 0.0)),
)
# The head is -1 where none is the policy's own.
_table(
    *("exact_policies", "level method kl_target replicate"),
    (WORD, "level"),
    (WHOLE, "replicate", COUNT),
    (WHOLE, "head", NUMBERED),
    (WORD, "method"),
    (REAL, "kl_target", COUNT),
    (REAL, "gain proxy_gain"),
    (REAL, "kl beta effective_size", COUNT),
    (REAL, "first_half second_half"),
)
# The optimal policies beside trained ones, of the same draws and members.
_table(
    *("exact_frontier", "method draw head kl_target"),
    (WORD, "method"),
    (WHOLE, "draw", COUNT),
    (WHOLE, "head", NUMBERED),
    (REAL, "kl_target", COUNT),
    (REAL, "gain proxy_gain"),
    (REAL, "kl beta effective_size", COUNT),
)
# A method's optimal policies, by level, and those of the draws of each ensemble.
for name, group in (("exact_summary", "level"), ("exact_kinds", "ensemble")):
    _table(
        *(name, f"{group} kl_target method"),
        (TEXT, f"{group} method"),
        (TEXT, "control", ("no", "yes")),
        (NUMBER, "kl_target replicates below", COUNT),
        (MAYBE, "gain gain_low gain_high"),
        (MAYBE, "sd", COUNT),
        (MAYBE, "sd_low sd_high difference difference_low difference_high"),
        (MAYBE, "p", SHARE),
        (BOUND, "ratio", COUNT),
        (BOUND, "ratio_low ratio_high"),
        (MAYBE, _with_interval("below_share"), SHARE),
        (MAYBE, "quantile05 cvar10 effective_size sampling_sd half_shift"),
    )
_table(
    *("best_of", "level scorer replicate n"),
    (TEXT, "level scorer"),
    (NUMBER, "replicate n kl", COUNT),
    (NUMBER, "gain"),
)

# Optimal policies over the grid of regimes, and what each method is worth in each of its cells.
REGIME = "pairs noise members kl_target"
_table(
    *("regime_policies", f"{REGIME} ensemble method team"),
    (WHOLE, "pairs members", COUNT),
    (REAL, "noise", COUNT),
    (WORD, "ensemble method"),
    (WHOLE, "team partition", COUNT),
    (pa.list_(WHOLE), "replicates"),
    (WHOLE, "head", NUMBERED),
    (REAL, "kl_target", COUNT),
    (REAL, "gain"),
    (REAL, "kl beta effective_size", COUNT),
)
_table(
    *("regimes", f"{REGIME} ensemble method against"),
    (NUMBER, REGIME, COUNT),
    (TEXT, "ensemble method against"),
    (NUMBER, "ensembles", COUNT),
    (MAYBE, "effective_size", COUNT),
    (MAYBE, _with_interval("gain", "difference", "below_difference")),
    (MAYBE, _with_interval("below_share"), SHARE),
    (BOUND, _with_interval("ratio"), COUNT),
)

# What the papers print beside what it is here, and the curves of their theory.
_table(
    *("claims", "quantity"),
    (TEXT, "quantity"),
    (MAYBE, "paper here"),
    (TEXT, "agrees", ("yes", "no", "not given")),
    (TEXT, "why"),
)
_table(
    *("paper", "item quantity"),
    (TEXT, "item quantity paper here"),
    (TEXT, "agrees", ("yes", "no", "not given", "not comparable", "chosen")),
    (TEXT, "why"),
)
_table(
    *("paper_rewardbench", "model"),
    (TEXT, "model"),
    (TEXT, "origin", ("printed", "here")),
    (MAYBE, "overall chat chat_hard safety reasoning prior", (0.0, 100.0)),
)
_table(
    *("theory_curves", "figure panel series x"),
    (WORD, "figure panel series"),
    (REAL, "x y", FINITE),
    (REAL, "low high"),
    known="x",
)

# --- Trained policies

# Each evaluation has all pilots.
_table(
    *("calibration", "method evaluation,pilot"),
    (TEXT, "method"),
    (NUMBER, "kl_target evaluation beta exact_kl policies_kl", COUNT),
    (MAYBE, "policies_kl_se", COUNT),
    (NUMBER, "pilot head pilot_beta kl", COUNT),
    (MAYBE, "kl_se", COUNT),
)
_table(
    *("training_log", "step"),
    (NUMBER, "step", COUNT),
    (NUMBER, "kl kl_k3 proxy_reward ensemble_reward"),
    (MAYBE, "sigma", COUNT),
    (MAYBE, "judge_score"),
    (NUMBER, "kl_coefficient score entropy"),
    (NUMBER, "clip_fraction", SHARE),
    (NUMBER, "policy_loss value_loss"),
    (NUMBER, "learning_rate tokens seconds", COUNT),
)
# Policies' responses to the test prompts; the reference policy is method "reference", seed 0.
POLICY = "method seed"
RESPONSES = (
    (WORD, "method"),
    (WHOLE, "seed", COUNT),
    (WORD, "prompt response"),
    (REAL, "kl", COUNT),
)
_table("responses", f"{POLICY},prompt", *RESPONSES, known="kl")
# What a judge says of them; other columns are the judge's own.
_table(
    *("judgements", f"{POLICY},prompt", *RESPONSES),
    (REAL, "score", FINITE),
    (OTHER, "grammatical", SHARE),
    known="kl score grammatical",
)
# What every head says of them.
_table(
    *("rewards", f"{POLICY},prompt,{HEAD}"),
    (WORD, "method"),
    (WHOLE, "seed", COUNT),
    (WORD, "prompt"),
    (WHOLE, HEAD, COUNT),
    (REAL, "reward", FINITE),
    known="reward",
)

# --- Statistics

UNIT, TARGET = ("member", "ensemble"), ("fixed", "reached", "missed")
_table(
    *("policies", "method,seed"),
    (TEXT, "method"),
    (TEXT, "unit", UNIT),
    (NUMBER, f"seed {HEAD} trial", COUNT),
    (NUMBER, "score"),
    (MAYBE, "score_se kl kl_se kl_target", COUNT),
    (NUMBER, "beta", COUNT),
    (TEXT, "target", TARGET),
    (OTHER, "grammatical", SHARE),
)
_table(
    *("summary", "method"),
    (TEXT, "method"),
    (TEXT, "unit", UNIT),
    (TEXT, "control", ("no", "yes")),
    (NUMBER, "policies units", COUNT),
    (NUMBER, "score"),
    (NUMBER, "worse", COUNT),
    (NUMBER, "worse_low worse_high", SHARE),
    (MAYBE, "score_low score_high"),
    (MAYBE, "score_variance noise_variance", COUNT),
    (NUMBER, "quantile05 cvar10"),
    (MAYBE, "kl"),
    (MAYBE, "kl_sd", COUNT),
    (MAYBE, "reference_score"),
    (MAYBE, "reference_se", COUNT),
    (NUMBER, "beta", COUNT),
    (MAYBE, "kl_target", COUNT),
    (TEXT, "target", TARGET),
    (OTHER, "score_sd", COUNT),
    (OTHER, "worse_share grammatical", SHARE),
)
QUANTITIES = (
    *("score_difference", "variance_ratio", "elasticity", "corrected_ratio", "brown_forsythe"),
    *("pitman_morgan", "swap_test", "worse_difference", "kl_mismatch"),
)
# A single method is compared with none.
_table(
    *("tests", "method baseline,quantity"),
    (TEXT, "method baseline"),
    (TEXT, "unit", UNIT),
    (TEXT, "quantity", QUANTITIES),
    (NUMBER, "pairs units", COUNT),
    (BOUND, "estimate low high"),
    (BOUND, "p p_holm", SHARE),
    empty=True,
)
_table(
    *("components", "method component"),
    (TEXT, "method"),
    (TEXT, "component", ("ensemble", "member", "trial", "evaluation")),
    (NUMBER, "units", COUNT),
    (BOUND, "variance low high", COUNT),
    (MAYBE, "share", SHARE),
)
_table(
    *("power", "comparison"),
    (TEXT, "comparison"),
    (NUMBER, "draws", COUNT),
    (NUMBER, "least_p", (0.0, 2.0)),
    (BOUND, "ratio difference", COUNT),
    empty=True,
)
_table(
    *("plan", "rule"),
    (TEXT, "rule left_out"),
    (TEXT, "fits", ("yes", "no")),
    (NUMBER, "jobs", COUNT),
    (NUMBER, "weights_gb gradients_gb optimizer_gb activations_gb cache_gb passing_gb", COUNT),
    (NUMBER, "memory_gb", COUNT),
    (MAYBE, "disk_gb operations hours", COUNT),
)


def check_csv(frame: pd.DataFrame, schema: str, path: str | Path) -> None:
    """``InputError`` where a table in CSV lacks a column or a value, or its rows are not whole."""
    form = CSV_SCHEMAS[schema]
    missing = [name for name in form if name not in frame]
    if missing:
        raise InputError(
            f"{path}: the column(s) {', '.join(missing)} are missing; found the columns "
            f"{', '.join(map(str, frame.columns))}"
        )
    for name, kind in form.items():
        if kind != TEXT:
            _check_numbers(frame[name], path, kind)
    check_rows(frame, schema, path)


def _check_numbers(column: pd.Series, path: str | Path, kind: str) -> None:
    numbers = pd.to_numeric(column, errors="coerce")
    bad = numbers.isna() & (column.notna() | (kind == NUMBER))
    if kind != BOUND:
        bad |= numbers.isin([np.inf, -np.inf])
    if column.dtype == bool or bad.any():
        row = int(bad.argmax())
        found = cut(str(column.iloc[row])) if len(column) else "true or false"
        raise InputError(
            f"{path}: row {row + 1}, column {quoted(column.name)}: found {found}, expected a {kind}"
        )


def check_rows(frame: pd.DataFrame, schema: str, path: str | Path) -> None:
    """``InputError`` where the rows of a table are not what ``ROWS`` says of its schema."""
    rules = ROWS[schema]
    if frame.empty:
        if not rules.empty:
            raise InputError(f"{path}: found no rows, expected some")
        return
    for name, words in rules.words.items():
        _check_column(frame[name], ~frame[name].isin(words), path, f"one of {', '.join(words)}")
    for name, (low, high) in rules.ranges.items():
        if name in frame:
            numbers = pd.to_numeric(frame[name], errors="coerce").astype(float)
            bad = numbers.isna() & (frame[name].notna() | (name in rules.known))
            bad |= (numbers < low - ROUNDING) | (numbers > high + ROUNDING)
            expected = f"a number from {low:g} to {high:g}"
            expected = "a finite number" if (low, high) == FINITE else expected
            _check_column(frame[name], bad, path, expected)
    if rules.key:
        _check_key(frame, rules, path)


def _check_column(column: pd.Series, bad: pd.Series, path: str | Path, expected: str) -> None:
    if bad.any():
        row = int(np.argmax(bad.to_numpy()))
        raise InputError(
            f"{path}: row {row + 1}, column {quoted(column.name)}: found "
            f"{cut(str(column.iloc[row]))}, expected {expected}"
        )


def _check_key(frame: pd.DataFrame, rules: Rows, path: str | Path) -> None:
    """``InputError`` for a row that is there twice, or missing."""
    columns = [name for group in rules.key for name in group]
    twice = frame.duplicated(columns).to_numpy()
    if twice.any():
        row = int(twice.argmax())
        raise InputError(
            f"{path}: row {row + 1}: found {_named(columns, frame[columns].iloc[row])} a second "
            "time, expected it once"
        )
    sizes = [
        len(rules.words[group[0]])
        if len(group) == 1 and group[0] in rules.words
        else len(frame[list(group)].drop_duplicates())
        for group in rules.key
    ]
    if len(frame) < math.prod(sizes):
        first, each = list(rules.key[0]), math.prod(sizes[1:])
        counts = frame.groupby(first, sort=False).size()
        short = counts[counts < each]
        place = short.index[0] if len(first) > 1 else (short.index[0],)
        others = " and each ".join(", ".join(group) for group in rules.key[1:])
        raise InputError(
            f"{path}: found {short.iloc[0]} row(s) of {_named(first, place)}, expected {each}: "
            f"each {others} once"
        )


def _named(columns: list[str], values) -> str:
    parts = zip(columns, values, strict=True)
    return ", ".join(f"{name} {quoted(v) if isinstance(v, str) else v}" for name, v in parts)
