"""The maps of regimes: which tiles are coloured, which have a dot, and which are hatched."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from tiny_results import check_layout

from prudent.figures.looks import BLUE, ORANGE
from prudent.figures.regimes import QUESTIONS, draw_map, plot, sides, tiles
from prudent.tables import write_csv

CELL = {"pairs": 100, "noise": 1.0, "ensemble": "heads", "members": 3, "kl_target": 0.5}
NAN = float("nan")


def row(against="vanilla", difference=(0, -1, 1), ratio=(1, 0.5, 2), below=(0, -1, 1), **cell):
    found = {**CELL, **cell, "method": "mean", "against": against}
    for name, of in (("difference", difference), ("ratio", ratio), ("below_difference", below)):
        found |= dict(zip((name, f"{name}_low", f"{name}_high"), of, strict=True))
    return found


def test_colour_only_where_the_interval_excludes_no_effect():
    table = pd.DataFrame(
        [
            row(difference=(0.2, 0.1, 0.3), ratio=(2, 1.1, 4), below=(-0.2, -0.3, -0.1)),
            row(difference=(-0.2, -0.3, -0.1), ratio=(0.5, 0.1, 0.9), below=(0.2, 0.1, 0.3)),
            row(),
            row(difference=(0.1, NAN, NAN), ratio=(2, NAN, NAN), below=(0, NAN, NAN)),
        ]
    )
    for question in QUESTIONS:
        assert sides(table, question) == pytest.approx([1, -1, 0, NAN], nan_ok=True)


@pytest.mark.parametrize(
    ("controls", "beyond"),
    [
        ([(0.1, 0.05, 0.2), (0.1, 0.01, 0.2)], True),
        ([(0.1, 0.05, 0.2), (0.1, -0.01, 0.2)], False),
        ([(0.1, 0.05, 0.2), (0.1, NAN, NAN)], False),
        ([(-0.1, -0.2, -0.05), (-0.1, -0.2, -0.05)], False),
        ([], False),
    ],
)
def test_a_dot_asks_for_every_control(controls, beyond):
    rows = [row(difference=(0.2, 0.1, 0.3))]
    rows += [row(f"control{n}", difference=of) for n, of in enumerate(controls)]
    found = tiles(pd.DataFrame(rows), "mean", "vanilla", QUESTIONS[0])
    assert found["side"].tolist() == [1] and found["beyond"].tolist() == [beyond]
    # Nothing is beyond the controls that is not beyond the baseline.
    rows[0] = row()
    assert not tiles(pd.DataFrame(rows), "mean", "vanilla", QUESTIONS[0])["beyond"].any()


def test_the_map_has_every_cell_in_its_place():
    cells = itertools.product((100, 300), (1.0, 2.0), ("heads", "members"), (3, 10), (0.5,))
    names = ("pairs", "noise", "ensemble", "members", "kl_target")
    rows = []
    for values in cells:
        cell = dict(zip(names, values, strict=True))
        if cell["ensemble"] == "members" and cell["members"] == 10:
            continue  # of too small a pool
        good = cell["pairs"] == 100 and cell["noise"] == 2.0
        rows.append(row(difference=(0.2, 0.1, 0.3) if good else (-0.2, -0.3, -0.1), **cell))
    figure = draw_map(pd.DataFrame(rows), "mean", "vanilla", "Where?")
    gain = figure.axes[0]
    labels = [label.get_text() for label in figure.axes[3].get_xticklabels()]  # of all above
    assert [label.split("\n")[0] for label in labels] == ["100", "300", "100", "300"]
    assert [label.split("\n")[1:] for label in labels] == [[], ["noise × 1"], [], ["noise × 2"]]
    patches = [patch for patch in gain.patches if isinstance(patch, Rectangle)]
    assert len(patches) == 8
    for patch in patches:
        across = patch.get_x() + patch.get_width() / 2
        column = int(np.argmin(np.abs(gain.get_xticks() - across)))
        wanted = BLUE if column == 2 else ORANGE
        assert to_hex(patch.get_facecolor()) == wanted.lower()
    assert figure.get_suptitle() == "Where?"
    assert "better 2, worse 6 of 8" in gain.get_title(loc="left")
    check_layout(figure)
    for axes, beside in zip(figure.axes[:-1], figure.axes[1:], strict=True):
        title, following = (one._left_title.get_window_extent() for one in (axes, beside))
        assert title.x1 < following.x0 or title.y0 > following.y1
    of_members = figure.axes[3]
    hatched = [patch for patch in of_members.patches if patch.get_hatch()]
    assert len(hatched) == 4 and len(of_members.patches) == 8
    assert np.isclose({patch.get_y() for patch in hatched}.pop(), 1.05)


def test_many_pairs_are_in_thousands_unless_that_makes_them_equal():
    for pairs, wanted in (((300, 1000, 10177), "300 1k 10k"), ((1010, 1020), "1010 1020")):
        rows = [row(pairs=count) for count in pairs]
        figure = draw_map(pd.DataFrame(rows), "mean", "vanilla", "Where?")
        labels = [label.get_text().split("\n")[0] for label in figure.axes[0].get_xticklabels()]
        assert " ".join(labels) == wanted
        assert ("thousands" in figure.axes[0].get_xlabel()) == ("k" in wanted)


def test_the_title_is_the_question_about_the_objective(tmp_path):
    path, table = tmp_path / "regimes.csv", pd.DataFrame([row(), row(kl_target=1.0)])
    known = ("ensembles", "effective_size", "gain", "gain_low", "gain_high")
    known += ("below_share", "below_share_low", "below_share_high")
    write_csv(table.assign(**dict.fromkeys(known, 0.5)), path, "regimes")
    for objective, title in (
        ("mean", "Where does averaging help?"),
        ("median", "Where does the method mean help?"),
    ):
        assert plot(path, "mean", "vanilla", objective).get_suptitle() == title
