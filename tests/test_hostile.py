"""Many bad inputs, made by rule: each is refused in one message that names it, or does no harm.

The other tests hold mistakes that somebody thought of. These spoil every key, field, column and
file in turn. `pytest tests/test_hostile.py -rP` prints how many inputs there were of each group.
"""

# ruff: noqa: B023
# The functions made in loops here are called at once.

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hostile import VALUES, Trial, damaged, shown, write
from tiny_models import tiny_model, tiny_tokenizer
from tiny_rewards import save_reward_model

from prudent.data.benchmark import build_benchmark
from prudent.data.preferences import build_preferences
from prudent.data.settings import (
    BenchmarkSettings,
    PreferenceSettings,
    PromptSettings,
    Source,
    TextSettings,
)
from prudent.data.texts import build_texts
from prudent.objectives.signal import Signal
from prudent.objectives.single import vanilla
from prudent.policies.settings import ReferenceSettings, SamplingSettings
from prudent.ppo.settings import PPOSettings, RunSettings
from prudent.ppo.trainer import PPOTrainer
from prudent.rewards.loading import load_rewards
from prudent.rewards.settings import HeadSettings, RewardSettings
from prudent.workflow.checks import effective_config
from prudent.workflow.config_docs import DEFAULTS
from prudent.workflow.configfiles import read_config
from prudent.workflow.remembered import Memory

# --- Configuration --------------------------------------------------------------------------------


def places(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of a configuration, sections too."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from places(part, (*place, key))
    if place:
        yield place


def test_every_key_of_the_configuration(tmp_path):
    trial, memory = Trial(), Memory(tmp_path)
    base = read_config(DEFAULTS)
    for place in list(places(effective_config(copy.deepcopy(base), memory))):
        *owners, key = place
        for value in VALUES:
            config = section = copy.deepcopy(base)
            for owner in owners:
                section = section.setdefault(owner, {})
            section[key] = value
            what = f"{'.'.join(place)} = {shown(value)}"
            trial(what, place[0], lambda config=config: effective_config(config, memory))
    trial.end("configuration", least=2000)


# --- Data -----------------------------------------------------------------------------------------


WORDS = ["a fine film", "a dull film", "good, very good", 'he said "no"', "été\nhiver", "NA", "0"]
ROWS = [
    {"id": str(i), "prompt": f"The film {i}", "chosen": f"{w} {i}", "rejected": f"bad {i}",
     "text": f"{w} {i}", "subset": "donotanswer", "section": "Safety"}
    for i, w in enumerate(WORDS)
]  # fmt: skip
TABLES = {
    "texts": (
        ("text",),
        lambda source: build_texts(TextSettings(sources=[source], validation=0), "refuse", 0),
    ),
    "preferences": (
        ("prompt", "chosen", "rejected"),
        lambda source: build_preferences(
            PreferenceSettings(sources=[source], validation=0), "refuse", 0
        ),
    ),
    "benchmark": (
        ("id", "prompt", "chosen", "rejected", "subset", "section"),
        lambda source: build_benchmark(BenchmarkSettings(sources=[source]), "refuse", 0),
    ),
}


def spoiled(columns: tuple[str, ...], ending: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Rows with one column missing, renamed, or of another value in one row or in all."""
    rows = [{name: row[name] for name in columns} for row in ROWS]
    for column in columns:
        yield f"no {column}", [{k: v for k, v in row.items() if k != column} for row in rows]
        yield (
            f"{column} in capitals",
            [{(k.upper() if k == column else k): v for k, v in row.items()} for row in rows],
        )
        for value in (*VALUES, "\0", "\N{RIGHT-TO-LEFT OVERRIDE}x", [{"role": "user"}], [[]]):
            # No writer of parquet takes these.
            if ending == ".parquet" and (value in ({}, "\ud800") or shown(value).startswith("a h")):
                continue
            if ending in (".json", ".jsonl") and isinstance(value, bytes):
                continue
            if ending == ".csv" and (value == "\ud800" or isinstance(value, list | dict | tuple)):
                continue
            if isinstance(value, int) and value.bit_length() > (128 if "json" in ending else 63):
                continue
            yield f"{column} = {shown(value)} in all rows", [row | {column: value} for row in rows]
            if ending != ".parquet" or isinstance(value, str | None):
                one = copy.deepcopy(rows)
                one[3][column] = value
                yield f"{column} = {shown(value)} in one row", one


def texts_of(frame: pd.DataFrame) -> set[str]:
    names = [name for name in ("text", "chosen", "rejected") if name in frame]
    return {text for name in names for text in frame[name]}


@pytest.mark.parametrize("ending", [".csv", ".json", ".jsonl", ".parquet"])
@pytest.mark.parametrize("name", TABLES)
def test_every_column_and_byte_of_a_data_file(name, ending, tmp_path):
    columns, build = TABLES[name]
    trial, path = Trial(), tmp_path / f"rows{ending}"
    source = {"path": str(path)}
    write([{key: row[key] for key in columns} for row in ROWS], path)
    content, whole = path.read_bytes(), texts_of(build(source)[0])
    for what, rows in spoiled(columns, ending):
        write(rows, path)
        trial(f"{name}{ending}: {what}", str(path), lambda: build(source))
    for what, spoilt in damaged(content):
        path.write_bytes(spoilt)
        table = trial(f"{name}{ending}: {what}", str(path), lambda: build(source))
        # A file of lines that is cut off between two of them is a shorter file, and nobody can
        # tell where the last line of a csv was to end.
        if table is not None and what.startswith("cut at"):
            assert len(texts_of(table[0]) - whole) <= (ending == ".csv"), what
    trial.end(f"data, {name}{ending}", least=30)


# --- Library --------------------------------------------------------------------------------------


CLASSES = (
    *(PPOSettings, RunSettings, SamplingSettings, ReferenceSettings, RewardSettings, HeadSettings),
    *(TextSettings, PromptSettings, PreferenceSettings, BenchmarkSettings, Source),
)


@pytest.mark.parametrize("model", CLASSES)
def test_every_argument_of_a_settings_class(model):
    trial = Trial()
    source = {"path": "rows.csv"}
    needed = {"sources": [source], "beta": 0.5, "path": "rows.csv"}
    arguments = {key: needed[key] for key in needed if key in model.model_fields}
    for key in model.model_fields:
        for value in VALUES:
            trial(f"{key} = {shown(value)}", key, lambda: model(**arguments | {key: value}))
    trial("unknown", "unknown", lambda: model(**arguments, unknown=1))
    trial.end(f"library, {model.__name__}", least=10)


def rewards_of(prompts: list[str], responses: list[str]) -> list[list[float]]:
    return [[0.1, 0.2, 0.1 * len(text)] for text in responses]


def train(reward_fn=rewards_of, objective=vanilla, prompts=("w3", "w4 w5"), **arguments) -> None:
    settings = PPOSettings(batch_size=2, minibatch_size=2, epochs=1, steps=1, response_length=2)
    chosen = {"policy": tiny_model(), "reference": tiny_model(seed=1), "beta": 0.5} | arguments
    PPOTrainer(
        tokenizer=tiny_tokenizer(),
        reward_fn=reward_fn,
        objective=objective,
        settings=settings,
        **chosen,
    ).train(prompts)


def test_every_argument_of_the_trainer(tmp_path):
    trial = Trial()
    train()
    for name in ("beta", "head", "seed", "run_seed"):
        for value in VALUES:
            names = "" if name == "beta" else name  # a huge one is met as a coefficient or loss
            trial(f"{name} = {shown(value)}", names, lambda: train(**{name: value}))
    for value in VALUES:
        what = shown(value)
        trial(f"prompts = {what}", "prompt", lambda: train(prompts=value))
        trial(f"prompts = [{what}]", "prompt", lambda: train(prompts=[value, "w3"]))
        for table in (value, [value], [value, value], [[value]] * 2, [[0.5, value]] * 2):
            trial(f"rewards {what}", "reward", lambda: train(lambda p, r: table))
    good = torch.ones(2)
    for part in (*VALUES, torch.full((2,), math.nan), torch.ones(3), torch.ones(2, 1)):
        for signal in (
            lambda: part,
            lambda: Signal(part, good),
            lambda: Signal(good, part),
            lambda: Signal(good, good, weights=part),
            lambda: Signal(good, good, penalty=torch.square, penalty_coefficient=part),
        ):
            trial(
                f"signal {shown(part)}",
                "objective",
                lambda: train(objective=lambda rewards, beta: signal()),
            )
    trial.end("library, PPOTrainer", least=200)


def test_every_text_for_a_reward_ensemble(tmp_path):
    trial = Trial()
    ensemble = load_rewards(save_reward_model(tmp_path / "ensemble", labels=2))
    for value in VALUES:
        for texts in (value, [value], ["w3", value], np.array([value], dtype=object)):
            what = shown(value)
            trial(f"prompts {what}", "prompt", lambda: ensemble(texts, ["w4"]))
            trial(f"responses {what}", "response", lambda: ensemble(["w4"], texts))
        for message in ({"role": value, "content": "w3"}, {"role": "user", "content": value}):
            trial(f"message {what}", "prompt", lambda: ensemble([[message]], ["w4"]))
    trial.end("library, RewardEnsemble", least=100)
