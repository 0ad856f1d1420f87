"""The figure of trained policies beside their optima: what its artists hold."""

import numpy as np
import pandas as pd
import pytest
from tiny_results import MANY, check_layout, texts

from prudent.figures.frontier import draw_frontier

KLS = (0.1, 0.4, 1.0)


def optima(methods) -> pd.DataFrame:
    rows = [
        (method, draw, head, kl, kl**0.5 + 0.1 * draw, 30.0 if kl < 1 else 5.0)
        for method in methods
        for draw, head in ((0, 1), (1, 0))
        for kl in KLS
    ]
    columns = ["method", "draw", "head", "kl_target", "gain", "effective_size"]
    return pd.DataFrame(rows, columns=columns)


def trained(methods) -> pd.DataFrame:
    rows = [(method, s, 0.9 + 0.1 * s, 2.5 + 0.1 * s) for method in methods for s in range(2)]
    return pd.DataFrame(rows, columns=["method", "seed", "kl", "score"]).assign(target="fixed")


@pytest.mark.parametrize("methods", [MANY[:1], MANY[:2], MANY])
def test_a_panel_a_method_with_its_optima_and_its_policies(methods):
    figure = draw_frontier(optima(methods), trained(methods), 2.0, methods)
    check_layout(figure)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == len(methods)
    for axes, method in zip(panels, methods, strict=True):
        assert axes.get_title(loc="left") == method.replace("_", " ")
        lines = {line.get_gid(): line for line in axes.lines}
        marks = lines["trained"].get_xydata()
        assert marks == pytest.approx(np.array([[0.9, 0.5], [1.0, 0.6]]))
        # The known part, from the reference on; what is known poorly is dotted.
        known = np.array([[0, 0], [0.1, 0.1**0.5 + 0.05], [0.4, 0.4**0.5 + 0.05]])
        assert lines["mean"].get_xydata() == pytest.approx(known)
        dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
        assert len(dotted) == 3 and dotted[0].get_xdata() == pytest.approx([0.4, 1.0])


def test_a_method_that_is_off_its_kl_is_marked():
    policies = trained(MANY[:2])
    policies.loc[policies["method"] == MANY[1], "target"] = "missed"
    figure = draw_frontier(optima(MANY[:2]), policies, 2.0, MANY[:2])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["vanilla", "variance aware, off its KL target"]


def test_a_method_without_an_optimum_has_its_policies_alone():
    methods = MANY[:2]
    figure = draw_frontier(optima(methods[:1]), trained(methods), 2.0, methods)
    check_layout(figure)
    assert "no exact optimum" in figure.axes[1].get_title(loc="left")
    assert "no exact optimum" not in texts(figure).replace(figure.axes[1].get_title(loc="left"), "")
    gids = {line.get_gid() for line in figure.axes[1].lines}
    assert "trained" in gids and "mean" not in gids
