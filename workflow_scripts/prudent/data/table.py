"""The common parts of the data stage's four tables: parsed rows, splits, and data cards."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from prudent import tables
from prudent.data.rows import BadRow, Tie
from prudent.data.sources import Rows
from prudent.errors import InputError, quoted
from prudent.seeding import derive_seed

log = logging.getLogger(__name__)

Card = dict[str, Any]


def parse(
    rows: Rows, one: Callable[[Mapping[str, Any]], Any], bad_rows: str
) -> tuple[list[Any], list[int], Counter[str]]:
    """Every good row in our form, and its number. Bad rows are refused in one message, or dropped
    and counted, as ties are."""
    if bad_rows not in ("refuse", "drop"):
        raise InputError(f"bad_rows: found {quoted(bad_rows)}, expected refuse or drop")
    parsed, numbers, dropped, ties, first = [], [], Counter[str](), Counter[str](), ""
    for number, row in rows.numbered():
        try:
            parsed.append(one(row))
            numbers.append(number)
        except Tie as tie:
            ties[tie.reason] += 1
        except BadRow as bad:
            first = first or f"{rows.origin}: row {number}, {bad}"
            dropped[bad.reason] += 1
    if first and bad_rows == "refuse":
        raise InputError(
            f"{first} ({dropped.total()} bad row(s) in all; `bad_rows: drop` drops them and counts "
            "them in the data card)"
        )
    return parsed, numbers, dropped + ties


def split_of(key: str, seed: int, stage: str, validation: float, judge: float = 0.0) -> str:
    """The split of a text or prompt, by its own hash: other rows and their order do not matter.

    ``judge`` is the share of all keys that goes to the judge, ``validation`` the share of the rest.
    The two are drawn independently, so changing one share does not reshuffle the other.
    """
    if derive_seed(seed, stage, "judge", key) / 2**63 < judge:
        return "judge"
    held_out = derive_seed(seed, stage, "validation", key) / 2**63 < validation
    return "validation" if held_out else "train"


def check_splits(frame: pd.DataFrame, shares: Mapping[str, float]) -> None:
    """``InputError`` where a split has a share but no row."""
    counts = count(frame["split"])
    for split, share in shares.items():
        if share > 0 and not counts.get(split):
            raise InputError(
                f"found no row in the split {split} of {len(frame)} rows ({counts}), expected "
                f"some for the share {share}: more rows or another share"
            )


def count(values: pd.Series) -> dict[str, int]:
    """How often each value occurs in a column."""
    return {str(name): int(number) for name, number in values.value_counts().items()}


def save(frame: pd.DataFrame, card: Card, schema: str, path: Path, card_path: Path) -> None:
    """Writes a table, and its data card with the table's SHA-256."""
    tables.write_parquet(frame, path, schema)
    tables.write_json({**card, "sha256": tables.file_digest(path)}, card_path)


class Table:
    """Rows of all sources of one table, each key once, with counts of the rows of each source."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.rows: list[tuple[Any, ...]] = []
        self.cards: list[Card] = []
        self.seen: set[Any] = set()

    def add(
        self, source: Rows, keys: Sequence[Any], rows: Sequence[tuple[Any, ...]], dropped: Counter
    ) -> None:
        """Adds a source's rows whose keys are new."""
        before = len(self.rows)
        for key, row in zip(keys, rows, strict=True):
            if key not in self.seen:
                self.seen.add(key)
                self.rows.append(row)
        kept = len(self.rows) - before
        self.cards.append(
            {
                "name": source.name,
                "origin": source.origin,
                "available": source.available,
                "read": len(source.numbers),
                "dropped": {reason: number for reason, number in dropped.items() if number},
                "duplicates": len(rows) - kept,
                "kept": kept,
            }
        )
        log.info("%s: kept %d of %d rows", source.origin, kept, len(source.numbers))

    def frame(self) -> pd.DataFrame:
        """The table; ``InputError`` where no row is left."""
        if not self.rows:
            raise InputError(
                "found no row to keep, expected some; the sources: "
                + "; ".join(
                    f"{card['origin']}: {card['read']} rows read, dropped {card['dropped']}"
                    for card in self.cards
                )
            )
        return pd.DataFrame(self.rows, columns=self.names)

    def card(self, **counts: Any) -> Card:
        """The data card: the counts of each source and of the whole table."""
        return {"sources": self.cards, "rows": len(self.rows), **counts}
