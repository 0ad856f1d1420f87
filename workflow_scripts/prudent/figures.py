"""The papers' figures, each a function from tables to a matplotlib figure.

No figure uses pyplot's global state, so they can be drawn from anywhere, also side by side.
"""

from __future__ import annotations

import functools
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.optimize import isotonic_regression
from scipy.stats import gaussian_kde

from prudent import statistics, tables
from prudent.looks import (
    BLACK,
    BLUE,
    GREY,
    INK,
    MINUS,
    ORANGE,
    SKY,
    Look,
    darker,
    looks,
    name_of,
    number,
)

BANDS = 4  # bands of more methods than this would hide each other

STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "savefig.dpi": 150,
    "pdf.fonttype": 42,
    "text.parse_math": False,  # texts from data may hold dollar signs
}


def _lines(method: str) -> str:
    """A method's name, on several lines where it is long."""
    return textwrap.fill(name_of(method), 22)


def save(figure: Figure, png: str | Path, pdf: str | Path) -> None:
    """Writes a figure as PNG (150 dpi) and PDF, the same bytes each time."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a text in another script
        for path, form, metadata in (
            (png, "png", {"Software": None}),
            (pdf, "pdf", {"CreationDate": None, "ModDate": None}),
        ):
            with tables.atomic_path(path) as temporary:
                figure.savefig(temporary, format=form, metadata=metadata)


def _label_ends(
    axes: Axes, ends: Sequence[tuple[float, float]], texts: Sequence[str], inks: Sequence, **font
) -> None:
    """Writes each curve's label to the right of the axes, at the height of its end."""
    low, high = axes.get_ylim()
    inches = 0.72 * axes.figure.get_figheight()  # about what the axes have of the height
    line = 1.5 * font.get("fontsize", 9) / 72 / inches * (high - low)
    heights = [line * (1 + text.count("\n")) for text in texts]
    places = _spread([y for _, y in ends], heights, low + line / 2, high - line / 2)
    for end, text, ink, place in zip(ends, texts, inks, places, strict=True):
        axes.annotate(
            text,
            end,
            (1.045, place),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            color=ink,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": ink, "linewidth": 0.8, "relpos": (0, 0.5)},
            **font,
        )


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draws with this module's style and leaves the user's own settings alone."""

    @functools.wraps(draw)
    def wrapper(*args, **settings) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **settings)

    return wrapper


def _figure(width: float, height: float, title: str, note: str = "") -> Figure:
    """A figure with a title at the top left and a note at the bottom left."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold", color=BLACK)
    if note:
        # About 14 characters an inch at this size.
        note = "\n".join(textwrap.fill(line, int(14.5 * width)) for line in note.split("\n"))
        figure.supxlabel(note, x=0.012, ha="left", fontsize=8.5, color=INK)
    return figure


def _spread(
    values: Sequence[float], heights: Sequence[float], low: float, high: float
) -> np.ndarray:
    """Places for labels of given heights, as near to their values as they can be side by side."""
    values, heights = np.asarray(values, dtype=float), np.asarray(heights, dtype=float)
    order = np.argsort(values, kind="stable")
    tall = heights[order]
    steps = np.concatenate([[0], np.cumsum((tall[1:] + tall[:-1]) / 2)])
    # With the distances between neighbours taken off, the places only have to be in order.
    placed = isotonic_regression(values[order] - steps).x
    placed = np.clip(placed, low, max(high - steps[-1], low)) + steps
    result = np.empty_like(values)
    result[order] = placed
    return result


# --- Fig 1 --------------------------------------------------------------------------------------


@styled
def heads(rewards: Sequence[float], prompt: str, response: str, where: str) -> Figure:
    """Fig 1: the rewards that the heads give to one response to one prompt.

    Args:
        rewards: [heads].
        where: what row of the benchmark it is.
    """
    values = np.asarray(rewards, dtype=float)
    count = len(values)
    mean, sd = values.mean(), values.std(ddof=1) if count > 1 else np.nan
    title = f"{count} reward heads, one response"
    figure = _figure(max(6.5, 0.5 * count + 2), 4.6, title, where)
    axes = figure.add_subplot()
    axes.bar(np.arange(count), values, width=0.7, color=SKY, zorder=2)
    axes.axhline(0, color=INK, linewidth=0.8, zorder=3)
    axes.axhline(mean, color=BLACK, linewidth=1.5, zorder=3)
    label = f"mean {number(mean)}"
    if count > 1:
        axes.axhspan(mean - sd, mean + sd, color=ORANGE, alpha=0.25, linewidth=0, zorder=1)
        label += f"\n\N{PLUS-MINUS SIGN} sd {number(sd)}"
    axes.annotate(
        label, (1, mean), (5, 0), axes.get_yaxis_transform(), "offset points", va="center"
    )
    axes.set_xticks(np.arange(count))
    axes.set_xlim(-0.7, count - 0.3)
    axes.set_xlabel("head")
    axes.set_ylabel("reward")
    axes.margins(y=0.08)
    text = f"Prompt: {_excerpt(prompt)}\nResponse: {_excerpt(response)}"
    lines = [textwrap.fill(line, 88, subsequent_indent="   ") for line in text.split("\n")]
    axes.set_title("\n".join(lines), fontsize=9, color=INK)
    return figure


def _excerpt(text: str, length: int = 170) -> str:
    """A text on one line, cut at a word where it is long."""
    return textwrap.shorten(text, length, placeholder=" …")


# --- Fig 6 --------------------------------------------------------------------------------------


@styled
def variance(rows: pd.DataFrame) -> Figure:
    """Fig 6: the heads' variance over the rows of each section, both kinds.

    Args:
        rows: ``rewardbench.variance_rows``.
    """
    sections = list(dict.fromkeys(rows["section"]))
    kinds = {
        "accepted": ("accepted response", SKY),
        "difference": ("accepted minus rejected", ORANGE),
    }
    ensembles = rows["ensemble"].nunique()
    note = (
        "Sample variance (ddof 1) over the heads, one value a row of the benchmark"
        + (f" and ensemble ({ensembles} ensembles)" if ensembles > 1 else "")
        + ". Solid line: median; dashed: mean."
    )
    # Kinds are rows of panels, as in the paper; with many sections the sections are.
    wide = len(sections) <= 5
    shape = (2, len(sections)) if wide else (len(sections), 2)
    size = (max(2.5 * shape[1] + 0.6, 5.5), max(2.1 * shape[0] + 0.9, 4.0))
    figure = _figure(*size, "How much the reward heads disagree", note)
    panels = figure.subplots(*shape, squeeze=False, sharex="row" if wide else "col")
    panels = panels if wide else panels.T
    for (kind, (label, colour)), line in zip(kinds.items(), panels, strict=True):
        values = {s: rows.loc[rows["section"] == s, kind].dropna() for s in sections}
        together = pd.concat(values.values())
        limit = _clip_limit(together)
        edges = np.linspace(0, limit, 26)
        for index, (section, axes) in enumerate(zip(sections, line, strict=True)):
            _histogram(axes, values[section], edges, colour)
            if wide:
                if kind == "accepted":
                    axes.set_title(section, fontweight="bold")
                axes.set_xlabel(f"variance, {label}", fontsize=9)
                if index == 0:
                    axes.set_ylabel("rows")
            else:
                axes.set_title(section if kind == "accepted" else "", fontweight="bold")
                axes.set_ylabel("rows" if kind == "accepted" else "")
                if index == len(sections) - 1:
                    axes.set_xlabel(f"variance, {label}")
    return figure


def _clip_limit(values: pd.Series) -> float:
    """The upper end of the histograms: the maximum, unless far values would squeeze the rest."""
    if not len(values) or values.max() <= 0:
        return 1.0
    most = float(values.quantile(0.99, interpolation="lower"))
    return float(values.max()) if values.max() <= 1.3 * most or most == 0 else most


def _histogram(axes: Axes, values: pd.Series, edges: np.ndarray, colour: str) -> None:
    if not len(values):
        text = "no variance:\none head"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)
        axes.set_yticks([])
        return
    axes.hist(values.clip(upper=edges[-1]), edges, color=colour, edgecolor="white", linewidth=0.4)
    axes.axvline(values.median(), color=BLACK, linewidth=1.4)
    axes.axvline(values.mean(), color=BLACK, linewidth=1.4, linestyle=(0, (3, 2)))
    beyond = int((values > edges[-1]).sum())
    lines = [f"median {number(values.median())}", f"mean {number(values.mean())}"]
    lines += [f"max {number(values.max())}", f"n = {len(values)}"]
    if beyond:
        lines.append(f"last bin: {beyond} beyond")
    axes.set_ylim(0, 1.12 * axes.get_ylim()[1])
    axes.text(
        1, 1, "\n".join(lines), transform=axes.transAxes, ha="right", va="top", fontsize=8
    ).set_bbox({"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1})
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))


# --- Fig 7 --------------------------------------------------------------------------------------


@styled
def scores(policies: pd.DataFrame, reference: Sequence[float], methods: Sequence[str]) -> Figure:
    """Fig 7: the distribution of the policies' judge scores per method, beside the reference's.

    Args:
        policies: ``statistics.policy_table``.
        reference: the reference policy's scores, one a prompt.
    """
    look = looks(methods)
    mean, se = statistics.mean_and_se(reference)
    note = (
        f"Each mark is a policy: its mean score over {len(reference)} test prompts. Diamond and "
        "bar: mean and 95% t interval over reward heads. Curve: density (8 policies or more). "
        "Dashed line and grey band: the reference policy and \N{PLUS-MINUS SIGN} 1 standard error "
        "over prompts."
    )
    figure = _figure(8.6, 1.9 + 0.95 * len(methods), "How good the policies are", note)
    axes = figure.add_subplot()
    values = {m: policies.loc[policies["method"] == m, "score"].to_numpy(float) for m in methods}
    everything = np.concatenate([*values.values(), [mean]])
    span = float(np.ptp(everything)) or 1.0
    axes.set_xlim(everything.min() - 0.18 * span, everything.max() + 0.18 * span)
    axes.set_ylim(len(methods) - 0.4, -0.62)
    if np.isfinite(se):
        axes.axvspan(mean - se, mean + se, color=GREY, alpha=0.25, linewidth=0, zorder=0)
    axes.axvline(mean, color=INK, linestyle=(0, (4, 2)), linewidth=1.2, zorder=1)
    axes.annotate(
        f"reference {number(mean)}",
        (mean, 1),
        (0, 2),
        axes.get_xaxis_transform(),
        "offset points",
        ha="center",
        va="bottom",
        color=INK,
        fontsize=9,
    )
    for row, method in enumerate(methods):
        part = policies[policies["method"] == method]
        _policies_row(axes, row, values[method], look[method], span)
        clusters = part.groupby(["ensemble", "head"]).ngroup()
        _, low, high = statistics.t_interval(part["score"], clusters)
        middle = values[method].mean()
        if np.isfinite(low):
            axes.plot([low, high], [row, row], color=BLACK, linewidth=2, zorder=4)
        axes.plot([middle], [row], "D", color=BLACK, markersize=6, zorder=5, gid=f"mean {method}")
        worse, n = int((values[method] < mean).sum()), len(part)
        text = (
            f"mean {number(middle)}\nvariance {number(statistics.variance(values[method]))}\n"
            f"{worse} of {n} below reference"
        )
        axes.text(1.01, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5)
    axes.set_yticks(range(len(methods)), [_lines(method) for method in methods])
    for tick, method in zip(axes.get_yticklabels(), methods, strict=True):
        tick.set(color=look[method].ink, fontweight="bold")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel("judge's score")
    return figure


def _policies_row(axes: Axes, row: int, values: np.ndarray, look: Look, span: float) -> None:
    """One method: the density above its line, a mark for every policy below it."""
    if len(values) >= 8 and np.ptp(values) > 0:
        left, right = axes.get_xlim()
        grid = np.linspace(left, right, 300)
        density = gaussian_kde(values)(grid)
        top = row - 0.08 - 0.42 * density / density.max()
        axes.fill_between(grid, row - 0.08, top, color=look.colour, alpha=0.3, linewidth=0)
        axes.plot(grid, top, color=look.colour, linewidth=1)
    # Marks that would overlap are stacked.
    order = np.argsort(values, kind="stable")
    levels, ends = np.zeros(len(values)), []
    for index in order:
        level = next((k for k, end in enumerate(ends) if values[index] > end), len(ends))
        ends[level : level + 1] = [values[index] + 0.016 * span]
        levels[index] = level
    step = min(0.085, 0.26 / max(levels.max(initial=0), 1))
    axes.plot(
        values,
        row + 0.12 + step * levels,
        linestyle="none",
        marker=look.marker,
        markersize=5,
        color=look.colour,
        markeredgecolor="white",
        markeredgewidth=0.4,
        zorder=3,
        gid=f"policies {row}",
    )


# --- Fig 8 --------------------------------------------------------------------------------------


@styled
def losses(base: pd.DataFrame, members: pd.DataFrame, stop_loss: float | None = None) -> Figure:
    """Fig 8: the loss while the base reward model and the heads are trained.

    Args:
        base: step, loss, split (train/validation).
        members: the same with ensemble and head.
        stop_loss: the training loss at which the base model's training stops.
    """
    lines = members.groupby(["ensemble", "head"]).ngroups
    note = (
        "Loss in nats a pair. Thin: every logged step (left), every head (right). "
        "Thick: running mean (left), mean over heads (right). Dotted: a coin's loss, ln 2."
    )
    figure = _figure(9, 4, "Training the reward model", note)
    left, right = figure.subplots(1, 2)
    colours = {"train": BLUE, "validation": ORANGE}
    ends: dict[Axes, list] = {left: [], right: []}
    for split, colour in colours.items():
        curve = base[base["split"] == split].sort_values("step").dropna(subset="loss")
        if len(curve):
            window = max(1, len(curve) // 25)
            mean = curve["loss"].rolling(window, center=True, min_periods=1).mean()
            left.plot(curve["step"], curve["loss"], color=colour, linewidth=0.7, alpha=0.5)
            ends[left].append(_curve(left, curve["step"], mean, colour, split))
        table = members[members["split"] == split].dropna(subset="loss")
        wide = table.pivot(index="step", columns=["ensemble", "head"], values="loss").sort_index()
        for column in wide:
            right.plot(wide.index, wide[column], color=colour, linewidth=0.7, alpha=0.5)
        if len(wide):
            ends[right].append(_curve(right, wide.index, wide.mean(axis=1), colour, split))
    if stop_loss is not None:
        left.axhline(stop_loss, color=INK, linewidth=1, linestyle=(0, (4, 2)))
        left.annotate(
            f"stops at {number(stop_loss, 2)}",
            (0, stop_loss),
            (3, 2),
            left.get_yaxis_transform(),
            "offset points",
            fontsize=8.5,
            color=INK,
        )
    for axes in (left, right):
        axes.axhline(np.log(2), color=GREY, linewidth=1, linestyle=":")
        axes.grid(axis="y")
        axes.set_xlabel("step")
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, max([1, *(end[0] for end, *_ in ends[axes])]))
    for axes, curves in ends.items():
        if curves:
            _label_ends(axes, *zip(*curves, strict=True), fontsize=9)
    left.set_title("base reward model")
    right.set_title(f"{lines} head{'s' if lines > 1 else ''} on its frozen features")
    left.set_ylabel("Bradley-Terry loss")
    return figure


def _curve(
    axes: Axes, steps: Sequence[float], loss: pd.Series, colour: str, label: str
) -> tuple[tuple[float, float], str, str]:
    """A thick curve; returns its end, its label and the colour of that."""
    marker = "o" if len(loss) <= 12 else None
    axes.plot(steps, loss, color=colour, linewidth=2.2, marker=marker, markersize=4, label=label)
    return (float(np.asarray(steps)[-1]), float(loss.iloc[-1])), label, darker(colour)


# --- Fig 9 --------------------------------------------------------------------------------------


@styled
def accuracy(table: pd.DataFrame) -> Figure:
    """Fig 9: accuracy per section of every head, of the ensemble's mean, and of the base model.

    Args:
        table: ``rewardbench.accuracy_table``.
    """
    table = table[table["level"].isin(["section", "overall"])]
    sections = [s for s in dict.fromkeys(table["section"]) if s != "all"] + ["all"]
    ensembles = table.loc[table["model"] == "mean", "ensemble"].nunique()
    heads_count = len(table[(table["section"] == "all") & (table["model"] == "head")])
    parts = {model: table[table["model"] == model] for model in ("base", "mean", "head")}
    ties = parts["mean"].loc[parts["mean"]["section"] == "all", "ties"].mean()
    note = (
        "Share of pairs with the chosen response strictly above the rejected one. Bars on the bars:"
        " 95% (normal, over pairs)."
        + (f" Ties, which count as wrong: {number(ties, 2)} of the mean's pairs." if ties else "")
        + (f" Mean over {ensembles} ensembles." if ensembles > 1 else "")
    )
    figure = _figure(
        max(6, 1.35 * len(sections) + 1.5), 4.4, "Accuracy on the benchmark's sections", note
    )
    axes = figure.add_subplot()
    for model, shift, colour in (("base", -0.2, "#B0B0B0"), ("mean", 0.2, SKY)):
        rows = parts[model].groupby("section")[["accuracy", "se"]].mean().reindex(sections)
        places = np.arange(len(sections)) + shift
        axes.bar(
            places,
            rows["accuracy"],
            0.38,
            yerr=1.96 * rows["se"],
            color=colour,
            label=model,
            error_kw={"ecolor": INK, "linewidth": 1, "capsize": 2},
        )
        for x, value in zip(places, rows["accuracy"], strict=True):
            if np.isfinite(value):
                text = f"{100 * value:.0f}"
                axes.text(x, 0.015, text, ha="center", va="bottom", fontsize=9, color=BLACK)
    for index, section in enumerate(sections):
        values = parts["head"].loc[parts["head"]["section"] == section, "accuracy"]
        offsets = np.linspace(-0.14, 0.14, len(values)) if len(values) > 1 else np.zeros(1)
        (dots,) = axes.plot(
            index + 0.2 + offsets[: len(values)],
            values,
            "o",
            color=BLUE,
            markersize=4,
            markeredgecolor="white",
            markeredgewidth=0.4,
            zorder=4,
        )
        dots.set_gid(f"heads {section}")
    axes.axhline(0.5, color=INK, linestyle=(0, (4, 2)), linewidth=1)
    axes.annotate(
        "chance", (1, 0.5), (4, 0), axes.get_yaxis_transform(), "offset points", va="center"
    )
    rows = table.groupby("section")["rows"].max()
    axes.set_xticks(
        range(len(sections)),
        [
            f"{textwrap.fill('overall' if s == 'all' else s.replace('_', ' '), 14)}\n"
            f"{rows[s]} pairs"
            for s in sections
        ],
    )
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="y")
    axes.set_ylabel("accuracy")
    handles = [
        Line2D([], [], marker="s", linestyle="none", markersize=9, color="#B0B0B0"),
        Line2D([], [], marker="s", linestyle="none", markersize=9, color=SKY),
        Line2D([], [], marker="o", linestyle="none", markersize=5, color=BLUE),
    ]
    labels = ["base model", "mean of the heads", f"each of {heads_count} heads"]
    axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=3)
    return figure


# --- Figs 10 and 11 -----------------------------------------------------------------------------


@styled
def kl(logs: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Fig 10: KL to the reference policy over training.

    Args:
        logs: method, seed, step, kl; one row a policy and step.
    """
    ends = {}
    for method in methods:
        part = logs[logs["method"] == method]
        ends[method] = np.array(
            [statistics.final_mean(log["kl"]) for _, log in part.groupby("seed")]
        )
    means = {method: float(values.mean()) for method, values in ends.items()}
    seeds = logs.groupby("method")["seed"].nunique()
    note = (
        f"Thick: mean over policies ({_count(seeds)} a method); thin: each of them"
        f"{_band(methods)}. At the right: the end value, the mean of the last 10% of steps "
        "(at least 5), \N{PLUS-MINUS SIGN} 1 sd over policies."
    )
    figure = _figure(8.6, _height(methods), "How far the policies have moved", note)
    axes = figure.add_subplot()
    labels = {m: f"  {_mean_and_sd(ends[m])}" for m in methods}
    _curves(axes, logs, methods, {"kl": "-"}, labels)
    axes.set_ylabel("KL to the reference (nats a response)")
    if len(methods) > 1:
        axes.set_title(_match(means), color=INK)
    return figure


def _match(means: dict[str, float]) -> str:
    """One line that says whether the methods' final KLs are near enough to be compared."""
    low, high = min(means, key=means.get), max(means, key=means.get)
    gap = statistics.kl_mismatch(means[low], means[high])
    if not np.isfinite(gap):
        return "End values are not all positive: the methods cannot be matched by KL"
    limit = f"{statistics.KL_TOLERANCE:.0%}"
    apart = f"{100 * gap:.0f}% apart"
    if gap <= statistics.KL_TOLERANCE:
        most = "" if len(means) == 2 else "at most "
        return f"End values are {most}{apart}: matched (within {limit})"
    if len(means) == 2:
        return f"End values are {apart}: NOT matched (more than {limit})"
    names = f"{name_of(low)} and {name_of(high)}"
    return f"End values are up to {apart} ({names}): NOT matched (more than {limit})"


@styled
def reward(logs: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Fig 11: the reward that is optimised over training, and the ensemble's mean of it.

    Args:
        logs: method, seed, step, proxy_reward (the policy's own head), ensemble_reward.
    """
    seeds = logs.groupby("method")["seed"].nunique()
    note = (
        f"Solid: the policy's own head, mean over policies ({_count(seeds)} a method); thin: each "
        f"of them{_band(methods)}. Dashed: mean of all heads on the same responses. "
        "At the right: the means over the last 10% of steps (at least 5)."
    )
    figure = _figure(8.6, _height(methods, 2), "What the policies think they gain", note)
    axes = figure.add_subplot()
    labels = {}
    for method in methods:
        part = logs[logs["method"] == method]
        own, every = (
            np.mean([statistics.final_mean(log[column]) for _, log in part.groupby("seed")])
            for column in ("proxy_reward", "ensemble_reward")
        )
        labels[method] = f"\nown head {number(own)}, all {number(every)}"
    lines = {"proxy_reward": "-", "ensemble_reward": (0, (4, 2))}
    _curves(axes, logs, methods, lines, labels)
    axes.set_ylabel("proxy reward")
    handles = [
        Line2D([], [], color=INK, linewidth=2.2, linestyle=style) for style in lines.values()
    ]
    axes.legend(handles, ["the policy's own head", "mean of all heads"], loc="upper left")
    return figure


def _height(methods: Sequence[str], lines: int = 1) -> float:
    """The height of a figure, in inches, that leaves room for the methods' labels."""
    return max(4.6, 2 + 0.25 * lines * len(methods))


def _band(methods: Sequence[str]) -> str:
    return "; band: \N{PLUS-MINUS SIGN} 1 sd over policies" if len(methods) <= BANDS else ""


def _count(seeds: pd.Series) -> str:
    low, high = seeds.min(), seeds.max()
    return f"{low}" if low == high else f"{low} to {high}"


def _mean_and_sd(values: np.ndarray) -> str:
    """Mean and standard deviation with the same number of decimals."""
    mean, sd = float(values.mean()), np.sqrt(statistics.variance(values))
    if not np.isfinite(sd):
        return number(mean)
    largest = max(abs(mean), sd)
    decimals = max(0, 2 - int(np.floor(np.log10(largest)))) if largest > 0 else 0
    return f"{mean:.{decimals}f} \N{PLUS-MINUS SIGN} {sd:.{decimals}f}".replace("-", MINUS)


def _curves(
    axes: Axes,
    logs: pd.DataFrame,
    methods: Sequence[str],
    lines: dict[str, object],
    labels: dict[str, str],
) -> None:
    """Each method's mean curve(s), with band, single policies, and a label at the end.

    The first of ``lines`` is the main one: it alone has the band and the single policies.
    """
    look = looks(methods)
    main = next(iter(lines))
    ends = {}
    for method in methods:
        part = logs[logs["method"] == method]
        wide = part.pivot(index="step", columns="seed", values=main).sort_index()
        mean, sd = wide.mean(axis=1), wide.std(axis=1, ddof=1)
        colour = look[method].colour
        faint = min(0.45, 2.5 / wide.shape[1] + 0.1) / np.sqrt(max(len(methods) / 2, 1))
        for seed in wide:
            (thin,) = axes.plot(wide.index, wide[seed], color=colour, linewidth=0.6, alpha=faint)
            thin.set_gid(f"{method} {seed}")
        if len(methods) <= BANDS:
            axes.fill_between(
                wide.index, mean - sd, mean + sd, color=colour, alpha=0.2, linewidth=0
            )
        for column, style in lines.items():
            curve = mean if column == main else part.groupby("step")[column].mean()
            axes.plot(curve.index, curve, color=colour, linewidth=2.2, linestyle=style, zorder=3)
        (end,) = axes.plot(
            mean.index[-1:],
            mean.iloc[-1:],
            color=colour,
            marker=look[method].marker,
            markersize=7,
            markeredgecolor="white",
            zorder=4,
            clip_on=False,
        )
        end.set_gid(f"end {method}")
        ends[method] = (mean.index[-1], float(mean.iloc[-1]))
    first, last = logs["step"].min(), logs["step"].max()
    axes.set_xlim(first, last if last > first else first + 1)
    low, high = axes.get_ylim()
    low = min(low, 0) if main == "kl" else low
    axes.set_ylim(low, high)
    _label_ends(
        axes,
        [ends[method] for method in methods],
        [f"{_lines(method)}{labels[method]}" for method in methods],
        [look[method].ink for method in methods],
        fontsize=9,
        fontweight="bold",
    )
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("PPO step")
