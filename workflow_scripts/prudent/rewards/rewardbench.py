"""RewardBench's scoring rule, and the heads' accuracy and disagreement on a benchmark.

RewardBench (Lambert et al., arXiv 2403.13787) is 23 subsets of chosen/rejected pairs in four
sections, and optionally four older preference sets (Prior). The rule is that of its leaderboard
(allenai/reward-bench, analysis/get_benchmark_results.py). Other benchmarks of the same schema get
the plain rule: rows have equal weights in a section, and sections have equal weights overall.

All tables are read and written in long form; subset and id together identify a benchmark's rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from prudent.data.rewardbench import SECTION_WEIGHTS, SUBSET_COUNTS
from prudent.errors import InputError

BASE = -1  # the ensemble and head number of the base model's rows
MEAN = -1  # the head number of an ensemble's mean
ROW = ["section", "subset", "id"]
MODEL = ["model", "ensemble", "head"]
QUANTILES = {"q10": 0.10, "q25": 0.25, "q75": 0.75, "q90": 0.90}


def subset_weights(section: str, subsets: Sequence[str], rows: Sequence[int]) -> np.ndarray:
    """The weights of a section's subsets: the leaderboard's counts, or else the number of rows.

    If the benchmark holds only part of a RewardBench subset, the subset keeps its weight.
    """
    counts = SUBSET_COUNTS.get(section, {})
    if all(subset in counts for subset in subsets):
        return np.array([counts[subset] for subset in subsets], dtype=float)
    return np.asarray(rows, dtype=float)


def section_weights(sections: Sequence[str]) -> np.ndarray:
    """The weights of the sections in the overall score: 2, 2, 2, 2, 1 for RewardBench's.

    Missing sections, usually the prior sets, are left out, so the four others have equal weights.
    """
    if all(section in SECTION_WEIGHTS for section in sections):
        return np.array([SECTION_WEIGHTS[section] for section in sections], dtype=float)
    return np.ones(len(sections))


def rewards_by_row(scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rewards of both sides, ``(chosen, rejected)``: one row per pair, one column per model.

    The rows' index is (section, subset, id), in the order of their first appearance. The columns'
    index is (ensemble, head); the base model is (-1, -1). ``InputError`` where a model scores a
    pair twice, a pair lacks a side or a model, or a reward is not finite.
    """
    scores = scores.astype({name: str for name in [*ROW, "side"]})
    unknown = set(scores["side"]) - {"chosen", "rejected"}
    if unknown:
        raise InputError(f"scores: side is {sorted(unknown)}, expected chosen or rejected")
    key = [*ROW, "side", "ensemble", "head"]
    duplicated = scores.duplicated(key)
    if duplicated.any():
        first = scores.loc[duplicated, key].iloc[0].to_dict()
        raise InputError(f"scores: more than one reward for {first}; expected one")
    wide = scores.pivot(index=ROW, columns=["side", "ensemble", "head"], values="reward")
    wide = wide.reindex(pd.MultiIndex.from_frame(scores[ROW].drop_duplicates()))
    sides = set(wide.columns.get_level_values("side"))
    if len(sides) < 2:
        raise InputError(f"scores: only the side(s) {sorted(sides)}; expected chosen and rejected")
    chosen, rejected = wide["chosen"].sort_index(axis=1), wide["rejected"].sort_index(axis=1)
    bad = ~np.isfinite(chosen.reindex_like(rejected)) | ~np.isfinite(rejected)
    if bad.to_numpy().any() or not chosen.columns.equals(rejected.columns):
        rows = bad.index[bad.any(axis=1)]
        where = dict(zip(ROW, rows[0], strict=True)) if len(rows) else "some rows"
        raise InputError(
            f"scores: {len(rows)} row(s), first {where}, without a finite reward for both sides "
            "from every model; expected one"
        )
    return chosen, rejected


def accuracy_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Accuracy per subset, section and overall, of each head, each ensemble's mean and the base.

    Args:
        scores: long table with id, subset, section, side, ensemble, head, reward.

    Returns:
        subset ("all" above subset level), section ("all" overall), level
        (subset/section/overall), model (base/head/mean), ensemble, head (-1 where it does not
        apply), accuracy (share of rows with chosen strictly above rejected), se (its binomial
        standard error, with the rule's weights), ties (rows with equal rewards, which count as
        wrong), rows.
    """
    chosen, rejected = rewards_by_row(scores)
    difference = _with_means(chosen) - _with_means(rejected)
    right, ties = difference > 0, difference == 0
    by_subset = right.groupby(level=["section", "subset"], sort=False)
    subsets = pd.concat(
        {
            "accuracy": by_subset.mean().stack(MODEL),
            "ties": ties.groupby(level=["section", "subset"], sort=False).sum().stack(MODEL),
            "rows": by_subset.count().stack(MODEL),
        },
        axis=1,
    ).reset_index()
    subsets["se"] = np.sqrt(subsets["accuracy"] * (1 - subsets["accuracy"]) / subsets["rows"])
    sections = _average(subsets, ["section"], "subset", subset_weights).assign(subset="all")
    overall = _average(
        sections.assign(benchmark="all"),
        ["benchmark"],
        "section",
        lambda _, names, __: section_weights(names),
    ).assign(section="all", subset="all")
    table = pd.concat(
        [
            subsets.assign(level="subset"),
            sections.assign(level="section"),
            overall.assign(level="overall"),
        ],
        ignore_index=True,
    )
    columns = ["subset", "section", "level", *MODEL, "accuracy", "se", "ties", "rows"]
    return table[columns].astype({"ties": int, "rows": int, "ensemble": int, "head": int})


def _with_means(rewards: pd.DataFrame) -> pd.DataFrame:
    """One side's rewards under (model, ensemble, head), with a column for each ensemble's mean."""
    parts = {}
    for ensemble, head in rewards.columns:
        model = "base" if ensemble == BASE else "head"
        parts[model, ensemble, head] = rewards[ensemble, head]
    for ensemble, members in member_rewards(rewards).items():
        parts["mean", ensemble, MEAN] = members.mean(axis=1)
    wide = pd.DataFrame(parts)
    wide.columns.names = MODEL
    return wide


def member_rewards(rewards: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """One side's rewards per ensemble, without the base model: {ensemble: [rows, heads]}."""
    ensembles = sorted(set(rewards.columns.get_level_values("ensemble")) - {BASE})
    return {ensemble: rewards[ensemble] for ensemble in ensembles}


def _average(table: pd.DataFrame, group: list[str], part: str, weights) -> pd.DataFrame:
    """Weighted means of accuracies over the parts of a group, separately for every model."""
    rows = []
    for (name, *model), members in table.groupby([*group, *MODEL], sort=False):
        weight = weights(name, members[part].tolist(), members["rows"].tolist())
        weight = weight / weight.sum()
        rows.append(
            dict(
                zip([*group, *MODEL], [name, *model], strict=True),
                accuracy=float(weight @ members["accuracy"]),
                se=float(np.sqrt(weight**2 @ members["se"] ** 2)),
                ties=members["ties"].sum(),
                rows=members["rows"].sum(),
            )
        )
    return pd.DataFrame(rows)


def variance_rows(scores: pd.DataFrame) -> pd.DataFrame:
    """The heads' sample variance (ddof 1) on every row of the benchmark.

    Returns:
        section, subset, id, ensemble, and two variances over the ensemble's heads: ``accepted``, of
        the accepted response's reward, and ``difference``, of accepted minus rejected reward. The
        Bradley-Terry loss leaves a constant in each head's rewards free; it changes the first
        variance, but not the second. nan with a single head.
    """
    chosen, rejected = (member_rewards(side) for side in rewards_by_row(scores))
    parts = [
        pd.DataFrame(
            {
                "ensemble": ensemble,
                "accepted": chosen[ensemble].var(axis=1, ddof=1),
                "difference": (chosen[ensemble] - rejected[ensemble]).var(axis=1, ddof=1),
            }
        ).reset_index()
        for ensemble in chosen
    ]
    if not parts:
        raise InputError("scores: only the base model's rewards; expected an ensemble's heads")
    return pd.concat(parts, ignore_index=True)


def variance_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Fig 6's numbers: how the heads' variance is distributed over a section's or subset's rows.

    Returns:
        section, subset ("all" for the whole section), side (accepted/difference), ensemble, rows,
        mean, median, max, q10, q25, q75, q90 of ``variance_rows``. Every row counts once.
    """
    rows = variance_rows(scores)
    long = pd.concat([rows, rows.assign(subset="all")]).melt(
        id_vars=["section", "subset", "ensemble"],
        value_vars=["accepted", "difference"],
        var_name="side",
    )
    grouped = long.groupby(["section", "subset", "side", "ensemble"], sort=False)["value"]
    table = grouped.agg(rows="size", mean="mean", median="median", max="max")
    for name, level in QUANTILES.items():
        table[name] = grouped.quantile(level)
    return table.reset_index()


def typical_row(scores: pd.DataFrame, ensemble: int = 0) -> dict[str, str]:
    """The row with a typical disagreement of the heads: section, subset and id.

    It has the (lower) median variance of the accepted response's reward. Ties, and a single head,
    which has no variance, are resolved by name.
    """
    rows = variance_rows(scores)
    rows = rows[rows["ensemble"] == ensemble].sort_values(["accepted", *ROW], ignore_index=True)
    return rows.loc[(len(rows) - 1) // 2, ROW].to_dict()
