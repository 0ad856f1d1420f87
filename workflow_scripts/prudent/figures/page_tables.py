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
        rows.append(
            [
                Cell(name_of(method), colour=look[method].colour),
                Cell(f"{row['policies']}", f"{row['units']} {row['unit']}{plural(row['units'])}"),
                Cell(number(row["score"]), _range(row["score_low"], row["score_high"])),
                Cell(number(row["score_variance"])),
                Cell(number(ratio), _range(low, high)) if compared else Cell(NOTHING),
                brown if compared else Cell(NOTHING),
                Cell(f"{row['worse']}", f"{row['worse_low']:.0%} to {row['worse_high']:.0%}"),
                Cell(number(row["kl"]), f"sd {number(row['kl_sd'], 2)}{_target(row)}"),
                Cell(number(row["beta"]), "found" if row["target"] != "fixed" else ""),
                *([Cell(f"{row['grammatical']:.0%}")] if "grammatical" in row else []),
            ]
        )
    head = [
        Cell("method"),
        Cell("policies"),
        Cell("mean score", "95% t interval"),
        Cell("variance of scores"),
        Cell("variance ratio", "baseline / method, 95% jackknife t"),
        Cell("Brown-Forsythe p"),
        Cell("worse than the reference", "95% Wilson"),
        Cell("final KL"),
        Cell("coefficient"),
        *([Cell("grammatical")] if "grammatical" in summary else []),
    ]
    return Table(head, rows)


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
            rows.append(
                [
                    Cell(
                        name_of(method.name) if first else "",
                        one.policies,
                        colour=look[method.name].colour if first else "",
                    ),
                    Cell(str(one.draws)),
                    Cell(one.word, mark="all" if one.word == "reduces" else ""),
                    _of_comparison(one.ratio),
                    Cell(p_value(one.ratio.p).removeprefix("= ")),
                    _of_comparison(one.difference),
                    _beside(one, "sd"),
                    Cell(
                        f"{one.risk.worse:.0%}",
                        f"{one.risk.worse_low:.0%} to {one.risk.worse_high:.0%}\n"
                        f"baseline {one.baseline_risk.worse:.0%}",
                    ),
                    _beside(one, "quantile05"),
                    _beside(one, "cvar10"),
                    _order(one.first_order),
                    _order(one.second_order),
                ]
            )
    head = [
        Cell("method", "policies"),
        Cell("draws"),
        Cell("variance", "verdict"),
        Cell("variance ratio", "baseline / method"),
        Cell("p", "permutation, Holm"),
        Cell("difference of means", "to the baseline"),
        Cell("sd"),
        Cell("worse than the reference", "95% Wilson"),
        Cell("5% quantile"),
        Cell("mean of the lowest tenth", "CVaR"),
        Cell("dominance", "first order"),
        Cell("dominance", "second order"),
    ]
    return Table(head, rows)


def _of_comparison(found) -> Cell:
    """A ratio or a difference with its interval."""
    estimate, low, high = (
        np.nan if value is None else value for value in (found.estimate, found.low, found.high)
    )
    return Cell(number(estimate), _range(low, high))


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
            return Cell(text(of[name]), _range(of[f"{name}_low"], of[f"{name}_high"], text))

        name, note = name_of(row["method"]), "control" if row["control"] == "yes" else ""
        p = p_value(row["p"]).removeprefix("= ") if np.isfinite(row["p"]) else NOTHING
        rows.append(
            [
                Cell(name, note, colour=look[row["method"]].colour),
                Cell(f"{row['replicates']}"),
                cell("gain"),
                cell("sd"),
                cell("difference"),
                Cell(p),
                cell("ratio", text=number),
                Cell(
                    f"{row['below']}",
                    f"{row['below_share_low']:.0%} to {row['below_share_high']:.0%}",
                ),
                Cell(decimals(row["quantile05"]), f"CVaR {decimals(row['cvar10'])}"),
                Cell(number(row["effective_size"], 2)),
                Cell(
                    decimals(row["sampling_sd"]),
                    f"half {decimals(row['half_shift'])}" if np.isfinite(row["half_shift"]) else "",
                ),
            ]
        )
    head = [
        Cell("method"),
        Cell("ensembles"),
        Cell("mean gain"),
        Cell("sd of the gain"),
        Cell("difference of gains", "to the baseline"),
        Cell("p", "paired t"),
        Cell("variance ratio", "baseline / method"),
        Cell("worse than the reference"),
        Cell("5% quantile", "mean of the lowest tenth"),
        Cell("effective size"),
        Cell("sampling", "sd; shift"),
    ]
    return Table(head, rows)


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
                ratio = _range(of["ratio_low"], of["ratio_high"], number)
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
        rows.append(
            [
                Cell(str(row["quantity"])),
                Cell(decimals(row["value"]), _range(row["low"], row["high"], decimals)),
                Cell(decimals(row["noise"]), _range(row["noise_low"], row["noise_high"], decimals)),
                Cell(decimals(row["untrained"])),
                Cell(target),
                Cell(inside, mark=mark),
            ]
        )
    head = [
        Cell("quantity"),
        Cell("value", "95% interval"),
        Cell("noise alone gives", "95% range"),
        Cell("before training"),
        Cell("promised"),
        Cell("promise"),
    ]
    return Table(head, rows)


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
            notes = [_range(row["low"], row["high"], decimals)]
            if noise:
                notes.append(f"{noise} {decimals(row['noise'])}")
            if untrained and not np.isnan(row["untrained"]):
                notes.append(f"untrained {decimals(row['untrained'])}")
            return Cell(decimals(row["value"]), "\n".join(note for note in notes if note))

        rows.append(
            [
                Cell(name_of(str(name))),
                cell(calibration.ACCURACY_ONE),
                cell(calibration.ACCURACY_MEAN),
                cell(disagreement.WITHIN_ONE),
                cell(disagreement.WITHIN_MEAN),
                cell(disagreement.RATIO, "constant sigma"),
                cell(disagreement.LEAVE_ONE_OUT, "constant sigma", untrained=True),
                cell(beyond(found), "constant sigma"),
                cell(disagreement.SHARED),
                cell(calibration.ECE_MEAN, "calibrated"),
                cell(calibration.ECE_SCALED, "calibrated"),
            ]
        )
    head = [
        Cell("ensemble"),
        Cell("accuracy on pairs", "one member"),
        Cell("accuracy on pairs", "mean"),
        Cell("correlation with the truth", "within prompts, one member"),
        Cell("correlation with the truth", "within prompts, mean"),
        Cell("sigma", "90th over 10th percentile"),
        Cell("sigma and the error", "leave one out"),
        Cell("the same", "given the feature norm and sigma before training"),
        Cell("error correlation", "between members"),
        Cell("calibration error", "of the mean"),
        Cell("calibration error", "after one temperature"),
    ]
    return Table(head, rows)


def frequency_table(frequency: pd.DataFrame) -> Table:
    """The first ensemble's accuracy, error and sigma by frequency of the rarest judgement."""
    rows = []
    first = frequency["ensemble"].iloc[0] if len(frequency) else ""
    for row in frequency[frequency["ensemble"] == first].to_dict("records"):
        low, high = row["count_low"], row["count_high"]
        counts = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        cells = [
            Cell(decimals(row[name]), _range(row[f"{name}_low"], row[f"{name}_high"], decimals))
            for name in ("accuracy_member", "accuracy_mean", "error_member", "error_mean", "sigma")
        ]
        rows.append([Cell(counts), Cell(f"{row['n']}", f"{row['pairs']} pairs"), *cells])
    head = [
        Cell("count of the rarest judgement"),
        Cell("responses"),
        Cell("accuracy", "one member"),
        Cell("accuracy", "mean"),
        Cell("rms error", "one member"),
        Cell("rms error", "mean"),
        Cell("mean sigma"),
    ]
    return Table(head, rows)


def accuracy_table(accuracy: pd.DataFrame) -> Table:
    """Accuracy per section; ensembles are averaged, members are shown as a range."""
    rows = []
    part = accuracy[accuracy["level"].isin(["section", "overall"])]
    for section, group in part.groupby("section", sort=False):
        by_model = {model: rows_of["accuracy"] for model, rows_of in group.groupby("model")}
        heads = by_model["head"]
        base = by_model.get("base")
        mean = group[group["model"] == "mean"]
        rows.append(
            [
                Cell("overall", mark="all") if section == "all" else Cell(str(section)),
                Cell(str(group["rows"].max())),
                Cell(_percent(base.mean()) if base is not None else NOTHING),
                Cell(_percent(mean["accuracy"].mean())),
                Cell(f"{_percent(heads.min())} to {_percent(heads.max())}"),
                Cell(f"{mean['ties'].mean():g}"),
            ]
        )
    names = "section", "pairs", "base model", "mean of the members", "single members"
    return Table([*map(Cell, names), Cell("ties of the mean")], rows)


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


def _range(low: float, high: float, text: Callable[[float], str] = number) -> str:
    if not (np.isfinite(low) and np.isfinite(high)):
        return ""
    return f"{text(low)} to {text(high)}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"
