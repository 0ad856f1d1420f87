"""The summary page's tables, as cells for its template."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from prudent.analysis.verdict import Comparison, Order, Verdicts
from prudent.analysis.wording import MINUS, name_of, number, p_value, plural
from prudent.figures.looks import looks
from prudent.rewards import calibration, disagreement
from prudent.rewards.diagnosis import OF_ALL, beyond

NOTHING = "–"


class Cell(NamedTuple):
    """A text, a smaller text below it, a class of the page's style, and the colour of a dot.

    The smaller text may have several lines.
    """

    text: str
    note: str = ""
    mark: str = ""
    colour: str = ""


class Table(NamedTuple):
    """The first column is text, the others are numbers."""

    head: list[Cell]
    rows: list[list[Cell]]

    @classmethod
    def of(cls, rows: list[dict[Cell, Cell]]) -> Table:
        """The table of rows whose cells have their column's head as a key; the same in all."""
        return cls(list(rows[0]) if rows else [], [list(row.values()) for row in rows])


def methods_table(summary: pd.DataFrame, tests: pd.DataFrame) -> Table:
    """The main table: one row per method."""
    look = looks(list(summary["method"]))
    by_quantity = {key: part.set_index("method") for key, part in tests.groupby("quantity")}

    def of(quantity: str, method: str, column: str) -> float:
        part = by_quantity.get(quantity)
        return part.loc[method, column] if part is not None and method in part.index else np.nan

    rows = []
    for row in summary.to_dict("records"):
        method = row["method"]
        ratio = of("variance_ratio", method, "estimate")
        low, high = (of("variance_ratio", method, side) for side in ("low", "high"))
        brown = Cell(p_value(of("brown_forsythe", method, "p")).removeprefix("= "))
        compared = np.isfinite(ratio)
        units = f"{row['units']} {row['unit']}{plural(row['units'])}"
        worse = f"{row['worse_low']:.0%} to {row['worse_high']:.0%}"
        cells = {
            Cell("method"): Cell(name_of(method), colour=look[method].colour),
            Cell("policies"): Cell(f"{row['policies']}", units),
            Cell("mean score", "95% t interval"): Cell(
                number(row["score"]), between(row["score_low"], row["score_high"])
            ),
            Cell("variance of scores"): Cell(number(row["score_variance"])),
            Cell("variance ratio", "baseline / method, 95% jackknife t"): (
                Cell(number(ratio), between(low, high)) if compared else Cell(NOTHING)
            ),
            Cell("Brown-Forsythe p"): brown if compared else Cell(NOTHING),
            Cell("worse than the reference", "95% Wilson"): Cell(f"{row['worse']}", worse),
            Cell("final KL"): Cell(
                number(row["kl"]), f"sd {number(row['kl_sd'], 2)}{_target(row)}"
            ),
            Cell("coefficient"): Cell(
                number(row["beta"]), "found" if row["target"] != "fixed" else ""
            ),
        }
        if "grammatical" in row:
            cells[Cell("grammatical")] = Cell(f"{row['grammatical']:.0%}")
        rows.append(cells)
    return Table.of(rows)


def components_table(components: pd.DataFrame) -> Table:
    """The sources of the variance of each method's policies: one row per method."""
    look = looks(list(dict.fromkeys(components["method"])))
    names = [name for name in LEVELS if (components["component"] == name).any()]
    rows = []
    for method, part in components.groupby("method", sort=False):
        found = part.set_index("component")

        def cell(component: str, of=found) -> Cell:
            if component not in of.index:
                return Cell(NOTHING)
            row = of.loc[component]
            share = "" if pd.isna(row["share"]) else f"\n{row['share']:.0%} of all"
            interval = f"{number(row['low'])} to {number(row['high'])}"
            return Cell(number(row["variance"]), f"{interval}{share}")

        first = Cell(name_of(str(method)), colour=look[str(method)].colour)
        rows.append([first, *map(cell, names)])
    return Table([Cell("method"), *(Cell(name, LEVELS[name]) for name in names)], rows)


LEVELS = {
    "ensemble": "draws of it",
    "member": "of an ensemble",
    "trial": "with one member",
    "evaluation": "the finite number of prompts",
}


def _target(row: dict) -> str:
    """The target KL of a method's policies, and whether they reach it."""
    if row["target"] == "fixed":
        return ""
    missed = ", missed" if row["target"] == "missed" else ""
    return f"\ntarget {number(row['kl_target'])}{missed}"


def verdict_table(verdicts: Verdicts) -> Table:
    """Risk and return: one row per comparison of each method."""
    look = looks([verdicts.baseline, *(method.name for method in verdicts.methods)])
    rows = []
    for method in verdicts.methods:
        for one in method.comparisons:
            first = one is method.comparisons[0]
            name = name_of(method.name) if first else ""
            colour = look[method.name].colour if first else ""
            worse = f"{one.risk.worse_low:.0%} to {one.risk.worse_high:.0%}"
            worse += f"\nbaseline {one.baseline_risk.worse:.0%}"
            mark = "all" if one.word == "reduces" else ""
            cells = {
                Cell("method", "policies"): Cell(name, one.policies, colour=colour),
                Cell("draws"): Cell(str(one.draws)),
                Cell("variance", "verdict"): Cell(one.word, mark=mark),
                Cell("variance ratio", "baseline / method"): _of_comparison(one.ratio),
                Cell("p", "permutation, Holm"): Cell(p_value(one.ratio.p).removeprefix("= ")),
                Cell("difference of means", "to the baseline"): _of_comparison(one.difference),
                Cell("sd"): _beside(one, "sd"),
                Cell("worse than the reference", "95% Wilson"): Cell(
                    f"{one.risk.worse:.0%}", worse
                ),
                Cell("5% quantile"): _beside(one, "quantile05"),
                Cell("mean of the lowest tenth", "CVaR"): _beside(one, "cvar10"),
                Cell("dominance", "first order"): _order(one.first_order),
                Cell("dominance", "second order"): _order(one.second_order),
            }
            rows.append(cells)
    return Table.of(rows)


def _of_comparison(found) -> Cell:
    """A ratio or a difference with its interval."""
    estimate, low, high = (
        np.nan if value is None else value for value in (found.estimate, found.low, found.high)
    )
    return Cell(number(estimate), between(low, high))


def _beside(one: Comparison, quantity: str) -> Cell:
    """A method's risk, and the baseline's."""
    own, base = (
        np.nan if value is None else value
        for value in (getattr(one.risk, quantity), getattr(one.baseline_risk, quantity))
    )
    return Cell(decimals(own), f"baseline {decimals(base)}")


def _order(found: Order) -> Cell:
    """Whether the method dominates, with both p values."""
    if found.advantage_p is None:
        return Cell(NOTHING)
    ahead, behind = (p_value(p).removeprefix("= ") for p in (found.advantage_p, found.shortfall_p))
    return Cell("yes" if found.dominates else "not shown", f"ahead p {ahead}\nbehind p {behind}")


def exact_table(exact: pd.DataFrame) -> Table:
    """The methods at one level and KL: one row per method."""
    look = looks(list(exact["method"]))
    rows = []
    for row in exact.to_dict("records"):

        def cell(name: str, of=row, text: Callable[[float], str] = decimals) -> Cell:
            if not np.isfinite(of[name]):
                return Cell(NOTHING)
            return Cell(text(of[name]), between(of[f"{name}_low"], of[f"{name}_high"], text))

        name, note = name_of(row["method"]), "control" if row["control"] == "yes" else ""
        p = p_value(row["p"]).removeprefix("= ") if np.isfinite(row["p"]) else NOTHING
        below = f"{row['below_share_low']:.0%} to {row['below_share_high']:.0%}"
        half = f"half {decimals(row['half_shift'])}" if np.isfinite(row["half_shift"]) else ""
        cells = {
            Cell("method"): Cell(name, note, colour=look[row["method"]].colour),
            Cell("ensembles"): Cell(f"{row['replicates']}"),
            Cell("mean gain"): cell("gain"),
            Cell("sd of the gain"): cell("sd"),
            Cell("difference of gains", "to the baseline"): cell("difference"),
            Cell("p", "paired t"): Cell(p),
            Cell("variance ratio", "baseline / method"): cell("ratio", text=number),
            Cell("worse than the reference"): Cell(f"{row['below']}", below),
            Cell("5% quantile", "mean of the lowest tenth"): Cell(
                decimals(row["quantile05"]), f"CVaR {decimals(row['cvar10'])}"
            ),
            Cell("effective size"): Cell(number(row["effective_size"], 2)),
            Cell("sampling", "sd; shift"): Cell(decimals(row["sampling_sd"]), half),
        }
        rows.append(cells)
    return Table.of(rows)


def by_ensemble_table(exact: pd.DataFrame) -> Table:
    """The methods at one KL by each checked ensemble: one row per ensemble."""
    methods = list(dict.fromkeys(exact["method"]))
    look, rows = looks(methods), []
    for name, part in exact.groupby("ensemble", sort=False):
        found = part.set_index("method")
        row = [Cell(name_of(str(name)), f"{found['replicates'].max()} ensembles")]
        for method in methods:
            if method not in found.index or not np.isfinite(found.loc[method, "gain"]):
                row.append(Cell(NOTHING))
                continue
            of = found.loc[method]
            note = f"sd {decimals(of['sd'])}" if np.isfinite(of["sd"]) else ""
            if np.isfinite(of["ratio"]):
                ratio = between(of["ratio_low"], of["ratio_high"], number)
                note = f"variance ratio {number(of['ratio'])}\n{ratio}"
            row.append(Cell(decimals(of["gain"]), note))
        rows.append(row)
    controls = set(exact.loc[exact["control"] == "yes", "method"])
    head = [
        Cell(name_of(method), "control" if method in controls else "", colour=look[method].colour)
        for method in methods
    ]
    return Table([Cell("ensemble"), *head], rows)


def diagnosis_table(diagnosis: pd.DataFrame) -> Table:
    """The diagnosis of the scenario's ensemble, the first one, with rows that belong to none."""
    first = next((name for name in diagnosis["ensemble"] if name != OF_ALL), OF_ALL)
    rows = []
    for row in diagnosis[diagnosis["ensemble"].isin([OF_ALL, first])].to_dict("records"):
        low, high = row["promised_low"], row["promised_high"]
        target, inside, mark = NOTHING, "", ""
        if not (np.isnan(low) and np.isnan(high)):
            low, high = (-np.inf if np.isnan(low) else low), (np.inf if np.isnan(high) else high)
            inside, mark = ("kept", "ok") if low <= row["value"] <= high else ("BROKEN", "bad")
            target = f"{low:.3g} to {high:.3g}"
            if np.isinf(high):
                target = f"at least {low:.3g}"
            elif np.isinf(low):
                target = f"at most {high:.3g}"
        noise = between(row["noise_low"], row["noise_high"], decimals)
        cells = {
            Cell("quantity"): Cell(str(row["quantity"])),
            Cell("value", "95% interval"): Cell(
                decimals(row["value"]), between(row["low"], row["high"], decimals)
            ),
            Cell("noise alone gives", "95% range"): Cell(decimals(row["noise"]), noise),
            Cell("before training"): Cell(decimals(row["untrained"])),
            Cell("promised"): Cell(target),
            Cell("promise"): Cell(inside, mark=mark),
        }
        rows.append(cells)
    return Table.of(rows)


def kinds_table(diagnosis: pd.DataFrame) -> Table:
    """The quality of each ensemble's sigma: one row per ensemble, as ``diagnosis.kinds_table``."""
    rows = []
    for name, part in diagnosis.groupby("ensemble", sort=False):
        if name == OF_ALL:
            continue
        found = part.set_index("quantity")

        def cell(quantity: str, noise: str = "", untrained: bool = False, of=found) -> Cell:
            if quantity not in of.index or np.isnan(of.loc[quantity, "value"]):
                return Cell(NOTHING)
            row = of.loc[quantity]
            notes = [between(row["low"], row["high"], decimals)]
            if noise:
                notes.append(f"{noise} {decimals(row['noise'])}")
            if untrained and not np.isnan(row["untrained"]):
                notes.append(f"untrained {decimals(row['untrained'])}")
            return Cell(decimals(row["value"]), "\n".join(note for note in notes if note))

        right, truth, error = "accuracy on pairs", "correlation with the truth", "calibration error"
        given = "given the feature norm and sigma before training"
        leave_one_out = cell(disagreement.LEAVE_ONE_OUT, "constant sigma", untrained=True)
        cells = {
            Cell("ensemble"): Cell(name_of(str(name))),
            Cell(right, "one member"): cell(calibration.ACCURACY_ONE),
            Cell(right, "mean"): cell(calibration.ACCURACY_MEAN),
            Cell(truth, "within prompts, one member"): cell(disagreement.WITHIN_ONE),
            Cell(truth, "within prompts, mean"): cell(disagreement.WITHIN_MEAN),
            Cell("sigma", "90th over 10th percentile"): cell(disagreement.RATIO, "constant sigma"),
            Cell("sigma and the error", "leave one out"): leave_one_out,
            Cell("the same", given): cell(beyond(found), "constant sigma"),
            Cell("error correlation", "between members"): cell(disagreement.SHARED),
            Cell(error, "of the mean"): cell(calibration.ECE_MEAN, "calibrated"),
            Cell(error, "after one temperature"): cell(calibration.ECE_SCALED, "calibrated"),
        }
        rows.append(cells)
    return Table.of(rows)


def frequency_table(frequency: pd.DataFrame) -> Table:
    """The first ensemble's accuracy, error and sigma by frequency of the rarest judgement."""
    rows = []
    first = frequency["ensemble"].iloc[0] if len(frequency) else ""
    for row in frequency[frequency["ensemble"] == first].to_dict("records"):
        low, high = row["count_low"], row["count_high"]
        counts = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        cells = {
            Cell("count of the rarest judgement"): Cell(counts),
            Cell("responses"): Cell(f"{row['n']}", f"{row['pairs']} pairs"),
        }
        for name, head in FREQUENCY.items():
            interval = between(row[f"{name}_low"], row[f"{name}_high"], decimals)
            cells[head] = Cell(decimals(row[name]), interval)
        rows.append(cells)
    return Table.of(rows)


FREQUENCY = {
    "accuracy_member": Cell("accuracy", "one member"),
    "accuracy_mean": Cell("accuracy", "mean"),
    "error_member": Cell("rms error", "one member"),
    "error_mean": Cell("rms error", "mean"),
    "sigma": Cell("mean sigma"),
}


def accuracy_table(accuracy: pd.DataFrame) -> Table:
    """Accuracy per section; ensembles are averaged, members are shown as a range."""
    rows = []
    part = accuracy[accuracy["level"].isin(["section", "overall"])]
    for section, group in part.groupby("section", sort=False):
        by_model = {model: rows_of["accuracy"] for model, rows_of in group.groupby("model")}
        heads = by_model["head"]
        base = by_model.get("base")
        mean = group[group["model"] == "mean"]
        name = Cell("overall", mark="all") if section == "all" else Cell(str(section))
        heads_range = f"{percent(heads.min())} to {percent(heads.max())}"
        cells = {
            Cell("section"): name,
            Cell("pairs"): Cell(str(group["rows"].max())),
            Cell("base model"): Cell(percent(base.mean()) if base is not None else NOTHING),
            Cell("mean of the members"): Cell(percent(mean["accuracy"].mean())),
            Cell("single members"): Cell(heads_range),
            Cell("ties of the mean"): Cell(f"{mean['ties'].mean():g}"),
        }
        rows.append(cells)
    return Table.of(rows)


def variance_table(variance: pd.DataFrame) -> Table:
    """The members' variance per section; ensembles are averaged."""
    kinds, columns = ("accepted", "difference"), ("median", "mean", "max")
    rows = []
    part = variance[variance["subset"] == "all"]
    for section, group in part.groupby("section", sort=False):
        sides = group.groupby("side")[list(columns)].mean()
        cells = [Cell(number(sides.loc[side, of])) for side in kinds for of in columns]
        rows.append([Cell(str(section)), Cell(str(group["rows"].max())), *cells])
    head = [Cell(kind, of) for kind in kinds for of in columns]
    return Table([Cell("section"), Cell("pairs"), *head], rows)


def decimals(value: float) -> str:
    """A number with three decimals, for numbers of size about 1; a dash for nan."""
    if not np.isfinite(value) or abs(value) >= 100:
        return number(value)
    return f"{value + 0:.3f}".replace("-0.000", "0.000").replace("-", MINUS)


def between(low: float, high: float, text: Callable[[float], str] = number) -> str:
    """An interval, or nothing where it is not known."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return ""
    return f"{text(low)} to {text(high)}"


def percent(value: float) -> str:
    """A share, with one decimal."""
    return f"{100 * value + 0:.1f}%".replace("-0.0%", "0.0%").replace("-", MINUS)
