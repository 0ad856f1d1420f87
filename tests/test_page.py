"""The page: whole, safe, and readable."""

import re
import subprocess

import numpy as np
import pandas as pd
import pytest
from html_pages import HOSTILE, check, check_closed, check_dark
from tiny_page import PARTS, make_judged, make_samples, make_tables
from tiny_results import make_exact, make_verdicts

from prudent.analysis.components import COLUMNS as COMPONENTS
from prudent.analysis.sentences import headline
from prudent.errors import InputError
from prudent.exact.evaluate import ANEW, GIVEN
from prudent.figures import page
from prudent.figures.inline import inline_svg
from prudent.figures.page_tables import decimals
from prudent.figures.style import new_figure, save
from prudent.rewards import calibration, disagreement, frequency
from prudent.rewards.diagnosis import COLUMNS
from prudent.tables import read_csv
from prudent.workflow.provenance import commit, machine, provenance, versions


def make_figures(tmp_path, names=("fig1_first", "fig2_second"), text="$x$ <b>", pixels=False):
    """Figures with what makes names in an SVG: clips, letters, markers, groups."""
    figures = []
    for name in names:
        drawn = new_figure(4, 3, text, "a note")
        axes = drawn.add_subplot()
        axes.plot([0, 1, 2], [2, 1, 3], "o-", gid='a "group"')
        axes.fill_between([0, 1], [1, 1], [2, 3]).set_rasterized(pixels)
        save(drawn, tmp_path / f"{name}.svg")
        svg = (tmp_path / f"{name}.svg").read_text(encoding="utf-8")
        figures.append(page.Figure(name, "Policies", f"**Figure {name}.** Some words.", svg))
    return figures


def make_diagnosis(ensembles=("heads",)):
    """What is no ensemble's, and a few numbers of each; the first one has promised something."""
    nan = float("nan")
    rows = [
        ("", "grammatical responses", 0.9, 0.88, 0.92, nan, nan, nan, nan, 0.8, 1.0),
        ("", calibration.ACCURACY_BASE, 0.95, 0.93, 0.96, nan, nan, nan, nan, 0.6, 0.85),
    ]
    for index, name in enumerate(ensembles):
        spread = 2.5 + index
        low, high = (nan, nan) if index else (1.877, np.inf)
        rows += [
            (name, disagreement.RATIO, spread, 2.4, 2.7, 1.877, 1.8, 1.92, 2.99, low, high),
            (
                name,
                disagreement.LEAVE_ONE_OUT,
                0.19,
                0.15,
                0.23,
                -2e-4,
                -0.02,
                0.02,
                0.57,
                nan,
                nan,
            ),
            (name, disagreement.GIVEN_NORM, 0.08, 0.05, 0.1, 0.001, -0.02, 0.02, nan, nan, nan),
            (name, calibration.ECE_MEAN, 0.031, 0.02, 0.04, 0.012, 0.01, 0.02, nan, nan, nan),
        ]
    return pd.DataFrame(rows, columns=COLUMNS)


def make_frequency(ensembles=()):
    """A bin of each ensemble; of none, as where the judge is not the world's."""
    table = pd.DataFrame({"ensemble": ensembles, "bin": 0, "count_low": 3.0, "count_high": 11.0})
    table = table.assign(n=400, pairs=900).reindex(columns=frequency.COLUMNS)
    return table.fillna(0.321)


def render(
    summary=None,
    tests=None,
    figures=(),
    facts=(("seed", "0"),),
    diagnosis=None,
    frequency=None,
    exact=None,
    verdict=None,
    exact_kinds=None,
    samples=None,
    judged=(None, None),
):
    """The page of such tables; without a summary and tests, of a run without policies."""
    diagnosis = make_diagnosis() if diagnosis is None else diagnosis
    frequency = make_frequency() if frequency is None else frequency
    of_policies = {}
    if summary is not None:
        scores = [(m, s, 0.1 * s) for m in summary["method"] for s in range(10)]
        policies = pd.DataFrame(scores, columns=["method", "seed", "score"])
        of_policies = {"policies": policies, "summary": summary, "tests": tests}
        parts = [(m, c, 10, 0.02, 0.0, np.inf, 0.5) for m in summary["method"] for c in PARTS]
        of_policies["components"] = pd.DataFrame(parts, columns=COMPONENTS)
    accuracy = pd.DataFrame(
        [
            (subset, section, level, model, 0, head, value, 0.01, 1, 50)
            for subset, section, level in (("all", "easy", "section"), ("all", "all", "overall"))
            for model, head, value in (("base", -1, 0.7), ("mean", -1, 0.75), ("head", 0, 0.65))
        ],
        columns="subset section level model ensemble head accuracy se ties rows".split(),
    )
    variance = pd.DataFrame(
        [("easy", "all", side, 0, 50, 1.5, 1.2, 9.0) for side in ("accepted", "difference")],
        columns="section subset side ensemble rows mean median max".split(),
    )
    exact = make_exact() if exact is None else exact
    verdict = make_verdicts() if verdict is None else verdict
    samples = make_samples([[1.0, 2.0], [1.0, 4.0]]) if samples is None else samples
    tables = (diagnosis, frequency, accuracy, variance, samples, exact, verdict)
    of_policies |= {"judgements": judged[0], "rewards": judged[1], "exact_kinds": exact_kinds}
    return page.render(*tables, figures, facts, **of_policies)


def read(html):
    return " ".join(check(html).text.split())


def test_the_page_is_whole_and_holds_all_tables():
    text = read(render(*make_tables()))
    assert "variance aware: reduces variance at the same KL, beyond its controls" in text
    assert "grammatical responses 0.9000.880 to 0.920 – – 0.8 to 1 kept" in text
    assert f"{calibration.ACCURACY_BASE} 0.9500.930 to 0.960 – – 0.6 to 0.85 BROKEN" in text
    spread = "2.5002.400 to 2.700 1.8771.800 to 1.920 2.990 at least 1.88 kept"
    assert f"{disagreement.RATIO} {spread}" in text
    known = "0.1900.150 to 0.230 0.000−0.020 to 0.020 0.570 –"
    assert f"{disagreement.LEAVE_ONE_OUT} {known}" in text
    assert "What each kind's sigma is worth" not in text and "rarest judgement" not in text
    assert "variance aware 0.02000 to ∞ 50% of all 0.0200" in text
    assert "70.0%" in text and "75.0%" in text
    assert "9.00" in text
    assert "The baseline is vanilla. There are 20 trained policies." in text


def test_several_ensembles_have_a_table_of_kinds():
    several = make_diagnosis(("some_heads", "other"))
    several = several[
        (several["ensemble"] != "other") | (several["quantity"] != disagreement.GIVEN_NORM)
    ]
    text = read(render(*make_tables(), diagnosis=several))
    assert "What each kind's sigma is worth" in text
    row = "some heads – – – – 2.5002.400 to 2.700 constant sigma 1.877 "
    row += "0.1900.150 to 0.230 constant sigma 0.000 untrained 0.570 "
    row += "0.0800.050 to 0.100 constant sigma 0.001 – 0.0310.020 to 0.040 calibrated 0.012"
    assert row in text
    assert "other – – – – 3.500" in text
    assert "untrained 0.570 – – 0.0310" in text  # nothing to be given
    assert text.count(disagreement.RATIO) == 1  # of the scenario's own alone


def test_the_table_by_frequency_is_the_first_ensembles():
    text = read(render(*make_tables(), frequency=make_frequency(["heads", "other"])))
    assert text.count("3 to 11 400900 pairs 0.3210.321 to 0.321") == 1
    assert "count of the rarest judgement" not in read(render(*make_tables()))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (-0.0001, "0.000"), (-0.5, "−0.500"), (np.nan, "–"), (np.inf, "∞")],
)
def test_decimals(value, text):
    assert decimals(value) == text


def test_the_page_is_the_same_from_tables_that_were_written(tmp_path):
    """The script reads what another one wrote."""
    summary, tests = make_tables()
    expected = render(summary, tests)
    summary.to_csv(tmp_path / "summary.csv", index=False)
    tests.to_csv(tmp_path / "tests.csv", index=False)
    again = [read_csv(tmp_path / f"{name}.csv", name) for name in ("summary", "tests")]
    assert render(*again) == expected


def test_every_figure_is_inline_with_its_caption_and_a_place_in_the_contents(tmp_path):
    figures = make_figures(tmp_path, ("fig1_a", "fig2_b", "fig3_c"))
    figures[2] = figures[2]._replace(category="Something new")
    html = render(*make_tables(), figures)
    checker = check(html)
    assert checker.drawn == 3
    for figure in figures:
        assert f'<a href="#{figure.name}">' in html and f'<figure id="{figure.name}">' in html
        assert f"Figure {figure.name}. Some words." in read(html)
    contents = [*re.findall(r'<a href="#([^"]+)">', html)]
    assert contents == sorted(contents, key=html.rindex), "not in the page's order"
    assert "Something new" in checker.text
    assert len(checker.ids) > 30 and "xlink" not in html and "<metadata" not in html


def test_a_figures_drawing_is_the_file(tmp_path):
    """All its paths, and where names are referred to, the same things."""
    (figure,) = make_figures(tmp_path, ("fig1_a",))
    drawing = inline_svg(figure.svg, "fig1_a", "a title")
    for tag in ("<path", "<use", "<clipPath"):
        assert drawing.count(tag) == figure.svg.count(tag) > 0
    paths = [re.findall(r'\bd="([^"]*)"', text) for text in (figure.svg, drawing)]
    assert [" ".join(d.split()) for d in paths[0]] == [" ".join(d.split()) for d in paths[1]]


def test_a_drawing_with_pixels_stays_within_the_page(tmp_path):
    figures = make_figures(tmp_path, pixels=True)
    html = render(*make_tables(), figures)
    assert check(html).drawn == 2 and html.count("data:image/png;base64,") == 2
    assert "img-src data:" in html


def test_a_drawing_can_bring_nothing_else_along():
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:x="http://www.w3.org/1999/xlink">'
        '<script>alert(1)</script><style>* {}</style><g onclick="alert(1)">'
        '<foreignObject><b/></foreignObject><image x:href="http://a.b/c.png"/>'
        '<a x:href="http://a.b"><path d="M 0 0"/></a><use x:href="other.svg#x"/></g></svg>'
    )
    drawing = inline_svg(svg, "fig", '"a" <title>')
    assert "http" not in drawing and "alert" not in drawing and "other.svg" not in drawing
    assert 'aria-label="&quot;a&quot; &lt;title&gt;"' in drawing
    with pytest.raises(InputError, match="fig.svg: not readable as SVG"):
        inline_svg("<svg", "fig", "")


def test_every_text_is_escaped(tmp_path):
    summary, tests = make_tables()
    rename = {"variance_aware": HOSTILE}
    figures = make_figures(tmp_path, text=HOSTILE)
    figures[1] = figures[1]._replace(caption=f"**{HOSTILE}.** {HOSTILE}", category=HOSTILE)
    summary, tests = (table.replace({"method": rename}) for table in (summary, tests))
    html = render(summary, tests, figures, [(HOSTILE, HOSTILE)])
    text = read(html)
    # In the box, the table, the contents, a caption, a heading and where it comes from.
    assert text.count("onerror=alert(1)>{{ 7919 * 7907 }}") >= 9
    assert "<img" not in html and "<script" not in html and "62615533" not in text


def test_the_page_can_load_and_run_nothing():
    check_closed(render(*make_tables()))


def test_the_page_is_readable_in_the_dark():
    check_dark(render(*make_tables()))


def test_one_method_alone_gets_its_page():
    summary, tests = make_tables()
    text = read(render(summary.head(1), tests.head(0), verdict=make_verdicts(())))
    assert "There is no method beside the baseline: nothing is compared." in text


def test_the_verdicts_open_the_page_with_risk_and_return_and_their_rule():
    verdict = make_verdicts(("variance_aware", "mean"))
    html = render(*make_tables(), verdict=verdict)
    titles = re.findall(r"<h2[^>]*>([^<]+)<", html)
    assert titles[0] == "Verdict"
    text = read(html)
    for method in verdict.methods:
        said = f"{method.name.replace('_', ' ')}: {headline(method.comparisons[0])}"
        assert said in text and method.sentence in text
    assert "The rule was stated before the policies: reduces: the 95% interval" in text
    words = [method.word.replace(" ", "-") for method in verdict.methods]
    assert re.findall(r'class="finding ([\w-]+)"', html) == words and words[0] == "reduces"
    # What is known of its trained policies stands with a method; a trained control has its own.
    assert text.index("Final KL to the reference") < text.index("mean: ")
    rename = {"variance_aware": "shuffled"}
    tables = [table.replace({"method": rename}) for table in make_tables()]
    assert "shuffled: a control, for which nothing is claimed" in read(render(*tables))
    row = summary_row(html, "variance aware")
    one = verdict.methods[0].comparisons[0]
    assert row.startswith("variance aware given the backbone 60 reduces")
    assert f"baseline {one.baseline_risk.cvar10:.3f}".replace("-", "−") in row
    assert ("yes ahead p" in row) == one.second_order.dominates


def test_optimal_policies_come_first_with_their_controls_marked():
    html = render(*make_tables())
    titles = [m for m in re.findall(r"<h2[^>]*>([^<]+)<", html)]
    assert titles.index("Exact policies") == titles.index("Policies") - 1
    text = read(html)
    assert "Given the backbone, KL 0.300" in text and "All drawn anew, KL 0.300" in text
    row = summary_row(html, "shuffled")
    assert row.startswith("shuffled control 5 ")


def test_the_optimal_policies_of_every_ensemble():
    """One row an ensemble; of a single model there is no method that asks for a spread."""
    exact = make_exact(kls=(0.3, 0.8)).rename(columns={"level": "ensemble"})
    exact["ensemble"] = exact["ensemble"].map({GIVEN: "heads", ANEW: "warm"})
    exact = exact[(exact["ensemble"] == "heads") | (exact["method"] == "vanilla")]
    html = render(exact_kinds=exact)
    text = read(html)
    assert "By every ensemble, KL 0.300" in text and "By every ensemble, KL 0.800" in text
    of = exact[(exact["kl_target"] == 0.3) & (exact["ensemble"] == "heads")].set_index("method")
    row = summary_row(html, "heads 5 ensembles")
    assert f"{of.loc['vanilla', 'gain']:.3f} sd {of.loc['vanilla', 'sd']:.3f}" in row
    assert row.count("variance ratio") == 2
    assert summary_row(html, "warm 5 ensembles").count("–") == 2
    assert "By every ensemble" not in read(render())


def summary_row(html: str, method: str) -> str:
    """The text of a method's first row in the tables of exact policies."""
    rows = re.findall(r"<tr>\s*(<td>.*?)</tr>", html, re.S)
    texts = [" ".join(re.sub("<[^>]+>", " ", row).replace("&#9679;", "").split()) for row in rows]
    return next(text for text in texts if text.startswith(method))


def test_without_policies_the_page_is_of_the_rewards(tmp_path):
    figures = make_figures(tmp_path, ("kinds", "frequency"))
    figures = [figure._replace(category="Reward models") for figure in figures]
    html = render(figures=figures, frequency=make_frequency(("heads",)))
    text = read(html)
    assert "This run trains no policies: it checks the rewards, and what" in text
    assert ">Policies<" not in html and "trained policies." not in text
    assert ">Exact policies<" in html
    assert f"{calibration.ACCURACY_BASE} 0.950" in text
    for part in ("diagnosis", "frequency-table", "accuracy", "variance", "kinds", "frequency"):
        assert html.count(f'id="{part}"') == 1 and f'<a href="#{part}">' in html
    assert ">Policies<" in render(*make_tables())


def test_samples_stand_at_the_end_with_a_place_in_the_contents():
    judged = make_judged({"vanilla": [[1, 1]], "variance_aware": [[1, 3]], "reference": [[0, 0]]})
    html = render(*make_tables(), judged=judged)
    check_closed(html)
    titles = re.findall(r"<h2[^>]*>([^<]+)<", html)
    assert titles[-2:] == ["Samples", "Where this comes from"]
    found = html[html.index(">Samples</h2>") :]
    anchors = re.findall(r'<h3 id="([^"]+)"', found)
    assert anchors == ["largest", "smallest", "disagreement"]
    assert all(f'<a href="#{anchor}">' in html for anchor in anchors)
    assert found.count("<details>") == 3
    text = read(html)
    assert "spread 2.12, mean 2.50, judge 1.25: answer 1 prompt ask 0 response answer 1" in text
    assert "2.00 apart, variance aware 3.00, vanilla 1.00: question 1 prompt question 1" in text
    assert 'id="disagreement"' not in render(*make_tables())


def test_samples_are_escaped():
    samples = make_samples(np.eye(3), [(HOSTILE, HOSTILE + str(i)) for i in range(3)])
    scores = {"vanilla": [[1]], HOSTILE: [[2]]}
    html = render(*make_tables(), samples=samples, judged=make_judged(scores, texts=[HOSTILE]))
    text = read(html)
    # In each title, prompt and response; of two methods in the title, the texts and the table, too.
    assert text.count("<script src=") == 3 * 3 + 6
    assert "<img" not in html and "<script" not in html and "62615533" not in html


def test_the_page_says_where_it_comes_from():
    facts = provenance("small", 7, "abc123")
    text = read(render(*make_tables(), facts=facts))
    assert "scenario small seed of the study 7" in text
    assert "SHA-256 abc123 of config.yaml" in text
    assert f"torch {versions()['torch']}" in text and f"Python {versions()['Python']}" in text
    assert machine() in text and re.search(r"\d+ cores?,", machine())


def test_the_commit_is_the_checkouts_own(tmp_path):
    def git(*arguments, folder=tmp_path):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        command = ["git", "-C", str(folder), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert commit(tmp_path / "none") is None
    git("init", "-q")
    assert commit(tmp_path) is None, "no commit yet"
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-qm", "first")
    head = f"git commit {git('rev-parse', 'HEAD')}"
    assert commit(tmp_path) == head
    (tmp_path / "results").mkdir()
    (tmp_path / "results/other").write_text("not tracked")
    assert commit(tmp_path) == head
    assert commit(tmp_path / "results") is None, "a copy within another repository"
    (tmp_path / "file").write_text("b")
    assert commit(tmp_path) == f"{head}, with changes"
