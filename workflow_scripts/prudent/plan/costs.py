"""What each rule with a model takes: jobs, memory, disk and operations.

Lengths are the longest that the configuration allows, and no training stops early, so all of it is
an upper bound. What depends on a number of rows that is not known is None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from prudent.plan.memory import (
    BUFFER,
    SINGLE,
    Memory,
    activations,
    language_training,
    reward_training,
    sampling,
    scoring,
)
from prudent.plan.models import Model, forward, generation, read_model, scratch
from prudent.rewards.settings import ON_BASE
from prudent.workflow.config import (
    Config,
    ensemble_settings,
    exact_methods,
    method_settings,
    models_of,
    used_ensembles,
    uses_last_layer,
)

EVALUATIONS = 4
"""Times that a reward model in training scores the validation pairs."""
TRIES = 6
"""The most coefficients that a search tries (``prudent.policies.target_kl``)."""
SCORED_TOKENS = 8192
"""Tokens that are scored at once (``prudent.rewards.features``)."""
ANSWERED, SAMPLED = 256, 4096
"""Responses that are sampled at once: of policies, and of the reference for exact policies."""
BACKWARD = 3
"""Operations of a forward and a backward pass, in forward passes."""


@dataclass(frozen=True)
class Stage:
    """One rule: its jobs, one job's memory, and what all of them write and compute."""

    rule: str
    jobs: int
    memory: Memory
    disk: float | None = 0.0
    """Bytes that all jobs write and keep."""
    training: float | None = 0.0
    """Operations of updates, of all jobs."""
    generation: float | None = 0.0
    """Operations of sampling and scoring, of all jobs."""
    bfloat16: bool = False
    left_out: str = ""
    """What is not counted, in words."""


@dataclass(frozen=True)
class Study:
    """A scenario with its models, and the rows of its tables; None where they are not known."""

    config: dict[str, Any]
    reference: Model
    backbone: Model
    judge: Model | None
    """Who judges; the world's judge takes no model."""
    trained: Model | None
    """The judge that is trained, whether it judges or is only asked besides."""
    rows: Mapping[str, int | None]

    @property
    def prompt(self) -> int:
        return self.config["prompts"]["max_tokens"]

    @property
    def response(self) -> int:
        return self.config["sampling"]["response_length"]

    @property
    def length(self) -> int:
        """Tokens of a prompt and a response."""
        return self.prompt + self.response

    @property
    def read(self) -> int:
        """Tokens that a reward model reads of a prompt and a response."""
        reward = self.config["reward"]
        same = reward["checkpoint"] == "reference" and reward["template"] == "continuation"
        return min(reward["max_length"], self.length) if same else reward["max_length"]

    @property
    def judge_length(self) -> int:
        """Tokens that a judge reads; one that is given reads as many as the reward model."""
        return Config(**self.config).judge_reward().max_length

    def share(self, section: str, share: float) -> int | None:
        """So large a part of a table's rows."""
        rows = self.rows[section]
        return None if rows is None else round(rows * share)

    @property
    def pairs(self) -> int | None:
        """Pairs that a reward model is trained on."""
        settings = self.config["preferences"]
        left = self.share("preferences", 1 - settings["validation"] - settings["judge"])
        most = settings["train"]
        return most if left is None else min(left, most or left)


def study(config: dict[str, Any], rows: Mapping[str, int | None]) -> Study:
    """The models of an effective configuration; ``InputError`` where one's sizes are not known."""
    reference = config["reference"]
    if reference["checkpoint"] is None:
        sizes = ("width", "layers", "heads", "vocabulary", "context")
        policy = scratch(**{key: reference[key] for key in sizes})
    else:
        policy = read_model(reference["checkpoint"], reference["revision"])

    def of(reward: Mapping[str, Any]) -> Model:
        if reward["checkpoint"] == "reference":
            return policy
        return read_model(reward["checkpoint"], reward["revision"])

    judge, trained = config["judge"], None
    if judge["model"] == "trained" or config["diagnosis"]["trained_judge"]:
        trained = of(Config(**config).judge_reward().model_dump())
    if judge["model"] == "world":
        judging = None
    elif judge["model"] == "trained":
        judging = trained
    else:
        judging = read_model(judge["model"], judge["revision"])
    return Study(config, policy, of(config["reward"]), judging, trained, rows)


def stages(study: Study) -> list[Stage]:
    """The rules with a model that a run has, in the order of the pipeline."""
    return [stage for stage in _stages(study) if stage.jobs]


def _stages(study: Study) -> Iterator[Stage]:
    yield _reference(study)
    yield _preferences(study)
    yield from _rewards(study)
    yield from _exact(study)
    yield from _regimes(study)
    if study.config["seeds"]:
        yield from _policies(study)


def _times(rows: int | None, each: float) -> float | None:
    return None if rows is None else rows * each


def _sum(*parts: float | None) -> float | None:
    return None if None in parts else sum(parts)


def _wanted(setting: Any) -> bool:
    """Whether a job on a GPU computes in bfloat16, which `auto` does on one of these."""
    return setting is True or setting == "auto"


def _reference(study: Study) -> Stage:
    settings, model = study.config["reference"], study.reference
    saved = SINGLE * model.policy
    if settings["checkpoint"] is not None and not settings["train"]:
        return Stage("train_reference", 1, Memory(weights=saved), saved)
    length, rows = settings["context"], settings["batch_size"]
    kept = study.config["texts"]["validation"]
    text = forward(model, length, length, length)
    passes = settings["epochs"] * (BACKWARD * (1 - kept) + kept)
    return Stage(
        "train_reference",
        1,
        language_training(model, rows, length, True, settings["checkpoint"] is None),
        saved,
        _times(study.rows["texts"], passes * text),
        bfloat16=True,  # wherever there is a GPU
    )


def _preferences(study: Study) -> Stage:
    """Two responses for each sampled pair; given pairs take no model of the run's."""
    drawn = sum(s.get("sampled") or 0 for s in study.config["preferences"]["sources"])
    gold = (
        study.config["preferences"]["gold"] != "world"
        and Config(**study.config).preferences.labelled
    )
    model = study.reference
    memory = (
        sampling(model, min(ANSWERED, 2 * drawn), study.prompt, study.response)
        if drawn
        else Memory()
    )
    return Stage(
        "prepare_preferences",
        1,
        memory,
        _times(study.rows["preferences"], 2 * SINGLE * study.length),
        generation=2 * drawn * generation(model, study.prompt, study.response),
        left_out="the labels by preferences.gold" if gold else "",
    )


def _reward_operations(
    study: Study, settings: Mapping[str, Any], pairs: int | None, model: Model
) -> float | None:
    """Training of a reward model, with the validation pairs along the way."""
    length = settings["max_length"]
    text = forward(model, length, length)
    held = study.share("preferences", study.config["preferences"]["validation"])
    passes = BACKWARD + settings["gradient_checkpointing"]
    return _sum(
        _times(pairs, passes * settings["epochs"] * 2 * text),
        _times(held, EVALUATIONS * 2 * text),
    )


def _reward_memory(settings: Mapping[str, Any], model: Model, half: bool) -> Memory:
    """Of the pairs that are computed at once."""
    return reward_training(
        *(model, settings["batch_size"] // settings["gradient_accumulation_steps"]),
        *(settings["max_length"], half),
        checkpointing=settings["gradient_checkpointing"],
    )


def _reward_model(
    study: Study, rule: str, settings: Mapping[str, Any], pairs: int | None, model: Model
) -> Stage:
    half = _wanted(settings["bfloat16"])
    return Stage(
        rule,
        1,
        _reward_memory(settings, model, half),
        SINGLE * model.reward,
        _reward_operations(study, settings, pairs, model),
        bfloat16=half,
    )


def _models(study: Study, name: str) -> int:
    """Whole reward models that one draw of an ensemble loads to score."""
    ensemble = study.config["ensembles"][name]
    return ensemble["count"] if ensemble["kind"] == "members" else 1


def _passes(study: Study, name: str) -> int:
    """Forward passes with which all draws of an ensemble score a response."""
    ensemble = study.config["ensembles"][name]
    if ensemble["kind"] in ON_BASE:
        return 1
    each = ensemble["count"] if ensemble["kind"] != "warm" else 1
    return ensemble["draws"] * each


def _weights(study: Study, name: str) -> int:
    """Weights of what scores with all draws of an ensemble."""
    ensemble = study.config["ensembles"][name]
    draws = 1 if ensemble["kind"] in ON_BASE else ensemble["draws"]
    return draws * _models(study, name) * study.backbone.reward


def _scored(study: Study, weights: float, length: int) -> Memory:
    return scoring(weights, study.backbone, max(1, SCORED_TOKENS // length), length)


def _judged(study: Study, model: Model | None) -> tuple[Memory, float]:
    """The memory of a judge that scores responses, and its operations for each of them."""
    if model is None:
        return Memory(), 0.0
    length = study.judge_length
    memory = scoring(model.reward, model, max(1, SCORED_TOKENS // length), length)
    return memory, forward(model, length, length)


def _rewards(study: Study) -> Iterator[Stage]:
    config, model = study.config, study.backbone
    reward, names = config["reward"], used_ensembles(config)
    base = _reward_model(study, "train_reward_base", reward, study.pairs, model)
    yield base
    if study.trained is not None:
        judge = Config(**config).judge_reward().model_dump()
        pairs = study.share("preferences", config["preferences"]["judge"])
        yield _reward_model(study, "train_judge", judge, pairs, study.trained)
    length = reward["max_length"]
    text = forward(model, length, length)
    kinds = {config["ensembles"][name]["kind"] for name in names}
    rewarding = config["ensembles"][config["ensemble"]]
    fresh = rewarding["kind"] == "heads" and config["exact"]["ensembles"] > 0
    if kinds & {*ON_BASE} or fresh or any(map(uses_last_layer, exact_methods(config).values())):
        yield Stage(
            "compute_features",
            1,
            _scored(study, model.reward, length),
            _times(study.rows["preferences"], 2 * SINGLE * model.width),
            generation=_times(study.rows["preferences"], 2 * text),
        )
    yield from _members(study, base, names)
    calibrated = [m for m in config["methods"].values() if isinstance(m["beta"], dict)]
    if config["seeds"] and calibrated:
        yield replace(_ensemble(study, base, config["ensemble"], 1), rule="train_pilots")
    if count := config["exact"]["replicates"]:
        trained = max(1, models_of(rewarding))
        yield replace(
            base,
            rule="train_replicate",
            jobs=count,
            disk=count * trained * base.disk,
            training=_times_all(base.training, count * trained),
        )
    diagnosis = config["diagnosis"]
    answers = diagnosis["prompts"] * diagnosis["responses"]
    passes = sum(_passes(study, name) for name in names)
    passes += config["exact"]["replicates"]
    weights = max(_weights(study, name) for name in names)
    asked = study.trained if diagnosis["trained_judge"] else None
    judges = [_judged(study, study.judge), _judged(study, asked)]
    yield Stage(
        "diagnose_rewards",
        1,
        _larger(
            sampling(study.reference, min(ANSWERED, answers), study.prompt, study.response),
            _scored(study, weights, study.read),
            *(memory for memory, _ in judges),
        ),
        SINGLE * answers * study.length,
        generation=answers
        * (
            generation(study.reference, study.prompt, study.response)
            + passes * forward(model, study.read, study.read)
            + sum(each for _, each in judges)
        ),
    )
    weights = _weights(study, config["ensemble"])
    each = 2 * text * (1 + _passes(study, config["ensemble"]))
    yield Stage(
        "score_benchmark",
        1,
        _scored(study, weights, length),
        _times(study.rows["benchmark"], 2 * SINGLE * rewarding["draws"] * rewarding["count"]),
        generation=_times(study.rows["benchmark"], each),
    )


def _times_all(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _larger(*memories: Memory) -> Memory:
    return max(memories, key=lambda memory: memory.peak)


def _members(study: Study, base: Stage, names: list[str]) -> Iterator[Stage]:
    """The independent models of all ensembles as one row, and the ensembles as another."""
    config = study.config
    calibrated = config["seeds"] and any(
        isinstance(method["beta"], dict) for method in config["methods"].values()
    )
    jobs, work, disk = 0, 0.0, 0.0
    for name in names:
        ensemble = config["ensembles"][name]
        if not (models := models_of(ensemble)):
            continue
        settings = ensemble_settings(ensemble)
        # The pilots' ensemble is a draw of its own.
        draws = ensemble["draws"] + (1 if calibrated and name == config["ensemble"] else 0)
        jobs += draws * -(-models // settings["per_job"])
        epochs = settings["epochs"] or config["reward"]["epochs"]
        given = config["reward"] | {"epochs": epochs}
        one = _reward_operations(study, given, study.pairs, study.backbone)
        work = None if work is None or one is None else work + draws * models * one
        disk += draws * models * base.disk
    yield replace(base, rule="train_members", jobs=jobs, disk=disk, training=work)
    parts = [_ensemble(study, base, name, config["ensembles"][name]["draws"]) for name in names]
    yield Stage(
        "train_ensemble",
        len(parts),
        max((part.memory for part in parts), key=lambda memory: memory.peak),
        _sum(*(part.disk for part in parts)),
        _sum(*(part.training for part in parts)),
        _sum(*(part.generation for part in parts)),
        parts[0].bfloat16,
        "; ".join(dict.fromkeys(part.left_out for part in parts if part.left_out)),
    )


def _ensemble(study: Study, base: Stage, name: str, draws: int) -> Stage:
    """The training of some draws of an ensemble."""
    config, model = study.config, study.backbone
    ensemble = config["ensembles"][name]
    kind, count, settings = ensemble["kind"], ensemble["count"], ensemble_settings(ensemble)
    rule, pairs, length = "train_ensemble", study.pairs, config["reward"]["max_length"]
    text = forward(model, length, length)
    if kind in ON_BASE:
        head, widths = 0, [model.width, *settings.get("hidden", []), 1]
        for wide, next_wide in zip(widths, widths[1:], strict=False):
            head += (wide + 1) * next_wide
        heads = draws * count * head * (2 if kind == "gaussian" else 1)
        features = 2 * SINGLE * model.width * (study.rows["preferences"] or 0)
        converged = settings.get("ridge") is not None
        work = None if pairs is None else 12 * pairs * heads * settings.get("epochs", 0)
        return Stage(
            rule,
            1,
            Memory(
                weights=SINGLE * heads,
                gradients=SINGLE * heads,
                optimizer=2 * SINGLE * heads,
                activations=features,
            ),
            SINGLE * (heads + model.reward),
            0.0 if converged else work,
            left_out="heads that are trained to convergence" if converged else "",
        )
    if kind == "adapters":
        rank = settings["rank"] * model.layers * 2 * (2 * model.width + model.keys)
        rank = count * (rank + model.width)
        # The backbone's own weights get no gradients, which saves a third of the operations.
        work = _times(pairs, (BACKWARD - 1) * settings["epochs"] * 2 * text * count * draws)
        rows = 2 * settings["batch_size"] * count
        kept = activations(model, rows, length)
        memory = Memory(SINGLE * (model.reward + rank), SINGLE * rank, 2 * SINGLE * rank, kept)
        return Stage(rule, 1, memory, SINGLE * draws * (model.reward + rank), work)
    if kind == "dropout":
        epochs = settings["epochs"] or config["reward"]["epochs"]
        given = config["reward"] | {"epochs": epochs}
        one = _reward_operations(study, given, pairs, model)
        return replace(base, rule=rule, disk=draws * base.disk, training=_times_all(one, draws))
    # Members are gathered, or averaged: they have been trained.
    weights = models_of(ensemble) * model.reward
    kept = count if kind == "members" else 1
    return Stage(rule, 1, _scored(study, weights, length), SINGLE * draws * kept * model.reward)


def _exact(study: Study) -> Iterator[Stage]:
    config, model = study.config, study.reference
    exact, backbone = config["exact"], study.backbone
    given = exact["responses"] is not None
    answers = exact["prompts"] * exact["samples"]
    read = study.read
    score = forward(backbone, read, read)
    sampled = generation(model, study.prompt, study.response)
    yield Stage(
        "sample_reference",
        1,
        Memory() if given else sampling(model, min(SAMPLED, answers), study.prompt, study.response),
        SINGLE * answers * study.length,
        generation=0.0 if given else answers * sampled,
    )
    judged, each = _judged(study, study.judge)
    rewarding = config["ensemble"]
    yield Stage(
        "score_reference",
        1,
        _larger(_scored(study, _weights(study, rewarding), read), judged),
        SINGLE * answers * config["ensembles"][rewarding]["count"],
        generation=answers * (score * (_passes(study, rewarding) + exact["replicates"]) + each),
    )
    if exact["checked"]:
        names = used_ensembles(config)
        weights = max(_weights(study, name) for name in names)
        passes = sum(_passes(study, name) for name in names)
        yield Stage(
            "exact_kinds",
            1,
            _scored(study, weights, read),
            generation=answers * score * passes,
        )


def _regimes(study: Study) -> Iterator[Stage]:
    config, model = study.config, study.backbone
    grid, reward, noises = config["regimes"], config["reward"], len(config["regimes"]["noise"])
    answers = config["exact"]["prompts"] * config["exact"]["samples"]
    score = answers * forward(model, study.read, study.read)
    jobs, models, work = 0, 0, 0.0
    for pool in grid["pools"]:
        jobs += noises * -(-pool["replicates"] // pool["per_job"])
        models += noises * pool["replicates"]
        left = study.share("preferences", 1 - config["preferences"]["validation"])
        pairs = left if pool["pairs"] == "all" else pool["pairs"]
        one = _reward_operations(study, reward, pairs, model)
        work = _sum(work, _times_all(one, noises * pool["replicates"]))
    half = _wanted(reward["bfloat16"])
    memory = _reward_memory(reward, model, half)
    saved = SINGLE * model.reward * models
    yield Stage("train_pool", jobs, memory, saved, work, bfloat16=half)
    yield Stage(
        "regime_policies",
        noises * len(grid["pools"]),
        _scored(study, model.reward, study.read),
        generation=models * score,
    )


def policy_memory(study: Study, method: str) -> Memory:
    """One policy: itself, its optimizer, the reference, a value network and the reward models."""
    settings, model = method_settings(study.config, method), study.reference
    half = _wanted(settings["bfloat16"])
    separate = model.backbone if settings["value_network"] == "separate" else 0
    learnt = model.policy + model.width + 1 + separate
    rewards = _weights(study, study.config["ensemble"])
    parts = settings["gradient_accumulation_steps"]
    rows, batch = settings["minibatch_size"] // parts, settings["batch_size"]
    # PPO replaces an activation of several operations by one kernel.
    model = replace(model, slow_gelu=False)
    networks = 2 if separate else 1
    kept = networks * activations(model, rows, study.length, half, eager=False)
    kept += min(BUFFER, SINGLE * rows * study.response * model.vocabulary)
    drawn = sampling(model, batch, study.prompt, study.response, half)
    scored = _scored(study, rewards, study.read)
    # Gradients of a minibatch's earlier parts are there beside these.
    earlier = SINGLE * learnt if parts > 1 else 0.0
    return Memory(
        weights=SINGLE * (learnt + model.policy + rewards),
        gradients=SINGLE * learnt,
        optimizer=2 * SINGLE * learnt,
        activations=kept + earlier,
        cache=drawn.cache,
        passing=max(drawn.passing, scored.passing),
    )


def policy_operations(study: Study, method: str) -> tuple[float, float]:
    """Operations of one policy's training: its updates, and its sampling and scoring."""
    settings, model = method_settings(study.config, method), study.reference
    length = study.length - 1  # nothing reads the last token
    read = forward(model, length, length, study.response)
    value = forward(model, length, length) if settings["value_network"] == "separate" else 0.0
    answers = settings["steps"] * settings["batch_size"]
    scores = forward(study.backbone, study.read, study.read)
    scores *= _passes(study, study.config["ensemble"])
    sampled = generation(model, study.prompt, study.response) + read + value + scores
    return answers * settings["epochs"] * BACKWARD * (read + value), answers * sampled


def _policies(study: Study) -> Iterator[Stage]:
    config, model, seeds = study.config, study.reference, study.config["seeds"]
    names = list(config["methods"])
    found = {name: policy_operations(study, name) for name in names}
    half = all(_wanted(method_settings(config, name)["bfloat16"]) for name in names)
    memory = max((policy_memory(study, name) for name in names), key=lambda m: m.peak)
    tested = config["judge"]["prompts"]
    answer = tested * generation(model, study.prompt, study.response)
    calibrated = [name for name in names if isinstance(config["methods"][name]["beta"], dict)]
    pilots = TRIES * config["pilots"]
    yield Stage(
        "calibrate_beta",
        len(calibrated),
        memory,
        0.0,
        pilots * sum(found[name][0] for name in calibrated),
        pilots * sum(found[name][1] + answer for name in calibrated),
        half,
    )
    yield Stage(
        "train_policy",
        len(names) * seeds,
        memory,
        SINGLE * len(names) * seeds * model.policy,
        seeds * sum(training for training, _ in found.values()),
        seeds * sum(rest for _, rest in found.values()),
        half,
    )
    texts, drawn = (
        len(names) * seeds,
        sampling(model, min(ANSWERED, tested), study.prompt, study.response),
    )
    # The log-probabilities under the reference need it beside the policy.
    both = replace(drawn, weights=2 * drawn.weights)
    read = tested * forward(model, study.length, study.length, 2 * study.response)
    size = SINGLE * tested * study.length
    yield Stage("respond", len(names), both, texts * size, generation=texts * (answer + 2 * read))
    yield Stage("respond_reference", 1, both, size, generation=answer + 2 * read)
    judged, each = _judged(study, study.judge)
    work = (texts + 1) * tested * each
    yield Stage("judge_responses", len(names) + 1, judged, generation=work)
    scores = (texts + 1) * tested * forward(study.backbone, study.read, study.read)
    rewarding = config["ensemble"]
    yield Stage(
        "reward_responses",
        len(names) + 1,
        _scored(study, _weights(study, rewarding), study.read),
        SINGLE * (texts + 1) * tested * config["ensembles"][rewarding]["count"],
        generation=scores * _passes(study, rewarding),
    )
