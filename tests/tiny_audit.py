"""Scores of a tiny audit, with whatever their spread and length are to know."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tiny_ensembles import rng

from prudent.audit.scores import Scores


def make_scores(n=300, members=4, spread="knows", length=0.0, parts=False, texts=None, seed=0):
    """n pairs, whose members err alike by noise of a size that differs from pair to pair.

    The spread "knows" that size, or is that of other pairs ("shuffled"), or the other way round
    ("opposite"). ``length`` is how often the chosen response is the longer one, less 1/2.
    """
    draw = rng(seed)
    size = draw.permutation(np.linspace(0.1, 3, n))
    shown = {"knows": size, "shuffled": draw.permutation(size), "opposite": 3.1 - size}[spread]
    mean = 1 + size * draw.normal(size=n)
    apart = draw.normal(size=(n, members))
    apart -= apart.mean(1, keepdims=True)
    margins = mean[:, None] + shown[:, None] * apart
    longer = draw.random(n) < 0.5 + length
    long, short = texts or ("a good word " * 20, "bad")
    return Scores(
        [[{"role": "user", "content": f"ask {i}"}] for i in range(n)],
        [long if more else short for more in longer],
        [short if more else long for more in longer],
        margins,
        np.zeros((n, members)),
        [f"part {i % 3}" for i in range(n)] if parts else None,
        [f"section {i % 3 // 2}" for i in range(n)] if parts else None,
    )


def best_of_four(questions=4, ties=3, members=2, seed=0):
    """Rows of RewardBench 2's form with scores: two subsets of ``questions``, and as many ties."""
    draw = rng(seed)
    rows = [(str(i), name, 1, 3) for name in ("Math", "Focus") for i in range(questions)]
    rows += [(f"tied:{i}", "Ties", 2 + i % 2, 2) for i in range(ties)]
    rows += [(f"ref:{i}", "Ties", 1, 2) for i in range(ties)]
    return [
        {
            "id": identity,
            "prompt": f"ask {subset} {identity}",
            "chosen": [f"good {k}" for k in range(right)],
            "rejected": [f"bad {k}" for k in range(wrong)],
            "num_correct": right,
            "num_incorrect": wrong,
            "total_completions": right + wrong,
            "models": ["a model"] * (right + wrong),
            "subset": subset,
        }
        | {f"chosen_{k}": (draw.normal(size=right) + 0.7).tolist() for k in range(members)}
        | {f"rejected_{k}": draw.normal(size=wrong).tolist() for k in range(members)}
        for identity, subset, right, wrong in rows
    ]


def write_lines(records, path):
    """The records as a file of JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_scores(scores, path):
    """The scores as the file of an audit, in lists."""
    columns = {
        "prompt": scores.prompts,
        "chosen": scores.chosen,
        "rejected": scores.rejected,
        "score_chosen": scores.chosen_scores.tolist(),
        "score_rejected": scores.rejected_scores.tolist(),
    }
    if scores.subset is not None:
        columns |= {"subset": scores.subset, "section": scores.section}
    pq.write_table(pa.table(columns), path)
    return path
