"""The summary page: what the numbers say, and the tables.

One HTML file without scripts, pictures or links to anything outside, so that it can be read in a
frame of a report, in a mail, or in ten years.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd

from prudent.analysis.findings import CLAIM, findings, p_value, plural
from prudent.analysis.wording import name_of as name
from prudent.analysis.wording import number
from prudent.figures.looks import looks


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int = 1) -> str:
    """An HTML table of escaped cells; columns from ``numbers_from`` are aligned as numbers."""

    def cells(values: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=n' if i >= numbers_from else ''}>{value}</{tag}>"
            for i, value in enumerate(values)
        )

    body = "\n".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return (
        f"<div class=wide><table><thead><tr>{cells(head, 'th')}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _range(low: float, high: float, digits: int = 3) -> str:
    if not (np.isfinite(low) and np.isfinite(high)):
        return ""
    return f"<small>{number(low, digits)} to {number(high, digits)}</small>"


def methods_table(summary: pd.DataFrame, tests: pd.DataFrame) -> str:
    """The main table: one row a method."""
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
        compared = np.isfinite(ratio)
        rows.append(
            [
                f'<b style="color:{look[method].colour}">&#9679;</b> {escape(name(method))}',
                f"{row['policies']}<br><small>{row['heads']} head{plural(row['heads'])}</small>",
                f"{number(row['score'])}<br>{_range(row['score_low'], row['score_high'])}",
                number(row["score_variance"]),
                f"{number(ratio)}<br>{_range(low, high)}" if compared else "–",
                escape(p_value(of("brown_forsythe", method, "p")).removeprefix("= "))
                if compared
                else "–",
                f"{row['worse']}<br>"
                f"<small>{row['worse_low']:.0%} to {row['worse_high']:.0%}</small>",
                f"{number(row['kl'])}<br><small>sd {number(row['kl_sd'], 2)}</small>",
                *([f"{row['grammatical']:.0%}"] if "grammatical" in row else []),
            ]
        )
    head = [
        "method",
        "policies",
        "mean score<br><small>95% t interval</small>",
        "variance of scores",
        "variance ratio<br><small>baseline / method, 95% bootstrap</small>",
        "Brown-Forsythe p",
        "worse than the reference<br><small>95% Wilson</small>",
        "final KL",
        *(["grammatical"] if "grammatical" in summary else []),
    ]
    return table(head, rows)


def strip(policies: pd.DataFrame, reference_score: float) -> str:
    """A small picture: every policy's score, a row a method, and the reference as a line."""
    methods = list(dict.fromkeys(policies["method"]))
    look = looks(methods)
    values = [*policies["score"], reference_score]
    low, span = min(values), (max(values) - min(values)) or 1.0
    width, left, step = 720, 230, 26

    def x(value: float) -> float:
        return left + 20 + (width - left - 40) * (value - low) / span

    height = step * len(methods) + 24
    line = x(reference_score)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="scores of the policies">',
        f'<line x1="{line:.1f}" x2="{line:.1f}" y1="18" y2="{height}" stroke="#555" '
        'stroke-dasharray="4 3"/>',
        f'<text x="{line:.1f}" y="12" text-anchor="middle">'
        f"reference {number(reference_score)}</text>",
    ]
    for row, method in enumerate(methods):
        y = 24 + step * (row + 0.5)
        scores = policies.loc[policies["method"] == method, "score"]
        label = name(method) if len(name(method)) <= 28 else name(method)[:27] + "…"
        parts.append(f'<text x="{left}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>')
        parts += [
            f'<circle cx="{x(score):.1f}" cy="{y:.1f}" r="5" fill="{look[method].colour}" '
            'fill-opacity="0.55"/>'
            for score in scores
        ]
        mean = x(scores.mean())
        parts.append(
            f'<line x1="{mean:.1f}" x2="{mean:.1f}" y1="{y - 9:.1f}" y2="{y + 9:.1f}" '
            'stroke="#000" stroke-width="2.5"/>'
        )
    return "\n".join([*parts, "</svg>"])


def diagnosis_table(diagnosis: pd.DataFrame) -> str:
    """The diagnosis of the rewards on the reference's responses, against its target ranges."""
    rows = []
    for row in diagnosis.to_dict("records"):
        value, low, high = (float(row[key]) for key in ("value", "low", "high"))
        target, inside = "–", ""
        if not (np.isnan(low) and np.isnan(high)):
            low, high = (-np.inf if np.isnan(low) else low), (np.inf if np.isnan(high) else high)
            inside = "inside" if low <= value <= high else "OUTSIDE"
            target = f"{low:g} to {high:g}"
            if np.isinf(high):
                target = f"at least {low:g}"
            elif np.isinf(low):
                target = f"at most {high:g}"
        mark = {"inside": "ok", "OUTSIDE": "bad", "": ""}[inside]
        note = row.get("note")
        quantity = escape(str(row["quantity"]))
        if isinstance(note, str) and note:
            quantity += f"<br><small>{escape(note)}</small>"
        rows.append(
            [quantity, number(value), target, f"<span class={mark or 'none'}>{inside}</span>"]
        )
    return table(["quantity", "value", "target", "inside the target?"], rows)


def accuracy_table(accuracy: pd.DataFrame) -> str:
    """Accuracy per section; ensembles are averaged, heads given as a range."""
    rows = []
    part = accuracy[accuracy["level"].isin(["section", "overall"])]
    for section, group in part.groupby("section", sort=False):
        by_model = {model: rows_of["accuracy"] for model, rows_of in group.groupby("model")}
        heads = by_model["head"]
        base = by_model.get("base")
        mean = group[group["model"] == "mean"]
        rows.append(
            [
                "<b>overall</b>" if section == "all" else escape(str(section)),
                str(group["rows"].max()),
                _percent(base.mean()) if base is not None else "–",
                _percent(mean["accuracy"].mean()),
                f"{_percent(heads.min())} to {_percent(heads.max())}",
                f"{mean['ties'].mean():g}",
            ]
        )
    head = [
        "section",
        "pairs",
        "base model",
        "mean of the heads",
        "single heads",
        "ties of the mean",
    ]
    return table(head, rows)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def variance_table(variance: pd.DataFrame) -> str:
    """The heads' variance per section; ensembles are averaged."""
    rows = []
    part = variance[variance["subset"] == "all"]
    for section, group in part.groupby("section", sort=False):
        sides = group.groupby("side")[["median", "mean", "max"]].mean()
        cells = [
            number(sides.loc[side, column])
            for side in ("accepted", "difference")
            for column in ("median", "mean", "max")
        ]
        rows.append([escape(str(section)), str(group["rows"].max()), *cells])
    kinds = ("accepted", "difference")
    head = [f"{kind}<br><small>{of}</small>" for kind in kinds for of in ("median", "mean", "max")]
    return table(["section", "pairs", *head], rows)


STYLE = """
body { margin: 0 auto; padding: 1rem 1.2rem 3rem; max-width: 62rem; background: #fff;
  color: #222; font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.5rem; margin: .4rem 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p.lead, .note { color: #555; } .note, small { font-size: .82rem; } small { color: #666; }
.finding { border-left: 5px solid #8c8c8c; background: #f6f6f6; padding: .6rem 1rem;
  margin: .8rem 0; border-radius: 0 4px 4px 0; }
.finding h3 { margin: 0 0 .3rem; font-size: 1rem; } .finding ul { margin: 0; padding-left: 1.1rem; }
.finding.for { border-color: #009e73; } .finding.against { border-color: #d55e00; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { padding: .35rem .6rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid #e4e4e4; }
th { font-size: .85rem; color: #444; border-bottom: 2px solid #bbb; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th.n { white-space: normal; }
.ok { color: #00704f; } .bad { color: #a84600; font-weight: bold; }
svg { width: 100%; max-width: 45rem; font: 13px sans-serif; } svg text { fill: #333; }
td:first-child { min-width: 8rem; }
"""

NOTES = """
A policy's score is the judge's mean over the fixed test prompts. Policies are paired by seed: the
same seed has the same reward head, prompts and sampling streams in every method. The variance
ratio's interval comes from a bootstrap over reward heads, the same heads in both methods; with
about ten heads such an interval covers about 90%, not 95%, so its edges are softer than they look.
The swap test exchanges the methods' labels within heads; Brown-Forsythe and McNemar take the
policies as independent, which they are not where a head has several trials. Worse than the
reference means a mean score below the reference's on the same prompts. Final KL is the mean over
the last 10% of steps, at least 5.
"""


def render(
    policies: pd.DataFrame,
    summary: pd.DataFrame,
    tests: pd.DataFrame,
    diagnosis: pd.DataFrame,
    accuracy: pd.DataFrame,
    variance: pd.DataFrame,
) -> str:
    """The whole page as HTML."""
    reference = summary.iloc[0]
    against = f", against {name(tests['baseline'].iloc[0])}" if len(tests) else ""
    boxes = [
        f'<section class="finding {finding.status}"><h3>{escape(name(finding.method))}: '
        f"{escape(finding.headline)}</h3>\n<ul>"
        + "\n".join(f"<li>{escape(sentence)}</li>" for sentence in finding.sentences)
        + "</ul></section>"
        for finding in findings(summary, tests)
    ]
    if not boxes:
        boxes = ["<p>One method only: there is nothing to compare.</p>"]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>What the numbers say</title><style>{STYLE}</style></head><body>",
            "<h1>What the numbers say</h1>",
            f'<p class="lead">{escape(CLAIM + against)}; {len(policies)} policies.</p>',
            *boxes,
            "<h2>Policies</h2>",
            strip(policies, reference["reference_score"]),
            methods_table(summary, tests),
            f'<p class="note">Reference policy: {number(reference["reference_score"])}, standard '
            f"error over prompts {number(reference['reference_se'], 2)}. {NOTES}</p>",
            "<h2>Rewards on the reference's responses</h2>",
            diagnosis_table(diagnosis),
            "<h2>Accuracy on the benchmark</h2>",
            accuracy_table(accuracy),
            "<h2>Variance over the heads</h2>",
            variance_table(variance),
            '<p class="note">Sample variance over the heads, per row, of the accepted response\'s '
            "reward and of accepted minus rejected; median, mean and maximum over the rows.</p>",
            "</body></html>",
            "",
        ]
    )
