"""The figures of the ensembles' diagnosis: what their artists hold."""

import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from test_figures import artist, check_layout, texts

from prudent import tables
from prudent.figures import frequency, kinds
from prudent.figures.style import save
from prudent.rewards import calibration, disagreement
from prudent.rewards.diagnosis import COLUMNS, KINDS
from prudent.rewards.frequency import COLUMNS as FREQUENCY

NAMES = ["heads", "bootstrap_heads", "independent", "gaussian_heads", "adapters"]
NAMES += ["mc_dropout", "a_kind_with_a_name_that_is_very_long"]
WITH_NOISE = (disagreement.RATIO, disagreement.LEAVE_ONE_OUT, disagreement.GIVEN_BOTH)
WITH_NOISE += (calibration.ECE_MEAN,)


def make_diagnosis(names=NAMES, single=False):
    """Random numbers; with ``single``, the last ensemble has one member."""
    draw = np.random.default_rng(0)
    rows = [("", "grammatical responses", 0.9, 0.88, 0.92, *[np.nan] * 6)]
    for index, name in enumerate(names):
        for quantity in dict.fromkeys(of for of, _ in KINDS.values()):
            value, width = draw.uniform(0.1, 0.9), draw.uniform(0.01, 0.1)
            noise, before = (0.01, 0.3) if quantity in WITH_NOISE else (np.nan, np.nan)
            spread = [value, value - width, value + width]
            spread += [noise, noise - 0.02, noise + 0.02, before]
            if (
                single
                and index == len(names) - 1
                and not quantity.startswith(("acc", "wit", "exp"))
            ):
                spread = [np.nan] * 7
            rows.append((name, quantity, *spread, np.nan, np.nan))
    return pd.DataFrame(rows, columns=COLUMNS)


def make_frequency(names=NAMES, bins=5):
    draw = np.random.default_rng(1)
    rows = []
    for name in names:
        for place in range(bins):
            row = {"ensemble": name, "bin": place, "n": 400, "pairs": 1000}
            row |= {"count_low": 10.0 * 4**place, "count_high": 10.0 * 4 ** (place + 1) - 1}
            for quantity in frequency.QUANTITIES:
                value = draw.uniform(0.5, 0.9)
                row |= {quantity: value, f"{quantity}_low": value - 0.05}
                row[f"{quantity}_high"] = value + 0.05
            rows.append(row)
    return pd.DataFrame(rows, columns=FREQUENCY)


@pytest.mark.parametrize("names", [NAMES, NAMES[:1], []])
def test_kinds_show_every_number(names):
    table = make_diagnosis(names)
    figure = kinds.draw_kinds(table)
    check_layout(figure)
    assert len(figure.axes) == len(kinds.PANELS)
    rows = table.set_index(["ensemble", "quantity"])
    for place, name in enumerate(names):
        for axes, (_, quantity, member) in zip(figure.axes, kinds.PANELS, strict=True):
            shown = disagreement.GIVEN_BOTH if quantity == "beyond" else quantity
            expected = rows.loc[(name, shown)]
            dot = artist(figure, f"{quantity} {place}")
            assert dot.axes is axes
            assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (expected["value"], place)
            intervals = [list(line.get_xdata()) for line in axes.lines]
            assert [expected["low"], expected["high"]] in intervals
            bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
            if shown in WITH_NOISE:
                assert artist(figure, f"noise {quantity} {place}").get_xdata()[0] == 0.01
                assert bars[place] == pytest.approx((-0.01, 0.03))
            else:
                assert not bars
            if quantity in kinds.BEFORE:
                assert artist(figure, f"before {quantity} {place}").get_xdata()[0] == 0.3
            if member:
                ring = artist(figure, f"member {quantity} {place}").get_xdata()[0]
                assert ring == rows.loc[(name, member), "value"]
    shown = " ".join(texts(figure).split())
    assert all(name.replace("_", " ") in shown for name in names)
    assert "not known" not in shown and "no spread" not in shown


def test_one_member_has_no_spread_and_what_is_missing_is_not_known():
    table = make_diagnosis(NAMES[:3], single=True)
    table = table[(table["ensemble"] != "heads") | (table["quantity"] != calibration.ECE_MEAN)]
    figure = kinds.draw_kinds(table)
    assert texts(figure).count("no spread") == 4
    assert texts(figure).count("not known") == 1
    check_layout(figure)


def test_what_is_given_is_what_there_is():
    table = make_diagnosis(NAMES[:2])
    table["quantity"] = table["quantity"].replace(disagreement.GIVEN_BOTH, disagreement.GIVEN_NORM)
    figure = kinds.draw_kinds(table)
    expected = table.set_index(["ensemble", "quantity"]).loc[("heads", disagreement.GIVEN_NORM)]
    assert artist(figure, "beyond 0").get_xdata()[0] == expected["value"]


@pytest.mark.parametrize(("names", "bins"), [(NAMES, 5), (NAMES[:1], 3), (NAMES[:2], 1), ([], 0)])
def test_frequency_shows_every_number(names, bins):
    table = make_frequency(names, bins)
    figure = frequency.draw_frequency(table)
    check_layout(figure)
    for name in names:
        part = table[table["ensemble"] == name]
        for quantity in frequency.QUANTITIES:
            line = artist(figure, f"{quantity} {name}")
            assert list(line.get_ydata()) == list(part[quantity])
            assert (np.abs(line.get_xdata() - part["bin"]) < 0.2).all()
            collections = line.axes.findobj(mpl.collections.LineCollection)
            ends = [list(bar[:, 1]) for bars in collections for bar in bars.get_segments()]
            first = part.iloc[0]
            assert [first[f"{quantity}_low"], first[f"{quantity}_high"]] in ends
    if names:
        ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
        assert ticks == [f"{10 * 4**place}" for place in range(bins)]


def test_an_ensemble_without_sigma_has_a_panel_without_it():
    table = make_frequency(NAMES[:2])
    table.loc[table["ensemble"] == "heads", ["sigma", "sigma_low", "sigma_high"]] = np.nan
    figure = frequency.draw_frequency(table)
    assert np.isnan(artist(figure, "sigma heads").get_ydata()).all()
    check_layout(figure)


def test_both_figures_from_files(tmp_path):
    tables.write_csv(make_diagnosis(), tmp_path / "diagnosis.csv")
    tables.write_csv(make_frequency(), tmp_path / "frequency.csv")
    for module, form in ((kinds, "diagnosis"), (frequency, "frequency")):
        figure = module.plot(**{form: tmp_path / f"{form}.csv"})
        paths = [tmp_path / f"{form}.{end}" for end in ("png", "svg")]
        save(figure, *paths)
        assert all(path.stat().st_size > 5000 for path in paths)


@pytest.mark.parametrize("name", ["kinds", "frequency"])
def test_a_caption_begins_with_its_title(name):
    caption = (ROOT / f"rules/captions/{name}.rst").read_text(encoding="utf-8")
    assert re.fullmatch(r"\*\*[^*]+?\.\*\* [^*`{}]+\n", caption)
