"""Fig 1: the rewards that the members give to one response."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from prudent import tables
from prudent.analysis.wording import number
from prudent.figures.looks import BLACK, INK, ORANGE, SKY
from prudent.figures.style import new_figure, styled
from prudent.rewards import rewardbench


def plot(scores: Path, benchmark: Path) -> Figure:
    """The rewards of the first ensemble's members on the benchmark's typical row."""
    table = tables.read_table(scores, "scores")
    row = rewardbench.typical_row(table)
    rewards, _ = rewardbench.rewards_by_row(table)
    texts = tables.read_table(benchmark, "benchmark").set_index(rewardbench.ROW)
    text = texts.loc[tuple(row.values())]
    prompt = " ".join(message["content"] for message in text["prompt"])
    where = (
        "This is the accepted response of the benchmark's row on which the members disagree as "
        f"much as they typically do (median variance): {row['section']}, {row['subset']}, id "
        f"{row['id']}. The line is the mean over the members, the band \N{PLUS-MINUS SIGN} 1 "
        "standard deviation."
    )
    members = rewards.loc[tuple(row.values()), 0]
    return draw_heads(members.to_numpy(), prompt, text["chosen"], where)


@styled
def draw_heads(rewards: Sequence[float], prompt: str, response: str, where: str) -> Figure:
    """Fig 1: the rewards that the members give to one response to one prompt.

    Args:
        rewards: [members].
        where: the name of the benchmark's row.
    """
    values = np.asarray(rewards, dtype=float)
    count = len(values)
    mean, sd = values.mean(), values.std(ddof=1) if count > 1 else np.nan
    title = f"{count} members, one response"
    figure = new_figure(max(6.5, 0.5 * count + 2), 4.6, title, where)
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
    axes.set_xlabel("member")
    axes.set_ylabel("reward")
    axes.margins(y=0.08)
    text = f"Prompt: {_excerpt(prompt)}\nResponse: {_excerpt(response)}"
    lines = [textwrap.fill(line, 88, subsequent_indent="   ") for line in text.split("\n")]
    axes.set_title("\n".join(lines), fontsize=9, color=INK)
    return figure


def _excerpt(text: str, length: int = 170) -> str:
    """A text on one line, cut at a word where it is long."""
    return textwrap.shorten(text, length, placeholder=" …")
