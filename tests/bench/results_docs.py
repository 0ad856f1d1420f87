"""Writes what the default run says into the manual: numbers, sentences and pictures.

`make results-docs`, after `make run`, copies the pictures to scenarios/pictures and writes the
parts of README.md, docs/results.md and docs/exact.md that stand between marks.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow_scripts"))

from prudent.analysis.findings import findings  # noqa: E402
from prudent.analysis.verdict import read_verdicts  # noqa: E402
from prudent.analysis.wording import name_of, number, p_value  # noqa: E402
from prudent.figures.page_tables import decimals, methods_table  # noqa: E402
from prudent.tables import read_csv  # noqa: E402

RESULTS = ROOT / "results/embedded"
PICTURES = ROOT / "scenarios/pictures"
KEPT = {"rulegraph", "bench", "kinds"}
"""Pictures that other commands make."""
FIRST = "mean"
"""What the README says beside the trained methods: the plain use of an ensemble."""


def sentences(methods: list[str] | None = None) -> str:
    """What may be said of each method, or of some."""
    verdicts = read_verdicts(RESULTS / "summary/verdict.json")
    said = [m.sentence for m in verdicts.methods if methods is None or m.name in methods]
    return "".join(f"> - {sentence}\n" for sentence in said)


def trained_policies() -> str:
    """What the trained policies are."""
    summary = read_csv(RESULTS / "summary/summary.csv", "summary")
    tests = read_csv(RESULTS / "summary/tests.csv", "tests")
    found = methods_table(summary, tests)
    cells = [[_cell(cell) for cell in row] for row in (found.head, *found.rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    lines.insert(1, "|" + "---|" * len(found.head))
    reference = summary.iloc[0]
    told = [
        f"> - {sentence}"
        for sentences_of in findings(summary, tests).values()
        for sentence in sentences_of
    ]
    after = (
        f"Reference policy: {number(reference['reference_score'])} (standard error over prompts "
        f"{number(reference['reference_se'], 2)})."
    )
    return "\n".join([*told, "", *lines, "", after]) + "\n"


def _cell(cell) -> str:
    note = cell.note.replace("\n", "; ")
    return f"{cell.text} ({note})" if note else cell.text


def optimal_policies() -> str:
    """A table a level, at the larger KL."""
    summary = read_csv(RESULTS / "exact/summary.csv", "exact_summary")
    summary = summary[summary["kl_target"] == summary["kl_target"].max()]
    parts = []
    for level, part in summary.groupby("level", sort=False):
        head = [f"{level}, KL {number(part['kl_target'].iloc[0], 2)}", "mean gain", "sd"]
        head += ["difference to vanilla", "p", "variance ratio to vanilla"]
        head += ["worse than the reference", "lowest tenth", "effective size"]
        lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        lines += [f"| {' | '.join(_row(row))} |" for row in part.to_dict("records")]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _row(row: dict) -> list[str]:
    def with_interval(name: str, text) -> str:
        if pd.isna(row[name]):
            return "–"
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return f"{text(row[name])} ({text(low)} to {text(high)})"

    compared = pd.notna(row["p"]) or pd.notna(row["ratio"])
    return [
        name_of(row["method"]) + (" (control)" if row["control"] == "yes" else ""),
        decimals(row["gain"]),
        with_interval("sd", decimals),
        with_interval("difference", decimals) if compared else "–",
        p_value(row["p"]).removeprefix("= ") if compared else "–",
        with_interval("ratio", number) if compared else "–",
        f"{row['below']} of {row['replicates']}",
        decimals(row["cvar10"]),
        number(row["effective_size"], 2),
    ]


def written(page: Path, **parts: str) -> None:
    """Puts each part between its marks."""
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        marks = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
        before, rest = text.split(marks[0])
        text = before + marks[0] + part + marks[1] + rest.split(marks[1])[1]
    page.write_text(text, encoding="utf-8")


def main() -> None:
    """Writes all parts, and copies all pictures that a page shows."""
    trained = list(read_csv(RESULTS / "summary/summary.csv", "summary")["method"])
    written(ROOT / "README.md", verdict=sentences([*trained, FIRST]))
    written(ROOT / "docs/results.md", verdict=sentences(), trained=trained_policies())
    written(ROOT / "docs/exact.md", optimal=optimal_policies())
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = "".join(page.read_text(encoding="utf-8") for page in pages)
    for name in sorted(set(re.findall(r"scenarios/pictures/(\w+)\.png", shown)) - KEPT):
        picture = RESULTS / f"figures/{name}.png"
        if picture.exists():
            shutil.copyfile(picture, PICTURES / picture.name)
            print(picture.name)


if __name__ == "__main__":
    main()
