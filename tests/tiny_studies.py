"""Judged policies of small studies."""

import numpy as np
import pandas as pd

from prudent.analysis.policies import (
    policy_table,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def make_study(sds, seeds=10, ensembles=1, heads=10, prompts=40, seed=0, shift=0.2, noise=0.3):
    """Judgements and the reference of made-up methods; sds: method -> sd of true scores."""
    draw = rng(seed)
    names = [f"prompt {i}" for i in range(prompts)]
    prompt_effect = draw.normal(size=prompts)

    def judged(level):
        scores = level + prompt_effect + noise * draw.normal(size=prompts)
        kl = 1.3 + 0.1 * draw.normal(size=prompts)
        return pd.DataFrame({"prompt": names, "response": "text", "kl": kl, "score": scores})

    judgements = {}
    for method, sd in sds.items():
        for number in range(seeds):
            judgements[method, number] = judged(shift + sd * draw.normal())
    return judgements, judged(0.0)


def make_policies(sds, units=(), **settings):
    judgements, reference = make_study(sds, **settings)
    ensembles, heads = settings.get("ensembles", 1), settings.get("heads", 10)
    units = dict.fromkeys(sds, "member") | dict(units)
    table = policy_table(judgements, reference, ensembles, heads, units)
    return table, judgements, reference
