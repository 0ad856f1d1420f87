"""The benchmark's table and figure, from what stands in results/bench."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter

from prudent.analysis.wording import number
from prudent.figures.looks import BLACK, BLUE, GREY, INK, VERMILLION, darker
from prudent.figures.style import save, styled

RESULTS = Path("results/bench")
CONFIGURATION = ["size", "dtype", "batch", "response"]
TICKS = [digit * 10.0**power for power in range(-3, 5) for digit in (1, 2, 5)]
LOOKS = {"prudent": ("Prudent", BLUE, "s"), "trl": ("TRL 1.12", VERMILLION, "o")}


def read(part: str) -> pd.DataFrame:
    path = RESULTS / f"{part}.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def pairs(part: str) -> list[dict[str, pd.Series]]:
    """Each configuration's medians by trainer; float32 first, then by how much work it is."""
    rows = read(part)
    if rows.empty:
        return []
    rows["share"] = rows["least_gflop"] / rows["seconds"] / rows["peak_gflops"]
    groups = rows.groupby([*CONFIGURATION, "trainer"])
    table = groups["seconds"].agg(["median", "min", "max", "count"])
    table["gb"] = groups["peak_mb"].max() / 1000
    table["gflop"] = groups["least_gflop"].first()
    table["share"] = groups["share"].median()
    table = table.reset_index()
    table["low"] = table["dtype"] != "float32"
    table = table.sort_values(["low", "gflop"], kind="stable")
    parts = table.groupby(CONFIGURATION, sort=False)
    return [{row["trainer"]: row for _, row in part.iterrows()} for _, part in parts]


def ratio(sides: dict[str, pd.Series]) -> float:
    return sides["trl"]["median"] / sides["prudent"]["median"]


def machine() -> dict[str, str]:
    return json.loads((RESULTS / "machine.json").read_text())


# --- The table ------------------------------------------------------------------------------------


def markdown() -> str:
    columns = [*("part", *CONFIGURATION, "steps"), *(f"{look[0]}, s" for look in LOOKS.values())]
    columns += ["ratio", "memory, GB", "share of peak"]
    lines = [
        "Measured on " + ", ".join(f"{name} {value}" for name, value in machine().items()) + ".",
        "",
        "Seconds a step: the median (least to greatest), both trainers in turn.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
    ]
    for part in ("steps", "length", "batch"):
        for sides in pairs(part):
            both = [sides[name] for name in LOOKS]
            cells = [part, *both[0][CONFIGURATION], both[0]["count"]]
            cells += [
                f"{number(side['median'])} ({number(side['min'])}–{number(side['max'])})"
                for side in both
            ]
            cells += [number(ratio(sides)), " / ".join(f"{side['gb']:.1f}" for side in both)]
            cells.append(" / ".join(f"{side['share']:.0%}" for side in both))
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", "| what | value |", "|---|---|", *others()]
    return "\n".join(lines) + "\n"


def others() -> list[str]:
    """Rows on what is Prudent's alone, and on the machine."""
    lines = []
    if not (steps := read("steps")).empty:
        for dtype, peaks in steps.groupby("dtype")["peak_gflops"]:
            span = f"{number(peaks.median())} ({number(peaks.min())}–{number(peaks.max())})"
            lines.append(f"| products of {dtype} matrices, GFLOP/s | {span} |")
    for part, what, over, under in (
        ("heads", "rewards of 10 heads, time over that of 1", 10, 1),
        ("tokenizer", "a batch's texts tokenised again, share of a step", "tokenizers", "step"),
        ("jobs", "two policies: in turn, all threads, over at once, 1 each", "in turn", "at once"),
    ):
        if not (rows := read(part)).empty:
            seconds = rows.groupby("what")["seconds"].median()
            lines.append(f"| {what} | {seconds[over] / seconds[under]:.4f} |")
    if not (rows := read("changes")).empty:
        for what, part in rows.groupby("what", sort=False):
            seconds = part.groupby("side")["seconds"].median()
            ratio = seconds["without"] / seconds["with"]
            lines.append(f"| a step without {what}, time over that with it | {ratio:.3f} |")
    return lines


# --- The figure -----------------------------------------------------------------------------------


@styled
def picture() -> Figure:
    steps = pairs("steps")
    ratios = [ratio(sides) for sides in steps] or [float("nan")]
    figure = Figure(figsize=(11, 6.6), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    fast = f"{min(ratios):.1f} to {max(ratios):.1f} times as fast"
    title = f"Prudent does a step of PPO {fast} as TRL 1.12"
    figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold", color=BLACK)
    figure.legend(
        handles=[
            Line2D([], [], color=colour, marker=marker, markersize=8, label=name)
            for name, colour, marker in LOOKS.values()
        ],
        loc="upper right",
        ncols=2,
        fontsize=10,
    )
    panels = figure.subplot_mosaic(
        [["seconds"] * 3 + ["share"] * 2 + ["memory"] * 2, ["length"] * 3 + ["batch"] * 4],
        height_ratios=[1.2, 1],
    )
    panels["seconds"].set_xscale("log")
    dumbbells(panels["seconds"], steps, "median", "seconds per step")
    dumbbells(panels["share"], steps, "share", "share of the machine's peak")
    dumbbells(panels["memory"], steps, "gb", "peak memory, GB")
    most = max((side["gb"] for sides in steps for side in sides.values()), default=1)
    for name, right in (("share", 1), ("memory", most)):
        panels[name].set_xlim(-0.08 * right, 1.12 * right)  # room for the numbers over the dots
        panels[name].xaxis.set_major_locator(MaxNLocator(4))
        panels[name].set_yticklabels([])
    for part, column, label in (
        ("length", "response", "new tokens (batch 32, 4 × 256, float32)"),
        ("batch", "batch", "batch (10 new tokens, 4 × 256, float32)"),
    ):
        growth(panels[part], pairs(part), column, label)
    note = (
        f"Medians over steps, of both trainers in turn. {machine()['processor']}, "
        f"{machine()['threads']} threads, PyTorch {machine()['torch']}. Models of GPT-2's form and "
        "vocabulary, layers × width; 8 tokens of prompt, 10 new ones, batch 128, 4 epochs, unless "
        "said otherwise. Peak: square matrix products in that precision, timed before each pair of "
        "steps."
    )
    note = textwrap.fill(note, 155)
    figure.supxlabel(note, x=0.012, ha="left", fontsize=8.5, color=INK)
    return figure


def dumbbells(axes: Axes, rows: list[dict[str, pd.Series]], column: str, title: str) -> None:
    """A row for each configuration: both trainers' dots, their numbers above them."""
    text = "{:.0%}".format if column == "share" else lambda value: number(value, 2)
    places = [place + 0.4 * sides["trl"]["low"] for place, sides in enumerate(rows)]
    for place, sides in zip(places, rows, strict=True):
        values = {name: sides[name][column] for name in LOOKS}
        axes.plot(list(values.values()), [place, place], color="#D0D0D0", linewidth=3, zorder=1)
        for name, value in values.items():
            _, colour, marker = LOOKS[name]
            axes.plot(value, place, color=colour, marker=marker, markersize=8, zorder=3)
            above(axes, text(value), value, place, color=darker(colour), fontsize=9)
        if column == "median":
            middle = (values["prudent"] * values["trl"]) ** 0.5
            above(axes, f"×{ratio(sides):.1f}", middle, place, fontweight="bold")
    size = [sides["trl"]["size"].replace("x", " × ") for sides in rows]
    dtype = [sides["trl"]["dtype"] for sides in rows]
    axes.set_yticks(places, [f"{a}\n{b}" for a, b in zip(size, dtype, strict=True)])
    if places:
        axes.set_ylim(places[-1] + 0.5, -0.8)
    axes.margins(x=0.15)
    if column == "median" and rows:
        axes.minorticks_off()
        low, high = (pick(_seconds(rows)) for pick in (min, max))
        axes.set_xticks([tick for tick in TICKS if low / 1.3 <= tick <= 1.3 * high])
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter("{x:.0%}" if column == "share" else "{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title)


def above(axes: Axes, text: str, x: float, y: float, **style) -> None:
    """A number above a dot, where it crosses no axis; grid lines end beside it."""
    axes.annotate(
        text, (x, y), (0, 7), textcoords="offset points", ha="center", va="bottom", **style
    ).set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.6})


def growth(axes: Axes, rows: list[dict[str, pd.Series]], column: str, label: str) -> None:
    """Seconds against one of the configuration's numbers, on logarithmic axes."""
    if not rows:
        axes.set_axis_off()
        return
    places = [sides["trl"][column] for sides in rows]
    for name, (_, colour, marker) in LOOKS.items():
        seconds = [sides[name]["median"] for sides in rows]
        axes.plot(places, seconds, color=colour, marker=marker, markersize=8, zorder=3)
        for place, value, sides in zip(places, seconds, rows, strict=True):
            below = value == min(side["median"] for side in sides.values())
            axes.annotate(
                *(number(value, 2), (place, value), (0, -8 if below else 8)),
                textcoords="offset points",
                ha="center",
                va="top" if below else "bottom",
                fontsize=9,
                color=darker(colour),
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(places, map(str, places))
    axes.yaxis.set_major_formatter("{x:g}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    low, high = (pick(_seconds(rows)) for pick in (min, max))
    axes.set_yticks([tick for tick in TICKS if low / 2 <= tick <= 2 * high])
    axes.margins(x=0.06, y=0.22)
    axes.grid(axis="y")
    axes.set_xlabel(label)
    axes.set_title("seconds per step; dotted: in proportion")
    if rows:
        first = rows[0]["prudent"]["median"]
        proportional = [first * place / places[0] for place in places]
        axes.plot(places, proportional, color=GREY, linestyle=":", linewidth=1.2, zorder=1)


def _seconds(rows: list[dict[str, pd.Series]]) -> list[float]:
    return [side["median"] for sides in rows for side in sides.values()]


if __name__ == "__main__":
    (RESULTS / "table.md").write_text(markdown())
    save(picture(), RESULTS / "bench.png", RESULTS / "bench.pdf")
    print((RESULTS / "table.md").read_text())
