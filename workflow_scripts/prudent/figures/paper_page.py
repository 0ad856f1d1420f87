"""The page of the paper: each of its figures and tables, beside this scenario's.

One HTML file without scripts, links or pictures from outside, as the summary page. The template
``paper.html`` has the layout, and escapes all texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from prudent.analysis.printed import TITLES
from prudent.figures.page import Figure, Shown, shown
from prudent.figures.page_tables import NOTHING, Cell, Table
from prudent.figures.templates import template


class Item(NamedTuple):
    """A figure, table or theorem of the paper."""

    anchor: str
    name: str
    title: str
    rows: Sequence[Mapping[str, str]]
    figures: Sequence[Shown] = ()
    table: Table | None = None


def render(
    rows: pd.DataFrame,
    rewardbench: pd.DataFrame,
    figures: Sequence[Mapping[str, str]],
    facts: Sequence[tuple[str, str]],
) -> str:
    """The whole page as HTML.

    Args:
        rows: ``analysis.paper.rows``, as a table.
        rewardbench: ``analysis.paper.rewardbench_table``.
        figures: item, name, caption and svg of each figure.
        facts: names and values of the run's inputs.
    """
    items = []
    for name, title in TITLES.items():
        of_item = [
            shown(Figure(figure["name"], "", figure["caption"], figure["svg"]))
            for figure in figures
            if figure["item"] == name
        ]
        found = rows[rows["item"] == name].to_dict("records")
        if found or of_item:
            table = models_table(rewardbench) if name == "Table 1" else None
            anchor = name.lower().replace(" ", "-").replace(".", "-")
            items.append(Item(anchor, name, title, found, of_item, table))
    counts = rows["agrees"].value_counts()
    return template(Path(__file__).with_name("paper.html")).render(
        items=items, counts=counts.to_dict(), total=len(rows), facts=facts
    )


def models_table(rewardbench: pd.DataFrame) -> Table:
    """Table 1 with one row per model; ours are marked."""
    names = [name for name in rewardbench if name not in ("model", "origin")]
    head = [Cell("model"), *(Cell(name.replace("_", " ")) for name in names)]
    body = []
    for row in rewardbench.to_dict("records"):
        mark = "all" if row["origin"] == "here" else ""
        cells = [f"{row[name]:.1f}" if np.isfinite(row[name]) else NOTHING for name in names]
        body.append([Cell(row["model"], row["origin"], mark), *map(Cell, cells)])
    return Table(head, body)
