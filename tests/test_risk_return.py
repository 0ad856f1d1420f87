"""The figure of exact policies: what its artists hold."""

import numpy as np
import pytest
from tiny_results import MANY, artist, check_layout, make_exact, texts

from prudent.exact.evaluate import ANEW, GIVEN, INDEPENDENT
from prudent.figures.risk_return import draw_risk_return

LEVELS = (GIVEN, ANEW, INDEPENDENT)


@pytest.mark.parametrize("methods", [MANY[:3], MANY])
@pytest.mark.parametrize("kls", [(0.3,), (0.3, 0.8)])
def test_a_panel_a_level_and_kl_and_a_mark_a_method(methods, kls):
    table = make_exact(methods, levels=LEVELS, kls=kls)
    figure = draw_risk_return(table, methods[0])
    check_layout(figure)
    assert len(figure.axes) == len(LEVELS) * len(kls)
    panels = iter(figure.axes)
    for kl in kls:
        for level in LEVELS:
            axes = next(panels)
            part = table[(table["level"] == level) & (table["kl_target"] == kl)]
            for row in part.to_dict("records"):
                marks = {line.get_gid(): line for line in axes.lines}
                if not np.isfinite(row["sd"]):
                    mark = marks[f"single {row['method']}"]
                    assert mark.get_ydata() == pytest.approx([row["gain"]])
                    continue
                mark = marks[f"method {row['method']}"]
                assert mark.get_xydata()[0] == pytest.approx((row["sd"], row["gain"]))
                hollow = mark.get_markerfacecolor() == "white"
                assert hollow == (row["control"] == "yes")
            singles = [line for gid, line in marks.items() if str(gid).startswith("single")]
            places = sorted(mark.get_xdata()[0] for mark in singles)
            assert all(place < 0 for place in places), "a single policy looks as if it had a spread"
            apart = np.diff([axes.transData.transform((place, 0))[0] for place in places])
            assert (apart > 6 / 72 * figure.dpi).all()  # a mark is 7 points: its edge may touch
            assert level in axes.get_title(loc="left")
            assert axes.get_ylim()[0] < 0, "the reference at 0 is in sight"
    for method in methods:
        assert method.replace("_", " ") in texts(figure)


def test_a_single_replicate_has_no_spread():
    table = make_exact(count=1)
    figure = draw_risk_return(table, "vanilla")
    check_layout(figure)
    assert artist(draw_risk_return(make_exact(levels=(GIVEN,)), "vanilla"), "method vanilla")
    assert all(line.get_gid() != "method vanilla" for axes in figure.axes for line in axes.lines)
