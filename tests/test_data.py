"""The data stage: every form of source and row against the same table, and what is refused."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tiny_data import (
    EXPECTED,
    REAL,
    ROOT,
    benchmark_of,
    content,
    pairs,
    real_data,
    reviews,
    settings,
    spoiled,
    write_rows,
)

from prudent import tables
from prudent.data.preferences import build_preferences, prompt_key
from prudent.data.settings import TextSettings
from prudent.data.table import save
from prudent.data.texts import build_texts
from prudent.errors import InputError

pytestmark = pytest.mark.usefixtures("own_cache")


def test_dropped_rows_are_counted_in_the_card(tmp_path):
    frame, card = build_preferences(
        settings({"path": str(spoiled(tmp_path))}, {"path": str(spoiled(tmp_path))}), "drop", 0
    )
    first, second = card["sources"]
    assert first["dropped"] == {"empty_response": 1, "missing": 1, "equal_responses": 2}
    assert (first["read"], first["duplicates"], first["kept"]) == (100, 1, 95)
    # An id names the source and the row; the second source repeats the first.
    rows = pd.read_json(spoiled(tmp_path), lines=True)
    for name, chosen in zip(frame["id"], frame["chosen"], strict=True):
        part, row = name.split(":")
        assert part == "0" and rows["chosen"][int(row) - 1] == chosen
    assert (second["duplicates"], second["kept"]) == (96, 0)
    assert card["rows"] == len(frame) == 95 == sum(card["splits"].values())
    assert card["splits"] == frame["split"].value_counts().to_dict()


def test_saved_table_reads_back_and_the_card_holds_its_digest(tmp_path):
    path = write_rows(pairs(60), tmp_path / "a.parquet")
    frame, card = build_preferences(settings({"path": str(path)}), "refuse", 0)
    save(frame, card, "preferences", tmp_path / "p.parquet", tmp_path / "p.card.json")
    again = tables.read_table(tmp_path / "p.parquet", "preferences")
    assert content(again) == EXPECTED
    assert again["probability"].isna().all()
    assert pq.read_table(tmp_path / "p.parquet")["probability"].null_count == 60
    written = json.loads((tmp_path / "p.card.json").read_text())
    assert written["sha256"] == tables.file_digest(tmp_path / "p.parquet")
    assert written["sources"] == card["sources"]
    # Nothing but the data decides the bytes.
    save(frame, card, "preferences", tmp_path / "q.parquet", tmp_path / "q.card.json")
    assert (tmp_path / "q.parquet").read_bytes() == (tmp_path / "p.parquet").read_bytes()


def test_nothing_left_is_refused(tmp_path):
    path = write_rows([{"text": "  "}, {"text": "<br />"}], tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="found no row to keep.*2 rows read.*'empty_text': 2"):
        build_texts(TextSettings(sources=[{"path": str(path)}]), "drop", 0)


# -------------------------------------------------------------------------------------- splits


def test_a_prompts_split_does_not_hang_on_other_rows_or_their_order(tmp_path):
    rows = [{**row, "chosen": f"Good {k}."} for k in range(3) for row in pairs(300)]
    shares = {"validation": 0.25, "judge": 0.4}
    path = str(write_rows(rows, tmp_path / "a.parquet"))
    frame, _ = build_preferences(settings({"path": path}, **shares), "refuse", 0)
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:500]]
    path = str(write_rows(shuffled, tmp_path / "b.parquet"))
    other, _ = build_preferences(settings({"path": path}, **shares), "refuse", 0)

    splits = frame.assign(key=frame["prompt"].map(prompt_key)).groupby("key")["split"]
    assert (splits.nunique() == 1).all()
    one = splits.first()
    keys = other["prompt"].map(prompt_key)
    assert (one[keys].to_numpy() == other["split"].to_numpy()).all()
    # Shares of 300 prompts, within four standard deviations of 0.4, 0.6 * 0.25 and the rest.
    for split, share in {"judge": 0.4, "validation": 0.15, "train": 0.45}.items():
        assert (one == split).mean() == pytest.approx(
            share, abs=4 * (share * (1 - share) / 300) ** 0.5
        )
    # Another share of the judge leaves the split of the rest as it was; another seed does not.
    path = str(write_rows(rows, tmp_path / "c.parquet"))
    without, _ = build_preferences(settings({"path": path}, validation=0.25), "refuse", 0)
    rest = frame["split"] != "judge"
    assert (without["split"][rest] == frame["split"][rest]).all()
    seeded, _ = build_preferences(settings({"path": path}, validation=0.25), "refuse", 1)
    assert (seeded["split"] != without["split"]).any()


def test_the_same_prompt_in_two_forms_lands_in_one_split(tmp_path):
    plain = [{"prompt": f"Question {i}?\n", "chosen": "A", "rejected": "B"} for i in range(80)]
    turns = [
        {"prompt": f"\n\nHuman: Question {i}?\n\nAssistant:", "chosen": "C", "rejected": "D"}
        for i in range(80)
    ]
    sources = [
        {"path": str(write_rows(plain, tmp_path / "plain.jsonl"))},
        {"path": str(write_rows(turns, tmp_path / "turns.csv"))},
    ]
    frame, _ = build_preferences(settings(*sources), "refuse", 0)
    by_source = frame.groupby("source")["split"].apply(list)
    assert by_source["plain"] == by_source["turns"]
    assert set(by_source["plain"]) == {"train", "validation"}


def test_an_empty_split_is_refused(tmp_path):
    path = str(write_rows(pairs(3), tmp_path / "a.jsonl"))
    with pytest.raises(InputError, match="found no row in the split judge of 3 rows"):
        build_preferences(settings({"path": path}, judge=1e-9), "refuse", 0)


# --------------------------------------------------------------------------- scripts, real files


def test_a_script_runs_by_hand_and_prints_one_message(tmp_path):
    path = write_rows(reviews(60), tmp_path / "r.jsonl")
    command = [
        sys.executable,
        str(ROOT / "workflow_scripts" / "prepare_texts.py"),
        f"--texts={tmp_path / 'out' / 'texts.parquet'}",
        f"--card={tmp_path / 'out' / 'texts.card.json'}",
        "--bad-rows=refuse",
        "--seed=0",
    ]
    given = json.dumps({"sources": [{"path": str(path)}], "validation": 0.2})
    subprocess.run([*command, f"--settings={given}"], check=True)
    assert len(tables.read_table(tmp_path / "out" / "texts.parquet", "texts")) == 60
    given = json.dumps({"sources": [{"path": str(tmp_path / "none.jsonl")}]})
    failed = subprocess.run([*command, f"--settings={given}"], capture_output=True, text=True)
    assert failed.returncode == 1
    assert "none.jsonl: there is no such file" in failed.stderr
    assert "Traceback" not in failed.stderr


@real_data
def test_real_preferences_and_benchmark_are_read_whole():
    sources = [
        {"path": str(REAL / "preferences_hh_helpful.parquet")},
        {"path": str(REAL / "preferences_alpaca_eval_direct.parquet"), "rows": 2000},
    ]
    frame, card = build_preferences(settings(*sources, judge=0.3), "refuse", 0)
    assert [source["kept"] for source in card["sources"]] == [6195, 2000]
    splits = frame.assign(key=frame["prompt"].map(prompt_key)).groupby("key")["split"]
    assert (splits.nunique() == 1).all()
    assert not frame["chosen"].str.contains("\n\nHuman:", regex=False).any()
    roles = {tuple(m["role"] for m in prompt) for prompt in frame["prompt"]}
    assert all(pair == ("user", "assistant") * (len(pair) // 2) + ("user",) for pair in roles)

    source = {"path": str(REAL / "rewardbench.parquet")}
    given, card = benchmark_of(source)
    assert card["sections"] == {"Chat": 358, "Chat Hard": 456, "Safety": 740, "Reasoning": 1431}
    original = pd.read_parquet(REAL / "rewardbench.parquet")
    assert given["chosen"].tolist() == original["chosen"].tolist()
    assert given["section"].tolist() == original["section"].tolist()
