"""Each number that arXiv 2410.23726 prints, beside its counterpart in a scenario's results."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from prudent.analysis import printed
from prudent.analysis.printed import SECTIONS, TITLES, Resources
from prudent.analysis.statistics import LEVEL
from prudent.analysis.wording import name_of, number
from prudent.rewards.rewardbench import section_weights

NOTHING = "–"
NOT_GIVEN, NOT_COMPARABLE, CHOSEN = "not given", "not comparable", "chosen"
OTHER_SCALE = "Another model, other pairs and another judge give scores another scale."


class Row(NamedTuple):
    """A printed number and ours, as texts."""

    item: str
    quantity: str
    paper: str = NOTHING
    here: str = NOTHING
    agrees: str = NOT_GIVEN
    why: str = ""


@dataclass
class Run:
    """What a scenario's results say; None or empty where a scenario lacks them."""

    config: Mapping[str, Any]
    """The sections reward, ensemble (its kind, count and settings), prompts, ppo and methods."""
    theory: pd.DataFrame
    accuracy: pd.DataFrame
    variance: pd.DataFrame
    base: pd.DataFrame
    """Losses of the base reward model."""
    heads: pd.DataFrame
    """Losses of the members."""
    pairs: int
    """Training pairs."""
    summary: pd.DataFrame | None = None
    tests: pd.DataFrame | None = None
    proxy: Mapping[str, float] = field(default_factory=dict)
    """The mean proxy reward of each method's policies at the last step."""
    used: Mapping[str, Resources | None] = field(default_factory=dict)
    """What the trainings of Tables 3, 5 and 8 took."""


def rows(run: Run) -> list[Row]:
    """All rows, in the order of the paper's items."""
    found = [*_rewards(run), *_scores(run), *_training(run), *_benchmark(run)]
    found += [*_settings(run), *_resources(run), *_theory(run.theory)]
    found += [*_algorithms(run), *_later_papers(run), *_choices(run)]
    order = list(TITLES)
    return sorted(found, key=lambda row: order.index(row.item))


def rewardbench_table(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Table 1: the paper's models, and ours where the benchmark has RewardBench's sections.

    Returns:
        model, origin (printed, here), overall and one column per section, in percent.
    """
    names = ["overall", *(_column(section) for section in SECTIONS)]
    table = pd.DataFrame.from_dict(printed.REWARDBENCH, orient="index", columns=names)
    table = table.rename_axis("model").reset_index().assign(origin="printed")
    ours = []
    if _is_rewardbench(accuracy):
        for model in ("base", "mean"):
            part = accuracy[(accuracy["model"] == model) & (accuracy["level"] != "subset")]
            part = part[part["ensemble"] == part["ensemble"].min()]
            row = {
                "overall" if level == "overall" else _column(section): 100 * value
                for level, section, value in zip(
                    part["level"], part["section"], part["accuracy"], strict=True
                )
            }
            called = "base model" if model == "base" else "mean of the members"
            ours.append({"model": called, "origin": "here", **row})
    columns = ["model", "origin", *names]
    return pd.concat([table, pd.DataFrame(ours, columns=columns)], ignore_index=True)[columns]


def _column(section: str) -> str:
    return section.lower().replace(" ", "_")


def _is_rewardbench(accuracy: pd.DataFrame) -> bool:
    return set(accuracy["section"]) - {"all"} <= set(SECTIONS)


def _verdict(agrees: bool) -> str:
    return "yes" if agrees else "no"


def _span(values: Any, text: Any = number) -> str:
    """The least and the largest of some values."""
    low, high = float(np.min(values)), float(np.max(values))
    return text(low) if low == high else f"{text(low)} to {text(high)}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


# --- Figures 1, 6, 8 and 9: reward models


def _rewards(run: Run) -> Iterator[Row]:
    members = run.config["ensemble"]["count"]
    yield Row(
        *("Figure 1", "members on one response", "10", f"{members:g}"),
        *(_verdict(members == 10), "Its bars have no numbers."),
    )
    of = run.variance[(run.variance["side"] == "accepted") & (run.variance["subset"] == "all")]
    if of[["mean", "median", "max"]].notna().any(axis=None):
        for name, paper in (("mean", "above 4"), ("median", "above 3"), ("max", "14")):
            quantity = f"{name} variance of a response's rewards, over sections"
            why = f"The caption says {'3.81' if name == 'median' else 'close to 10'}. "
            why = "" if name == "mean" else why
            row = Row("Figure 6", quantity, paper, _span(of[name]), NOT_COMPARABLE)
            yield row._replace(why=f"{why}{OTHER_SCALE}")
    end = run.base[run.base["split"] == "train"].tail(20)
    loss = float(end["loss"].mean())
    stop = run.config["reward"]["stop_loss"]
    yield Row(
        *("Figure 8", "loss at which the base model's training stops", "0.3, or below 0.4"),
        *(number(loss), NOT_COMPARABLE),
        f"The mean of the last 20 steps; key reward.stop_loss, {number(stop)}.",
    )
    if run.config["ensemble"].get("ridge") is None:
        last = run.heads[run.heads["split"] == "train"].groupby(["ensemble", "head"]).tail(20)
        yield Row(
            *("Figure 8", "mean loss at which the heads' training ends", "about 0.2"),
            *(number(float(last["loss"].mean())), NOT_COMPARABLE, "The mean of the last 20 steps."),
        )
    overall = run.accuracy[run.accuracy["level"] == "overall"]
    (base,) = overall.loc[overall["model"] == "base", ["accuracy", "se"]].to_numpy()
    heads = overall.loc[overall["model"] == "head", "accuracy"]
    half = stats.norm.ppf((1 + LEVEL) / 2) * base[1]
    yield Row(
        *("Figure 9", "accuracy of the heads", "close to the full model's"),
        _span(heads, _percent),
        _verdict(bool((heads - base[0]).abs().max() <= half)),
        f"The base model: {_percent(base[0])} ± {_percent(half)} ({LEVEL:.0%} interval).",
    )


# --- Figures 7 and 12: judge scores


def _scores(run: Run) -> Iterator[Row]:
    names = {name: method_of(run.config, name) for name in ("vanilla", "variance_aware")}
    summary = None if run.summary is None else run.summary.set_index("method")
    for item, of in printed.SCORES.items():
        ratio = of.vanilla[1] / of.aware[1]
        level = (1 + LEVEL) / 2
        ends = (ratio / stats.f.ppf(end, *2 * [of.policies - 1]) for end in (level, 1 - level))
        both = summary is not None and set(names.values()) <= set(summary.index)
        quantities = ("policies of each method", "variance ratio, vanilla over variance-aware")
        if not both:
            why = "The scenario trains no policies of both methods; keys `methods` and `seeds`."
            yield Row(item, quantities[0], str(of.policies), why=why)
            continue
        vanilla, aware = (summary.loc[names[name]] for name in ("vanilla", "variance_aware"))
        here = int(aware["policies"])
        why = f"Of {aware['units']:g} members; key `seeds`."
        yield Row(
            item, quantities[0], str(of.policies), str(here), _verdict(here == of.policies), why
        )
        # Printed intervals take policies as independent, which those of one head are not.
        said = f"{number(ratio)} ({' to '.join(map(number, ends))})"
        found = run.tests[run.tests["quantity"] == "variance_ratio"]
        found = found[found["method"] == names["variance_aware"]].iloc[0]
        low, high = found["low"], found["high"]
        text = number(found["estimate"])
        if np.isnan(low):
            agrees, why = NOT_GIVEN, "Too few policies for an interval."
        else:
            text += f" ({number(low)} to {number(high)})"
            agrees = _verdict(low <= ratio <= high)
            why = "Whether our interval includes the printed ratio. The printed one takes all "
            why += "policies as independent, and ours those of different members."
            if low <= min(ratio, 1) and max(ratio, 1) <= high:
                agrees = NOT_GIVEN
                why = "Our interval includes the printed ratio, and 1: too few policies to tell."
        yield Row(item, quantities[1], said, text, agrees, why)
        for name, row, (mean, variance) in (
            ("vanilla", vanilla, of.vanilla),
            ("variance-aware", aware, of.aware),
        ):
            yield Row(
                *(item, f"mean score, {name}", number(mean), number(row["score"])),
                *(NOT_COMPARABLE, OTHER_SCALE),
            )
            ours = number(row["score_variance"])
            yield Row(
                *(item, f"variance of the scores, {name}", number(variance), ours),
                *(NOT_COMPARABLE, OTHER_SCALE),
            )
            chance = stats.norm.cdf((of.reference[0] - mean) / variance**0.5)
            spread = f"{_percent(row['worse_low'])} to {_percent(row['worse_high'])}"
            share = row["worse"] / row["policies"]
            yield Row(
                *(item, f"policies worse than the reference, {name}", _percent(chance)),
                f"{_percent(share)} ({spread})",
                _verdict(row["worse_low"] <= chance <= row["worse_high"]),
                "The paper's is what a normal distribution of its scores says.",
            )
        yield Row(
            *(item, "mean score, reference", number(of.reference[0])),
            *(number(aware["reference_score"]), NOT_COMPARABLE, OTHER_SCALE),
        )


def method_of(config: Mapping[str, Any], objective: str) -> str | None:
    """The first method of an objective, if any."""
    names = (name for name, method in config["methods"].items() if method["objective"] == objective)
    return next(names, None)


# --- Figures 10 and 11: training


def _training(run: Run) -> Iterator[Row]:
    low, high = printed.FINAL_KL
    for name in ("vanilla", "variance_aware"):
        method = method_of(run.config, name)
        if run.summary is None or method is None:
            why = f"The scenario trains no policies of {name_of(name)}."
            yield Row("Figure 10", f"final KL, {name_of(name)}", f"{low:g} to {high:g}", why=why)
            yield Row("Figure 11", f"final proxy reward, {name_of(name)}", why=why)
            continue
        kl = float(run.summary.set_index("method").loc[method, "kl"])
        beta = run.config["methods"][method]["beta"]
        aim = f"a KL of {beta['kl']:g}" if isinstance(beta, Mapping) else f"no KL, but {beta:g}"
        yield Row(
            *("Figure 10", f"final KL, {name_of(name)}", f"{low:g} to {high:g}", number(kl)),
            *(_verdict(low <= kl <= high), f"Key methods.{method}.beta asks for {aim}."),
        )
        why = "Curves without numbers in the text."
        proxy = number(run.proxy.get(method, np.nan))
        yield Row("Figure 11", f"final proxy reward, {name_of(name)}", here=proxy, why=why)


# --- Table 1


def _benchmark(run: Run) -> Iterator[Row]:
    for model, (overall, *sections) in printed.REWARDBENCH.items():
        found = float(np.average(sections, weights=section_weights(SECTIONS)))
        # Five rounded numbers move their mean by up to 0.05, and the printed one by as much.
        yield Row(
            *("Table 1", f"average of {model}, by RewardBench's rule", f"{overall:g}"),
            *(f"{found:.2f}", _verdict(abs(found - overall) <= 0.1)),
        )
    table = rewardbench_table(run.accuracy)
    ours = table[table["origin"] == "here"]
    if not len(ours):
        sections = ", ".join(sorted(set(run.accuracy["section"]) - {"all"}))
        why = f"Key benchmark.sources has no RewardBench data, but sections {sections}."
        yield Row("Table 1", "the paper's reward model", _values(table, "Our Model"), why=why)
    for row in ours.to_dict("records"):
        yield Row(
            *("Table 1", f"the paper's reward model, and our {row['model']}"),
            *(_values(table, "Our Model"), _values(table, row["model"]), NOT_COMPARABLE),
            "The paper does not say which of its heads, or whether their mean, is its model.",
        )


def _values(table: pd.DataFrame, model: str) -> str:
    (row,) = table[table["model"] == model].drop(columns=["model", "origin"]).to_numpy(float)
    return " | ".join(f"{value:.1f}" if np.isfinite(value) else NOTHING for value in row)


# --- Tables 2, 4, 6 and 7: settings


def _settings(run: Run) -> Iterator[Row]:
    for item, section in (("Table 2", "reward"), ("Table 4", "ensemble")):
        yield from _of_section(item, run.config[section], section)
        paper, ridge = str(printed.STEPS[item]), run.config[section].get("ridge")
        losses = run.base if section == "reward" else run.heads
        if ridge is not None:
            yield Row(item, "steps", paper, why="It is not trained in steps.")
            yield Row(item, "optimizer", "paged AdamW, 32 bit", "L-BFGS, float64", "no")
            continue
        steps = f"{losses['step'].max():g}"
        why = f"{run.pairs:,} training pairs."
        yield Row(item, "steps", paper, steps, _verdict(steps == paper), why)
        yield Row(item, "optimizer", "paged AdamW, 32 bit", "AdamW, float32", "no")
        yield Row(item, "schedule", "cosine", "cosine", "yes")
    for item, objective in (("Table 6", "vanilla"), ("Table 7", "variance_aware")):
        method = method_of(run.config, objective)
        if method is None:
            why = f"The scenario has no method of the objective {objective}."
            yield Row(item, "KL coefficient", f"{printed.KL_COEFFICIENTS[item]:g}", why=why)
            continue
        ppo = {**run.config["ppo"], **run.config["methods"][method].get("ppo", {})}
        yield from _of_section(item, ppo, "ppo")
        given = run.config["methods"][method]["beta"]
        beta = given if not isinstance(given, Mapping) else np.nan
        why = f"Key methods.{method}.beta."
        if np.isnan(beta) and run.summary is not None:
            beta = float(run.summary.set_index("method").loc[method, "beta"])
            why = f"Found for a KL of {given['kl']:g}; key methods.{method}.beta."
        paper = printed.KL_COEFFICIENTS[item]
        agrees = NOT_GIVEN if np.isnan(beta) else _verdict(bool(np.isclose(beta, paper)))
        yield Row(item, "KL coefficient", f"{paper:g}", number(beta), agrees, why)
        yield Row(item, "adaptive KL", "off", "off", "yes", "A coefficient stays as it is.")


def _of_section(item: str, section: Mapping[str, Any], called: str) -> Iterator[Row]:
    called = "ensembles.NAME" if called == "ensemble" else called
    for quantity, paper, key in printed.SETTINGS[item]:
        here, why = section.get(key), f"Key {called}.{key}."
        unused = section.get("ridge") is not None
        if here is None or unused:
            why = (
                f"With {called}.ridge heads are trained to the end."
                if unused
                else (f"The kind has no key {key}.")
            )
            yield Row(item, quantity, f"{paper:g}", why=why)
            continue
        agrees = _verdict(bool(np.isclose(here, paper)))
        yield Row(item, quantity, f"{paper:g}", f"{here:g}", agrees, why)


# --- Tables 3, 5 and 8: resources


def _resources(run: Run) -> Iterator[Row]:
    whose = {"Table 3": "the base model", "Table 5": "the ensemble", "Table 8": "one policy"}
    for item, paper in printed.RESOURCES.items():
        used = run.used.get(item)
        why = f"Of {whose[item]}, on this machine; the paper has A40s."
        if used is None:
            why = f"No job of this run trained {whose[item]}, or its log is gone."
        for name, unit in (("hours", "hours"), ("memory", "GB of memory"), ("disk", "GB of disk")):
            here = np.nan if used is None else getattr(used, name)
            agrees = NOT_GIVEN if np.isnan(here) else NOT_COMPARABLE
            yield Row(item, unit, f"{getattr(paper, name):g}", number(here), agrees, why)


# --- Theory


def _theory(table: pd.DataFrame) -> Iterator[Row]:
    for row in table.itertuples():
        item = re.match(r"(Figure|Theorem) [\d.]+", row.quantity)[0]
        quantity = row.quantity.removeprefix(item).lstrip(",: ")
        yield Row(item, quantity, number(row.paper), number(row.here), row.agrees, row.why or "")


# --- Algorithms, and the later papers

ALGORITHMS = {
    "variance-aware PPO (2410.23726, Section 5)": (
        "r - beta sigma log(pi / pi0)",
        "variance_aware",
    ),
    "variance-weighted KL (2410.23726, Section 2)": (
        "the same with sigma^2, differentiated",
        "exact_gradient",
    ),
    "vanilla PPO (2410.23726, Table 6)": ("r - beta log(pi / pi0)", "vanilla"),
    "reward-robust RLHF (2409.15360)": (
        "alpha E[r of the surest member] + (1 - alpha) min_k E[r_k] - beta KL",
        "reward_robust",
    ),
}
"""Each printed objective, and the name of ours."""


def _algorithms(run: Run) -> Iterator[Row]:
    for quantity, (paper, objective) in ALGORITHMS.items():
        method = method_of(run.config, objective)
        why = f"Trained as the method {method}." if method else "No method trains it here."
        yield Row("Algorithms", quantity, paper, f"objective {objective}", CHOSEN, why)


def _later_papers(run: Run) -> Iterator[Row]:
    item = "Later papers"
    names = [method_of(run.config, name) for name in ("variance_aware", "vanilla")]
    quantity = "2507.15906: risk of a policy worse than the default, variance-aware"
    if run.summary is None or not set(names) <= set(run.summary["method"]):
        yield Row(item, quantity, "provably smaller", why="The scenario trains no such policies.")
    else:
        aware, vanilla = (run.summary.set_index("method").loc[name] for name in names)
        here = " against ".join(
            f"{row['worse']:g} of {row['policies']:g}" for row in (aware, vanilla)
        )
        agrees, why = NOT_GIVEN, "The intervals of the two shares overlap."
        if aware["worse_high"] < vanilla["worse_low"]:
            agrees, why = "yes", ""
        elif aware["worse_low"] > vanilla["worse_high"]:
            agrees, why = "no", ""
        yield Row(item, quantity, "provably smaller", here, agrees, why)
    ensemble, method = run.config["ensemble"], method_of(run.config, "reward_robust")
    gaussian = ensemble["kind"] == "gaussian"
    yield Row(
        *(item, "2409.15360: members with a mean and a standard deviation", "5"),
        f"{ensemble['count']:g}" if gaussian else NOTHING,
        _verdict(ensemble["count"] == 5) if gaussian else NOT_GIVEN,
        "Keys ensembles.NAME.kind (gaussian) and ensembles.NAME.count.",
    )
    alpha = run.config["methods"][method].get("alpha", 0.3) if method else np.nan
    yield Row(
        *(item, "2409.15360: the best alpha", "about 0.2 to 0.4, as summaries say", number(alpha)),
        *(CHOSEN, f"Key methods.{method or 'NAME'}.alpha; 1 is the nominal reward alone."),
    )


# --- Contradictions


def _choices(run: Run) -> Iterator[Row]:
    config = run.config
    aware = method_of(config, "variance_aware")
    power = NOTHING
    if aware is not None:
        power = {1: "sigma", 2: "sigma^2"}.get(config["methods"][aware].get("power", 1), "another")
    ensemble = config["ensemble"]
    started = " and one is the trained one" if ensemble.get("first") == "base" else ""
    rate = config["ppo"]["learning_rate"]
    prompts = config["prompts"]
    for quantity, paper, here, key in (
        (
            "weight of the KL",
            "sigma^2 (Section 2, Theorem 3.6), sigma (Section 5)",
            power,
            f"methods.{aware or 'NAME'}.power",
        ),
        (
            "loss at which the base model's training stops",
            "0.3 (Section 4), below 0.4 (appendix)",
            f"{config['reward']['stop_loss']:g}",
            "reward.stop_loss",
        ),
        (
            "heads",
            "9 beside the trained one (Section 4), 10 (appendix)",
            f"{ensemble['count']:g}{started}",
            "ensembles.NAME.count and ensembles.NAME.first",
        ),
        (
            "training pairs",
            "about 50,000 (text), 4,125 steps of 32, or 132,000 (Table 2)",
            f"{run.pairs:,}",
            "preferences.train",
        ),
        (
            "learning rate of PPO",
            "1.414e-5 (vanilla, Table 6), 1.5e-5 (variance-aware, Table 7)",
            f"{rate:g} for all methods",
            "ppo.learning_rate",
        ),
        (
            "tokens of a prompt",
            "2 to 8 (text); the sampler of TRL gives 2 to 7 then",
            f"{prompts['min_tokens']} to {prompts['max_tokens']}",
            "prompts.max_tokens",
        ),
        (
            "how policies get the same KL",
            "coefficients tuned by hand",
            "coefficients found by a search, where a method asks for a KL",
            "methods.NAME.beta",
        ),
    ):
        yield Row("Choices", quantity, paper, here, CHOSEN, f"Key {key}.")
    first, second = printed.SCORES.values()
    difference = first.reference[0] - second.reference[0]
    spread = sum(of.reference[1] / of.policies for of in (first, second)) ** 0.5
    p = 2 * stats.norm.sf(difference / spread)
    yield Row(
        *("Choices", "the reference's mean score, Figures 7 and 12"),
        *(f"{first.reference[0]:g} and {second.reference[0]:g}", f"p = {p:.2g} for one policy"),
        *("no", "The reference is one policy, and its two scores differ by more than chance."),
    )
