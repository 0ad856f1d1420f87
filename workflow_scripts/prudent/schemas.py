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

import numpy as np
import pandas as pd
import pyarrow as pa

from prudent.errors import InputError, cut, quoted

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
RESPONSES = [
    ("method", pa.string()),
    ("seed", pa.int64()),
    ("prompt", pa.string()),
    ("response", pa.string()),
    ("kl", pa.float64()),
]

SCHEMAS: dict[str, pa.Schema] = {
    "texts": pa.schema([("text", pa.string()), ("source", pa.string()), ("split", pa.string())]),
    "prompts": pa.schema(
        [
            ("prompt", pa.string()),
            ("source", pa.string()),
            ("split", pa.string()),
            ("tokens", pa.int64()),
        ]
    ),
    "preferences": pa.schema(
        [
            ("id", pa.string()),
            ("prompt", MESSAGES),
            ("chosen", pa.string()),
            ("rejected", pa.string()),
            ("source", pa.string()),
            ("split", pa.string()),
            ("probability", pa.float64()),
        ]
    ),
    "benchmark": pa.schema(
        [
            ("prompt", MESSAGES),
            ("chosen", pa.string()),
            ("rejected", pa.string()),
            ("subset", pa.string()),
            ("section", pa.string()),
            ("id", pa.string()),
        ]
    ),
    # Policies' responses to the test prompts; the reference policy is method "reference", seed 0.
    "responses": pa.schema(RESPONSES),
    # What a judge says of them; other columns are the judge's own.
    "judgements": pa.schema([*RESPONSES, ("score", pa.float64())]),
    # What every head says of them.
    "rewards": pa.schema(
        [
            ("method", pa.string()),
            ("seed", pa.int64()),
            ("prompt", pa.string()),
            ("ensemble", pa.int64()),
            ("head", pa.int64()),
            ("reward", pa.float64()),
        ]
    ),
    # Responses of the reference policy, prompt by prompt and as many to each.
    "exact_samples": pa.schema(
        [
            ("prompt", pa.string()),
            ("response", pa.string()),
            ("log_probability", pa.float64()),
        ]
    ),
    # Optimal policies; the head is -1 where none is the policy's own.
    "exact_policies": pa.schema(
        [
            ("level", pa.string()),
            ("replicate", pa.int64()),
            ("head", pa.int64()),
            ("method", pa.string()),
            *(
                (name, pa.float64())
                for name in ("kl_target", "gain", "proxy_gain", "kl", "beta", "effective_size")
            ),
            ("first_half", pa.float64()),
            ("second_half", pa.float64()),
        ]
    ),
    # The optimal policies beside trained ones, of the same draws and members.
    "exact_frontier": pa.schema(
        [
            ("method", pa.string()),
            ("draw", pa.int64()),
            ("head", pa.int64()),
            *(
                (name, pa.float64())
                for name in ("kl_target", "gain", "proxy_gain", "kl", "beta", "effective_size")
            ),
        ]
    ),
    "scores": pa.schema(
        [
            ("id", pa.string()),
            ("subset", pa.string()),
            ("section", pa.string()),
            ("side", pa.string()),
            ("ensemble", pa.int64()),
            ("head", pa.int64()),
            ("reward", pa.float64()),
        ]
    ),
}

# Tables in CSV: their columns, whether a cell may be empty, and whether an interval may be open.
TEXT, NUMBER, MAYBE, BOUND = "text", "number", "number or nothing", "number, inf or nothing"
KINDS = {
    "ensemble": TEXT,
    **dict.fromkeys(("accuracy_member", "accuracy_mean", "within_member", "within_mean"), MAYBE),
    **dict.fromkeys(("sigma_ratio", "sigma_ratio_noise", "leave_one_out"), BOUND),
    **dict.fromkeys(("leave_one_out_untrained", "leave_one_out_noise"), MAYBE),
    **dict.fromkeys(("leave_one_out_beyond", "error_correlation"), MAYBE),
    **dict.fromkeys(("ece_mean", "ece_mean_noise"), MAYBE),
    **dict.fromkeys(("ece_scaled", "ece_scaled_noise"), MAYBE),
}
"""What is said of an ensemble."""
EXACT = {
    **dict.fromkeys(("kl_target", "replicates", "below"), NUMBER),
    **dict.fromkeys(("gain", "gain_low", "gain_high", "sd", "sd_low", "sd_high"), MAYBE),
    **dict.fromkeys(("difference", "difference_low", "difference_high", "p"), MAYBE),
    **dict.fromkeys(("ratio", "ratio_low", "ratio_high"), BOUND),
    **dict.fromkeys(("below_share", "below_share_low", "below_share_high"), MAYBE),
    **dict.fromkeys(("quantile05", "cvar10", "effective_size", "sampling_sd", "half_shift"), MAYBE),
}
"""What is said of a method's optimal policies."""

CSV_SCHEMAS: dict[str, dict[str, str]] = {
    "training_log": {
        **dict.fromkeys(("step", "kl", "kl_k3", "proxy_reward", "ensemble_reward"), NUMBER),
        **{"sigma": MAYBE, "judge_score": MAYBE},
        **dict.fromkeys(("kl_coefficient", "score", "entropy", "clip_fraction"), NUMBER),
        **dict.fromkeys(("policy_loss", "value_loss", "learning_rate", "tokens"), NUMBER),
        "seconds": NUMBER,
    },
    "losses": {"step": NUMBER, "loss": NUMBER, "split": TEXT},
    "head_losses": {
        **dict.fromkeys(("ensemble", "head", "step", "loss", "accuracy"), NUMBER),
        "split": TEXT,
    },
    "member_losses": {
        **dict.fromkeys(("member", "step", "loss", "accuracy"), NUMBER),
        "split": TEXT,
    },
    "policies": {
        **dict.fromkeys(("method", "unit"), TEXT),
        **dict.fromkeys(("seed", "ensemble", "head", "trial", "score"), NUMBER),
        **dict.fromkeys(("score_se", "kl", "kl_se", "kl_target"), MAYBE),
        **{"beta": NUMBER, "target": TEXT},
    },
    "summary": {
        **dict.fromkeys(("method", "unit", "control"), TEXT),
        **dict.fromkeys(("policies", "units", "score", "worse", "worse_low", "worse_high"), NUMBER),
        **dict.fromkeys(("score_low", "score_high", "score_variance", "noise_variance"), MAYBE),
        **dict.fromkeys(("quantile05", "cvar10"), NUMBER),
        **dict.fromkeys(("kl", "kl_sd", "reference_score", "reference_se"), MAYBE),
        **{"beta": NUMBER, "kl_target": MAYBE, "target": TEXT},
    },
    "tests": {
        **dict.fromkeys(("method", "baseline", "unit", "quantity"), TEXT),
        **dict.fromkeys(("pairs", "units"), NUMBER),
        **dict.fromkeys(("estimate", "low", "high", "p", "p_holm"), BOUND),
    },
    "components": {
        **dict.fromkeys(("method", "component"), TEXT),
        "units": NUMBER,
        **dict.fromkeys(("variance", "low", "high"), BOUND),
        "share": MAYBE,
    },
    "calibration": {
        "method": TEXT,
        **dict.fromkeys(("kl_target", "evaluation", "beta", "exact_kl", "policies_kl"), NUMBER),
        "policies_kl_se": MAYBE,
        **dict.fromkeys(("pilot", "head", "pilot_beta", "kl"), NUMBER),
        "kl_se": MAYBE,
    },
    "power": {
        "comparison": TEXT,
        **dict.fromkeys(("draws", "least_p"), NUMBER),
        **dict.fromkeys(("ratio", "difference"), BOUND),
    },
    "exact_summary": {
        **dict.fromkeys(("level", "method", "control"), TEXT),
        **EXACT,
    },
    # The same of the draws of each ensemble.
    "exact_kinds": {**dict.fromkeys(("ensemble", "method", "control"), TEXT), **EXACT},
    "best_of": {
        **dict.fromkeys(("level", "scorer"), TEXT),
        **dict.fromkeys(("replicate", "n", "kl", "gain"), NUMBER),
    },
    # Of each ensemble of rewards; what is no ensemble's own has the ensemble "".
    "diagnosis": {
        **dict.fromkeys(("ensemble", "quantity"), TEXT),
        **dict.fromkeys(("value", "low", "high", "noise", "noise_low", "noise_high"), BOUND),
        **dict.fromkeys(("untrained", "promised_low", "promised_high"), BOUND),
    },
    "kinds": KINDS,
    "kinds_by_judge": {"judge": TEXT, **KINDS},
    "frequency": {
        "ensemble": TEXT,
        **dict.fromkeys(("bin", "count_low", "count_high", "n", "pairs"), NUMBER),
        **dict.fromkeys(("accuracy_member", "accuracy_member_low", "accuracy_member_high"), MAYBE),
        **dict.fromkeys(("accuracy_mean", "accuracy_mean_low", "accuracy_mean_high"), MAYBE),
        **dict.fromkeys(("error_member", "error_member_low", "error_member_high"), MAYBE),
        **dict.fromkeys(("error_mean", "error_mean_low", "error_mean_high"), MAYBE),
        **dict.fromkeys(("sigma", "sigma_low", "sigma_high"), MAYBE),
    },
    "accuracy": {
        **dict.fromkeys(("subset", "section", "level", "model"), TEXT),
        **dict.fromkeys(("ensemble", "head", "accuracy", "se", "ties", "rows"), NUMBER),
    },
    "variance": {
        **dict.fromkeys(("section", "subset", "side"), TEXT),
        **dict.fromkeys(("ensemble", "rows"), NUMBER),
        **dict.fromkeys(("mean", "median", "max", "q10", "q25", "q75", "q90"), MAYBE),
    },
}

# --- Rows -----------------------------------------------------------------------------------------


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
SPLIT = {"split": ("train", "validation")}
UNIT = {"unit": ("member", "ensemble")}
TARGET = {"target": ("fixed", "reached", "missed")}
POLICY, PAIR, HEAD = ("method", "seed"), ("section", "subset", "id"), ("ensemble", "head")

OF_KINDS = {
    **dict.fromkeys(("accuracy_member", "accuracy_mean"), SHARE),
    **dict.fromkeys(("within_member", "within_mean"), CORRELATION),
    **dict.fromkeys(("leave_one_out_beyond", "error_correlation"), CORRELATION),
    **dict.fromkeys(("sigma_ratio", "sigma_ratio_noise"), COUNT),
}
ROWS: dict[str, Rows] = {
    "texts": Rows(key=(("text",),), words=SPLIT),
    "prompts": Rows(
        key=(("prompt",),), words={"split": ("train", "test")}, ranges={"tokens": COUNT}
    ),
    "preferences": Rows(
        key=(("id",),),
        words={"split": ("train", "validation", "judge", "spare")},
        ranges={"probability": SHARE},
    ),
    "benchmark": Rows(key=(PAIR,)),
    "responses": Rows(
        key=(POLICY, ("prompt",)), ranges={"seed": COUNT, "kl": COUNT}, known=("kl",)
    ),
    "judgements": Rows(
        key=(POLICY, ("prompt",)),
        ranges={"seed": COUNT, "kl": COUNT, "score": FINITE, "grammatical": SHARE},
        known=("kl", "score", "grammatical"),
    ),
    "rewards": Rows(
        key=(POLICY, ("prompt",), HEAD),
        ranges={"seed": COUNT, "ensemble": COUNT, "head": COUNT, "reward": FINITE},
        known=("reward",),
    ),
    # A response may come twice.
    "exact_samples": Rows(ranges={"log_probability": (-math.inf, 0.0)}),
    "exact_policies": Rows(
        key=(("level", "method", "kl_target", "replicate"),),
        ranges={
            **dict.fromkeys(("replicate", "kl_target", "kl", "beta", "effective_size"), COUNT),
            "head": NUMBERED,
        },
    ),
    "exact_frontier": Rows(
        key=(("method", "draw", "head", "kl_target"),),
        ranges={
            **dict.fromkeys(("draw", "kl_target", "kl", "beta", "effective_size"), COUNT),
            "head": NUMBERED,
        },
    ),
    "components": Rows(
        key=(("method", "component"),),
        words={"component": ("ensemble", "member", "trial", "evaluation")},
        ranges={
            **dict.fromkeys(("units", "variance", "low", "high"), COUNT),
            "share": SHARE,
        },
    ),
    # Each evaluation has all pilots.
    "calibration": Rows(
        key=(("method", "evaluation"), ("pilot",)),
        ranges=dict.fromkeys(
            (
                *("kl_target", "evaluation", "beta", "policies_kl", "policies_kl_se"),
                *("pilot", "head", "pilot_beta", "kl", "kl_se", "exact_kl"),
            ),
            COUNT,
        ),
    ),
    "exact_summary": Rows(
        key=(("level", "kl_target", "method"),),
        words={"control": ("no", "yes")},
        ranges={
            **dict.fromkeys(("kl_target", "replicates", "sd", "ratio", "below"), COUNT),
            **dict.fromkeys(("below_share", "below_share_low", "below_share_high", "p"), SHARE),
        },
    ),
    "exact_kinds": Rows(
        key=(("ensemble", "kl_target", "method"),),
        words={"control": ("no", "yes")},
        ranges={
            **dict.fromkeys(("kl_target", "replicates", "sd", "ratio", "below"), COUNT),
            **dict.fromkeys(("below_share", "below_share_low", "below_share_high", "p"), SHARE),
        },
    ),
    "best_of": Rows(
        key=(("level", "scorer", "replicate", "n"),),
        ranges=dict.fromkeys(("replicate", "n", "kl"), COUNT),
    ),
    "scores": Rows(
        key=(PAIR, ("side",), HEAD),
        words={"side": ("chosen", "rejected")},
        ranges={"ensemble": NUMBERED, "head": NUMBERED, "reward": FINITE},
        known=("reward",),
    ),
    "training_log": Rows(
        key=(("step",),),
        ranges={
            **dict.fromkeys(("step", "sigma", "learning_rate", "tokens", "seconds"), COUNT),
            "clip_fraction": SHARE,
        },
    ),
    # A reference policy that is only read has no losses.
    "losses": Rows(key=(("step", "split"),), words=SPLIT, ranges={"step": COUNT}, empty=True),
    "head_losses": Rows(
        key=((*HEAD, "step", "split"),),
        words=SPLIT,
        ranges={**dict.fromkeys((*HEAD, "step"), COUNT), "accuracy": SHARE},
    ),
    "member_losses": Rows(
        key=(("member", "step", "split"),),
        words=SPLIT,
        ranges={**dict.fromkeys(("member", "step"), COUNT), "accuracy": SHARE},
    ),
    "policies": Rows(
        key=(("method",), ("seed",)),
        words=UNIT | TARGET,
        ranges={
            **dict.fromkeys(("beta", "kl_target"), COUNT),
            **dict.fromkeys(("seed", *HEAD, "trial", "score_se", "kl", "kl_se"), COUNT),
            "grammatical": SHARE,
        },
    ),
    "summary": Rows(
        key=(("method",),),
        words=UNIT | TARGET | {"control": ("no", "yes")},
        ranges={
            **dict.fromkeys(("beta", "kl_target"), COUNT),
            **dict.fromkeys(("policies", "units", "worse", "kl_sd", "reference_se"), COUNT),
            **dict.fromkeys(("score_variance", "noise_variance", "score_sd"), COUNT),
            **dict.fromkeys(("worse_share", "worse_low", "worse_high", "grammatical"), SHARE),
        },
    ),
    "power": Rows(
        key=(("comparison",),),
        ranges={**dict.fromkeys(("draws", "ratio", "difference"), COUNT), "least_p": (0.0, 2.0)},
        empty=True,
    ),
    # A single method is compared with none.
    "tests": Rows(
        key=(("method", "baseline"), ("quantity",)),
        words=UNIT
        | {
            "quantity": (
                *("score_difference", "variance_ratio", "elasticity", "corrected_ratio"),
                *("brown_forsythe", "pitman_morgan"),
                *("swap_test", "worse_difference", "kl_mismatch"),
            )
        },
        ranges={"pairs": COUNT, "units": COUNT, "p": SHARE, "p_holm": SHARE},
        empty=True,
    ),
    "diagnosis": Rows(key=(("ensemble", "quantity"),)),
    "kinds": Rows(key=(("ensemble",),), ranges=OF_KINDS),
    "kinds_by_judge": Rows(key=(("judge", "ensemble"),), ranges=OF_KINDS),
    # A judge of no words gives no counts.
    "frequency": Rows(
        key=(("ensemble", "bin"),),
        ranges={
            **dict.fromkeys(("bin", "count_low", "count_high", "n", "pairs"), COUNT),
            **{
                f"{name}{end}": bounds
                for names, bounds in (
                    (("accuracy_member", "accuracy_mean"), SHARE),
                    (("error_member", "error_mean", "sigma"), COUNT),
                )
                for name in names
                for end in ("", "_low", "_high")
            },
        },
        empty=True,
    ),
    "accuracy": Rows(
        key=(("section", "subset", "level"), ("model", *HEAD)),
        words={"level": ("subset", "section", "overall"), "model": ("base", "head", "mean")},
        ranges={
            **dict.fromkeys(HEAD, NUMBERED),
            **dict.fromkeys(("se", "ties", "rows"), COUNT),
            "accuracy": SHARE,
        },
    ),
    "variance": Rows(
        key=(("section", "subset"), ("side",), ("ensemble",)),
        words={"side": ("accepted", "difference")},
        ranges=dict.fromkeys(
            ("ensemble", "rows", "mean", "median", "max", "q10", "q25", "q75", "q90"), COUNT
        ),
    ),
}


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
