"""Small tables of results as the stages write them, and what the tests of figures ask of one."""

import itertools
import re

import matplotlib as mpl
import numpy as np
import pandas as pd
from conftest import ROOT
from matplotlib.backends.backend_agg import FigureCanvasAgg

from prudent import schemas
from prudent.analysis import verdict
from prudent.analysis.preregistration import preregistration
from prudent.analysis.sentences import verdicts
from prudent.exact.evaluate import ANEW, GIVEN, INDEPENDENT
from prudent.exact.summary import summary_table
from prudent.policies.target_kl import Calibration
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
            columns = list(schemas.CSV_SCHEMAS["training_log"])
            parts[method, seed] = parts[method, seed].reindex(columns=columns, fill_value=0.0)
    return parts


def make_policies(methods=TWO, seeds=10, heads=10):
    draw = np.random.default_rng(1)
    rows = [
        (method, s, *seed_parts(s, 1, heads), draw.normal())
        for method, s in itertools.product(methods, range(seeds))
    ]
    table = pd.DataFrame(rows, columns=["method", "seed", "ensemble", "head", "trial", "score"])
    return table.assign(beta=0.5, kl_target=np.nan, target="fixed")


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


def make_exact(methods=(*TWO, "shuffled"), count=5, levels=None, kls=(0.3,)):
    """A summary of exact policies, of which the last method is a control; with a pool of single
    policies where ``levels`` names independent members."""
    draws = np.random.default_rng(0)
    rows = []
    for level in levels or (GIVEN, ANEW):
        for number, (method, kl) in enumerate(itertools.product(methods, kls)):
            single = level == INDEPENDENT and number % 2
            for replicate in range(1 if single else count):
                gain = draws.normal(0.1 + 0.02 * number, 0.02)
                rows.append((level, replicate, method, kl, gain, 20.0, gain - 0.01, gain + 0.03))
    columns = ["level", "replicate", "method", "kl_target", "gain", "effective_size"]
    columns += ["first_half", "second_half"]
    table = summary_table(pd.DataFrame(rows, columns=columns), methods[0])
    table["control"] = np.where(table["method"] == methods[-1], "yes", "no")
    return table


def make_verdicts(methods=("variance_aware",), draws=60, levels=(GIVEN, ANEW)):
    """Verdicts on optimal policies of drawn gains; the first method varies half as much."""
    random = np.random.default_rng(0)
    held = {name: {"controls": ["shuffled"], "missing": [], "trained": False} for name in methods}
    rule = preregistration(held, "vanilla", 0.8, 0.05, 1.5, 500, 0)
    tables = []
    for level, (place, name) in itertools.product(
        levels, enumerate(("vanilla", "shuffled", *methods))
    ):
        gains = random.normal(0.2, 0.5 if place == 2 else 1, size=draws)
        table = pd.DataFrame({"replicate": range(draws), "gain": gains})
        tables.append(table.assign(level=level, method=name, kl_target=0.8, kl=0.8))
    table = pd.concat(tables)
    found = [
        verdict.comparisons(verdict.of_optima(table, level, 0.8), level, rule, 0)
        for level in levels
    ]
    return verdicts(rule, found, "before the policies")


def make_calibration(method="vanilla", target=1.0, pilots=3, reached=True):
    """The table of a search of three evaluations, and what it found."""
    draws = np.random.default_rng(4)
    rows = []
    for evaluation, (beta, kl) in enumerate([(0.5, 1.6), (0.9, 0.7), (0.7, 1.02)]):
        common = {"method": method, "kl_target": target, "evaluation": evaluation, "beta": beta}
        common |= {"policies_kl": kl, "policies_kl_se": 0.05 if pilots > 1 else np.nan}
        for pilot in range(pilots):
            own = {"pilot": pilot, "head": pilot, "pilot_beta": beta + 0.1 * draws.normal()}
            own |= {"kl": kl + 0.1 * draws.normal(), "kl_se": 0.02}
            rows.append(common | own | {"exact_kl": 1.1 * kl})
    found = Calibration(0.7, 1.02, 0.05 if pilots > 1 else None, target, reached)
    return pd.DataFrame(rows), found


def names_of_figures():
    """The rows of the table in the rules."""
    text = (ROOT / "rules/figures.smk").read_text(encoding="utf-8")
    return re.findall(r'^    "(\w+)": \{$', text, re.M)


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
