"""How accurate reward ensembles are, and what their sigma knows, on the reference's responses.

Combines the tables of ``disagreement`` (against the true reward), ``calibration`` (on labelled
pairs) and ``frequency``. P prompts, R responses of each, K members, n labelled pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from prudent.rewards import calibration, disagreement, frequency
from prudent.rewards.resampling import Measured, draws, interval
from prudent.seeding import derive_seed

GRAMMATICAL = "grammatical responses"
SPREAD = "sd of the true reward within prompts"
OF_ALL = ""  # the ensemble's name in rows that belong to no ensemble

COLUMNS = ["ensemble", "quantity", *Measured._fields, "promised_low", "promised_high"]

# What the embedded world promises (quantity: lowest, highest): it is rich enough not to flatter any
# method, and its members differ. None stands for the value that noise alone gives. How much sigma
# knows of the error is not promised: a run finds it out.
WORLD_TARGETS: dict[str, tuple[float | None, float]] = {
    GRAMMATICAL: (0.8, 1.0),
    calibration.ACCURACY_BASE: (0.6, 0.85),
    disagreement.WITHIN_ONE: (0.3, 0.8),
    disagreement.RATIO: (None, np.inf),
    disagreement.SHARED: (-np.inf, 0.9),
}

# Columns of the table of kinds, each with the quantity and the field that it shows.
KINDS: dict[str, tuple[str, str]] = {
    "accuracy_member": (calibration.ACCURACY_ONE, "value"),
    "accuracy_mean": (calibration.ACCURACY_MEAN, "value"),
    "within_member": (disagreement.WITHIN_ONE, "value"),
    "within_mean": (disagreement.WITHIN_MEAN, "value"),
    "sigma_ratio": (disagreement.RATIO, "value"),
    "sigma_ratio_noise": (disagreement.RATIO, "noise"),
    "leave_one_out": (disagreement.LEAVE_ONE_OUT, "value"),
    "leave_one_out_untrained": (disagreement.LEAVE_ONE_OUT, "untrained"),
    "leave_one_out_noise": (disagreement.LEAVE_ONE_OUT, "noise"),
    "leave_one_out_beyond": (disagreement.GIVEN_BOTH, "value"),
    "error_correlation": (disagreement.SHARED, "value"),
    "ece_mean": (calibration.ECE_MEAN, "value"),
    "ece_mean_noise": (calibration.ECE_MEAN, "noise"),
    "ece_scaled": (calibration.ECE_SCALED, "value"),
    "ece_scaled_noise": (calibration.ECE_SCALED, "noise"),
}


class Evidence(NamedTuple):
    """One ensemble's rewards of sampled responses and margins of labelled pairs."""

    rewards: np.ndarray  # [P, R, K]
    margins: np.ndarray | None = None  # chosen less rejected [n, K], in Bradley-Terry's units
    untrained: np.ndarray | None = None  # rewards of its members before training [P, R, K]
    norm: np.ndarray | None = None  # squared norm of the features that its heads read [P, R]
    std: np.ndarray | None = None  # the members' own, if they give one [P, R, K]


def diagnosis_table(
    ensembles: Mapping[str, Sequence[Evidence]],
    truth: np.ndarray,
    seed: int,
    base: np.ndarray | None = None,
    pair_prompts: np.ndarray | None = None,
    grammatical: np.ndarray | None = None,
    promised: str | None = None,
    resamples: int = disagreement.RESAMPLES,
    progress: str | None = None,
) -> pd.DataFrame:
    """The long table with ``COLUMNS``; rows that belong to no ensemble (ensemble "") come first.

    ``low`` and ``high`` are the 95% interval, ``noise`` is the value that noise alone gives
    (constant sigma, sampling, or perfect calibration) with its range, ``untrained`` that before
    training.

    Args:
        ensembles: each one's draws, over which all its numbers are averaged.
        truth, grammatical: the judge's score of each response, and whether it is grammatical
            [P, R].
        seed: of the study; each ensemble's streams depend on it and on the ensemble's name.
        base: the base model's margins [n].
        pair_prompts: which pairs share a prompt [n]; without it the bootstrap draws single pairs.
        promised: the ensemble that, like the world, has to keep the embedded world's promises.
        resamples: of the bootstraps over prompts; with 0, intervals are nan.
        progress: names the work on a progress bar; None shows none.
    """
    rng = _generator(seed, "world")
    shared: dict[str, Measured] = {}
    times = draws(len(truth), resamples, rng)
    of_prompts = {SPREAD: truth.std(1, ddof=1)}
    if grammatical is not None:
        of_prompts = {GRAMMATICAL: 1.0 * grammatical.mean(1)} | of_prompts
    for name, values in of_prompts.items():
        shared[name] = Measured(*interval(times @ values / len(truth)))
    if base is not None:
        shared |= calibration.base_accuracy(base, rng, pair_prompts, resamples)
    measured = {OF_ALL: shared}
    bar = tqdm(
        desc=progress,
        total=sum(map(len, ensembles.values())),
        unit=" draws",
        mininterval=2,
        disable=progress is None,
    )
    for name, of_draws in ensembles.items():
        found = []
        for draw, evidence in enumerate(of_draws):
            rng = _generator(seed, "ensemble", name, draw)
            found.append(_measured(evidence, truth, rng, pair_prompts, resamples))
            bar.update()
        measured[name] = {
            quantity: Measured(*np.mean([one[quantity] for one in found], axis=0).tolist())
            for quantity in found[0]
        }
    bar.close()
    rows = []
    for name, quantities in measured.items():
        keeps = promised is not None and name in (OF_ALL, promised)
        for quantity, value in quantities.items():
            low, high = WORLD_TARGETS.get(quantity, (np.nan, np.nan)) if keeps else (np.nan, np.nan)
            low = value.noise if low is None else low
            rows.append((name, quantity, *value, low, high))
    return pd.DataFrame(rows, columns=COLUMNS)


def _measured(
    evidence: Evidence,
    truth: np.ndarray,
    rng: np.random.Generator,
    pair_prompts: np.ndarray | None,
    resamples: int,
) -> dict[str, Measured]:
    """All measurements of one draw of an ensemble."""
    found = {}
    if evidence.margins is not None:
        found = calibration.pair_measures(evidence.margins, rng, pair_prompts, resamples)
    sample = disagreement.Sample(
        evidence.rewards, truth, evidence.norm, evidence.untrained, evidence.std
    )
    return found | disagreement.diagnose(sample, rng, resamples)


def by_frequency(
    ensembles: Mapping[str, Sequence[Evidence]], truth: np.ndarray, counts: np.ndarray, seed: int
) -> pd.DataFrame:
    """``frequency.frequency_table`` of each ensemble, averaged over its draws; counts [P, R]."""
    tables = []
    for name, of_draws in ensembles.items():
        found = [
            frequency.frequency_table(
                name, evidence.rewards, truth, counts, _generator(seed, "frequency", name, draw)
            )
            for draw, evidence in enumerate(of_draws)
        ]
        numbers = pd.concat(found).drop(columns="ensemble").astype(float)
        means = numbers.groupby("bin").mean().reset_index()
        counted = dict.fromkeys(("bin", "count_low", "count_high", "n", "pairs"), int)
        tables.append(means.astype(counted).assign(ensemble=name)[list(found[0].columns)])
    return pd.concat(tables, ignore_index=True)


def kinds_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row per ensemble of the long ``table``, with the columns of ``KINDS``; nan if unknown.

    ``leave_one_out_beyond`` is the correlation given the feature norm and sigma before training, or
    given whichever of them exists.
    """
    names = [name for name in dict.fromkeys(table["ensemble"]) if name != OF_ALL]
    rows = []
    for name in names:
        found = table[table["ensemble"] == name].set_index("quantity")
        row = {"ensemble": name}
        for column, (quantity, field) in KINDS.items():
            if column == "leave_one_out_beyond":
                quantity = beyond(found)
            row[column] = found[field].get(quantity, np.nan)
        rows.append(row)
    return pd.DataFrame(rows, columns=["ensemble", *KINDS])


def by_judge(
    ensembles: Mapping[str, Sequence[Evidence]],
    scores: Mapping[str, np.ndarray],
    seed: int,
    progress: str | None = None,
) -> pd.DataFrame:
    """``kinds_table`` of the sampled responses by each of several judges, with the column judge.

    Each judge also has a row in the other judges' tables, as a model of their scores. Measures on
    labelled pairs need no judge and are left out. ``scores``: each judge's scores [P, R].
    """
    plain = {name: [one._replace(margins=None) for one in of] for name, of in ensembles.items()}
    tables = []
    for judge, truth in scores.items():
        others = {
            f"{other} judge": [Evidence(values[..., None])]
            for other, values in scores.items()
            if other != judge
        }
        said = progress and f"{progress} by the {judge} judge"
        # The table of kinds shows no interval.
        table = kinds_table(
            diagnosis_table(plain | others, truth, seed, resamples=0, progress=said)
        )
        table.insert(0, "judge", judge)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def beyond(found: pd.DataFrame) -> str:
    """The partial correlation given the most variables, from one ensemble's rows by quantity."""
    choices = (disagreement.GIVEN_BOTH, disagreement.GIVEN_BEFORE, disagreement.GIVEN_NORM)
    return next((name for name in choices if name in found.index), choices[0])


def _generator(seed: int, *parts: str | int) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, "diagnosis", *parts))
