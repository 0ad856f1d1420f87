"""Are the policies of one method less variable, and less often bad, than those of another?

Tables of policies and methods, made from the judge's scores and the training logs. A method's
policies come in clusters, one for each independent draw of its unit (a member of an ensemble, or a
whole ensemble). Here, the score of a policy is the judge's mean score of its responses to the fixed
test prompts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from prudent import tables
from prudent.analysis.statistics import (
    brown_forsythe,
    evaluation_noise,
    holm,
    mcnemar,
    mean_and_se,
    permutation_test,
    pitman_morgan,
    share_interval,
    t_interval,
    tail_mean,
    variance,
    variance_ratio,
)
from prudent.errors import InputError, quoted
from prudent.policies.target_kl import KL_TOLERANCE, Calibration
from prudent.seeding import seed_parts

T = TypeVar("T")


def by_policy(
    items: Sequence[T], methods: Sequence[str], seeds: Sequence[int]
) -> dict[tuple[str, int], T]:
    """Files of policies, ordered by method and then by seed, under (method, seed)."""
    keys = list(itertools.product(methods, seeds))
    if len(items) != len(keys):
        raise InputError(
            f"{len(items)} files of policies for {len(methods)} methods x {len(seeds)} seeds; "
            f"expected {len(keys)}"
        )
    return dict(zip(keys, items, strict=True))


def read_logs(
    paths: Sequence[Path], methods: Sequence[str], seeds: Sequence[int]
) -> dict[tuple[str, int], pd.DataFrame]:
    """The training logs of all policies, under (method, seed).

    ``InputError`` where one is not complete: it lacks steps, or has fewer than the others.
    """
    files = by_policy(paths, methods, seeds)
    logs = {key: tables.read_csv(path, "training_log") for key, path in files.items()}
    longest = {method: max(len(logs[method, seed]) for seed in seeds) for method in methods}
    for (method, seed), log in logs.items():
        if log["step"].tolist() != list(range(max(longest[method], 1))):
            raise InputError(
                f"{files[method, seed]}: found {len(log)} rows, expected the steps 0 to "
                f"{max(longest[method], 1) - 1} of method {method}, each once and in order"
            )
    return logs


def read_judgements(
    paths: Sequence[Path], methods: Sequence[str], seeds: Sequence[int]
) -> dict[tuple[str, int], pd.DataFrame]:
    """The judged responses of all policies, under (method, seed), from a file for each method.

    ``InputError`` where a file belongs to another method, or lacks a policy.
    """
    judged = {}
    for method, path in zip(methods, paths, strict=True):
        table = read_judgement(path)
        found = {key: rows for key, rows in table.groupby(["method", "seed"], sort=False)}
        expected = {(method, seed) for seed in seeds}
        if set(found) != expected:
            raise InputError(
                f"{path}: found responses of {_named(found)}; expected those of {_named(expected)}"
            )
        judged |= {key: found[key].reset_index(drop=True) for key in sorted(expected)}
    return judged


def _named(policies: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{method} seed {seed}" for method, seed in sorted(policies))


def read_judgement(path: Path) -> pd.DataFrame:
    """Judged responses of a file, with all columns of the judge."""
    return tables.read_table(path, "judgements", others=True)


def long_table(logs: dict[tuple[str, int], pd.DataFrame]) -> pd.DataFrame:
    """The training logs in one table, with the columns method and seed in front."""
    parts = [log.assign(method=method, seed=seed) for (method, seed), log in logs.items()]
    table = pd.concat(parts, ignore_index=True)
    return table[["method", "seed", *table.columns.drop(["method", "seed"])]]


def final_mean(values: Sequence[float]) -> float:
    """The final level of a training curve: its mean over the last 10% of steps, at least 5."""
    values = np.asarray(values, dtype=float)
    return float(values[-max(5, round(0.1 * len(values))) :].mean()) if len(values) else np.nan


def policy_table(
    judgements: dict[tuple[str, int], pd.DataFrame],
    reference: pd.DataFrame,
    ensembles: int,
    heads: int,
    units: Mapping[str, str],
) -> pd.DataFrame:
    """One row per policy.

    Args:
        judgements: the judged responses under (method, seed): prompt, response, kl, score, and, if
            the judge says so, grammatical (0/1). All have the same prompts in the same order.
        reference: the reference policy's judged responses to the same prompts.
        units: for each method, the unit by which its policies differ, "member" or "ensemble".

    Returns:
        method, unit, seed, ensemble, head, trial, score (mean over prompts), score_se (over
        prompts), worse (score below the reference's mean), kl to the reference (mean over prompts)
        and kl_se (over prompts), and grammatical where known.
    """
    reference_score = reference["score"].mean()
    prompts = reference["prompt"].tolist()
    rows = []
    for (method, seed), judged in judgements.items():
        if judged["prompt"].tolist() != prompts:
            raise InputError(
                f"judge/{method}.parquet: seed {seed}: {len(judged)} prompts that are not the "
                f"reference's {len(prompts)} in the same order; judge both with the same settings"
            )
        if not np.isfinite(judged["score"]).all():
            raise InputError(f"judge/{method}.parquet: seed {seed}: a score is not finite")
        score, se = mean_and_se(judged["score"])
        ensemble, head, trial = seed_parts(seed, ensembles, heads)
        row = {"method": method, "unit": units[method], "seed": seed}
        row |= {"ensemble": ensemble, "head": head, "trial": trial}
        row |= {"score": score, "score_se": se, "worse": bool(score < reference_score)}
        row["kl"], row["kl_se"] = mean_and_se(judged["kl"])
        if "grammatical" in judged:
            row["grammatical"] = judged["grammatical"].mean()
        rows.append(row)
    return pd.DataFrame(rows)


def cluster_ids(policies: pd.DataFrame, unit: str) -> np.ndarray:
    """The cluster of each policy: its ensemble, or its ensemble and member."""
    columns = {"ensemble": ["ensemble"], "member": ["ensemble", "head"]}[unit]
    return policies.groupby(columns, sort=False).ngroup().to_numpy()


def kl_mismatch(first: float, second: float) -> float:
    """How far apart two KLs are, as a share of the smaller; nan unless both are positive."""
    if not min(first, second) > 0:
        return float("nan")
    return abs(first - second) / min(first, second)


def summary_table(
    policies: pd.DataFrame, judged: dict[str, np.ndarray], reference: Sequence[float]
) -> pd.DataFrame:
    """One row per method.

    Args:
        policies: ``policy_table``.
        judged: each method's per-prompt scores [policies, prompts], for the evaluation noise.
        reference: the reference policy's per-prompt scores.

    Returns:
        method, unit, policies, units (clusters), score and its t interval over them,
        score_variance, score_sd, noise_variance (``evaluation_noise``), worse (count), worse_share
        and its Wilson interval over clusters, quantile05 and cvar10 (the mean of the lowest tenth)
        of the scores, kl (mean over policies) and kl_sd, grammatical where known, reference_score,
        reference_se.
    """
    reference_score, reference_se = mean_and_se(reference)
    rows = []
    for method, part in policies.groupby("method", sort=False):
        unit = part["unit"].iloc[0]
        clusters = cluster_ids(part, unit)
        score = t_interval(part["score"], clusters)
        share = share_interval(part["worse"], clusters)
        row = {"method": method, "unit": unit, "policies": len(part)}
        row |= {"units": len(np.unique(clusters))}
        row |= {"score": float(part["score"].mean())}
        row |= {"score_low": score.low, "score_high": score.high}
        row |= {"score_variance": variance(part["score"])}
        row |= {"score_sd": np.sqrt(row["score_variance"])}
        row |= {"noise_variance": evaluation_noise(judged[method])}
        row |= {"worse": int(part["worse"].sum()), "worse_share": share.estimate}
        row |= {"worse_low": share.low, "worse_high": share.high}
        row |= {"quantile05": float(part["score"].quantile(0.05))}
        row |= {"cvar10": tail_mean(part["score"])}
        row |= {"kl": float(part["kl"].mean()), "kl_sd": np.sqrt(variance(part["kl"]))}
        if "grammatical" in part:
            row["grammatical"] = float(part["grammatical"].mean())
        row |= {"reference_score": reference_score, "reference_se": reference_se}
        rows.append(row)
    return pd.DataFrame(rows)


def target_table(
    policies: pd.DataFrame,
    betas: Mapping[str, float | None],
    calibrations: Mapping[str, Calibration],
) -> pd.DataFrame:
    """One row per method: method, beta, kl_target, target.

    The column target is ``fixed`` if the coefficient was given, ``reached``, or ``missed``: no
    coefficient that was tried came near, or the policies' mean KL is not within 5% of the target.

    Args:
        policies: ``policy_table``.
        betas: the given coefficients.
        calibrations: the coefficients that were found for the other methods.
    """
    rows = []
    for method, part in policies.groupby("method", sort=False):
        found = calibrations.get(method)
        if found is None:
            rows.append((method, betas[method], float("nan"), "fixed"))
            continue
        near = abs(part["kl"].mean() / found.kl_target - 1) <= KL_TOLERANCE
        word = "reached" if found.reached and near else "missed"
        rows.append((method, found.beta, found.kl_target, word))
    return pd.DataFrame(rows, columns=["method", "beta", "kl_target", "target"])


def at_one_target(rows: pd.DataFrame) -> bool:
    """Whether all rows, of policies or methods, are at one common target KL."""
    return bool((rows["target"] == "reached").all() and rows["kl_target"].nunique() == 1)


def missed(policies: pd.DataFrame) -> list[str]:
    """The methods of ``policies.csv`` whose policies missed their target KL."""
    return list(dict.fromkeys(policies.loc[policies["target"] == "missed", "method"]))


def variance_elasticity(frontier: pd.DataFrame, method: str, kl: float) -> float:
    """d log variance / d log KL of a method's optimal policies, at the three KLs nearest to ``kl``.

    The variance is that of the gain over the method's draws and members. nan where fewer than three
    policies, or fewer than three KLs, are known.

    Args:
        frontier: ``exact.evaluate.frontiers``.
    """
    own = frontier[frontier["method"] == method]
    variances = own.groupby("kl_target")["gain"].agg(["var", "size"])
    variances = variances[(variances["size"] >= 3) & (variances["var"] > 0)]
    if len(variances) < 3 or not kl > 0:
        return float("nan")
    apart = np.abs(np.log(variances.index.to_numpy() / kl))
    near = variances.iloc[np.argsort(apart, kind="stable")[:3]]
    return float(np.polyfit(np.log(near.index.to_numpy()), np.log(near["var"]), 1)[0])


def comparison_table(
    policies: pd.DataFrame,
    baseline: str,
    permutations: int,
    seed: int,
    elasticity: float = float("nan"),
) -> pd.DataFrame:
    """Every other method against the baseline, paired by seed.

    Args:
        elasticity: d log variance / d log KL, by ``variance_elasticity``.

    Returns:
        method, baseline, unit, pairs, units (clusters), quantity, estimate, low, high, p, p_holm
        (adjusted over the methods). The unit is the ensemble if it is that of either method.
        Quantities: score_difference (method - baseline; t over units), variance_ratio (baseline /
        method; jackknife-t over units), elasticity, corrected_ratio (the variance ratio at one KL,
        if the variance grows with KL^elasticity; its interval ignores the elasticity's own error),
        brown_forsythe, pitman_morgan and swap_test (p only; the last is the paired permutation
        test), worse_difference (method - baseline, share of policies worse than the reference; p of
        McNemar), kl_mismatch.
    """
    by_method = {name: part.set_index("seed") for name, part in policies.groupby("method")}
    if baseline not in by_method:
        raise InputError(
            f"statistics.baseline: {quoted(baseline)} is not a method; choose one of "
            f"{', '.join(policies['method'].unique())}"
        )
    rows = []
    for method in policies["method"].unique():
        if method == baseline:
            continue
        seeds = by_method[baseline].index.intersection(by_method[method].index)
        first, second = by_method[baseline].loc[seeds], by_method[method].loc[seeds]
        coarse = "ensemble" in {first["unit"].iloc[0], second["unit"].iloc[0]}
        unit = "ensemble" if coarse else "member"
        clusters = cluster_ids(first, unit)
        a, b = first["score"].to_numpy(), second["score"].to_numpy()
        # One generator per method, so that other methods do not change these numbers.
        rng = np.random.default_rng([seed, *method.encode()])
        nan = float("nan")
        difference = second["worse"].mean() - first["worse"].mean()
        ratio = variance_ratio(a, b, clusters)
        kls = first["kl"].mean(), second["kl"].mean()
        factor = (kls[1] / kls[0]) ** elasticity if min(kls) > 0 else nan
        found = {
            "score_difference": (*t_interval(b - a, clusters), nan),
            "variance_ratio": (*ratio, nan),
            "elasticity": (elasticity, nan, nan, nan),
            "corrected_ratio": (*(factor * bound for bound in ratio), nan),
            "brown_forsythe": (nan, nan, nan, brown_forsythe(a, b)),
            "pitman_morgan": (nan, nan, nan, pitman_morgan(a, b)),
            "swap_test": (nan, nan, nan, permutation_test(a, b, clusters, permutations, rng)),
            "worse_difference": (difference, nan, nan, mcnemar(first["worse"], second["worse"])),
            "kl_mismatch": (kl_mismatch(*kls), nan, nan, nan),
        }
        common = {"method": method, "baseline": baseline, "unit": unit, "pairs": len(seeds)}
        common["units"] = len(np.unique(clusters))
        for quantity, numbers in found.items():
            values = dict(zip(("estimate", "low", "high", "p"), numbers, strict=True))
            rows.append({**common, "quantity": quantity, **values})
    columns = ["method", "baseline", "unit", "pairs", "units", "quantity"]
    columns += ["estimate", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    table["p_holm"] = table.groupby("quantity")["p"].transform(holm)
    return table


def with_comparisons(summary: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """The summary with each method's comparison to the baseline; nan in the baseline's own row."""
    columns = {
        "variance_ratio": ("variance_ratio", "estimate"),
        "variance_ratio_low": ("variance_ratio", "low"),
        "variance_ratio_high": ("variance_ratio", "high"),
        "corrected_ratio": ("corrected_ratio", "estimate"),
        "brown_forsythe_p": ("brown_forsythe", "p"),
        "swap_test_p": ("swap_test", "p"),
        "kl_mismatch": ("kl_mismatch", "estimate"),
    }
    result = summary.copy()
    for name, (quantity, value) in columns.items():
        found = tests[tests["quantity"] == quantity].set_index("method")[value]
        result[name] = result["method"].map(found).astype(float)
    return result
