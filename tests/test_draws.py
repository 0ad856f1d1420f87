"""Which pairs reward models are trained on, and what a replicate draws anew."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from tiny_data import pairs, settings, write_rows

from prudent.data.draws import draw_anew, draw_of_regime, in_pool, noisier, with_spare
from prudent.data.preferences import build_preferences
from prudent.errors import InputError

N, TRAIN = 4000, 1000


def table(spare: bool = True, probability: float = 0.7) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "id": [f"0:{n}" for n in range(N)],
            "chosen": [f"good {n}" for n in range(N)],
            "rejected": [f"bad {n}" for n in range(N)],
            "split": np.where(np.arange(N) % 4 == 0, "validation", "train"),
            "probability": np.where(np.arange(N) % 2 == 0, probability, np.nan),
        }
    )
    return frame.assign(split=with_spare(frame["split"], TRAIN, 0)) if spare else frame


def ids(frame: pd.DataFrame, split: str = "train") -> set[str]:
    return set(frame.loc[frame["split"] == split, "id"])


def test_so_many_pairs_are_trained_on_and_the_others_are_spare():
    before, after = table(spare=False), table()
    assert len(ids(after)) == TRAIN and len(ids(after, "spare")) == len(ids(before)) - TRAIN
    assert ids(after) | ids(after, "spare") == ids(before)
    assert ids(after, "validation") == ids(before, "validation")
    assert ids(table().assign(split=with_spare(before["split"], TRAIN, 1))) != ids(after)
    with pytest.raises(InputError, match=f"preferences.train: is {N}; expected at most 3000"):
        with_spare(before["split"], N, 0)


def test_the_data_stage_sets_them_aside(tmp_path):
    path = str(write_rows(pairs(200), tmp_path / "a.parquet"))
    whole, _ = build_preferences(settings({"path": path}, validation=0.2), "refuse", 0)
    frame, card = build_preferences(settings({"path": path}, validation=0.2, train=50), "refuse", 0)
    assert len(ids(frame)) == 50 and ids(frame) <= ids(whole)
    assert ids(frame, "validation") == ids(whole, "validation")
    assert card["splits"] == frame["split"].value_counts().to_dict()


def test_a_replicate_draws_its_pairs_from_all_that_are_not_kept():
    first, again, other = (draw_anew(table(), 0, number) for number in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert len(ids(first)) == len(ids(other)) == TRAIN
    pool = ids(table()) | ids(table(), "spare")
    for drawn in (first, other):
        assert ids(drawn) <= pool and ids(drawn) != ids(table())
        # A third of the pool each, drawn independently.
        assert len(ids(drawn) & ids(table())) == pytest.approx(TRAIN / 3, abs=60)
        assert ids(drawn, "validation") == ids(table(), "validation")
    assert len(ids(first) & ids(other)) == pytest.approx(TRAIN / 3, abs=60)


def test_where_none_is_spare_it_draws_with_replacement():
    whole = table(spare=False)
    drawn = draw_anew(whole, 0, 0)
    assert drawn["id"].is_unique and len(drawn) == N
    train = drawn[drawn["split"] == "train"]
    assert len(train) == (whole["split"] == "train").sum()
    origins = train["id"].str.partition("+")[0]
    assert set(origins) < ids(whole)
    assert len(set(origins)) / len(train) == pytest.approx(1 - np.exp(-1), abs=0.03)
    assert ids(drawn, "validation") == ids(whole, "validation")


def test_its_labels_are_drawn_by_their_probability_where_that_is_known():
    drawn = draw_anew(table(), 0, 3).set_index("id")
    before = table().set_index("id").loc[drawn.index]
    turned = drawn["chosen"] != before["chosen"]
    assert (drawn["rejected"][turned] == before["chosen"][turned]).all()
    assert (drawn["chosen"][turned] == before["rejected"][turned]).all()
    train, known = drawn["split"] == "train", before["probability"].notna()
    assert not turned[~train | ~known].any()
    # 500 labels that are right with .7: three standard errors are .06.
    assert turned[train & known].mean() == pytest.approx(0.3, abs=0.06)
    assert np.allclose(drawn["probability"][turned], 0.3)
    assert np.allclose(drawn["probability"][known & ~turned], 0.7)
    for probability, share in ((1.0, 0.0), (0.0, 1.0)):
        certain = draw_anew(table(probability=probability), 0, 3)
        rows = (certain["split"] == "train") & certain["probability"].notna()
        assert (certain["chosen"][rows].str.startswith("bad")).mean() == share


# --- Regimes


def test_noisier_labels_have_a_bradley_terry_labeller_of_higher_temperature():
    margin = np.linspace(-4, 4, 9)
    twice = noisier(expit(margin), 2.0)
    assert twice == pytest.approx(expit(margin / 2))
    assert noisier(expit(margin), 1.0) == pytest.approx(expit(margin))
    assert np.isnan(noisier(np.array([np.nan]), 2.0)).all()
    assert noisier(np.array([0.0, 1.0]), 2.0).tolist() == [0, 1]


def test_a_replicate_of_a_regime_has_its_pairs_and_its_noise():
    drawn = draw_of_regime(table(), 500, 2.0, 0, 3)
    assert len(ids(drawn)) == 500 and ids(drawn, "validation") == ids(table(), "validation")
    whole = draw_of_regime(table(), in_pool(table()), 2.0, 0, 3).set_index("id")
    before = table().set_index("id").loc[whole.index]
    train = (whole["split"] == "train") & whole["probability"].notna()
    turned = (whole["chosen"] != before["chosen"])[train]
    noisy = noisier(np.array([0.7]), 2.0)[0]
    assert train.sum() == 1000
    assert turned.mean() == pytest.approx(1 - noisy, abs=0.06)
    known = whole["probability"][train]
    assert np.where(turned, 1 - known, known) == pytest.approx(noisy)
    with pytest.raises(InputError, match="regimes.pools.pairs: is 4000; expected at most 3000"):
        draw_of_regime(table(), N, 1.0, 0, 0)
