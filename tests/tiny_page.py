"""Tables of the page with given numbers."""

import numpy as np
import pandas as pd

from prudent.analysis.statistics import share_interval

PARTS = ("member", "evaluation")


def make_samples(rewards, texts=None, ensembles=2):
    """Rewards of the reference's responses, given those of the first draw [n, K]; those of other
    draws have the opposite order of spreads."""
    rewards = np.asarray(rewards, dtype=float)
    texts = texts or [(f"ask {i // 2}", f"answer {i}") for i in range(len(rewards))]
    table = pd.DataFrame(texts, columns=["prompt", "response"])
    table.insert(0, "prompt_index", table["prompt"].factorize()[0])
    table["score"] = 0.25 + np.arange(len(table))
    return pd.concat(
        [
            table.assign(
                ensemble=draw, head=head, reward=(rewards[::-1] if draw else rewards)[:, head]
            )
            for draw in range(ensembles)
            for head in range(rewards.shape[1])
        ],
        ignore_index=True,
    )


def make_judged(scores, members=3, texts=None):
    """Judgements and rewards, given each method's scores [seeds, prompts]; the reference is one.

    A member's reward is its number more than a hundredth of the prompt's, and a thousand more in
    another draw or of another seed.
    """
    judgements, rewards = [], []
    for method, of_seeds in scores.items():
        for seed, of_prompts in enumerate(of_seeds):
            for place, score in enumerate(of_prompts):
                prompt = texts[place] if texts else f"question {place}"
                key = {"method": method, "seed": seed, "prompt": prompt}
                said = f"{method} {seed} says {place}"
                judgements.append(key | {"response": said, "kl": 0.5, "score": float(score)})
                rewards += [
                    key
                    | {"ensemble": draw, "head": head}
                    | {"reward": place / 100 + head + 1000 * (draw or seed)}
                    for draw in range(2)
                    for head in range(members)
                ]
    return pd.DataFrame(judgements), pd.DataFrame(rewards)


def make_tables(ratio=3.0, low=1.5, high=6.0, swap=0.01, mismatch=0.05, **changes):
    """A summary and tests with given numbers; worse: counts of (method, baseline)."""
    worse = changes.get("worse", (1, 4))
    rows = []
    for method, count, variance in (
        ("vanilla", worse[1], 0.06),
        ("variance_aware", worse[0], 0.06 / ratio),
    ):
        share = share_interval(np.arange(10) < count)
        row = {"method": method, "unit": "member", "policies": 10, "units": 10, "score": 0.3}
        row["control"] = "yes" if changes.get("control") and method != "vanilla" else "no"
        row |= {"score_low": 0.2, "score_high": 0.4, "score_variance": variance}
        row |= {"score_sd": variance**0.5, "noise_variance": 0.001, "worse": count}
        row |= {"worse_share": share.estimate, "worse_low": share.low, "worse_high": share.high}
        row |= {
            "quantile05": 0.1,
            "cvar10": 0.05,
            "kl": 1.25,
            "kl_sd": 0.1,
            "reference_score": 0.19,
            "reference_se": 0.02,
        }
        row |= {"beta": 0.5, "kl_target": 1.2, "target": changes.get("target", "fixed")}
        rows.append(row)
    nan = float("nan")
    quantities = {
        "score_difference": changes.get("difference", (-0.01, -0.1, 0.08, nan)),
        "variance_ratio": (ratio, low, high, nan),
        "elasticity": (changes.get("elasticity", nan), nan, nan, nan),
        "corrected_ratio": changes.get("corrected", (nan, nan, nan, nan)),
        "brown_forsythe": (nan, nan, nan, 0.02),
        "pitman_morgan": (nan, nan, nan, 0.03),
        "swap_test": (nan, nan, nan, swap),
        "worse_difference": ((worse[0] - worse[1]) / 10, nan, nan, changes.get("mcnemar", 0.25)),
        "kl_mismatch": (mismatch, nan, nan, nan),
    }
    common = {"method": "variance_aware", "baseline": "vanilla", "pairs": 10}
    common |= {"unit": changes.get("unit", "member"), "units": changes.get("units", 10)}
    tests = [
        {**common, "quantity": name}
        | dict(zip(("estimate", "low", "high", "p"), v, strict=True))
        | {"p_holm": v[3]}
        for name, v in quantities.items()
    ]
    return pd.DataFrame(rows), pd.DataFrame(tests)
