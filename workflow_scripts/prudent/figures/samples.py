"""The browser of samples on the pages: texts, and what every member and the judge say of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from prudent.analysis.wording import name_of, number
from prudent.errors import cut
from prudent.figures.looks import looks
from prudent.figures.page_tables import Cell, Table

SAMPLES = 20  # at each end of an order
LONGEST = 600  # characters of a text
CUT = f"A text is cut at {LONGEST} characters."
ROUNDING = 1e-9  # of means of equal scores
PREVIEW = 80  # characters of a text in a title
REFERENCE = "reference"  # the method of the reference policy's responses
FIRST = 0  # the draw and the seed that are shown: this seed's policies have this draw's rewards


class Sample(NamedTuple):
    """One entry: a title, who says what, and the numbers."""

    title: str
    texts: list[tuple[str, str]]
    table: Table

    @classmethod
    def of(
        cls, title: str, texts: Sequence[tuple[str, str]], rows: list[dict[Cell, Cell]]
    ) -> Sample:
        """The entry with its texts cut, and the table of its rows (``Table.of``)."""
        return cls(title, [(who, cut(text, LONGEST)) for who, text in texts], Table.of(rows))


class Group(NamedTuple):
    """Samples in an order, which the note explains."""

    title: str
    anchor: str
    note: str
    samples: list[Sample]


def of_members(scores: np.ndarray) -> dict[Cell, Cell]:
    """The cells of one row: the mean and the spread of the members' scores [K], and each of them.

    A member alone has neither mean nor spread.
    """
    found = {}
    if len(scores) > 1:
        found = {Cell("mean", "of the members"): scores.mean(), Cell("spread"): scores.std(ddof=1)}
    found |= {Cell(f"member {k}"): score for k, score in enumerate(scores)}
    return {head: Cell(number(float(value))) for head, value in found.items()}


def both_ends(
    key: np.ndarray, by: str, what: str, sample: Callable[[int], Sample], count: int = SAMPLES
) -> list[Group]:
    """At most ``count`` rows with the largest and with the smallest key [n].

    The most extreme come first, and no row is in both. ``by`` names the key and ``what`` the rows;
    ``sample`` returns a row's entry.
    """
    order = np.argsort(-key, kind="stable")
    large = order[: min(count, -(-len(order) // 2))]
    small = order[len(large) :][::-1][:count]
    note = f"of {len(order)} {what}, sorted by {by}, the most extreme first. {CUT}"
    return [
        Group(f"{size} {by}", size.lower(), f"{len(rows)} {note}", [sample(row) for row in rows])
        for size, rows in (("Largest", large), ("Smallest", small))
        if len(rows)
    ]


def by_spread(samples: pd.DataFrame) -> list[Group]:
    """The reference's different responses with the largest and the smallest spread.

    The spread is that of the first draw's members; a single member's responses are sorted by its
    reward. ``samples`` has the schema "reward_samples".
    """
    first = samples[samples["ensemble"] == FIRST]
    # A response that was sampled twice is two rows of each head: the order tells them apart.
    first = first.assign(row=first.groupby("head").cumcount())
    rewards = first.pivot(index="row", columns="head", values="reward").to_numpy()
    texts = first[first["head"] == first["head"].iloc[0]].reset_index(drop=True)
    kept = ~texts.duplicated(["prompt", "response"]).to_numpy()
    texts, rewards = texts[kept].reset_index(drop=True), rewards[kept]
    single = rewards.shape[1] == 1
    by, key = ("reward", rewards[:, 0]) if single else ("spread", rewards.std(1, ddof=1))

    def sample(row: int) -> Sample:
        says, own = texts.loc[row], rewards[row]
        mean = "" if single else f"mean {number(own.mean())}, "
        title = f"{by} {number(key[row])}, {mean}judge {number(says['score'])}: "
        judged = {Cell("draw"): Cell("first"), Cell("judge"): Cell(number(says["score"]))}
        return Sample.of(
            title + cut(says["response"], PREVIEW),
            [("prompt", says["prompt"]), ("response", says["response"])],
            [judged | of_members(own)],
        )

    what = "different responses of the reference policy, rewarded by the members of the first draw"
    return both_ends(key, by, what, sample)


def by_disagreement(judgements: pd.DataFrame, rewards: pd.DataFrame) -> list[Group]:
    """The test prompts at which the methods' mean judge scores are the farthest apart.

    ``judgements`` and ``rewards`` have the schemas of these names, of all methods and the reference
    policy. No group where there are fewer than two methods, or they nowhere differ.
    """
    methods = [name for name in dict.fromkeys(judgements["method"]) if name != REFERENCE]
    if len(methods) < 2:
        return []
    prompts = list(dict.fromkeys(judgements["prompt"]))
    means = judgements.groupby(["prompt", "method"])["score"].mean().unstack()
    of_methods = means.loc[prompts, methods].to_numpy()
    apart = of_methods.max(1) - of_methods.min(1)
    said = judgements[judgements["seed"] == FIRST].set_index(["prompt", "method"])
    of_first = rewards[(rewards["seed"] == FIRST) & (rewards["ensemble"] == FIRST)]
    members = of_first.pivot(index=["prompt", "method"], columns="head", values="reward")
    policies = judgements.groupby("method")["seed"].nunique()
    look = looks(methods)
    answering = [*methods, *(name for name in [REFERENCE] if name in means)]

    def sample(place: int) -> Sample:
        prompt, scores = prompts[place], of_methods[place]
        best, worst = methods[scores.argmax()], methods[scores.argmin()]
        title = (
            f"{number(apart[place])} apart, {name_of(best)} {number(scores.max())}, "
            f"{name_of(worst)} {number(scores.min())}: {cut(prompt, PREVIEW)}"
        )
        rows = [
            {
                Cell("method"): Cell(
                    name_of(name),
                    f"{policies[name]} polic{'y' if policies[name] == 1 else 'ies'}",
                    colour=look[name].colour if name in look else "",
                ),
                Cell("judge", "mean of the policies"): Cell(number(means.loc[prompt, name])),
                Cell("judge", "this response"): Cell(number(said.loc[(prompt, name), "score"])),
                **of_members(members.loc[(prompt, name)].to_numpy()),
            }
            for name in answering
        ]
        texts = [(name_of(name), said.loc[(prompt, name), "response"]) for name in answering]
        return Sample.of(title, [("prompt", prompt), *texts], rows)

    differ = np.count_nonzero(apart > ROUNDING)
    shown = np.argsort(-apart, kind="stable")[: min(SAMPLES, differ)]
    if not len(shown):
        return []
    note = (
        f"{len(shown)} of the {len(prompts)} test prompts, sorted by the range of the methods' "
        "scores (the judge's means over their policies), the farthest apart first. The responses "
        f"are those of the policies with seed {FIRST}, and the members those of the draw that "
        f"rewarded these. {CUT}"
    )
    title = "Largest disagreement of the methods"
    return [Group(title, "disagreement", note, [sample(place) for place in shown])]
