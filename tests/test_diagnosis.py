"""The tables of several ensembles."""

import numpy as np
import pandas as pd
import pytest
from tiny_ensembles import K, P, R, data, one, rng

from prudent.rewards import calibration, disagreement
from prudent.rewards.diagnosis import (
    COLUMNS,
    KINDS,
    WORLD_TARGETS,
    Evidence,
    by_frequency,
    by_judge,
    diagnosis_table,
    kinds_table,
)
from prudent.schemas import CSV_SCHEMAS
from prudent.tables import read_csv, write_csv


def evidence():
    rewards, truth = data()
    draw = rng(6)
    full = Evidence(rewards, draw.normal(size=(50, K)), draw.normal(size=rewards.shape), truth**2)
    one = Evidence(rewards[:, :, :1], draw.normal(size=(50, 1)))
    return {"heads": [full], "warm": [one]}, truth


def test_the_table_of_several_ensembles(tmp_path):
    ensembles, truth = evidence()
    grammatical = np.ones((P, R))
    base = rng(7).normal(size=50)
    given = {"base": base, "grammatical": grammatical, "promised": "heads"}
    table = diagnosis_table(ensembles, truth, 3, **given)
    assert list(table.columns) == COLUMNS == list(CSV_SCHEMAS["diagnosis"])
    assert list(dict.fromkeys(table["ensemble"])) == ["", "heads", "warm"]
    world = table[table["ensemble"] == ""].set_index("quantity")
    assert world.loc["grammatical responses", "value"] == 1
    expected = truth.std(1, ddof=1).mean()
    assert world.loc["sd of the true reward within prompts", "value"] == pytest.approx(expected)
    assert world.loc[calibration.ACCURACY_BASE, "value"] == (base > 0).mean()
    heads = table[table["ensemble"] == "heads"].set_index("quantity")
    (drawn,) = ensembles["heads"]
    found = one(drawn.rewards, truth, norm=truth**2, before=drawn.untrained)
    for name, value in found.items():
        assert heads.loc[name, "value"] == pytest.approx(value)
    assert heads.loc[calibration.ACCURACY_MEAN, "value"] == np.mean(drawn.margins.mean(1) > 0)
    # Promises are the world's and those of the ensemble that made them.
    promised = table.dropna(subset="promised_low")
    assert set(promised["ensemble"]) == {"", "heads"}
    for row in promised.to_dict("records"):
        low, high = WORLD_TARGETS[row["quantity"]]
        assert row["promised_low"] == (row["noise"] if low is None else low)
        assert row["promised_high"] == high
    assert set(promised["quantity"]) == set(WORLD_TARGETS)
    other = diagnosis_table(ensembles, truth, 3)
    assert other[["promised_low", "promised_high"]].isna().all(axis=None)
    write_csv(table, tmp_path / "diagnosis.csv")
    pd.testing.assert_frame_equal(read_csv(tmp_path / "diagnosis.csv", "diagnosis"), table)


def test_an_ensembles_numbers_depend_on_no_other():
    ensembles, truth = evidence()
    both = diagnosis_table(ensembles, truth, 3)
    alone = diagnosis_table({"warm": ensembles["warm"]}, truth, 3)
    part = both[both["ensemble"] != "heads"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, part)
    again = diagnosis_table({"warm": ensembles["warm"]}, truth, 4)
    assert (again["low"] != alone["low"])[alone["low"].notna()].any()


def test_without_resamples_the_values_stay_and_have_no_interval(capsys):
    ensembles, truth = evidence()
    given = {"base": ensembles["heads"][0].margins[:, 0]}
    table = diagnosis_table(ensembles, truth, 3, **given)
    plain = diagnosis_table(ensembles, truth, 3, **given, resamples=0, progress="checked")
    pd.testing.assert_series_equal(plain["value"], table["value"])
    assert plain[["low", "high"]].isna().all(axis=None)
    assert plain["noise"].notna().tolist() == table["noise"].notna().tolist()
    assert "checked: 100%" in capsys.readouterr().err


def test_numbers_are_averaged_over_an_ensembles_draws():
    ensembles, truth = evidence()
    (first,) = ensembles["heads"]
    second = first._replace(rewards=rng(8).normal(size=(P, R, K)) + truth[..., None])
    both = diagnosis_table({"heads": [first, second]}, truth, 3).set_index(["ensemble", "quantity"])
    parts = [one(draw.rewards, truth)[disagreement.WITHIN_MEAN] for draw in (first, second)]
    found = both.loc[("heads", disagreement.WITHIN_MEAN), "value"]
    assert found == pytest.approx(np.mean(parts)) and found != pytest.approx(parts[0])


def test_the_table_of_kinds(tmp_path):
    ensembles, truth = evidence()
    ensembles["normed"] = [one._replace(untrained=None) for one in ensembles["heads"]]
    table = diagnosis_table(ensembles, truth, 3)
    kinds = kinds_table(table)
    assert list(kinds.columns) == ["ensemble", *KINDS] == list(CSV_SCHEMAS["kinds"])
    assert kinds["ensemble"].tolist() == ["heads", "warm", "normed"]
    kinds = kinds.set_index("ensemble")
    rows = table.set_index(["ensemble", "quantity"])
    for column, (quantity, field) in KINDS.items():
        assert kinds.loc["heads", column] == rows.loc[("heads", quantity), field], column
    given = rows.loc[("normed", disagreement.GIVEN_NORM), "value"]
    assert kinds.loc["normed", "leave_one_out_beyond"] == given
    known = kinds.columns[kinds.loc["warm"].notna()]
    assert {name.split("_")[0] for name in known} == {"accuracy", "within", "ece"}
    write_csv(kinds.reset_index(), tmp_path / "kinds.csv")
    read = read_csv(tmp_path / "kinds.csv", "kinds").set_index("ensemble")
    pd.testing.assert_frame_equal(read, kinds)


def test_what_several_judges_say_of_the_ensembles(tmp_path):
    ensembles, truth = evidence()
    second = truth + rng(5).normal(size=truth.shape)
    table = by_judge(ensembles, {"world": truth, "trained": second}, 3)
    assert list(table.columns) == list(CSV_SCHEMAS["kinds_by_judge"])
    assert table["judge"].tolist() == ["world"] * 3 + ["trained"] * 3
    assert table["ensemble"].tolist() == [*ensembles, "trained judge", *ensembles, "world judge"]
    of_world = kinds_table(diagnosis_table(ensembles, truth, 3)).set_index("ensemble")
    found = table[table["judge"] == "world"].set_index("ensemble")
    known = [name for name in of_world if not name.startswith(("accuracy", "ece"))]
    pd.testing.assert_frame_equal(found.loc[list(ensembles), known], of_world[known], atol=0.05)
    assert found.loc[list(ensembles), "accuracy_mean"].isna().all()
    # A judge is as good a model of the other as the other is of it.
    agree = [table["within_mean"].iloc[2], table["within_mean"].iloc[5]]
    assert agree[0] == pytest.approx(agree[1]) and 0.3 < agree[0] < 1
    write_csv(table, tmp_path / "by_judge.csv", "kinds_by_judge")
    read = read_csv(tmp_path / "by_judge.csv", "kinds_by_judge")
    pd.testing.assert_frame_equal(read, table)


def test_the_table_by_frequency_of_several_ensembles():
    ensembles, truth = evidence()
    counts = rng(2).integers(1, 30, size=(P, R)).astype(float)
    table = by_frequency(ensembles, truth, counts, 3)
    assert list(dict.fromkeys(table["ensemble"])) == ["heads", "warm"]
    pd.testing.assert_frame_equal(
        table[table["ensemble"] == "heads"],
        by_frequency({"heads": ensembles["heads"]}, truth, counts, 3),
    )
