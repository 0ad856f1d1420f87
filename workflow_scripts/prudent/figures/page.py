"""The summary page: the results in words, tables and figures.

One HTML file without scripts, links or pictures from outside, so that it can be read in a frame of
a report, in a mail, or in ten years. The template ``page.html`` has the layout, and escapes all
texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from markupsafe import Markup

from prudent.analysis.findings import findings
from prudent.analysis.sentences import headline
from prudent.analysis.verdict import Verdicts
from prudent.analysis.wording import name_of, number
from prudent.figures.inline import inline_svg
from prudent.figures.page_tables import (
    Table,
    accuracy_table,
    by_ensemble_table,
    components_table,
    diagnosis_table,
    exact_table,
    frequency_table,
    kinds_table,
    methods_table,
    variance_table,
    verdict_table,
)
from prudent.figures.samples import Group, by_disagreement, by_spread
from prudent.figures.templates import template


class Figure(NamedTuple):
    """A figure as input: its SVG file's text, and its caption as in the report."""

    name: str
    category: str
    caption: str
    svg: str


class Shown(NamedTuple):
    """A figure on the page."""

    name: str
    title: str
    text: str
    drawing: Markup


class Box(NamedTuple):
    """The findings about one method: a headline, and the sentences that support it."""

    method: str
    status: str  # reduces, does-not, undecided: the page's style
    headline: str
    sentences: Sequence[str]


class Part(NamedTuple):
    """A table with an optional heading, and a note."""

    table: Table
    anchor: str = ""
    title: str = ""
    note: str = ""


class Section(NamedTuple):
    anchor: str
    title: str
    parts: Sequence[Part] = ()
    figures: Sequence[Shown] = ()
    groups: Sequence[Group] = ()


CLAIM = (
    "Policies that are as far from the reference (the same KL) vary less by their reward model, "
    "and more than a control explains: this is claimed of weighting the KL by the spread of an "
    "ensemble (arXiv 2410.23726), and every method here is held against it."
)

VERDICT_NOTE = """
The baseline stands beside each number of risk. Of optimal policies scores are gains over the
reference policy. A policy's draw is its reward model's or ensemble's. Dominance in first order:
the method's share of policies below any score is the smaller one; in second order: it is preferred
by everyone who dislikes risk. "Yes" where it is significantly ahead (5%, not adjusted for the
number of methods) and in these policies nowhere behind.
"""

NOTES = """
A policy's score is the judge's mean over the fixed test prompts. Policies are paired by seed: the
same seed has the same member, prompts and sampling streams in every method. The variance ratio's
interval is the jackknife's over members, the same ones in both methods. The permutation test
exchanges the methods' labels within members; its p is Holm's over all methods. How often each is
wrong is in docs/statistics.md. Pitman-Morgan, Brown-Forsythe and McNemar take the policies as
independent, which they are not where a member has several trials. A policy is worse than the
reference if its mean score is below the reference's on the same prompts. The final KL is the
policy's on these prompts, exact for each token.
"""

COMPONENTS_NOTE = """
Variance components by the analysis of variance of the balanced design, with 95% intervals. A level
with one unit in each unit above it is not told apart from that and counts there: with one trial a
member, what trials vary by is in the members' component. Evaluation is what more test prompts would
remove. The components of a single ensemble say nothing of other ensembles.
"""

ACCURACY_NOTE = (
    "The audit of the first draw's members on these pairs, with a browser of them, is the page "
    "audit/audit.html beside this page's folder."
)

VARIANCE_NOTE = (
    "The sample variance over the members is taken per row: of the accepted response's reward, and "
    "of accepted minus rejected. The table has its median, mean and maximum over the rows."
)

DIAGNOSIS_NOTE = """
Intervals are 95% bootstrap intervals over prompts. Noise alone is what members would give that
differ from their mean by noise of constant sigma, or, for calibration, what sampling gives a
perfectly calibrated predictor. Leave-one-out compares the sigma of the other members with the error
of the member left out, and averages over members: a member's own error is part of the spread over
all members, so the two would agree even if sigma knew nothing. An error is the residual of a
member's line on the true reward. Where sigma comes from initialisation, it is made of the feature
norm and of sigma before training; a correlation given both shows what it knows beyond them.
"""

EXACT_NOTE = """
An optimal policy is the reference policy's responses, reweighted so that PPO's own gradient
vanishes; beta is found for each ensemble so that its KL is the one stated. A gain is in the judge's
score, over the reference policy. Given the backbone, ensembles differ by labels, resamples and
heads; all drawn anew, by pairs and base model, too: what heads on one backbone share is in the
second spread alone. Intervals are over ensembles: Student's t for gains and differences, the
jackknife for sd and for ratios of variances (baseline over method), Wilson's for shares. The
effective size is the number of equally likely responses that a policy is worth for one prompt in a
hundred; a policy worth fewer than 10 is known poorly. Sampling: what another sample of responses
would change a gain by (sd), and what half of the responses change the mean gain by. Members of
different replicates are independent, but their policies share members, so that their intervals are
too short.
"""
BY_ENSEMBLE_NOTE = """
Mean gain of the optimal policies of each ensemble's draws, over the reference policy, by the judge;
below it the ratio of the baseline's variance over the draws to the method's, with its 95% interval.
A method that asks for a spread is not to be had of a single model.
"""

FREQUENCY_NOTE = """
Responses are in bins of how often their rarest judgement word stands in the training pairs'
responses. A pair of responses to one prompt counts in the bin of its rarer response.
"""


def render(
    diagnosis: pd.DataFrame,
    frequency: pd.DataFrame,
    accuracy: pd.DataFrame,
    variance: pd.DataFrame,
    samples: pd.DataFrame,
    exact: pd.DataFrame,
    verdict: Verdicts,
    figures: Sequence[Figure],
    facts: Sequence[tuple[str, str]],
    policies: pd.DataFrame | None = None,
    summary: pd.DataFrame | None = None,
    tests: pd.DataFrame | None = None,
    components: pd.DataFrame | None = None,
    exact_kinds: pd.DataFrame | None = None,
    judgements: pd.DataFrame | None = None,
    rewards: pd.DataFrame | None = None,
) -> str:
    """The whole page as HTML; without policies, it shows the results about rewards.

    Args:
        diagnosis: of all ensembles; the scenario's own is the first.
        samples: the reference's responses, with every member's reward (``by_spread``).
        exact: one row per level, KL and method.
        verdict: the findings about each method.
        facts: names and values of the run's inputs.
        exact_kinds: one row per ensemble, KL and method, if found for every ensemble.
        judgements, rewards: of the responses to the test prompts (``by_disagreement``).
    """
    parts = {"Exact policies": [*_exact(exact), *_by_ensemble(exact_kinds)]}
    trained: dict[str, list[str]] = {}
    lead = f"{CLAIM} The baseline is {name_of(verdict.baseline)}."
    if policies is not None and summary is not None and tests is not None:
        lead += f" There are {len(policies)} trained policies."
        trained = findings(summary, tests)
        note = f"{_reference(summary)} {' '.join(NOTES.split())}"
        parts["Policies"] = [Part(methods_table(summary, tests), note=note)]
        if components is not None:
            note = " ".join(COMPONENTS_NOTE.split())
            title = "Where the variance comes from"
            parts["Policies"].append(Part(components_table(components), "components", title, note))
    else:
        lead += (
            " This run trains no policies: it checks the rewards, and what their optima are worth."
        )
    parts["Reward models"] = [
        *_diagnosis(diagnosis, frequency),
        Part(accuracy_table(accuracy), "accuracy", "Accuracy on the benchmark", ACCURACY_NOTE),
        Part(variance_table(variance), "variance", "Variance over the members", VARIANCE_NOTE),
    ]
    drawn: dict[str, list[Shown]] = {}
    for figure in figures:
        drawn.setdefault(figure.category, []).append(shown(figure))
    risk = Part(verdict_table(verdict), "risk", "Risk and return", " ".join(VERDICT_NOTE.split()))
    sections = [
        Section("verdict", "Verdict", [risk] if verdict.methods else (), drawn.pop("Verdict", ()))
    ]
    for title in dict.fromkeys([*parts, *drawn]):
        anchor = f"section-{len(sections)}"
        sections.append(Section(anchor, title, parts.get(title, ()), drawn.get(title, ())))
    groups = by_spread(samples)
    if judgements is not None and rewards is not None:
        groups += by_disagreement(judgements, rewards)
    sections.append(Section("samples", "Samples", groups=groups))
    sections.append(Section("provenance", "Where this comes from"))
    return template(Path(__file__).with_name("page.html")).render(
        lead=lead,
        sections=sections,
        boxes=_boxes(verdict, trained),
        rule=verdict.rule,
        rule_stated=verdict.rule_stated,
        facts=facts,
    )


def _boxes(verdict: Verdicts, trained: dict[str, list[str]]) -> list[Box]:
    """Each method's verdict and findings about its trained policies; then trained controls."""
    boxes = []
    for method in verdict.methods:
        sentences = [method.sentence, *trained.get(method.name, ())]
        status = method.word.replace(" ", "-")
        boxes.append(Box(method.name, status, headline(method.comparisons[0]), sentences))
    judged = {box.method for box in boxes}
    for method, sentences in trained.items():
        if method not in judged:
            boxes.append(
                Box(method, "undecided", "a control, for which nothing is claimed", sentences)
            )
    return boxes


def _reference(summary: pd.DataFrame) -> str:
    reference = summary.iloc[0]
    return (
        f"Reference policy: {number(reference['reference_score'])}, standard error over prompts "
        f"{number(reference['reference_se'], 2)}."
    )


def _diagnosis(diagnosis: pd.DataFrame, frequency: pd.DataFrame) -> list[Part]:
    """The scenario's ensemble, all kinds if there are several, and the frequencies if known."""
    title, note = "Rewards on the reference's responses", " ".join(DIAGNOSIS_NOTE.split())
    parts = [Part(diagnosis_table(diagnosis), "diagnosis", title, note)]
    kinds = kinds_table(diagnosis)
    if len(kinds.rows) > 1:
        parts.append(Part(kinds, "kinds-table", "What each kind's sigma is worth"))
    if len(frequency):
        title, note = "By frequency of the rarest judgement", " ".join(FREQUENCY_NOTE.split())
        parts.append(Part(frequency_table(frequency), "frequency-table", title, note))
    return parts


def _exact(exact: pd.DataFrame) -> list[Part]:
    """One table per level and KL."""
    parts = []
    for (level, kl), part in exact.groupby(["level", "kl_target"], sort=False):
        title = f"{str(level).capitalize()}, KL {number(kl)}"
        parts.append(Part(exact_table(part), f"exact-{len(parts)}", title))
    return [*parts[:-1], parts[-1]._replace(note=" ".join(EXACT_NOTE.split()))]


def _by_ensemble(exact: pd.DataFrame | None) -> list[Part]:
    """One table per KL; none if only the scenario's ensemble has exact policies."""
    if exact is None:
        return []
    note = " ".join(BY_ENSEMBLE_NOTE.split())
    return [
        Part(by_ensemble_table(part), f"ensembles-{n}", f"By every ensemble, KL {number(kl)}", note)
        for n, (kl, part) in enumerate(exact.groupby("kl_target", sort=False))
    ]


def shown(figure: Figure) -> Shown:
    """Splits a caption ``**Title.** Text``, as in the report."""
    caption = " ".join(figure.caption.split())
    found = re.fullmatch(r"\*\*(.+?)\.?\*\* (.+)", caption)
    title, text = found.groups() if found else (figure.name, caption)
    return Shown(figure.name, title, text, inline_svg(figure.svg, figure.name, title))
