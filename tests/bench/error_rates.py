"""How often the statistics of trained policies are wrong: sizes of tests, coverage of intervals.

Simulated studies without an effect: two methods, paired by their draws, whose scores have the same
distribution but for their level. A test should reject 5% of them, and a 95% interval cover what is
true in 95%. `make error-rates` writes the table into docs/statistics.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow_scripts"))

from prudent.analysis.statistics import (  # noqa: E402
    brown_forsythe,
    permutation_test,
    pitman_morgan,
    share_interval,
    t_interval,
    variance_ratio,
)

PAGE = ROOT / "docs/statistics.md"
MARKS = ("<!-- error rates -->\n", "<!-- /error rates -->\n")
SIZES = (5, 10, 20, 40, 100)
STUDIES = 4000
PERMUTATIONS = 500
SHARED = 0.5
"""The correlation of the two methods' scores of one draw, before they are shaped."""
TRIALS = 3
WORSE = 0.2
"""The true share of policies worse than the reference."""


def student(normal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Three degrees of freedom, the same divisor for both methods' scores of a draw."""
    return normal / np.sqrt(rng.chisquare(3, size=normal.shape[-1]) / 3)


SHAPES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "normal": lambda normal, rng: normal,
    "heavy tails (t, 3 df)": student,
    "skewed (log-normal, sd .7)": lambda normal, rng: np.exp(0.7 * normal),
    "one in ten collapses": lambda normal, rng: np.where(
        rng.uniform(size=normal.shape) < 0.1, normal - 5, normal
    ),
}


def study(shape: str, draws: int, trials: int, rng: np.random.Generator):
    """Scores [2, draws * trials] of two methods, and the draw of each policy.

    Of several trials half of the variance is the draw's.
    """

    def pair(count: int) -> np.ndarray:
        shared, own = rng.normal(size=count), rng.normal(size=(2, count))
        return np.sqrt(SHARED) * shared + np.sqrt(1 - SHARED) * own

    normal = pair(draws)
    clusters = np.repeat(np.arange(draws), trials)
    if trials > 1:
        normal = np.sqrt(0.5) * normal[:, clusters] + np.sqrt(0.5) * pair(draws * trials)
    return SHAPES[shape](normal, rng) + np.array([[0.0], [3.0]]), clusters


def rates(shape: str, draws: int, trials: int = 1) -> dict[str, float]:
    """The shares of simulated studies in which each statistic rejects or covers."""
    rng = np.random.default_rng([draws, trials, *shape.encode()])
    # What is worse than the reference: the lowest fifth of the first method's scores.
    large = study(shape, 20_000, trials, np.random.default_rng(0))[0][0]
    threshold, truth = np.quantile(large, WORSE), 3.0
    found = {name: 0 for name in COLUMNS}
    for _ in range(STUDIES):
        (a, b), clusters = study(shape, draws, trials, rng)
        ratio = variance_ratio(a, b, clusters)
        difference = t_interval(b - a, clusters)
        share = share_interval(a < threshold, clusters)
        found["permutation"] += permutation_test(a, b, clusters, PERMUTATIONS, rng) < 0.05
        found["Pitman-Morgan"] += pitman_morgan(a, b) < 0.05
        found["Brown-Forsythe"] += brown_forsythe(a, b) < 0.05
        found["variance ratio"] += ratio.low <= 1 <= ratio.high
        found["difference"] += difference.low <= truth <= difference.high
        found["share worse"] += share.low <= WORSE <= share.high
    return {name: count / STUDIES for name, count in found.items()}


COLUMNS = {
    "permutation": "size",
    "Pitman-Morgan": "size",
    "Brown-Forsythe": "size",
    "variance ratio": "coverage",
    "difference": "coverage",
    "share worse": "coverage",
}


def table() -> str:
    """All rates in percent, as markdown."""
    head = " | ".join(f"{name}: {kind}" for name, kind in COLUMNS.items())
    lines = [f"| scores | draws | {head} |", "|---|---|" + "---|" * len(COLUMNS)]
    rows = [(shape, draws, 1) for shape in SHAPES for draws in SIZES]
    rows += [("normal", draws, TRIALS) for draws in SIZES]
    for shape, draws, trials in rows:
        found = rates(shape, draws, trials)
        name = shape if trials == 1 else f"{shape}, {trials} trials a draw"
        cells = " | ".join(f"{100 * found[column]:.1f}" for column in COLUMNS)
        lines.append(f"| {name} | {draws} | {cells} |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the table into the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(MARKS[0])
    text = before + MARKS[0] + table() + MARKS[1] + rest.split(MARKS[1])[1]
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
