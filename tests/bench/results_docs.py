"""Writes what a run says into the manual: numbers, sentences and pictures.

`make results-docs`, after `make run`, copies the pictures to scenarios/pictures and writes the
parts of README.md, docs/results.md and docs/exact.md that stand between marks. `make results-docs
SCENARIO=ensembles`, after that scenario's run, does so with docs/embedded-world.md,
`SCENARIO=imdb_small` with docs/real-data.md, and `SCENARIO=regimes` with docs/findings.md.
docs/theory.md needs no run but `snakemake theory`, and `SCENARIO=theory` writes it alone.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow_scripts"))

from prudent.analysis.findings import findings  # noqa: E402
from prudent.analysis.verdict import read_verdicts  # noqa: E402
from prudent.analysis.wording import name_of, number, p_value  # noqa: E402
from prudent.figures.page_tables import between, decimals, methods_table  # noqa: E402
from prudent.figures.regimes import QUESTIONS, tiles  # noqa: E402
from prudent.rewards.diagnosis import beyond  # noqa: E402
from prudent.rewards.loading import draws_of  # noqa: E402
from prudent.tables import read_csv  # noqa: E402

RESULTS = ROOT / "results/embedded"
KINDS = ROOT / "results/ensembles"
REGIMES = ROOT / "results/regimes"
PICTURES = ROOT / "scenarios/pictures"
KEPT = {"rulegraph", "bench", "kinds"}
"""Pictures that other commands make."""
BASELINE = "vanilla"
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


ROWS = {
    "accuracy on unseen pairs: one member, mean": ("accuracy_member", "accuracy_mean"),
    "within-prompt correlation with the truth: one member, mean": ("within_member", "within_mean"),
    "error correlation between members": ("error_correlation",),
    "sigma: 90th over 10th percentile (constant sigma)": ("sigma_ratio", "sigma_ratio_noise"),
    "leave-one-out sigma and error: rank correlation (constant sigma)": (
        *("leave_one_out", "leave_one_out_noise"),
    ),
    "the same before training": ("leave_one_out_untrained",),
    "calibration error of the mean after one temperature (perfect calibration)": (
        *("ece_scaled", "ece_scaled_noise"),
    ),
}
"""What the table of the kinds says of each: a value, or two, of which noise stands in brackets."""


BEYOND = (
    "the same beyond the feature norm and sigma before training (95% range of constant sigma's)"
)


def _beyond(name: str, results: Path) -> str:
    found = read_csv(results / "reward/diagnosis.csv", "diagnosis")
    found = found[found["ensemble"] == name].set_index("quantity")
    row = found.loc[beyond(found)]
    if pd.isna(row["value"]):
        return "–"
    return f"{row['value']:.3f} ({row['noise_low']:.3f} to {row['noise_high']:.3f})"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    lines.insert(1, "|" + "---|" * len(head))
    return "\n".join(lines) + "\n"


def _values(row: pd.Series, columns: tuple[str, ...]) -> str:
    if row[list(columns)].isna().all():
        return "–"
    first, *more = (f"{row[name]:.3f}" for name in columns)
    form = " ({})" if columns[-1].endswith("_noise") else ", {}"
    return first + "".join(map(form.format, more))


def kinds(results: Path = KINDS) -> str:
    """What each ensemble's spread knows, and what a draw of it takes."""
    found = read_csv(results / "reward/kinds.csv", "kinds").set_index("ensemble")
    rows = [
        [quantity, *(_values(found.loc[name], columns) for name in found.index)]
        for quantity, columns in ROWS.items()
    ]
    rows.insert(-1, [BEYOND, *(_beyond(name, results) for name in found.index)])
    rows.append(["seconds of a draw", *(seconds(name, results) for name in found.index)])
    return table(["quantity", *found.index], rows)


def seconds(name: str, results: Path) -> str:
    """What the jobs of one draw took, their start included."""
    benchmark = results / f"timings/train_ensemble/{name}.tsv"
    if not benchmark.exists():  # the replicates'
        return "–"
    draws = len(draws_of(results / f"reward/ensembles/{name}"))
    spent = pd.read_csv(benchmark, sep="\t")["s"].sum()
    for folder in (results / f"reward/members/{name}").glob("*"):
        # Jobs that are cached have no benchmark, but Snakemake knows when they began and ended.
        record = base64.urlsafe_b64encode(str(folder.relative_to(ROOT)).encode()).decode()
        told = json.loads((ROOT / ".snakemake/metadata" / record).read_text())
        spent += told["endtime"] - told["starttime"]
    return f"{spent / draws:.0f}"


def kinds_by_judge() -> str:
    """What either judge says of each ensemble."""
    found = read_csv(KINDS / "reward/kinds_by_judge.csv", "kinds_by_judge")
    judges = list(dict.fromkeys(found["judge"]))
    wide = found.set_index(["judge", "ensemble"])
    rows = []
    for name in dict.fromkeys(found["ensemble"]):
        cells = []
        for column in ("within_member", "within_mean", "error_correlation", "leave_one_out"):
            for judge in judges:
                known = (judge, name) in wide.index
                value = wide.loc[(judge, name), column] if known else float("nan")
                cells.append("–" if pd.isna(value) else f"{value:.3f}")
        rows.append([name, *cells])
    quantities = ("one member", "mean", "errors correlate", "sigma and error")
    return table(["ensemble", *(f"{q}: {j}" for q in quantities for j in judges)], rows)


def kinds_gain() -> str:
    """What the optimal policies by each ensemble gain, at the larger KL."""
    found = read_csv(KINDS / "exact/kinds.csv", "exact_kinds")
    found = found[found["kl_target"] == found["kl_target"].max()]
    methods = list(dict.fromkeys(found["method"]))
    wide = found.set_index(["ensemble", "method"])
    rows = []
    for name in dict.fromkeys(found["ensemble"]):
        cells = []
        for method in methods:
            if (name, method) not in wide.index:
                cells.append("–")
                continue
            row = wide.loc[(name, method)]
            text = f"{row['gain']:.3f}"
            if pd.notna(row["ratio"]):
                low, high = number(row["ratio_low"]), number(row["ratio_high"])
                text += f"; {number(row['ratio'])} ({low} to {high})"
            cells.append(text)
        rows.append([name, *cells])
    return table(["ensemble", *map(name_of, methods)], rows)


def written(page: Path, **parts: str) -> None:
    """Puts each part between its marks."""
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        marks = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
        before, rest = text.split(marks[0])
        text = before + marks[0] + part + marks[1] + rest.split(marks[1])[1]
    page.write_text(text, encoding="utf-8")


def regimes_counts(table: pd.DataFrame) -> str:
    """How many cells of each ensemble are better or worse than the baseline, by every method."""
    head = ["method", "ensemble", *(question.title for question in QUESTIONS)]
    lines = [head, ["---"] * len(head)]
    for method in _held(table):
        for ensemble, part in table.groupby("ensemble", sort=False):
            cells = [name_of(method), name_of(ensemble)]
            for question in QUESTIONS:
                found = tiles(part, method, BASELINE, question)
                better, worse = (found[found["side"] == side] for side in (1, -1))
                known = found["side"].notna().sum()
                cells.append(
                    f"{len(better)} better, {better['beyond'].sum()} of them than the controls "
                    f"too; {len(worse)} worse; of {known}"
                )
            lines.append(cells)
    return _rows(lines)


def regimes_cells(table: pd.DataFrame, effect: str, text: Callable[[float], str]) -> str:
    """An effect against the baseline, by ten members at the world's own label noise, KL 1.5."""
    part = table[(table["noise"] == 1) & (table["members"] == 10) & (table["kl_target"] == 1.5)]
    part = part[part["against"] == BASELINE].set_index("method")
    held = _held(table)
    head = ["ensemble", "pairs", "disjoint ensembles", f"gain of {BASELINE}", *map(name_of, held)]
    lines = [head, ["---"] * len(head)]

    def cell(row: pd.Series, name: str, text: Callable[[float], str]) -> str:
        bounds = between(row[f"{name}_low"], row[f"{name}_high"], text)
        return text(row[name]) + (f" ({bounds})" if bounds else "")

    for (ensemble, pairs), of in part.groupby(["ensemble", "pairs"], sort=False):
        base = of.loc[BASELINE]
        cells = [name_of(ensemble), f"{pairs:g}", f"{base['ensembles']:g}"]
        cells.append(cell(base, "gain", decimals))
        lines.append([*cells, *(cell(of.loc[method], effect, text) for method in held)])
    return _rows(lines)


def _held(table: pd.DataFrame) -> list[str]:
    """The methods that have controls."""
    return list(dict.fromkeys(table.loc[table["against"] != BASELINE, "method"]))


def _rows(lines: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def theory() -> None:
    """What the papers' theory says beside what is true."""
    found = read_csv(RESULTS / "theory/theory.csv", "claims")
    rows = []
    for row in found.itertuples():
        numbers = (number(value, 3) if pd.notna(value) else "–" for value in (row.paper, row.here))
        rows.append([row.quantity, *numbers, row.agrees, row.why])
    head = ["quantity", "paper", "here", "agrees", "why"]
    written(ROOT / "docs/theory.md", theory=_rows([head, ["---"] * len(head), *rows]))


def main() -> None:
    """Writes all parts, and copies all pictures that a page shows."""
    if sys.argv[1:] == ["ensembles"]:
        parts = {"kinds": kinds(), "judges": kinds_by_judge(), "gains": kinds_gain()}
        written(ROOT / "docs/embedded-world.md", **parts)
        shutil.copyfile(KINDS / "figures/kinds.png", PICTURES / "kinds.png")
        return
    if sys.argv[1:] == ["theory"]:
        theory()
        return
    if sys.argv[1:] == ["imdb_small"]:
        written(ROOT / "docs/real-data.md", kinds=kinds(ROOT / "results/imdb_small"))
        return
    if sys.argv[1:] == ["regimes"]:
        table = read_csv(REGIMES / "regimes/regimes.csv", "regimes")
        parts = {
            "counts": regimes_counts(table),
            "gains": regimes_cells(table, "difference", decimals),
            "ratios": regimes_cells(table, "ratio", number),
        }
        written(ROOT / "docs/findings.md", **parts)
        for method in _held(table):
            name = f"regimes_{method}.png"
            shutil.copyfile(REGIMES / "figures" / name, PICTURES / name)
        return
    trained = list(read_csv(RESULTS / "summary/summary.csv", "summary")["method"])
    written(ROOT / "README.md", verdict=sentences([*trained, FIRST]))
    written(ROOT / "docs/results.md", verdict=sentences(), trained=trained_policies())
    written(ROOT / "docs/exact.md", optimal=optimal_policies())
    theory()
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = "".join(page.read_text(encoding="utf-8") for page in pages)
    for name in sorted(set(re.findall(r"scenarios/pictures/(\w+)\.png", shown)) - KEPT):
        picture = RESULTS / f"figures/{name}.png"
        if picture.exists():
            shutil.copyfile(picture, PICTURES / picture.name)
            print(picture.name)


if __name__ == "__main__":
    main()
