"""Every figure on realistic tables and at the edges: what its artists hold, not its pixels."""

import importlib
import itertools

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from prudent import tables
from prudent.analysis.policies import long_table
from prudent.analysis.wording import number
from prudent.figures import looks
from prudent.figures.accuracy import draw_accuracy
from prudent.figures.curves import draw_kl, draw_reward
from prudent.figures.heads import draw_heads
from prudent.figures.losses import draw_losses
from prudent.figures.scores import draw_scores
from prudent.figures.style import _spread, save
from prudent.figures.variance import draw_variance
from prudent.rewards import rewardbench
from prudent.seeding import seed_parts

MANY = [
    "vanilla",
    "variance_aware",
    "exact_gradient",
    "scale_only",
    "shuffled_sigma",
    "ensemble_mean",
    "lower_confidence_bound",
    "worst_case",
    "a_method_with_a_name_that_is_very_long_indeed",
    "shrunken_mean",
    "uwo",
    "brme",
]
TWO = MANY[:2]


def make_logs(methods=TWO, seeds=3, steps=40, kls=None):
    draw = np.random.default_rng(0)
    parts = {}
    for index, method in enumerate(methods):
        end = kls[index] if kls else 1.3
        for seed in range(seeds):
            step = np.arange(steps)
            rise = 1 - np.exp(-(step + 1) / 3)
            noise = 0.01 * draw.normal(size=steps)
            reward = 2 * rise + noise
            parts[method, seed] = pd.DataFrame(
                {"step": step, "kl": end * rise + noise, "proxy_reward": reward}
            ).assign(ensemble_reward=0.5 * reward)
            columns = list(tables.CSV_SCHEMAS["training_log"])
            parts[method, seed] = parts[method, seed].reindex(columns=columns, fill_value=0.0)
    return parts


def make_policies(methods=TWO, seeds=10, heads=10):
    draw = np.random.default_rng(1)
    rows = [
        (method, s, *seed_parts(s, 1, heads), draw.normal())
        for method, s in itertools.product(methods, range(seeds))
    ]
    return pd.DataFrame(rows, columns=["method", "seed", "ensemble", "head", "trial", "score"])


def make_scores(sections=("easy", "hard"), rows=12, heads=10, ensembles=1):
    draw = np.random.default_rng(2)
    models = [(-1, -1), *itertools.product(range(ensembles), range(heads))]
    index = list(itertools.product(sections, range(rows), ("chosen", "rejected"), models))
    table = pd.DataFrame(
        [(str(i), f"{s}-a", s, side, e, h) for s, i, side, (e, h) in index],
        columns=["id", "subset", "section", "side", "ensemble", "head"],
    )
    return table.assign(reward=draw.normal(size=len(table)) + (table["side"] == "chosen"))


def make_losses(heads=3, ensembles=1, steps=30):
    step = np.arange(steps)
    rows = []
    for e, h in itertools.product(range(ensembles), range(heads)):
        for split, floor in (("train", 0.2), ("validation", 0.4)):
            loss = floor + 0.4 * np.exp(-step / 8) + 0.01 * h
            rows.append(
                pd.DataFrame({"step": step, "loss": loss, "accuracy": 0.6}).assign(
                    ensemble=e, head=h, split=split
                )
            )
    return pd.concat(rows, ignore_index=True)


def artist(figure, gid):
    found = figure.findobj(lambda item: item.get_gid() == gid)
    assert len(found) == 1, f"{len(found)} artists {gid}"
    return found[0]


def texts(figure):
    return "\n".join(item.get_text() for item in figure.findobj(mpl.text.Text))


def check_layout(figure):
    """Draws; no text of the figure's own lies outside of it."""
    FigureCanvasAgg(figure).draw()
    box = figure.bbox
    for item in [*figure.texts, *(t for axes in figure.axes for t in axes.texts)]:
        if item.get_text():
            extent = item.get_window_extent()
            assert extent.x0 >= box.x0 - 1 and extent.x1 <= box.x1 + 1, item.get_text()
            assert extent.y0 >= box.y0 - 1 and extent.y1 <= box.y1 + 1, item.get_text()


# --- looks


def test_a_methods_look_stays_when_methods_are_added():
    before = looks.looks([*TWO, "uwo"])
    after = looks.looks([*TWO, "uwo", "brme", "lcb"])
    assert all(before[method] == after[method] for method in before)
    assert looks.looks(["variance_aware"])["variance_aware"] == before["variance_aware"]


def test_looks_differ_and_the_papers_arms_have_their_own():
    found = looks.looks([f"method_{i}" for i in range(40)])
    assert len(set(found.values())) == 40
    assert not set(found.values()) & set(looks.looks(TWO).values())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.2345, "1.23"),
        (-0.00123456, "−0.00123"),
        (0.9996, "1.00"),
        (1234.6, "1235"),
        (0, "0"),
        (float("nan"), "–"),
        (float("-inf"), "−∞"),
        (1e-7, "1.00e−07"),
    ],
)
def test_number(value, text):
    assert number(value) == text


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
    assert texts(figure).count("one head") == 4


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


@pytest.mark.parametrize(
    ("methods", "seeds", "steps"), [(TWO, 3, 40), (TWO, 1, 1), (MANY, 2, 12), (TWO[:1], 2, 3)]
)
@pytest.mark.parametrize(("draw", "column"), [(draw_kl, "kl"), (draw_reward, "proxy_reward")])
def test_curves_show_every_policy_and_the_mean(draw, column, methods, seeds, steps):
    logs = long_table(make_logs(methods, seeds, steps))
    figure = draw(logs, methods)
    for method in methods:
        part = logs[logs["method"] == method]
        for seed in range(seeds):
            line = artist(figure, f"{method} {seed}")
            assert line.get_ydata() == pytest.approx(part.loc[part["seed"] == seed, column])
        end = part.loc[part["step"] == steps - 1, column].mean()
        assert artist(figure, f"end {method}").get_ydata() == pytest.approx([end])
    check_layout(figure)


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
        (TWO, [1.0, 1.1], "10% apart: matched (within 15%)"),
        (TWO, [1.2, 1.0], "20% apart: NOT matched (more than 15%)"),
        (MANY[:3], [1.0, 1.1, 1.05], "at most 10% apart: matched"),
        (MANY[:3], [1.0, 1.4, 1.05], "up to 40% apart (vanilla and variance aware): NOT matched"),
        (TWO, [-1.0, 1.0], "cannot be matched"),
    ],
)
def test_kl_says_whether_it_is_matched(methods, kls, text):
    logs = {
        key: log.assign(kl=kls[methods.index(key[0])]) for key, log in make_logs(methods).items()
    }
    assert text in texts(draw_kl(long_table(logs), methods))


def test_labels_do_not_overlap_and_keep_their_order():
    values, heights = [0.5, 0.51, 0.1, 0.52, 0.99], [0.1, 0.2, 0.1, 0.1, 0.1]
    places = _spread(values, heights, 0, 1)
    order = np.argsort(values)
    tops = places[order][:-1] + np.array(heights)[order][:-1] / 2
    bottoms = places[order][1:] - np.array(heights)[order][1:] / 2
    assert (bottoms >= tops - 1e-9).all()
    assert places[2] == pytest.approx(0.1) and places[4] <= 1
    assert _spread([0.2, 0.8], [0.1, 0.1], 0, 1) == pytest.approx([0.2, 0.8])


# --- files


def test_saved_files_are_the_same_bytes_each_time(tmp_path):
    for name in ("a", "b"):
        figure = draw_kl(long_table(make_logs()), TWO)
        save(figure, tmp_path / f"{name}.png", tmp_path / f"{name}.pdf")
    for form in ("png", "pdf"):
        first, second = ((tmp_path / f"{name}.{form}").read_bytes() for name in ("a", "b"))
        assert first == second and len(first) > 5000
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.pdf", "b.png", "b.pdf"}


def test_the_users_matplotlib_settings_are_left_alone():
    before = dict(mpl.rcParams)
    draw_kl(long_table(make_logs()), TWO)
    assert dict(mpl.rcParams) == before


@pytest.fixture
def results(tmp_path):
    """The tables of a small run, as the stages before write them."""
    scores = make_scores()
    tables.write_parquet(scores, tmp_path / "scores.parquet", "scores")
    rows = scores[["id", "subset", "section"]].drop_duplicates()
    prompt = [{"role": "user", "content": "the movie was"}]
    benchmark = rows.assign(prompt=[prompt] * len(rows), chosen="good", rejected="bad")
    tables.write_parquet(benchmark, tmp_path / "benchmark.parquet", "benchmark")
    draw = np.random.default_rng(3)
    judged, logs = [], []
    for (method, seed), log in make_logs(seeds=4).items():
        tables.write_csv(log, tmp_path / f"{method}{seed}.csv")
        logs.append(tmp_path / f"{method}{seed}.csv")
        judged.append(tmp_path / f"{method}{seed}.parquet")
    for path in [*judged, tmp_path / "reference.parquet"]:
        table = pd.DataFrame({"prompt": [f"p{i}" for i in range(20)], "response": "x"})
        tables.write_parquet(table.assign(score=draw.normal(size=20), grammatical=1), path)
    tables.write_csv(make_losses(1), tmp_path / "base.csv")
    tables.write_csv(make_losses(3), tmp_path / "heads.csv")
    diagnosis = {"quantity": ["accuracy"], "value": [0.7], "low": [0.6], "high": [0.85]}
    tables.write_csv(pd.DataFrame(diagnosis), tmp_path / "diagnosis.csv")
    return tmp_path, judged, logs


def test_scripts_make_all_files_from_files(results):
    folder, judged, logs = results

    def run(script, **values):
        module = importlib.import_module(script)
        module.main(module.Args(**values))

    run(
        "tabulate_variance",
        scores=folder / "scores.parquet",
        accuracy=folder / "accuracy.csv",
        variance=folder / "variance.csv",
    )
    run(
        "compare_methods",
        reference=folder / "reference.parquet",
        judgements=judged,
        training_logs=logs,
        **{name: folder / f"{name}.csv" for name in ("diagnosis", "accuracy", "variance")},
        **{name: folder / f"{name}.csv" for name in ("policies", "summary", "tests")},
        page=folder / "summary.html",
        methods=TWO,
        seeds=[0, 1, 2, 3],
        baseline="vanilla",
        ensembles=1,
        heads=3,
        bootstrap=200,
        seed=0,
    )
    policies = pd.read_csv(folder / "policies.csv")
    expected = pd.read_parquet(judged[5])["score"].mean()  # the second method's second seed
    row = policies[(policies["method"] == "variance_aware") & (policies["seed"] == 1)].iloc[0]
    assert row["score"] == pytest.approx(expected)
    assert (row["head"], row["trial"]) == (1, 0)
    assert "variance aware" in (folder / "summary.html").read_text(encoding="utf-8")
    lists = {"methods": TWO, "seeds": [0, 1, 2, 3], "training_logs": logs}
    for name, values in {
        "heads": {"scores": folder / "scores.parquet", "benchmark": folder / "benchmark.parquet"},
        "variance": {"scores": folder / "scores.parquet"},
        "scores": {
            "policies": folder / "policies.csv",
            "reference": folder / "reference.parquet",
            "methods": TWO,
        },
        "losses": {"base": folder / "base.csv", "heads": folder / "heads.csv", "stop_loss": 0.3},
        "accuracy": {"accuracy": folder / "accuracy.csv"},
        "kl": lists,
        "reward": lists,
    }.items():
        png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
        run(f"plot_{name}", **values, png=png, pdf=pdf)
        assert png.stat().st_size > 5000 and pdf.stat().st_size > 5000
