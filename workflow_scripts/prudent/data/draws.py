"""Draws the pairs that reward models are trained on, and the pairs and labels of a replicate."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from prudent.errors import InputError
from prudent.seeding import derive_seed


def with_spare(
    split: pd.Series,
    train: int,
    seed: int,
    replicate: int | None = None,
    key: str = "preferences.train",
) -> pd.Series:
    """The splits after ``train`` pairs are drawn from train and spare; the others become spare.

    Each replicate has its own draw. ``InputError``, of the setting ``key``, where there are fewer
    pairs.
    """
    pool = np.flatnonzero(_to_train(split))
    if len(pool) < train:
        raise InputError(
            f"{key}: is {train}; expected at most {len(pool)}, the pairs that are kept for neither "
            "validation nor a judge"
        )
    parts = () if replicate is None else (replicate,)
    rng = np.random.default_rng(derive_seed(seed, "preferences", "train", *parts))
    drawn = split.copy()
    drawn.iloc[pool] = "spare"
    drawn.iloc[rng.choice(pool, train, replace=False)] = "train"
    return drawn


def in_pool(preferences: pd.DataFrame) -> int:
    """The number of pairs that training pairs are drawn from."""
    return int(_to_train(preferences["split"]).sum())


def _to_train(split: pd.Series) -> pd.Series:
    return split.isin(["train", "spare"])


def draw_of_regime(
    preferences: pd.DataFrame, train: int, noise: float, seed: int, replicate: int
) -> pd.DataFrame:
    """A replicate of ``train`` pairs, drawn without replacement, with labels of more or less noise.

    The labeller's log-odds are divided by ``noise``, as if a Bradley-Terry labeller had so many
    times its temperature. ``InputError`` where there are fewer pairs. Returns a table of the schema
    ``preferences``.
    """
    key = "regimes.pools.pairs"
    pairs = preferences.assign(
        split=with_spare(preferences["split"], train, seed, replicate, key),
        probability=noisier(preferences["probability"].to_numpy(), noise),
    )
    return _with_new_labels(pairs, seed, replicate)


def noisier(probability: np.ndarray, times: float) -> np.ndarray:
    """Probabilities [n] whose log-odds are divided by ``times``; nan stays nan."""
    return expit(logit(probability) / times)


def draw_anew(preferences: pd.DataFrame, seed: int, replicate: int) -> pd.DataFrame:
    """The pairs of a replicate: the training pairs and their labels are drawn anew.

    As many training pairs as before are drawn from the splits train and spare; if none are spare,
    with replacement from train (a bootstrap). Labels are drawn anew where their probability is
    known. Other splits do not change. Returns a table of the schema ``preferences``.
    """
    pairs, train = preferences, (preferences["split"] == "train").to_numpy()
    if (preferences["split"] == "spare").any():
        split = with_spare(preferences["split"], int(train.sum()), seed, replicate)
        pairs = preferences.assign(split=split)
    else:
        rng = np.random.default_rng(derive_seed(seed, "preferences", "train", replicate))
        rows = np.flatnonzero(train)
        order = np.arange(len(preferences))
        order[rows] = rng.choice(rows, len(rows))
        pairs = preferences.iloc[order].reset_index(drop=True)
        # A pair that is drawn again becomes another row of the table.
        again = pairs.groupby("id").cumcount()
        pairs["id"] += again.map(lambda times: f"+{times}" if times else "")
    return _with_new_labels(pairs, seed, replicate)


def _with_new_labels(pairs: pd.DataFrame, seed: int, replicate: int) -> pd.DataFrame:
    """The pairs, with the labels of training pairs drawn anew where their probability is known."""
    rng = np.random.default_rng(derive_seed(seed, "preferences", "labels", "replicate", replicate))
    probability = pairs["probability"].to_numpy()
    turned = (pairs["split"] == "train").to_numpy() & (rng.random(len(pairs)) >= probability)
    return turned_over(pairs, turned)


def turned_over(pairs: pd.DataFrame, turned: np.ndarray) -> pd.DataFrame:
    """The pairs, with chosen and rejected response exchanged where ``turned`` [n] (bool)."""
    probability = pairs["probability"]
    return pairs.assign(
        chosen=pairs["rejected"].where(turned, pairs["chosen"]),
        rejected=pairs["chosen"].where(turned, pairs["rejected"]),
        probability=(1 - probability).where(turned, probability),
    )
