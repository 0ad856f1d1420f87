"""Inputs made by rule to be refused, and the trial that they are put to."""

import functools
import itertools
import json
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from prudent import schemas
from prudent.errors import LONGEST, InputError

# Of every type that YAML, JSON or a caller may bring, and of every size.
VALUES: list[Any] = [
    *(None, "", " ", "text", "nan", "1e-3", "../..", "{data_root}", "x" * 5000, "\ud800", b"bytes"),
    *(True, -1, 0, 1, 1.5, 10**30, 10**10000, 1e308, math.nan, math.inf, -math.inf),
    *([], [1], (1, 2), {}, {"a": 1}),
]


class Trial:
    """Tries inputs, and keeps those that end neither well nor in one good message."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.wrong: list[str] = []

    def __call__(self, what: str, names: str, call: Callable[[], Any]) -> Any:
        """One input; a refusal names it by ``names``. Returns what the call did."""
        try:
            result = call()
        except InputError as error:
            text = str(error)
            self.count["refused"] += 1
            if len(text) > LONGEST or names not in text or not text.isprintable():
                self.wrong.append(f"{what}: the message is {text[:400]!r}")
            return None
        except BaseException as error:
            self.count["failed"] += 1
            self.wrong.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
            return None
        self.count["harmless"] += 1
        return result

    def end(self, group: str, least: int) -> None:
        print(f"{group}: {self.count.total()} inputs, {dict(self.count)}")
        assert not self.wrong, f"{len(self.wrong)} of them:\n" + "\n".join(self.wrong[:8])
        assert self.count["refused"] >= least


def shown(value: Any) -> str:
    huge = isinstance(value, int) and value.bit_length() > 200
    return "a huge number" if huge else repr(value)[:40]


def write(rows: list[dict[str, Any]], path: Path) -> None:
    match path.suffix:
        case ".csv":
            pd.DataFrame(rows).to_csv(path, index=False)
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path, compression="none")
        case ".json":
            path.write_text(json.dumps(rows))
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def whole_rows(schema: str) -> list[dict[str, Any]]:
    """Rows that a schema takes, two of each group of its key or one for each word."""
    rules, csv = schemas.ROWS[schema], schemas.CSV_SCHEMAS.get(schema)
    kinds = csv or {column.name: column.type for column in schemas.SCHEMAS[schema]}
    good = {
        pa.int64(): 1,
        pa.list_(pa.int64()): [1],
        schemas.MESSAGES: [{"role": "user", "content": "a"}],
    }
    good |= dict.fromkeys((schemas.TEXT, pa.string()), "a")
    row = {name: good.get(kind, 0.5) for name, kind in kinds.items()}
    row |= {name: words[0] for name, words in rules.words.items()}
    row |= {name: min(row[name], high) for name, (_, high) in rules.ranges.items() if name in row}

    def values(group: tuple[str, ...]) -> list[dict[str, Any]]:
        name = next((name for name in group if name not in rules.words), None)
        if name is None:
            return [{group[0]: word} for word in rules.words[group[0]]]
        return [{name: value} for value in (("a", "b") if row[name] == "a" else (1, 2))]

    parts = itertools.product(*map(values, rules.key))
    return [row | functools.reduce(operator.or_, part, {}) for part in parts]


def damaged(content: bytes, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """A file cut off at many places, with bytes changed at many others, and taken for another."""
    stream = np.random.default_rng(seed)
    for place in sorted({0, 1, len(content) - 1, *stream.integers(len(content), size=16).tolist()}):
        yield f"cut at {place}", content[:place]
    for place in stream.integers(len(content), size=16).tolist():
        for byte in (b"\0", b"\xff", b'"', b"\n", b"9"):
            yield f"{byte!r} at {place}", content[:place] + byte + content[place + 1 :]
    yield "twice", content + content
    yield "blanks", b" \n" * 9
    yield "zeros", bytes(len(content))
    yield "UTF-16", content.decode("latin-1").encode("utf-16")
    yield "a BOM", b"\xef\xbb\xbf" + content


def json_places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key and position of a JSON value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts if not isinstance(value, list) else list(parts)[:2]:
        yield (*place, key)
        if isinstance(part, dict | list):
            yield from json_places(part, (*place, key))
