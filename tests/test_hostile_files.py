"""Checkpoints, features and results with every field, column and byte spoiled in turn.

See test_hostile.py.
"""

# ruff: noqa: B023
# The functions made in loops here are called at once.

import copy
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import torch
from hostile import VALUES, Trial, damaged, json_places, shown, whole_rows, write
from tiny_models import tiny_model, tiny_tokenizer
from tiny_rewards import save_reward_model

from prudent import schemas, tables
from prudent.policies.models import load_policy
from prudent.ppo.checkpoint import CheckpointFolder
from prudent.rewards.features import PairFeatures, load_features, save_features
from prudent.rewards.loading import load_rewards


def bad_checkpoints(folder: Path) -> Iterator[tuple[str, Path, bytes | None]]:
    """Spoilt contents of a checkpoint's files, None for a file that is missing."""
    values = [v for v in VALUES if not isinstance(v, bytes) and v != "\ud800"]
    values = [v for v in values if not (isinstance(v, int) and v.bit_length() > 200)]
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        yield f"no {path.name}", path, None
        if path.name in ("config.json", "tokenizer_config.json"):
            for place in json_places(json.loads(content)):
                for value in values:
                    entries = part = json.loads(content)
                    for key in place[:-1]:
                        part = part[key]
                    part[place[-1]] = value
                    where = ".".join(map(str, place))
                    yield f"{where} = {shown(value)}", path, json.dumps(entries).encode()
        for what, spoilt in damaged(content):
            yield f"{path.name} {what}", path, spoilt


def use_policy(folder: Path) -> None:
    model, tokenizer = load_policy(folder)
    ids = tokenizer(["w3 w4", "w5"], padding=True, return_tensors="pt")
    with torch.no_grad():
        model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"])


def use_rewards(folder: Path) -> None:
    load_rewards(folder)(["w3 w4", "w5"], [" w6", " w7 w8"])


@pytest.mark.parametrize("kind", ["policy", "rewards"])
def test_every_field_and_file_of_a_checkpoint(kind, tmp_path):
    folder = tmp_path / kind
    if kind == "policy":
        tiny_model().save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    else:
        save_reward_model(folder, labels=2)
    use = use_policy if kind == "policy" else use_rewards
    use(folder)
    trial = Trial()
    for what, path, content in bad_checkpoints(folder):
        whole = path.read_bytes()
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        trial(f"{kind}: {what}", str(folder), lambda: use(folder))
        path.write_bytes(whole)
    trial.end(f"checkpoints, {kind}", least=100)


# --- Results and resuming -------------------------------------------------------------------------


@pytest.mark.parametrize("schema", schemas.CSV_SCHEMAS)
def test_every_column_and_byte_of_a_csv_of_results(schema, tmp_path):
    trial, path = Trial(), tmp_path / f"{schema}.csv"
    form = schemas.CSV_SCHEMAS[schema]
    rows = whole_rows(schema)
    tables.write_csv(pd.DataFrame(rows), path, schema)
    assert len(tables.read_csv(path, schema)) == len(rows)
    row = rows.pop()
    for column in form:
        write([{k: v for k, v in row.items() if k != column} for row in [*rows, row]], path)
        trial(f"no {column}", str(path), lambda: tables.read_csv(path, schema))
        for value in ("text", "1,5", True, math.inf, "1e", "0x1", "--", "\ufeff1", "x" * 5000):
            write([*rows, row | {column: value}], path)
            trial(f"{column} = {shown(value)}", str(path), lambda: tables.read_csv(path, schema))
    write([*rows, row], path)
    for what, content in damaged(path.read_bytes()):
        path.write_bytes(content)
        trial(f"{schema}: {what}", str(path), lambda: tables.read_csv(path, schema))
    trial.end(f"results, {schema}.csv", least=20)


@pytest.mark.parametrize("schema", schemas.SCHEMAS)
def test_every_column_and_byte_of_a_table_of_results(schema, tmp_path):
    trial, path = Trial(), tmp_path / f"{schema}.parquet"
    form = schemas.SCHEMAS[schema]
    *rows, row = whole_rows(schema)
    for column in form.names:
        for value in (*VALUES, [[1]], [{"role": 5, "content": "a"}], "drop"):
            if value == {} or value == "\ud800" or shown(value).startswith("a huge"):
                continue
            if isinstance(value, int) and value.bit_length() > 63:
                continue
            changed = {k: v for k, v in row.items() if k != column or value != "drop"}
            changed |= {} if value == "drop" else {column: value}
            kept = [{k: v for k, v in other.items() if k in changed} for other in rows]
            try:
                write([*kept, changed], path)
            except (pa.ArrowException, OverflowError):  # two types in one column
                write([changed], path)
            trial(f"{column} = {shown(value)}", str(path), lambda: tables.read_table(path, schema))
    tables.write_parquet(pd.DataFrame([*rows, row]), path, schema)
    assert len(tables.read_table(path, schema)) == len(rows) + 1
    for what, content in damaged(path.read_bytes()):
        path.write_bytes(content)
        trial(f"{schema}: {what}", str(path), lambda: tables.read_table(path, schema))
    trial.end(f"results, {schema}.parquet", least=40)


def test_every_byte_of_a_policys_checkpoint(tmp_path):
    trial = Trial()
    fingerprint = {"steps": 3, "settings": {"beta": 0.5}}
    tensors = {"policy.weight": torch.ones(4, 3), "adam.step": torch.ones(())}
    log = [{"step": 0, "kl": 0.5}]
    with CheckpointFolder(tmp_path, fingerprint) as folder:
        folder.save(tensors, log, {"mean": torch.ones(2)})
        content = folder.path.read_bytes()

    def resume() -> None:
        kept = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        with CheckpointFolder(tmp_path, fingerprint) as folder:
            found = folder.load(kept, {})
        assert len(found) <= len(log)

    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    for place in json_places(header):
        for value in VALUES:
            if isinstance(value, bytes) or value == "\ud800" or shown(value).startswith("a huge"):
                continue
            entries = part = copy.deepcopy(header)
            for key in place[:-1]:
                part = part[key]
            if part[place[-1]] == value:
                continue
            part[place[-1]] = value
            text = json.dumps(entries).encode()
            folder.path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
            trial(f"{place} = {shown(value)}", str(folder.path), resume)
    for what, spoilt in damaged(content):
        folder.path.write_bytes(spoilt)
        trial(what, str(folder.path), resume)
    trial.end("resume", least=200)


def test_every_byte_of_the_features(tmp_path):
    trial, path = Trial(), tmp_path / "features.safetensors"
    sides = {side: torch.randn(5, 4) for side in ("chosen", "rejected")}
    probability = torch.full((5,), 0.5).double()
    save_features(PairFeatures(list("abcde"), ["train"] * 5, probability, **sides), path)
    content = path.read_bytes()
    for what, spoilt in damaged(content):
        path.write_bytes(spoilt)
        trial(what, str(path), lambda: load_features(path, 4))
    path.write_bytes(content)
    for width in (0, 3, 5):
        trial(f"width {width}", str(path), lambda: load_features(path, width))
    trial.end("results, features", least=20)
