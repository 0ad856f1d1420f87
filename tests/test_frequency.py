"""Accuracy, error and sigma by how frequent a judgement is."""

import numpy as np
import pytest
from tiny_ensembles import K, P, R, data, rng, simulated

from prudent.rewards import frequency
from prudent.rewards.disagreement import (
    true_errors,
)
from prudent.schemas import CSV_SCHEMAS


def test_bins_of_counts():
    counts = np.array([[5.0, 1, np.nan, 7], [2, 9, 3, 4]])
    edges = frequency.count_edges(counts, 3)
    assert edges.tolist() == [2, 4, 9]
    assert frequency.bins_of(counts, edges).tolist() == [[2, 0, -1, 2], [0, 2, 1, 1]]
    assert frequency.count_edges(np.full((3, 3), 6.0)).tolist() == [6]
    assert len(frequency.count_edges(np.full((3, 3), np.nan))) == 0
    many = rng().normal(size=(100, 10))
    found = frequency.bins_of(many, frequency.count_edges(many))
    assert np.bincount(found.ravel()).tolist() == [200] * 5


def test_the_table_by_frequency_by_hand():
    rewards, truth = data()
    truth[0, 1] = truth[0, 0]  # no pair
    counts = rng(2).integers(1, 30, size=(P, R)).astype(float)
    counts[3, 2] = counts[4, 0] = counts[4, 1] = np.nan
    table = frequency.frequency_table("some", rewards, truth, counts, rng(), bins=3, resamples=200)
    assert list(table.columns) == frequency.COLUMNS == list(CSV_SCHEMAS["frequency"])
    assert table["n"].sum() == P * R - 3 and (table["ensemble"] == "some").all()
    flat = rewards.reshape(-1, K)
    errors = true_errors(flat, truth.ravel()).reshape(rewards.shape)
    mean_errors = true_errors(flat.mean(1)[:, None], truth.ravel()).reshape(P, R)
    for row in table.to_dict("records"):
        inside = (counts >= row["count_low"]) & (counts <= row["count_high"])
        assert row["n"] == inside.sum()
        right = []
        for p in range(P):
            for i in range(R):
                for j in range(i):
                    rarer = np.nanmin([counts[p, i], counts[p, j], np.inf])
                    if (
                        row["count_low"] <= rarer <= row["count_high"]
                        and truth[p, i] != truth[p, j]
                    ):
                        apart = np.sign(truth[p, i] - truth[p, j])
                        own = (rewards[p, i] - rewards[p, j]) * apart > 0
                        of_mean = (rewards[p, i].mean() - rewards[p, j].mean()) * apart > 0
                        right.append((own.mean(), of_mean))
        expected = {
            "accuracy_member": np.mean(right, axis=0)[0],
            "accuracy_mean": np.mean(right, axis=0)[1],
            "error_member": np.sqrt((errors[inside] ** 2).mean()),
            "error_mean": np.sqrt((mean_errors[inside] ** 2).mean()),
            "sigma": rewards[inside].std(1, ddof=1).mean(),
        }
        assert row["pairs"] == len(right)
        assert {name: row[name] for name in expected} == pytest.approx(expected)
        assert all(row[f"{name}_low"] < row[name] < row[f"{name}_high"] for name in expected)


def test_what_is_rare_and_known_less_well():
    counts = rng(3).permutation(np.repeat(np.arange(1.0, 101), 12)).reshape(200, 6)
    rewards, truth = simulated(3 / np.sqrt(counts))
    table = frequency.frequency_table("some", rewards, truth, counts, rng(), resamples=50)
    for name in ("error_member", "error_mean", "sigma"):
        assert table[name].is_monotonic_decreasing
    assert table["accuracy_mean_high"].iloc[0] < table["accuracy_mean_low"].iloc[-1]
    assert (table["n"] == 240).all()
    single = frequency.frequency_table("warm", rewards[:, :, :1], truth, counts, rng(), 2, 20)
    assert single["sigma"].isna().all() and single["accuracy_mean"].notna().all()
