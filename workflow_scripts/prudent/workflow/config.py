"""The configuration: all settings of a run, and the rules across them.

The default scenario is ``config.yaml``; overlays are merged over it (see ``workflow.sources``), and
what neither says has the default of its settings class.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field

from prudent.data.settings import (
    BenchmarkSettings,
    PreferenceSettings,
    PromptSettings,
    TextSettings,
)
from prudent.errors import quoted
from prudent.plan.settings import PlanSettings
from prudent.policies.settings import ReferenceSettings, SamplingSettings
from prudent.ppo.settings import TrainingSettings
from prudent.rewards.settings import KINDS, ON_BASE, RewardSettings, SpreadSettings
from prudent.settings import (
    NAME_FORM,
    Amount,
    Count,
    Positive,
    Seed,
    Settings,
    Text,
    fault,
    listed,
    number_or,
    partial,
    suggest,
)
from prudent.workflow.objectives import Objective, objectives

# Words that YAML, pandas or a reader take for something else than a method's name.
NOT_NAMES = {"nan", "na", "null", "none", "true", "false", "yes", "no", "on", "off", "y", "n"}
NOT_NAMES |= {"inf", "all", "reference", "overall"}


def _method_name(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,99}", name) or name in NOT_NAMES:
        raise ValueError(NAME_FORM)
    return name


MethodName = Annotated[str, AfterValidator(_method_name)]


class PolicyTraining(TrainingSettings):
    """Training of the policies."""

    threads: Count = 1
    """CPU threads of one policy."""


PLAIN_MEMBERS = {"labels": "own", "learning_rates": None, "dropouts": None, "epochs": None}
PLAIN_MEMBERS |= {"start": "backbone"}
"""The settings with which members are what base reward models of replicates are."""

TrainingOverrides = partial(PolicyTraining, "TrainingOverrides")
RewardOverrides = partial(RewardSettings, "RewardOverrides")


class TargetKL(Settings):
    """The KL at which a method's policies are to end."""

    kl: Positive
    """KL to the reference policy, in nats a response, at which the policies are to end on average:
    the coefficient is then found by the stage `calibrate_beta`."""


class Method(Settings):
    """A method; the parameters of its objective are keys, too."""

    model_config = ConfigDict(extra="allow")

    objective: str
    """Function of `prudent/objectives`."""
    beta: number_or(TargetKL)
    """Coefficient of the KL penalty, or the KL for which it is found."""
    spread: SpreadSettings = SpreadSettings()
    """How the spread is taken, where the objective uses one."""
    ppo: TrainingOverrides = TrainingOverrides()
    """Settings of `ppo` that this method overrides."""


class Ensemble(Settings):
    """A reward ensemble; the settings of its kind are keys, too."""

    model_config = ConfigDict(extra="allow")

    kind: Literal[tuple(KINDS)]
    """What its members are; docs/ensembles.md has the kinds and their keys."""
    count: Annotated[int, Field(ge=2)] = 10
    """Members of an ensemble (K); the kind `warm` has one, whatever this says."""
    draws: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Ensembles (E) of fresh members. Those of heads share the base model, which is trained on the
    stored labels; those of independent members share nothing."""


class DiagnosisSettings(Settings):
    """The check of rewards on responses of the reference policy."""

    ensembles: Annotated[list[Text], Field(min_length=1)] | None = None
    """The ensembles that are checked; null checks the one that rewards the policies."""

    prompts: Count = 256
    """Prompts."""
    responses: Annotated[int, Field(ge=2, le=100_000)] = 8
    """Responses per prompt."""
    trained_judge: bool = False
    """Whether a judge that is trained on the judge's share of the pairs is asked, too, so that what
    it says of the ensembles stands beside what `judge.model` says."""


class ExactMethod(Settings):
    """A method whose policies are not trained; the parameters of its objective are keys, too."""

    model_config = ConfigDict(extra="allow")

    objective: str
    """Function of `prudent/objectives`."""
    spread: SpreadSettings = SpreadSettings()
    """How the spread is taken, where the objective uses one."""


class ExactSettings(Settings):
    """Optimal policies on responses of the reference policy, without training."""

    prompts: Count = 64
    """Test prompts."""
    samples: Annotated[int, Field(ge=2, le=1_000_000)] = 256
    """Responses of the reference policy to each prompt, of which the policies are made."""
    responses: Text | None = None
    """A table of responses to take instead, parquet, CSV or JSON lines with the columns `prompt`,
    `response` and, where known, `log_probability`; as many for each prompt."""
    ensembles: Amount = 100
    """Ensembles given the backbone, each of fresh labels and heads; other kinds than heads have
    those of their `draws`."""
    replicates: Amount = 0
    """Replicates, of which each draws pairs, labels, base reward model and ensemble anew."""
    kl: Annotated[list[Positive], Field(min_length=1)] = [0.3, 0.8]
    """KLs to the reference policy, in nats a response, at which methods are compared."""
    methods: dict[MethodName, ExactMethod] = {}
    """Methods beside those that are trained, by name."""
    checked: bool = False
    """Whether the optimal policies of every ensemble in `diagnosis.ensembles` are found, too, and
    not only those of the ensemble that rewards the policies."""


class PoolSettings(Settings):
    """Replicates of one number of pairs."""

    pairs: Count | Literal["all"]
    """Training pairs of each replicate; `all` takes those that are kept for neither validation nor
    a judge."""
    replicates: Annotated[int, Field(ge=3, le=10_000)] = 30
    """Replicates. Each draws its pairs and labels and trains a base reward model."""
    per_job: Count = 1
    """Base reward models that one job trains."""


class RegimeSettings(Settings):
    """A grid of rewards on which the methods' optimal policies are found, to see where one helps.

    It takes the samples of `exact`. Without pools there is no grid.
    """

    pools: list[PoolSettings] = []
    """Numbers of training pairs."""
    noise: Annotated[list[Positive], Field(min_length=1)] = [1.0]
    """Noise of the labels; the log-odds of the labeller are divided by it."""
    ensembles: list[Text] = []
    """Ensembles, one on each replicate's base model; of the kind members are the base models
    themselves."""
    members: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)] = [10]
    """Members of an ensemble."""
    kl: Annotated[list[Positive], Field(min_length=1)] = [0.5, 1.5]
    """KLs to the reference policy, in nats a response."""
    methods: list[Text] = []
    """Methods of `methods` or `exact.methods` that are held against the baseline and against their
    controls, which are found among these methods, too."""


class JudgeSettings(Settings):
    """Who judges the policies."""

    model: Text = "world"
    """The world's true reward (`world`), a reward model trained on the judge's share of the pairs
    (`trained`), or a folder or hub id of a reward model."""
    revision: str | None = None
    """Revision of the hub id."""
    prompts: Count = 512
    """Test prompts that every policy answers."""
    reward: RewardOverrides = RewardOverrides()
    """Settings of `reward` that a trained judge overrides."""


class StatisticsSettings(Settings):
    """How methods are compared."""

    baseline: str = "vanilla"
    """Method that the others are compared with."""
    permutations: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Label swaps of the permutation tests, where all of them are more."""
    margin: Annotated[float, Field(gt=1)] = 1.5
    """The least ratio of variances, baseline over method, that matters: where the interval of a
    ratio lies below it, the verdict is that the method does not reduce variance."""


class LimitSettings(Settings):
    """What a run may not exceed by mistake; raise them for a larger one."""

    jobs: Count = 100_000
    """Jobs."""
    weights: Count = 10_000_000_000
    """Weights of the models that are made from scratch, and of all ensembles' heads."""


class Config(Settings):
    """The configuration."""

    scenario: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]
    """Name of the scenario; its results go to `results/<scenario>/`."""
    seed: Seed = 0
    """Seed of the study; every random stream derives from it."""
    data_root: Text = "."
    """Folder that replaces `{data_root}` in the paths of the configuration."""
    environment: Literal["cpu", "gpu"] = "cpu"
    """Conda environment of the jobs, used with `--software-deployment-method conda`."""
    bad_rows: Literal["refuse", "drop"] = "refuse"
    """What becomes of a bad row (missing field, empty response, ...), refused with file and row
    number, or dropped and counted in the data card."""
    texts: TextSettings
    """Texts that the reference policy is trained on."""
    reference: ReferenceSettings = ReferenceSettings()
    """The reference policy."""
    prompts: PromptSettings
    """What the policies go on from, the first tokens of a text."""
    preferences: PreferenceSettings
    """Pairs of responses, one preferred to the other."""
    benchmark: BenchmarkSettings
    """Pairs that reward models are measured on, in sections and subsets."""
    sampling: SamplingSettings = SamplingSettings()
    """How responses are drawn, wherever a policy speaks."""
    reward: RewardSettings = RewardSettings()
    """The base reward model, trained on the pairs of split `train`."""
    ensembles: Annotated[dict[MethodName, Ensemble], Field(min_length=1)]
    """Reward ensembles, by name. Only those that are used are trained."""
    ensemble: str
    """The ensemble that rewards the policies."""
    diagnosis: DiagnosisSettings = DiagnosisSettings()
    """The check of rewards on responses of the reference policy."""
    exact: ExactSettings = ExactSettings()
    """Optimal policies on responses of the reference policy, without training."""
    regimes: RegimeSettings = RegimeSettings()
    """A grid of rewards, to see where a method helps."""
    methods: Annotated[dict[MethodName, Method], Field(min_length=1)]
    """The methods under comparison, by name."""
    seeds: Amount = 10
    """Policies per method; seed s takes the ensemble's draw s mod E, member (s div E) mod K and
    trial s div (E K). With 0 the run ends with the check of the rewards."""
    pilots: Annotated[int, Field(ge=1, le=1000)] = 2
    """Policies that are trained at each coefficient that a method with a KL for its `beta` tries;
    they have members and random streams of their own."""
    ppo: PolicyTraining = PolicyTraining()
    """Training of the policies."""
    judge: JudgeSettings = JudgeSettings()
    """Who judges the policies."""
    statistics: StatisticsSettings = StatisticsSettings()
    """How methods are compared."""
    limits: LimitSettings = LimitSettings()
    """What a run may not exceed by mistake."""
    plan: PlanSettings = PlanSettings()
    """What `snakemake plan` reckons with; no result depends on it."""

    # Jobs that are not of a policy; about as many as there are rules.
    OTHER_JOBS: ClassVar[int] = 30

    def rules(self) -> Iterator[tuple[str, str]]:
        """What does not fit across sections, from the settings alone."""
        yield from self._ensembles()
        yield from self._sizes()
        yield from self._methods()
        yield from self._regimes()
        yield from self._gold()
        yield from self._lengths()

    def _methods(self) -> Iterator[tuple[str, str]]:
        known = objectives()
        for name, method in self.methods.items():
            key = f"methods.{name}"
            yield from self._objective(key, method, known)
            if method.spread.center == "prompt":
                yield (
                    f"{key}.spread.center",
                    "is prompt, and PPO has one response to a prompt; expected none or reference, "
                    "or the method under `exact.methods`",
                )
            target, most = method.beta, math.log(self.exact.samples)
            if self.exact.responses is None and isinstance(target, TargetKL) and target.kl >= most:
                yield (
                    f"{key}.beta.kl",
                    f"is {target.kl:g}, and `exact.samples`, {self.exact.samples}, responses to a "
                    f"prompt represent policies up to {most:.2f}; expected less, or more responses",
                )
            own = method.ppo.model_dump(exclude_unset=True)
            if found := fault(PolicyTraining, self.ppo.model_dump() | own):
                yield f"{key}.ppo.{found[0]}", found[1]  # of keys that fit one by one
        for name, method in self.exact.methods.items():
            if name in self.methods:
                yield (
                    f"exact.methods.{name}",
                    "has the name of one of `methods`, which are compared anyway; expected another",
                )
            yield from self._objective(f"exact.methods.{name}", method, known)
        baseline = self.statistics.baseline
        if baseline not in self.methods:
            yield (
                "statistics.baseline",
                f"is {quoted(baseline)}, which is not a method"
                f"{suggest(baseline, list(self.methods))}; expected one of {listed(self.methods)}",
            )

    def _objective(
        self, key: str, method: Method | ExactMethod, known: dict[str, Objective]
    ) -> Iterator[tuple[str, str]]:
        """A method's objective, with its parameters and what it asks of the ensemble."""
        objective = known.get(method.objective)
        if objective is None:
            yield (
                f"{key}.objective",
                f"is {quoted(method.objective)}, which is no function in prudent/objectives"
                f"{suggest(method.objective, list(known))}; expected one of {listed(known)}",
            )
            return
        what = f"of a method with the objective {objective.name}"
        yield from _keys(key, method, objective.parameters, what)
        if not objective.spread and method.spread != SpreadSettings():
            using = [name for name, other in known.items() if other.spread]
            yield (
                f"{key}.spread",
                f"is set, and the objective {objective.name} uses no spread; expected one of "
                f"{listed(using)}, or no `spread`",
            )
        ensemble = self.ensembles.get(self.ensemble)
        if ensemble is None:
            return
        has = f"`ensemble`, {self.ensemble}, is of the kind {ensemble.kind}"
        if "std" in objective.asks and ensemble.kind != "gaussian":
            yield (
                f"{key}.objective",
                f"is {objective.name}, which needs members with a standard deviation of their own, "
                f"and {has}; expected one of the kind gaussian",
            )
        if uses_last_layer(method.model_dump()) and ensemble.kind not in ON_BASE:
            where = "objective" if "last_layer" in objective.asks else "spread.of"
            yield (
                f"{key}.{where}",
                f"needs the features of the base model, and {has}; expected one of the kinds "
                f"{', '.join(ON_BASE)}",
            )
        single = members_of(ensemble.model_dump()) < 2
        # Exact policies leave such a method out, with a warning: the default scenario has several.
        if objective.spread and single and isinstance(method, Method):
            yield (
                f"{key}.objective",
                f"is {objective.name}, which needs a spread of two members at least, and {has}, "
                "which has one member",
            )

    def _ensembles(self) -> Iterator[tuple[str, str]]:
        for name, ensemble in self.ensembles.items():
            what = f"of an ensemble of the kind {ensemble.kind}"
            yield from _keys(f"ensembles.{name}", ensemble, KINDS[ensemble.kind], what)
        named = {"ensemble": [self.ensemble], "diagnosis.ensembles": self.diagnosis.ensembles or []}
        for key, names in named.items():
            for name in names:
                if name not in self.ensembles:
                    yield (
                        key,
                        f"names {quoted(name)}, which is no ensemble"
                        f"{suggest(name, list(self.ensembles))}; expected one of "
                        f"{listed(self.ensembles)}",
                    )
        twice = self.diagnosis.ensembles or []
        if len(set(twice)) < len(twice):
            yield "diagnosis.ensembles", "names an ensemble twice; expected each once"

    def _regimes(self) -> Iterator[tuple[str, str]]:
        """A grid needs ensembles that replicates can have, and labels that can be drawn anew."""
        regimes = self.regimes
        lists = ("noise", "ensembles", "members", "kl", "methods")
        axes: dict[str, list[Any]] = {key: getattr(regimes, key) for key in lists}
        axes["pools"] = [pool.pairs for pool in regimes.pools]
        for key, values in axes.items():
            if len(set(values)) < len(values):
                yield f"regimes.{key}", "names a value twice; expected each once"
        for key in ("ensembles", "methods") if regimes.pools else ():
            if not getattr(regimes, key):
                yield f"regimes.{key}", "is empty; expected some, or no `pools`"
        held = held_methods(self.model_dump())
        for name in regimes.methods:
            if name not in held:
                yield (
                    "regimes.methods",
                    f"names {quoted(name)}, which is no method that is held against the baseline"
                    f"{suggest(name, list(held))}; expected one of {listed(held)}",
                )
        for name in regimes.ensembles:
            if name not in self.ensembles:
                yield (
                    "regimes.ensembles",
                    f"names {quoted(name)}, which is no ensemble"
                    f"{suggest(name, list(self.ensembles))}; expected one of "
                    f"{listed(self.ensembles)}",
                )
                continue
            ensemble = self.ensembles[name].model_dump()
            if ensemble["kind"] not in (*ON_BASE, "members"):
                yield (
                    "regimes.ensembles",
                    f"names {name}, which is of the kind {ensemble['kind']}; expected one of the "
                    f"kinds {', '.join((*ON_BASE, 'members'))}",
                )
            elif ensemble["kind"] == "members" and any(
                ensemble_settings(ensemble)[key] != value for key, value in PLAIN_MEMBERS.items()
            ):
                yield (
                    "regimes.ensembles",
                    f"names {name}, whose members differ from base reward models; expected no "
                    f"{', '.join(PLAIN_MEMBERS)}",
                )
        if regimes.pools and set(regimes.noise) != {1.0} and not self.preferences.labelled:
            yield (
                "regimes.noise",
                "has other values than 1, and the labels of `preferences.sources` are given; "
                "expected pairs that `preferences.gold` labels, or [1.0]",
            )

    def _gold(self) -> Iterator[tuple[str, str]]:
        """The world's true reward knows the world's prompts alone."""
        of_the_world = all(source.kind == "world" for source in self.prompts.sources)
        relabelled = any(source.relabel for source in self.preferences.sources)
        sampled_elsewhere = self.preferences.sampled and not of_the_world
        if self.preferences.gold == "world" and (relabelled or sampled_elsewhere):
            yield (
                "preferences.gold",
                "is world, which knows the embedded world's prompts alone, and the pairs to label "
                "have others; expected a folder or hub id of a reward model",
            )
        if self.judge.model == "world" and not of_the_world:
            yield (
                "judge.model",
                "is world, which knows the embedded world's prompts alone, and `prompts.sources` "
                "are others; expected trained, or a folder or hub id of a reward model",
            )
        if self.judge.model == "trained" and self.diagnosis.trained_judge:
            yield (
                "diagnosis.trained_judge",
                "is true and `judge.model` is trained, which is the same judge; expected another "
                "judge, such as world, or false",
            )
        if self.diagnosis.trained_judge and self.preferences.judge == 0:
            yield (
                "diagnosis.trained_judge",
                "is true and `preferences.judge` is 0, so no pairs are left to train it on; "
                "expected a share above 0",
            )
        if self.judge.model == "trained" and self.preferences.judge == 0:
            yield (
                "judge.model",
                "is trained and `preferences.judge` is 0, so no pairs are left to train it on; "
                "expected a share > 0, such as 0.3",
            )

    def _lengths(self) -> Iterator[tuple[str, str]]:
        """Tokens and prompts are as many as what reads them can take."""
        for key in ("judge", "diagnosis", "exact"):
            count = getattr(self, key).prompts
            if key == "exact" and self.exact.responses is not None:
                continue
            if count > self.prompts.test:
                yield (
                    f"{key}.prompts",
                    f"is {count}; expected at most `prompts.test`, {self.prompts.test}",
                )
        if self.reference.checkpoint is not None:
            return
        context = self.reference.context
        for key, settings in (("reward", self.reward), ("judge.reward", self.judge_reward())):
            if settings.checkpoint == "reference" and settings.max_length > context:
                yield (
                    f"{key}.max_length",
                    f"is {settings.max_length}; expected at most `reference.context`, {context}, "
                    f"since `{key}.checkpoint` is reference",
                )
        longest = self.prompts.max_tokens + self.sampling.response_length
        if context < longest:
            yield (
                "reference.context",
                f"is {context}; expected at least `prompts.max_tokens` + "
                f"`sampling.response_length`, {longest}",
            )

    def _sizes(self) -> Iterator[tuple[str, str]]:
        """No run of a size that nobody can have meant."""
        policies = len(self.methods) * self.seeds
        used = {name: self.ensembles[name] for name in used_ensembles(self.model_dump())}
        models = {name: one.draws * models_of(one.model_dump()) for name, one in used.items()}
        searches = sum(isinstance(method.beta, TargetKL) for method in self.methods.values())
        if searches and self.seeds:  # the pilots have a draw of their own
            models[self.ensemble] += models_of(used[self.ensemble].model_dump())
        jobs = 2 * policies + sum(models.values()) + self.exact.replicates + self.OTHER_JOBS
        jobs += searches + self._regime_jobs()
        if jobs > self.limits.jobs:
            most = max(models, key=models.get)
            shares = {
                "seeds": (2 * policies, self.seeds),
                f"ensembles.{most}.draws": (models[most], self.ensembles[most].draws),
                "exact.replicates": (self.exact.replicates, self.exact.replicates),
                "regimes.pools": (self._regime_jobs(), f"of {len(self.regimes.pools)} pools"),
            }
            key = max(shares, key=lambda name: shares[name][0])
            yield (
                key,
                f"is {shares[key][1]}, which comes to about {jobs} jobs ({len(self.methods)} "
                f"method(s) x {self.seeds} seeds to train and to judge, {sum(models.values())} "
                f"independent reward model(s), {self.exact.replicates} replicate(s), "
                f"{self._regime_jobs()} of regimes); expected at most `limits.jobs`, "
                f"{self.limits.jobs}",
            )
        scratch = self.reference.checkpoint is None
        if scratch and self.reference.weights() > self.limits.weights:
            yield (
                "reference.width",
                f"{self.reference.width}, `layers` {self.reference.layers} and `vocabulary` "
                f"{self.reference.vocabulary} make a model of {self.reference.weights():.1e} "
                f"weights; expected at most `limits.weights`, {self.limits.weights:.1e}",
            )
        for name, ensemble in used.items():
            weights = ensemble.draws * ensemble.count * (self.reference.width if scratch else 1)
            if weights > self.limits.weights:
                yield (
                    f"ensembles.{name}.count",
                    f"is {ensemble.count}, which with {ensemble.draws} draw(s) comes to at least "
                    f"{weights:.1e} weights; expected at most `limits.weights`, "
                    f"{self.limits.weights:.1e}",
                )

    def _regime_jobs(self) -> int:
        """The jobs of the grid of regimes."""
        training = sum(-(-pool.replicates // pool.per_job) for pool in self.regimes.pools)
        return len(self.regimes.noise) * (training + len(self.regimes.pools))

    def judge_reward(self) -> RewardSettings:
        """The settings of a trained judge: those of ``reward`` with the judge's own over them."""
        own = self.judge.reward.model_dump(exclude_unset=True)
        return self.reward.model_copy(update=own)


def _keys(
    where: str, owner: Settings, parameters: type[Settings], what: str
) -> Iterator[tuple[str, str]]:
    """What is wrong with the keys that a method or an ensemble has besides those of all."""
    extra = owner.model_extra or {}
    keys = (*type(owner).model_fields, *parameters.model_fields)
    for key in extra:
        if key not in keys:
            yield (
                f"{where}.{key}",
                f"is not a key {what}{suggest(key, keys)}; expected one of {listed(keys)}",
            )
    if found := fault(parameters, {key: extra[key] for key in extra if key in keys}):
        yield f"{where}.{found[0]}", found[1]


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain dictionaries; overrides hold only what they override."""
    values = config.model_dump()
    values["judge"]["reward"] = config.judge.reward.model_dump(exclude_unset=True)
    for name, method in config.methods.items():
        own = method.ppo.model_dump(exclude_unset=True)
        values["methods"][name]["ppo"] = own
    return values


def exact_methods(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The methods of exact policies: those that are trained, and then the others."""
    return config["methods"] | config["exact"]["methods"]


def is_control(method: dict[str, Any]) -> bool:
    """Whether no claim is made for a method: it is what others are held against."""
    return objectives()[method["objective"]].control or method["spread"]["shuffled"]


def held_methods(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The methods that verdicts are reached on: controls, missing and trained of each.

    Its controls are those that its objective's docstring names, with the parameters that both have
    in common, and, where it uses a spread, the same method with a shuffled one. They are looked for
    among all methods of the study; what it has none of is missing.
    """
    methods = exact_methods(config)
    baseline = config["statistics"]["baseline"]
    found = {}
    for name, method in methods.items():
        if is_control(method) or name == baseline:
            continue
        controls, missing = [], []
        said = objectives()[method["objective"]].facts.get("Control", "")
        for word in filter(None, said.split(", ")):
            shuffled = word == "shuffled spread"
            wanted = method["objective"] if shuffled else word
            own = [
                other
                for other, candidate in methods.items()
                if candidate["objective"] == wanted
                and other != name
                and candidate["spread"]["shuffled"] == shuffled
                and _alike(method, candidate, spread=shuffled)
            ]
            controls += own
            missing += [] if own else [word]
        found[name] = {
            "controls": controls,
            "missing": missing,
            "trained": name in config["methods"] and config["seeds"] > 0,
        }
    return found


def _alike(first: dict[str, Any], second: dict[str, Any], spread: bool) -> bool:
    """Whether two methods have the same values of the parameters that both have."""
    one, two = (objective_parameters(method) for method in (first, second))
    if any(one[key] != two[key] for key in {*one} & {*two}):
        return False
    return not spread or first["spread"] | {"shuffled": True} == second["spread"]


def uses_last_layer(method: dict[str, Any]) -> bool:
    """Whether a method needs the features of the training pairs."""
    asks = objectives()[method["objective"]].asks
    return "last_layer" in asks or method["spread"]["of"] == "last_layer"


def method_settings(config: dict[str, Any], method: str) -> dict[str, Any]:
    """The PPO settings of one method: the shared ones with the method's own over them."""
    return config["ppo"] | config["methods"][method]["ppo"]


def objective_parameters(method: dict[str, Any]) -> dict[str, Any]:
    """All parameters of a method's objective: the method's own, and defaults."""
    parameters = objectives()[method["objective"]].parameters
    return parameters(
        **{key: method[key] for key in method if key in parameters.model_fields}
    ).model_dump()


def ensemble_settings(ensemble: dict[str, Any]) -> dict[str, Any]:
    """All settings of an ensemble's kind: the ensemble's own, and defaults."""
    kind = KINDS[ensemble["kind"]]
    return kind(**{key: ensemble[key] for key in ensemble if key in kind.model_fields}).model_dump()


def used_ensembles(config: dict[str, Any]) -> list[str]:
    """The ensembles that a run trains and checks, first the one that rewards the policies."""
    return list(dict.fromkeys([config["ensemble"], *(config["diagnosis"]["ensembles"] or [])]))


def members_of(ensemble: dict[str, Any]) -> int:
    """The number of members K of an ensemble that give rewards."""
    return 1 if ensemble["kind"] == "warm" else ensemble["count"]


def models_of(ensemble: dict[str, Any]) -> int:
    """The independent reward models that one draw of an ensemble is made of."""
    if ensemble["kind"] == "warm":
        return ensemble_settings(ensemble)["models"]
    return ensemble["count"] if ensemble["kind"] == "members" else 0
