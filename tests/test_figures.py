"""Every figure on realistic tables and at the edges: what its artists hold, not its pixels."""

import importlib
import re

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from tiny_results import (
    MANY,
    TWO,
    artist,
    check_layout,
    make_calibration,
    make_logs,
    make_losses,
    make_policies,
    make_scores,
    make_verdicts,
    names_of_figures,
    texts,
)

from prudent.analysis.policies import long_table
from prudent.analysis.wording import number
from prudent.exact.evaluate import GIVEN, INDEPENDENT
from prudent.figures.calibration import draw_calibration
from prudent.figures.fig1_heads import draw_heads
from prudent.figures.fig6_variance import draw_variance
from prudent.figures.fig7_scores import draw_scores
from prudent.figures.fig8_losses import draw_losses
from prudent.figures.fig9_accuracy import draw_accuracy
from prudent.figures.fig10_kl import draw_kl
from prudent.figures.fig11_reward import draw_reward
from prudent.figures.gain_over_kl import draw_gain_over_kl
from prudent.figures.overoptimisation import draw_overoptimisation
from prudent.figures.style import _spread
from prudent.figures.verdict import COLOURS, draw_verdicts
from prudent.rewards import rewardbench

# --- the table of figures


def test_a_figure_is_a_row_a_module_and_a_caption():
    names = names_of_figures()
    assert len(names) == 20
    numbered = {name for name in names if name.startswith("fig")}
    assert set(names) - numbered == {
        *("kinds", "frequency", "risk_return", "gain_over_kl"),
        *("frontier", "calibration", "overoptimisation", "verdict", "theorems"),
    }
    modules = {path.stem for path in (ROOT / "workflow_scripts/prudent/figures").glob("fig*.py")}
    captions = {path.stem for path in (ROOT / "rules/captions").glob("fig*_*.rst")}
    assert numbered == modules == captions
    for name in names:
        assert callable(importlib.import_module(f"prudent.figures.{name}").plot)
        caption = (ROOT / f"rules/captions/{name}.rst").read_text(encoding="utf-8")
        # As the page takes it apart; the report would fill in what stands in braces.
        number = f"Figure {name.split('_')[0].removeprefix('fig')}\\. " if name in numbered else ""
        assert re.fullmatch(rf"\*\*{number}.+?\.\*\* [^*`{{}}]+\n", caption), name


# --- Fig 1


@pytest.mark.parametrize("heads", [1, 2, 10, 40])
def test_heads_shows_every_head_and_where_zero_is(heads):
    rewards = 3 + np.random.default_rng(0).normal(size=heads)
    prompt = "a $5 movie with a_subscript^2 and " + "many words " * 60
    figure = draw_heads(rewards, prompt, "良い ok", "some row")
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches[:heads]] == pytest.approx(list(rewards))
    assert axes.get_ylim()[0] <= 0
    assert f"mean {number(rewards.mean())}" in texts(figure)
    assert ("sd" in texts(figure)) == (heads > 1)
    assert "$5 movie with a_subscript^2" in texts(figure)


# --- Fig 6


@pytest.mark.parametrize("sections", [1, 4, 5, 7])
def test_variance_shows_every_row_of_the_benchmark(sections):
    names = [f"section {i}" for i in range(sections)]
    rows = rewardbench.variance_rows(make_scores(names))
    rows.loc[3, ["accepted", "difference"]] = 1e4  # far away, and still counted
    figure = draw_variance(rows)
    assert len(figure.axes) == 2 * sections
    for axes in figure.axes:
        assert sum(bar.get_height() for bar in axes.patches) == 12
    shown = texts(figure)
    for name in names:
        part = rows[rows["section"] == name]
        for kind in ("accepted", "difference"):
            assert f"median {number(part[kind].median())}" in shown
            assert f"mean {number(part[kind].mean())}" in shown
    assert shown.count("last bin: 1 beyond") == 2


def test_variance_of_one_head_says_so():
    figure = draw_variance(rewardbench.variance_rows(make_scores(heads=1)))
    assert texts(figure).count("one member") == 4


# --- Fig 7


@pytest.mark.parametrize(("methods", "seeds"), [(TWO, 10), (TWO, 1), (MANY, 40), (TWO[:1], 2)])
def test_scores_show_every_policy(methods, seeds):
    policies = make_policies(methods, seeds)
    reference = np.linspace(-1, 1, 50)
    figure = draw_scores(policies, reference, methods)
    for row, method in enumerate(methods):
        found = policies.loc[policies["method"] == method, "score"]
        marks = artist(figure, f"policies {row}")
        assert sorted(marks.get_xdata()) == pytest.approx(sorted(found))
        assert (np.abs(marks.get_ydata() - row) < 0.5).all()
        assert artist(figure, f"mean {method}").get_xdata() == pytest.approx([found.mean()])
        below = (found < reference.mean()).sum()
        assert f"{below} of {seeds} below reference" in texts(figure)
    assert "50 test prompts" in texts(figure)


def test_scores_that_are_all_equal_are_drawn_beside_each_other():
    policies = make_policies(seeds=9).assign(score=0.5)
    figure = draw_scores(policies, [0.5, 0.5], TWO)
    assert len(set(artist(figure, "policies 0").get_ydata())) == 9


# --- Fig 8


@pytest.mark.parametrize(("heads", "ensembles"), [(1, 1), (10, 1), (3, 2)])
def test_losses_show_every_head_and_the_mean(heads, ensembles):
    members = make_losses(heads, ensembles)
    figure = draw_losses(make_losses(1), members, 0.3)
    left, right = figure.axes
    thick = {
        line.get_label(): line
        for line in right.lines
        if line.get_label() in members["split"].values
    }
    assert set(thick) == {"train", "validation"}
    for split, line in thick.items():
        mean = members[members["split"] == split].groupby("step")["loss"].mean()
        assert line.get_ydata() == pytest.approx(mean.to_numpy())
    thin = [
        line for line in right.lines if len(line.get_xdata()) == 30 and line not in thick.values()
    ]
    assert len(thin) == 2 * heads * ensembles
    assert any(list(line.get_ydata()) == [0.3, 0.3] for line in left.lines)
    assert "stops at 0.30" in texts(figure)


@pytest.mark.parametrize("steep", [4, 40])
@pytest.mark.parametrize("heads", [1, 10])
def test_the_first_steps_do_not_choose_the_axes_of_the_losses(steep, heads):
    members = make_losses(heads, steps=100)
    members.loc[members["step"] < steep, "loss"] = 7.5
    figure = draw_losses(make_losses(1), members, 0.1)
    check_layout(figure)
    left, right = figure.axes
    assert left.get_ylim()[0] < 0.1
    for axes in (left, right):
        assert np.log(2) < axes.get_ylim()[1] < 1
    assert 0.1 < right.get_ylim()[0] < members["loss"].min()
    assert [t.get_text() for t in right.texts if "reach" in t.get_text()] == [
        "\N{UPWARDS ARROW} the first steps reach 7.5"
    ]
    assert not any("reach" in text.get_text() for text in left.texts)
    later = members[members["step"] > 50]
    assert (later["loss"] < right.get_ylim()[1]).all()


def test_all_losses_of_two_steps_are_shown():
    members = make_losses(3, steps=2)
    members.loc[members["step"] == 0, "loss"] = 7.5
    (_, right) = draw_losses(make_losses(1), members).axes
    assert right.get_ylim()[1] > 7.5
    assert all(tick == int(tick) for tick in right.get_xticks())


def test_losses_without_validation_or_stop_level():
    table = make_losses()
    table = table[table["split"] == "train"]
    figure = draw_losses(table[table["head"] == 0], table)
    assert "stops at" not in texts(figure)


# --- Fig 9


@pytest.mark.parametrize(("sections", "heads", "ensembles"), [(1, 1, 1), (4, 10, 1), (6, 3, 2)])
def test_accuracy_shows_base_mean_and_every_head(sections, heads, ensembles):
    names = [f"section {i}" for i in range(sections)]
    table = rewardbench.accuracy_table(make_scores(names, heads=heads, ensembles=ensembles))
    figure = draw_accuracy(table)
    (axes,) = figure.axes
    for name in [*names, "all"]:
        part = table[(table["section"] == name) & (table["level"] != "subset")]
        dots = artist(figure, f"heads {name}").get_ydata()
        assert sorted(dots) == pytest.approx(sorted(part.loc[part["model"] == "head", "accuracy"]))
    bars = {container.get_label(): container for container in axes.containers}
    for model in ("base", "mean"):
        heights = [bar.get_height() for bar in bars[model].patches]
        part = table[(table["model"] == model) & (table["level"] != "subset")]
        assert heights == pytest.approx(
            list(part.groupby("section", sort=False)["accuracy"].mean())
        )
    assert any(list(line.get_ydata()) == [0.5, 0.5] for line in axes.lines)


# --- Figs 10 and 11


def kl_figure(logs, methods):
    """Fig 10 with two policies a method, all at one KL."""
    ends = {"method": [*methods, *methods], "kl": 1.3, "kl_target": np.nan, "target": "fixed"}
    return draw_kl(logs, pd.DataFrame(ends), methods)


@pytest.mark.parametrize(
    ("methods", "seeds", "steps"), [(TWO, 3, 40), (TWO, 1, 1), (MANY, 2, 12), (TWO[:1], 2, 3)]
)
@pytest.mark.parametrize(("draw", "column"), [(kl_figure, "kl"), (draw_reward, "proxy_reward")])
def test_curves_show_every_policy_and_the_mean(draw, column, methods, seeds, steps):
    logs = long_table(make_logs(methods, seeds, steps))
    figure = draw(logs, methods)
    for method in methods:
        part = logs[logs["method"] == method]
        for seed in range(seeds):
            line = artist(figure, f"{method} {seed}")
            assert line.get_ydata() == pytest.approx(part.loc[part["seed"] == seed, column])
        mean = part.groupby("step")[column].mean()
        assert artist(figure, f"mean {column} {method}").get_ydata() == pytest.approx(mean)
    check_layout(figure)


@pytest.mark.parametrize("draw", [kl_figure, draw_reward])
@pytest.mark.parametrize("methods", [TWO, MANY])
def test_no_methods_marker_hides_another(draw, methods):
    """Where all curves end at one place."""
    logs = {key: log.assign(kl=1.0, proxy_reward=1.0) for key, log in make_logs(methods).items()}
    figure = draw(long_table(logs), methods)
    check_layout(figure)
    marks = figure.findobj(lambda item: str(item.get_gid()).startswith("marker "))
    assert len(marks) == len(methods)
    axes = figure.axes[-1]
    heights = sorted(axes.transData.transform((0, mark.get_ydata()[0]))[1] for mark in marks)
    assert (np.diff(heights) > 9 / 72 * figure.dpi).all()  # a marker is 8 points


def test_the_mean_of_all_heads_is_dashed():
    logs = long_table(make_logs())
    figure = draw_reward(logs, TWO)
    mean = logs[logs["method"] == "vanilla"].groupby("step")["ensemble_reward"].mean()
    dashed = [
        line
        for line in figure.axes[0].lines
        if line.get_linestyle() == "--" and len(line.get_xdata()) == 40
    ]
    assert len(dashed) == 2
    assert dashed[0].get_ydata() == pytest.approx(mean.to_numpy())


@pytest.mark.parametrize(
    ("methods", "kls", "text"),
    [
        (TWO, [1.0, 1.04], "4% apart: matched (within 5%)"),
        (TWO, [1.2, 1.0], "20% apart: NOT matched (more than 5%)"),
        (MANY[:3], [1.0, 1.04, 1.02], "at most 4% apart: matched"),
        (MANY[:3], [1.0, 1.4, 1.05], "up to 40% apart (vanilla and variance aware): NOT matched"),
        (TWO, [-1.0, 1.0], "cannot be matched"),
    ],
)
def test_kl_says_whether_it_is_matched(methods, kls, text):
    policies = pd.DataFrame({"method": methods, "kl": kls, "kl_target": 1.0, "target": "fixed"})
    assert text in re.sub(
        r"\s+", " ", texts(draw_kl(long_table(make_logs(methods)), policies, methods))
    )


@pytest.mark.parametrize("methods", [TWO[:1], TWO, MANY])
def test_every_final_kl_has_its_place_beside_its_target(methods):
    draw = np.random.default_rng(3)
    policies = make_policies(methods, 10)
    policies = policies.assign(kl=0.8 + 0.05 * draw.normal(size=len(policies)), kl_target=0.8)
    logs = long_table(make_logs(methods))
    figure = draw_kl(logs, policies, methods)
    check_layout(figure)
    curves, final = figure.axes
    columns = []
    for method in methods:
        dots = artist(figure, f"final {method}")
        assert dots.get_ydata() == pytest.approx(policies.loc[policies["method"] == method, "kl"])
        columns += sorted(set(dots.get_xdata()))
    assert len(set(columns)) == len(methods) and columns == sorted(columns)
    for axes, count in ((curves, 1), (final, len(methods))):
        targets = [line for line in axes.lines if line.get_gid() == "target"]
        assert len(targets) == count
        assert all(list(line.get_ydata()) == [0.8, 0.8] for line in targets)
    # A method without a target, and targets that differ, have no line across the curves.
    policies.loc[policies["method"] == methods[-1], "kl_target"] = np.nan
    curves, final = draw_kl(logs, policies, methods).axes
    found = [[line.get_gid() for line in axes.lines].count("target") for axes in (curves, final)]
    assert found == [0, len(methods) - 1]


def test_the_names_of_unmatched_methods_stay_over_the_curves():
    policies = make_policies(MANY).assign(kl=1.0)
    policies.loc[policies["method"] == "a_method_with_a_name_that_is_very_long_indeed", "kl"] = 2
    figure = draw_kl(long_table(make_logs(MANY)), policies, MANY)
    check_layout(figure)
    curves, final = figure.axes
    assert curves._left_title.get_window_extent().x1 < final.get_window_extent().x0


@pytest.mark.parametrize("methods", [TWO, MANY])
def test_a_method_that_is_off_its_kl_is_marked_in_every_figure(methods):
    logs, off = long_table(make_logs(methods)), methods[-1:]
    policies = make_policies(methods).assign(kl=1.3)
    policies.loc[policies["method"].isin(off), "target"] = "missed"
    for figure in (
        draw_kl(logs, policies, methods),
        draw_reward(logs, methods, off),
        draw_scores(policies, [0.5, 0.6], methods),
        draw_overoptimisation(logs, methods, off),
    ):
        check_layout(figure)
        assert "off its KL target" in texts(figure)


@pytest.mark.parametrize("pilots", [1, 4])
@pytest.mark.parametrize("methods", [TWO, MANY])
def test_the_search_shows_every_pilot_and_what_was_taken(methods, pilots):
    made = {m: make_calibration(m, pilots=pilots, reached=m != methods[0]) for m in methods}
    tables = pd.concat([table for table, _ in made.values()])
    figure = draw_calibration(tables, {method: found for method, (_, found) in made.items()})
    check_layout(figure)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    for axes, method in zip(panels, methods, strict=True):
        table = made[method][0]
        (dots,) = [line for line in axes.lines if line.get_gid() == "pilots"]
        assert dots.get_xydata() == pytest.approx(table[["beta", "kl"]].to_numpy())
        said = axes.get_title(loc="left")
        assert ("not reached" in said) == (method == methods[0])
        numbers = [text.get_text() for text in axes.texts]
        assert numbers == ["1", "2", "3"]
        places = axes.transData.transform(dots.get_xydata())
        for text in axes.texts:
            box = text.get_bbox_patch().get_window_extent()
            assert not any(box.contains(*place) for place in places), "a number hides a pilot"
        (taken,) = [line for line in axes.lines if line.get_gid() == "taken"]
        assert list(taken.get_xdata()) == [0.7, 0.7]


@pytest.mark.parametrize(
    ("methods", "seeds", "steps"), [(TWO, 3, 40), (TWO, 1, 1), (MANY, 2, 12), (TWO[:1], 2, 3)]
)
def test_proxy_and_judge_are_gains_over_the_kl(methods, seeds, steps):
    logs = long_table(make_logs(methods, seeds, steps))
    logs["judge_score"] = 0.3 - 0.1 * logs["proxy_reward"]  # falls where the proxy rises
    figure = draw_overoptimisation(logs, methods)
    check_layout(figure)
    for method in methods:
        proxy, judged = (
            artist(figure, f"{name} {method}").get_xydata()
            for name in ("proxy_reward", "judge_score")
        )
        assert proxy[:, 0] == pytest.approx(judged[:, 0]) and len(proxy) == steps
        assert proxy[0, 1] == judged[0, 1] == 0
        if steps > 3:
            assert proxy[-1, 1] > 0.9 and judged[-1, 1] < 0
            part = logs[logs["method"] == method]
            last = part[part["step"] >= steps - 5].groupby("seed")["kl"].mean().mean()
            assert proxy[-1, 0] == pytest.approx(last)


def test_a_run_without_a_cheap_judge_draws_its_proxy():
    logs = long_table(make_logs()).assign(judge_score=np.nan)
    check_layout(draw_overoptimisation(logs, TWO))


@pytest.mark.parametrize("kls", [(0.3,), (0.5, 1.0, 2.0)])
def test_gains_over_the_kl_are_means_with_their_intervals(kls):
    draws = np.random.default_rng(5)
    rows = [
        (level, number, method, kl, draws.normal(kl, 0.1), draws.normal(2 * kl, 0.1))
        for level, count in ((GIVEN, 6), (INDEPENDENT, 1))
        for number in range(count)
        for method in MANY
        for kl in kls
    ]
    columns = ["level", "replicate", "method", "kl_target", "gain", "proxy_gain"]
    table = pd.DataFrame(rows, columns=columns)
    table.loc[table["method"] == MANY[2], "gain"] = np.nan
    figure = draw_gain_over_kl(table)
    check_layout(figure)
    part = table[(table["level"] == GIVEN) & (table["method"] == "vanilla")]
    lines = {line.get_gid(): line for line in figure.axes[0].lines}
    means = part.groupby("kl_target")["gain"].mean()
    assert lines["gain vanilla"].get_xydata() == pytest.approx(
        np.column_stack([[0, *kls], [0, *means]])
    )
    assert f"gain {MANY[2]}" not in lines
    assert figure.axes[0].get_title(loc="left") == f"{GIVEN} (6)"


@pytest.mark.parametrize("kls", [(0.8,), (0.1, 0.2, 0.8)])
def test_no_gain_hides_another(kls):
    """Where all methods gain the same."""
    methods = MANY[:8]
    rows = [
        (GIVEN, number, method, kl, kl + 0.1 * number, kl)
        for number in range(3)
        for method in methods
        for kl in kls
    ]
    columns = ["level", "replicate", "method", "kl_target", "gain", "proxy_gain"]
    table = pd.DataFrame(rows, columns=columns)
    figure = draw_gain_over_kl(table)
    check_layout(figure)
    axes = figure.axes[0]
    marks = [container.lines[0] for container in axes.containers]
    assert len(marks) == len(methods)
    places = [mark.get_transform().transform(mark.get_xydata()) for mark in marks]
    across = np.sort(np.concatenate(places)[:, 0])
    assert (np.diff(across) > 1 / 72 * figure.dpi).all()
    box = axes.get_window_extent()
    assert box.x0 < across[0] and across[-1] < box.x1
    few = draw_gain_over_kl(table[table["method"].isin(TWO)])
    assert len(few.axes[0].collections) == 2 and not few.axes[0].containers


def test_kl_says_that_all_are_where_they_were_to_be():
    policies = pd.DataFrame({"method": TWO, "kl": [0.77, 0.83], "kl_target": 0.8})
    figure = draw_kl(long_table(make_logs()), policies.assign(target="reached"), TWO)
    assert "all within 5% of 0.800, as asked: matched" in texts(figure)


def test_labels_do_not_overlap_and_keep_their_order():
    values, heights = [0.5, 0.51, 0.1, 0.52, 0.99], [0.1, 0.2, 0.1, 0.1, 0.1]
    places = _spread(values, heights, 0, 1)
    order = np.argsort(values)
    tops = places[order][:-1] + np.array(heights)[order][:-1] / 2
    bottoms = places[order][1:] - np.array(heights)[order][1:] / 2
    assert (bottoms >= tops - 1e-9).all()
    assert places[2] == pytest.approx(0.1) and places[4] <= 1
    assert _spread([0.2, 0.8], [0.1, 0.1], 0, 1) == pytest.approx([0.2, 0.8])


# --- The verdicts


def test_verdicts_are_read_off_place_and_colour():
    verdicts = make_verdicts(("variance_aware", "mean"))
    figure = draw_verdicts(verdicts, 1.5)
    ratio, mean = figure.axes
    for method in verdicts.methods:
        for one in method.comparisons:
            for kind, value in (("ratio", one.ratio), ("mean", one.difference)):
                mark = artist(figure, f"{kind} {method.name} {one.policies}")
                assert mark.get_xdata() == pytest.approx([value.estimate])
                assert mark.get_color() == COLOURS[one.word]
    assert [line.get_xdata()[0] for line in ratio.lines[:2]] == [1, 1.5]
    labels = [label.get_text() for label in ratio.get_yticklabels()]
    assert labels[0] == "variance aware,  given the backbone (60)" and len(labels) == 4
    assert labels[1] == "all drawn anew (60)"
    low, high = ratio.get_xlim()
    assert low < 1 < high and all(low <= tick <= high for tick in ratio.get_xticks())
    assert "reduces variance, beyond its controls" in texts(figure)
    check_layout(figure)
    for method in verdicts.methods:
        for one in method.comparisons:
            who = f"{method.name} {one.policies}"
            for step in range(1, len(one.controls) + 1):
                marks = [artist(figure, gid) for gid in (f"ratio {who}", f"control {step} {who}")]
                own, control = (mark.get_window_extent() for mark in marks)
                assert control.y1 < own.y0, "a mark hides that of a control"


@pytest.mark.parametrize("methods", [(), ("variance_aware",), tuple(MANY[1:])])
def test_verdicts_of_few_and_many_methods_stay_in_the_figure(methods):
    check_layout(draw_verdicts(make_verdicts(methods, draws=7, levels=(GIVEN,)), 1.5))
