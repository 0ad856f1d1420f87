"""Small files of data, and what the tests of the data stages share."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prudent.data.benchmark import build_benchmark
from prudent.data.settings import BenchmarkSettings, PreferenceSettings, Source, TextSettings
from prudent.data.sources import Rows
from prudent.data.sources import read_source as read
from prudent.data.texts import build_texts

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get("PRUDENT_DATA", ROOT.parent / "shared" / "data"))
real_data = pytest.mark.skipif(
    not (REAL / "rewardbench.parquet").is_file(),
    reason=f"the real data files are not in {REAL} (PRUDENT_DATA names their folder)",
)


def said(text):
    return {"role": "assistant", "content": text}


def pairs(count, start=0):
    numbers = range(start, start + count)
    return [
        {"prompt": f"Question {i}?", "chosen": f"Good {i}.", "rejected": f"Bad {i}."}
        for i in numbers
    ]


def write_rows(rows, path):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(*sources, **changes):
    given = {"sharpness": 1.0, "label_noise": 0.0, "validation": 0.2, "judge": 0.0, **changes}
    return PreferenceSettings(sources=list(sources), **given)


def texts_of(validation, *sources):
    return build_texts(TextSettings(sources=list(sources), validation=validation), "refuse", 0)


def benchmark_of(*sources, bad_rows="refuse"):
    return build_benchmark(BenchmarkSettings(sources=list(sources)), bad_rows, 0)


def read_source(spec, required, optional=(), seed=0) -> Rows:
    places = {key: str(spec[key]) for key in ("path", "dataset") if key in spec}
    return read(Source(**spec | places), required, optional, seed)


def content(frame):
    return [(p[-1]["content"], c, r) for p, c, r in frame[["prompt", "chosen", "rejected"]].values]


EXPECTED = [(r["prompt"], r["chosen"], r["rejected"]) for r in pairs(60)]


def spoiled(tmp_path):
    rows = pairs(100)
    rows[6]["rejected"] = " "
    rows[9]["chosen"] = None
    rows[12]["rejected"] = rows[12]["chosen"]
    rows[13] = dict(rows[12])
    rows[20] = dict(rows[19])
    return write_rows(rows, tmp_path / "pairs.jsonl")


def reviews(count):
    rng = np.random.default_rng(5)
    words = "the film was a bright and naïve story of one café owner's long quiet year".split()
    return [
        {"text": f"Film {i}: <br /><br />" + " ".join(rng.choice(words, 20))} for i in range(count)
    ]
