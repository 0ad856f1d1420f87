"""The page of an audit: its sentences, its figures, its table and its samples."""

import re
from dataclasses import replace

import numpy as np
import pytest
from html_pages import HOSTILE, check, check_closed, check_dark
from tiny_audit import best_of_four, make_scores, write_lines

from prudent.audit import figures, measures
from prudent.audit.measures import ALL, audit_table, by_part
from prudent.audit.page import SAMPLES, part_table, render
from prudent.audit.scores import Scores, read_scores
from prudent.audit.sentences import summary
from prudent.figures.samples import LONGEST


def parts_of(scores, resamples=100):
    return by_part(audit_table(scores, 0, resamples))


def said(scores, resamples=100):
    of, members = parts_of(scores, resamples)[ALL, ALL], scores.margins.shape[1]
    return " ".join(summary(of, members, scores.different_prompts))


def page(scores, facts=(("seed", "0"),), resamples=20):
    parts = parts_of(scores, resamples)
    return render(scores, parts, figures.drawings(scores, parts), facts)


@pytest.fixture(scope="module")
def html():
    return page(make_scores(120, parts=True))


# --- Sentences


@pytest.mark.parametrize(
    ("spread", "expected"),
    [
        ("knows", ["The spread knows something of the errors", "Beyond |margin| it knows"]),
        (
            "shuffled",
            [
                "It is not shown that the spread knows anything of the errors",
                "That it knows anything beyond |margin| is not shown",
            ],
        ),
        ("opposite", ["The spread points the wrong way", "Beyond |margin| it is no help"]),
    ],
)
def test_the_sentence_on_the_spread_follows_its_intervals(spread, expected):
    text = said(make_scores(600, spread=spread))
    assert all(part in text for part in expected), text


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0.5, "in 100.0% (99.0% to 100.0%). The scores are right less often"),
        (0.0, " The scores are right more often"),
        (0.28, " It is not shown that the scores are right more often"),
    ],
)
def test_the_sentence_on_length_follows_the_difference(length, expected):
    scores = make_scores(400, members=1, length=length)
    of = parts_of(scores)[ALL, ALL]
    text = summary(of, 1, 400)[0]
    assert expected in text
    assert f"{100 * of[measures.ACCURACY_MEAN].value:.1f}% (95% interval " in text


def test_matched_length_and_a_coin_flip():
    flips = make_scores(100, members=1, texts=("good", "also"))
    flips.chosen_scores[:, 0] = np.where(np.arange(100) % 2, 1, -1)
    text = said(flips)
    assert "At matched length (100 pairs) they are right in 50.0%" in text
    assert "not told apart from a coin flip." in text
    assert "matched" not in said(make_scores(20, members=1), 10)


def calibrated(hot=1.0):
    """Margins that are right as often as they say, times ``hot`` for the small ones alone."""
    draw = np.random.default_rng(0)
    size = draw.exponential(2, size=2000)
    right = draw.random(2000) < 1 / (1 + np.exp(-size))
    margins = np.where(right, 1, -1) * np.where(size < 1, hot * size, size)
    scores = make_scores(2000, members=1)
    return Scores(scores.prompts, *([["a"] * 2000] * 2), margins[:, None], np.zeros((2000, 1)))


def test_the_sentence_on_calibration():
    assert "no more than chance gives a calibrated model" in said(calibrated(), 50)
    assert "they are not calibrated" in said(calibrated(hot=8), 50)
    wrong = make_scores(60, members=1)
    wrong.chosen_scores[:] = -1.0
    assert "point the wrong way" in said(wrong, 10)


def test_few_prompts_say_nothing():
    assert said(make_scores(1, members=1), 10).startswith("With 1 prompt nothing is said")
    scores = make_scores(60)
    scores.prompts[:] = scores.prompts[:19] * 3 + scores.prompts[:3]
    assert said(scores, 10).startswith("With 19 prompts nothing is said here")
    assert "(no interval)" in said(make_scores(20), 0)


def test_the_sentence_on_the_members():
    text = said(make_scores(300))
    of = parts_of(make_scores(300))[ALL, ALL]
    assert f"The 4 members are worth {of[measures.EFFECTIVE].value:.2f} (95% interval" in text
    assert "There is one member: nothing is known of disagreement." in said(make_scores(members=1))
    right = make_scores(40)
    right.chosen_scores[:] = 1.0
    assert "not known: their errors do not vary" in said(right, 10)


# --- The page


def test_the_page_is_whole_closed_and_readable(html):
    checker = check(html)
    check_closed(html)
    check_dark(html)
    assert checker.drawn == 5
    links = re.findall(r'<a href="#([^"]+)">', html)
    assert links == sorted(links, key=lambda name: html.index(f'id="{name}"'))
    assert {"accuracy", "reliability", "risk-coverage", "spread", "members", "parts"} < set(links)


def test_the_page_begins_with_the_summary(html):
    text = " ".join(check(html).text.split())
    scores = make_scores(120, parts=True)
    start = "Audit of a reward model " + said(scores, 20)
    assert start in text


def test_one_member_has_no_spread():
    html = page(make_scores(50, members=1))
    assert check(html).drawn == 2
    assert "Largest |margin|" in html and "spread" not in html.split("</style>")[1].split("<h2")[1]
    assert html.count("<details>") == 50


@pytest.mark.parametrize("members", [1, 2])
def test_a_single_pair_has_a_page(members):
    html = page(make_scores(1, members=members))
    check(html)
    assert html.count("<details>") == 1


def test_hostile_texts_are_escaped():
    scores = make_scores(6, texts=(HOSTILE, HOSTILE + "!"), parts=True)
    scores.subset[:] = [HOSTILE] * 6
    scores.section[:] = [HOSTILE + " section"] * 6
    scores.prompts[:] = [[{"role": "system", "content": HOSTILE}, *p] for p in scores.prompts]
    html = page(scores, [(HOSTILE, HOSTILE)])
    text = check(html).text
    check_closed(html.replace("http://a.b/x.js", ""))
    assert text.count("onerror=alert(1)>{{ 7919 * 7907 }}") >= 6 * 3 + 4
    assert "<img" not in html and "<script" not in html and "62615533" not in html


def test_the_browser_has_both_ends_sorted_by_the_spread(html):
    scores = make_scores(120, parts=True)
    rows = [int(row) - 1 for row in re.findall(r"<summary>[^<]*\(row (\d+), ", html)]
    assert len(rows) == len(set(rows)) == 2 * SAMPLES
    order = np.argsort(-scores.spread)
    assert rows == [*order[:SAMPLES], *order[::-1][:SAMPLES]]
    one = html[html.index("<details>") : html.index("</details>") + len("</details>")]
    text = " ".join(check(one).text.split())
    assert f"section {rows[0] % 3 // 2}, part {rows[0] % 3}" in text
    assert f"ask {rows[0]} " in text and "member 3" in text and "a good word" in text
    for margin in scores.margins[rows[0]]:
        assert f"{abs(margin):.3g}" in text


def test_long_texts_are_cut():
    html = page(make_scores(3, members=1, texts=("x" * 700, "y" * LONGEST)))
    assert "x" * (LONGEST - 3) + "..." in html and "x" * (LONGEST - 2) not in html
    assert "y" * LONGEST in html


def test_the_table_has_a_row_per_part_with_its_numbers():
    scores = make_scores(120, parts=True)
    parts = parts_of(scores, 20)
    table = part_table(parts)
    names = [row[0].text for row in table.rows]
    expected = ["all pairs", "section 0", "part 0", "part 1", "section 1", "part 2"]
    assert names == expected
    of = parts["section 0", "part 1"][measures.ACCURACY_MEAN]
    cells = dict(zip(table.head, table.rows[3], strict=True))
    by_name = {(head.text, head.note): cell for head, cell in cells.items()}
    assert by_name["pairs", ""].text == "40"
    assert by_name["right", ""].text == f"{100 * of.value:.1f}%"
    assert by_name["effective members", ""].text == "–"
    assert by_name["p", "coin flip, Holm"].text != "–"
    heads = {head.text for head in part_table(parts_of(make_scores(members=1), 5)).head}
    assert "effective members" not in heads and "p" not in heads


def test_prompts_with_lists_have_their_scores_in_text_and_table(tmp_path):
    scores = read_scores(write_lines(best_of_four(12, 12), tmp_path / "s.jsonl"))
    parts = parts_of(scores, 20)
    of = parts[ALL, ALL]
    text = said(scores, 20)
    for name in (measures.BEST_OF_N, measures.BY_SUBSETS):
        assert f"{100 * of[name].value:.1f}% (" in text
    cells = {head.text: cell for head, cell in zip(*_row(parts, 0), strict=True)}
    assert cells["ties"].text == f"{100 * of[measures.TIES].value:.1f}%"
    heads, of_ties = _row(parts, list(parts).index((ALL, "Ties")))
    ties = {head.text: cell.text for head, cell in zip(heads, of_ties, strict=True)}
    assert ties["best of n"] == ties["mean of the subsets"] == "–" != ties["ties"]
    html = page(scores)
    assert "Best of n: prompts for which" in html and "Spread explained" not in html
    rows = {int(row) for row in re.findall(r"<summary>[^<]*\(row (\d+), ", html)}
    assert max(rows) <= 48 < len(scores.prompts)


def _row(parts, place):
    table = part_table(parts)
    return table.head, table.rows[place]


def test_what_explains_the_spread_is_said_where_it_is_known():
    scores = make_scores(60)
    assert "Of the spread" not in said(scores) and "explained" not in page(scores)
    known = replace(scores, norm=scores.spread**2, untrained=scores.spread[::-1])
    assert "Of the spread's ranks, the norm of the features explains 100.0% (100.0% to" in said(
        known
    )
    assert "and the spread before training explains" in said(known)
    heads = {(head.text, head.note) for head in part_table(parts_of(known, 5)).head}
    assert ("spread explained", "by the feature norm") in heads
    assert "Spread explained: the squared rank correlation" in page(known)


# --- Figures


def drawn(figure, gid):
    return [line for line in figure.axes[0].lines if line.get_gid() == gid]


def test_the_figures_show_the_tables_numbers():
    scores = make_scores(200, parts=True)
    parts = parts_of(scores, 20)
    of, found = parts[ALL, ALL], figures.figures(scores, parts)
    marks = drawn(found["accuracy"], measures.ACCURACY_MEAN)
    assert [float(mark.get_xdata()[0]) for mark in marks] == [
        rows[measures.ACCURACY_MEAN].value for rows in parts.values()
    ]
    row = of[measures.RELIABILITY.format(3, 10)]
    (mark,) = drawn(found["reliability"], row.quantity)
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (row.noise, row.value)
    fifth = of[measures.BY_SPREAD.format(5)]
    (mark,) = drawn(found["spread"], fifth.quantity)
    assert mark.get_ydata()[0] == fifth.value
    (curve,) = drawn(found["members"], "members")
    assert list(curve.get_xdata()) == [1, 2, 4]
    assert curve.get_ydata()[-1] == of[measures.TEAM.format(4)].value
    (curve,) = drawn(found["risk-coverage"], measures.RANDOM)
    assert curve.get_ydata() == pytest.approx(1 - of[measures.ACCURACY_MEAN].value)
    for name in figures.CURVES:
        (curve,) = drawn(found["risk-coverage"], name)
        assert curve.get_ydata()[-1] == pytest.approx(1 - of[measures.ACCURACY_MEAN].value)


def test_many_subsets_leave_the_sections_in_the_figure():
    scores = make_scores(280)
    many = [f"p{i % 70}" for i in range(280)]
    scores = Scores(*(getattr(scores, n) for n in list(vars(scores))[:5]), many, ["A"] * 280)
    figure = figures.draw_accuracy(parts_of(scores, 2))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["all pairs (280)", "A (280)"]
    assert "70 parts are in the table alone." in " ".join(figure.get_supxlabel().split())
