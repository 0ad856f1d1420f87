"""The script of the search for a coefficient, on the finished tiny scenario's files."""

import json
import logging
from dataclasses import replace

import calibrate_beta
import pandas as pd
import pytest

from prudent.errors import InputError
from prudent.policies.settings import SamplingSettings
from prudent.policies.target_kl import read_calibration
from prudent.ppo.settings import TrainingSettings
from prudent.rewards.settings import SpreadSettings
from prudent.seeding import derive_seed
from prudent.tables import read_csv

PPO = {"batch_size": 8, "minibatch_size": 4, "epochs": 2, "steps": 2, "learning_rate": 0.02}


@pytest.fixture
def args(finished, tmp_path) -> calibrate_beta.Args:
    results = finished / "results/tiny"
    return calibrate_beta.Args(
        reference=results / "reference",
        pilots=results / "reward/pilots",
        prompts=results / "data/prompts.parquet",
        samples=results / "exact/samples.parquet",
        scores=results / "exact/scores.safetensors",
        table=tmp_path / "table.csv",
        calibration=tmp_path / "found.json",
        method="careful",
        method_settings=said("vanilla", "member"),
        kl=0.3,
        pilot_count=2,
        prompt_count=16,
        settings=TrainingSettings(**PPO),
        sampling=SamplingSettings(response_length=6),
        checkpoints=tmp_path / "checkpoints",
        seed=0,
    )


def said(objective, unit, **parameters):
    spread = SpreadSettings().model_dump()
    return {
        "objective": objective,
        "parameters": parameters,
        "spread": spread,
        "unit": unit,
        "control": False,
    }


def test_the_table_holds_all_pilots_and_the_search_is_the_same_again(args):
    calibrate_beta.main(args)
    table = read_csv(args.table, "calibration")
    found = read_calibration(args.calibration)
    assert table["pilot"].tolist() == [0, 1] * table["evaluation"].nunique()
    assert (table["kl_target"] == 0.3).all() and (table["method"] == "careful").all()
    means = table.groupby("evaluation")["kl"].mean()
    each = table.drop_duplicates("evaluation").set_index("evaluation")
    assert each["policies_kl"].tolist() == pytest.approx(means.tolist())
    assert abs(means - 0.3).min() == pytest.approx(abs(found.kl - 0.3))
    # The first coefficient takes the optimal policies there; heads have coefficients of their own.
    assert each["exact_kl"][0] == pytest.approx(0.3, rel=1e-4)
    assert table["pilot_beta"].nunique() > 1 and found.kl_se > 0
    assert not args.checkpoints.exists()
    sheet = json.loads(args.calibration.read_text())
    assert sheet["settings"]["kl"] == 0.3 and set(sheet["inputs"]) > {"reference", "pilots"}
    again = replace(args, table=args.table.with_name("again.csv"))
    calibrate_beta.main(again)
    pd.testing.assert_frame_equal(read_csv(again.table, "calibration"), table)


def test_the_pilots_streams_are_their_own():
    """Another study seed than the policies', whatever their run seeds are."""
    assert derive_seed(0, "pilots") not in range(1000)


def test_an_objective_without_an_optimum_starts_from_vanillas(args, caplog):
    with caplog.at_level(logging.WARNING):
        calibrate_beta.main(args)
        first = read_csv(args.table, "calibration")["beta"][0]
        weighted = said("advantage_weighted", "ensemble")
        calibrate_beta.main(replace(args, method_settings=weighted))
    assert "the search begins at vanilla's coefficient" in caplog.text
    # Of one policy an ensemble instead of one a member.
    assert read_csv(args.table, "calibration")["beta"][0] == pytest.approx(first, rel=0.5)


def test_a_kl_that_no_exact_policy_has_is_named_by_its_key(args):
    with pytest.raises(InputError, match=r"methods.careful.beta.kl is 5, which the exact poli"):
        calibrate_beta.main(replace(args, kl=5.0))
    assert not args.table.exists() and not args.calibration.exists()


def test_a_pilot_that_diverges_ends_the_search_in_one_message(args):
    wild = {**PPO, "learning_rate": 1e30}
    with pytest.raises(InputError, match=r"pilot 0 at the coefficient [\d.e-]+: "):
        calibrate_beta.main(replace(args, settings=wild))
    assert not args.calibration.exists()
