# What all rules share: the checked configuration, the paths and the wildcards.

import os
import re
import sys
from pathlib import Path

from snakemake.logging import logger

# The clone's folder, also where another workflow uses this one as a module.
CLONE = Path(str(workflow.current_basedir)).parent
SCRIPTS = str(CLONE / "workflow_scripts")
sys.path.insert(0, SCRIPTS)
# Jobs take this clone's modules, too, wherever the environment was installed from.
# No empty part: Python would take it for the working directory.
theirs = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
os.environ.update(PYTHONPATH=os.pathsep.join(dict.fromkeys([SCRIPTS, *theirs])))
# Threads that wait for each other without end of a job's cores would take them from other jobs: with
# two threads a step took five times as long beside another job (tests/bench/shared_cores.py).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from prudent import paths
from prudent.errors import InputError, tolerate_any_text
from prudent.rewards.settings import AS_HEADS, MemberSettings
from prudent.rewards.settings import ON_BASE as HEAD_KINDS
from prudent.seeding import seed_parts
from prudent.workflow.checks import (
    check_links,
    check_results,
    config_digest,
    content_of,
    contents,
    effective_config,
    is_local,
    local_files,
    row_counts,
    save_config,
)
from prudent.workflow.config import (
    Config,
    ensemble_settings,
    exact_methods,
    held_methods,
    is_control,
    members_of,
    method_settings,
    models_of,
    objective_parameters,
    used_ensembles,
    uses_last_layer,
)
from prudent.workflow.configfiles import check_entries, merged, read_config, typed
from prudent.workflow.digest import code_digest
from prudent.workflow.objectives import objectives
from prudent.workflow.remembered import Memory
from prudent.workflow.slurm import check_requests

tolerate_any_text()


def refuse(message):
    """Ends with the message alone: an exception would come with the place in a file of ours."""
    logger.error(str(message))
    sys.exit(1)


MAIN = workflow.modifier.is_main_snakefile()
DEFAULTS = CLONE / "config.yaml"


def said():
    """What overlays and the command line say, or the workflow that uses this one."""
    if not MAIN:
        return config
    settings, values = workflow.config_settings, {}
    check_entries(settings.config_args)
    for overlay in settings.configfiles:
        values = merged(values, read_config(overlay))
    return merged(values, typed(settings.config, Config))


memory = Memory(Path(".snakemake/prudent/files.json"))
try:
    config = effective_config(merged(read_config(DEFAULTS), said()), memory)
    CONFIG = Config(**config)  # the same, typed
    R = f"results/{config['scenario']}"
    CHECKPOINTS = f"checkpoints/{config['scenario']}"
    # The cache counts parameters, so those of cached trainings do not name the scenario.
    TRAININGS = "checkpoints/trainings"
    check_results(R, CHECKPOINTS, TRAININGS, ".snakemake")
    # On another node a job may see a link before what it leads to.
    if workflow.is_main_process:
        check_links(R)
except InputError as error:
    refuse(error)

# Profiles name the rules to cache, but only this variable says where. Without it Snakemake would
# fail at the first of them, and with a bad one at its end, when its work is done.
CACHE = os.environ.get("SNAKEMAKE_OUTPUT_CACHE", "")
if not CACHE:
    workflow.workflow_settings.cache = None
elif workflow.enable_cache and "://" not in CACHE:
    if not (os.path.isdir(CACHE) and os.access(CACHE, os.W_OK)):
        refuse(
            f"SNAKEMAKE_OUTPUT_CACHE: {CACHE} is not a writable folder; create it, or "
            "name another"
        )


def last_answer(ask):
    """A function that asks, and answers as before where there is no answer."""
    answers = [None]

    def asked():
        answers[0] = ask() or answers[0]
        return answers[0]

    return asked


# Snakemake names no executor before its jobs are known.
slurm = sys.modules.get("snakemake_executor_plugin_slurm")

# At each look at the jobs the SLURM executor asks slurmctld for a setting. Where it got no answer, it
# would turn to sacct, which may know of no jobs, and wait for ever: so the last answer is kept.
if slurm is not None:
    slurm.get_min_job_age = last_answer(slurm.get_min_job_age)

ENVIRONMENT = f"../envs/{config['environment']}.yaml"
METHODS = list(config["methods"])
OBJECTIVES = {
    name: objectives()[method["objective"]]
    for name, method in config["methods"].items()
}
SEEDS = list(range(config["seeds"]))
# The methods whose coefficient is found for a KL.
CALIBRATED = {
    name: method["beta"]["kl"]
    for name, method in config["methods"].items()
    if SEEDS and isinstance(method["beta"], dict)
}
# The ensemble that rewards the policies, and all that the run trains and checks.
ENSEMBLE = config["ensembles"][config["ensemble"]]
CHECKED = used_ensembles(config)
REWARDS = f"{R}/reward/ensembles/{config['ensemble']}"
# Whether exact policies have fresh heads on the base model's features.
FRESH_HEADS = ENSEMBLE["kind"] == "heads" and config["exact"]["ensembles"] > 0
# The methods of exact policies: those that are trained, and others.
EXACT = {
    name: {
        "objective": method["objective"],
        "parameters": objective_parameters(method),
        "spread": method["spread"],
        "unit": objectives()[method["objective"]].unit,
        "control": is_control(method),
    }
    for name, method in exact_methods(config).items()
}
# Whether the members are heads on the base model's features, and whether exact policies read those
# of the pairs.
ON_BASE = ENSEMBLE["kind"] in HEAD_KINDS
PAIR_FEATURES = FRESH_HEADS or any(map(uses_last_layer, exact_methods(config).values()))
# The same ensemble with all drawn anew, pairs and base model, too.
REPLICATES = expand(
    f"{R}/reward/replicates/{{replicate}}",
    replicate=range(config["exact"]["replicates"]),
)

# The grid of rewards on which methods are compared, and the controls of each.
REGIMES = config["regimes"]
CONTROLS = {
    name: held["controls"]
    for name, held in held_methods(config).items()
    if name in REGIMES["methods"]
}
COMPARED = [config["statistics"]["baseline"], *CONTROLS, *sum(CONTROLS.values(), [])]
# The ensemble's draw and the member of each of a method's policies.
PAIRS = [
    list(seed_parts(seed, ENSEMBLE["draws"], members_of(ENSEMBLE))[:2])
    for seed in SEEDS
]


wildcard_constraints:
    method="|".join(METHODS),
    answerer="|".join([*METHODS, "reference"]),
    seed=r"\d+",
    ensemble="|".join(config["ensembles"]),
    member=r"\d+",
    first=r"\d+",
    pairs=r"\d+|all",
    noise=r"[\d.e+-]+",
    replicate=r"\d+",


def needs(memory, minutes, **others):
    """A job's resources, in GB and minutes, which grow with each attempt, and others."""
    return others | {
        "mem_mb": lambda wildcards, attempt: 1000 * memory * attempt,
        "runtime": lambda wildcards, attempt: minutes * attempt,
    }


def backbone(settings):
    """What a reward model starts from; nothing where it comes from the hub."""
    if settings["checkpoint"] == "reference":
        return made(f"{R}/reference")
    return local(settings["checkpoint"])


def made(checkpoint):
    """A rule's checkpoint as input of a cached rule: its digest, as the key hashes no folders."""
    return f"{checkpoint}.sha256"


def local(checkpoint):
    """A checkpoint's files as an input if it is a folder: the cache's key needs their contents."""
    return (
        nameable(map(str, paths.folder_files(checkpoint)))
        if is_local(checkpoint)
        else []
    )


def files(section):
    """The local files of a section's sources as inputs."""
    return nameable(local_files(config[section]["sources"]))


def nameable(names):
    """The files that can be inputs: Snakemake takes braces for wildcards, wherever they stand.

    The others are read nevertheless, and rules know them by their content, a parameter.
    """
    return [name for name in names if not set("{}") & set(name)]


def portable(settings):
    """Settings as parameters of a job that is cached, without this machine's paths."""
    return paths.portable(settings, config["data_root"])


def judge_model():
    """The judge's folder, if it has one."""
    model = config["judge"]["model"]
    return f"{R}/judge/model" if model == "trained" else local(model)


def trained_judge():
    """The judge that is trained besides, to say the same things of the ensembles."""
    return f"{R}/judge/model" if config["diagnosis"]["trained_judge"] else []


def kinds_by_judge():
    """The table of what both judges say of the ensembles, where there are two."""
    table = f"{R}/reward/kinds_by_judge.csv"
    return {"by_judge": table} if config["diagnosis"]["trained_judge"] else {}


def ensemble_inputs(wildcards):
    """What an ensemble is trained from."""
    draws = config["ensembles"][wildcards.ensemble]["draws"]
    return inputs_of_draws(wildcards.ensemble, 0, draws)


def inputs_of_draws(name, first, draws):
    """What some draws of an ensemble are trained from, by its kind."""
    ensemble = config["ensembles"][name]
    inputs = {
        "preferences": f"{R}/data/preferences.parquet",
        "backbone": backbone(config["reward"]),
    }
    if starts_from_base(ensemble):
        inputs["base"] = made(f"{R}/reward/base")
    inputs |= features_of_pairs(ensemble["kind"] in HEAD_KINDS)
    if models := models_of(ensemble):
        firsts = [
            draw * models + place
            for draw in range(first, first + draws)
            for place in range(0, models, ensemble_settings(ensemble)["per_job"])
        ]
        inputs["members"] = expand(f"{R}/reward/members/{name}/{{n}}", n=firsts)
    return inputs


def members_of_job(wildcards):
    """The numbers of the members that one job trains, all of one draw."""
    ensemble = config["ensembles"][wildcards.ensemble]
    first, models = int(wildcards.first), models_of(ensemble)
    after = first + ensemble_settings(ensemble)["per_job"]
    return list(range(first, min(after, (first // models + 1) * models)))


def starts_from_base(ensemble):
    """Whether an ensemble's models start from the trained base reward model."""
    return ensemble_settings(ensemble).get("start") == "base"


def start_of_member(wildcards):
    """The base reward model, where members start from it."""
    if starts_from_base(config["ensembles"][wildcards.ensemble]):
        return made(f"{R}/reward/base")
    return []


def number_of_pairs(wildcards):
    """The number of training pairs of a pool's replicates; None for all that there are."""
    return None if wildcards.pairs == "all" else int(wildcards.pairs)


def noise_of(wildcards):
    """The label noise of a pool, as the configuration has it."""
    return next(one for one in REGIMES["noise"] if f"{one:g}" == wildcards.noise)


def pool_of(wildcards):
    """The settings of a pool."""
    pools = REGIMES["pools"]
    return next(pool for pool in pools if str(pool["pairs"]) == wildcards.pairs)


def replicates_of_job(wildcards):
    """The numbers of the replicates that one job trains."""
    pool, first = pool_of(wildcards), int(wildcards.first)
    return list(range(first, min(first + pool["per_job"], pool["replicates"])))


def models_of_pool(wildcards):
    """The folders of a pool's base reward models."""
    pool = pool_of(wildcards)
    folder = f"{R}/regimes/{wildcards.pairs}_pairs/noise_{wildcards.noise}"
    firsts = range(0, pool["replicates"], pool["per_job"])
    return expand(f"{folder}/{{first}}", first=firsts)


def kind_of(wildcards):
    """The kind of an ensemble."""
    return config["ensembles"][wildcards.ensemble]["kind"]


def settings_of_ensemble(wildcards):
    """The settings of an ensemble's kind."""
    return ensemble_settings(config["ensembles"][wildcards.ensemble])


def settings_of_members(wildcards):
    """The settings of an ensemble's members, without those of what they become."""
    settings = settings_of_ensemble(wildcards)
    return {key: settings[key] for key in MemberSettings.model_fields}


def code_of_ensembles(script, names):
    """The digest of a script that uses ensembles, with the code of their kinds."""
    kinds = {config["ensembles"][name]["kind"] for name in names}
    return code_digest(script, loads=modules_of(kinds))


def modules_of(kinds):
    """The files of some kinds' modules; what is loaded as heads are needs theirs, too."""
    kinds = {*kinds, *(["heads"] if {*kinds} & {*AS_HEADS} else [])}
    return [f"prudent/rewards/kinds/{kind}.py" for kind in sorted(kinds)]


def code_of_policy(script, wildcards):
    """The digest of a script that trains policies of a method."""
    return code_digest(
        script,
        objective=objective_of_policy(wildcards),
        loads=modules_of([ENSEMBLE["kind"]]),
    )


def calibration_of_policy(wildcards):
    """Where a policy's coefficient is found, if it is."""
    if wildcards.method in CALIBRATED:
        return f"{R}/calibration/{wildcards.method}.json"
    return []


def given_beta(method):
    """A method's coefficient, if it is given."""
    return None if method in CALIBRATED else config["methods"][method]["beta"]


def objective_of_policy(wildcards):
    """The objective of a policy's method."""
    return config["methods"][wildcards.method]["objective"]


def parameters_of_policy(wildcards):
    """The parameters of a policy's objective."""
    return objective_parameters(config["methods"][wildcards.method])


def features_of_policy(wildcards):
    """The features of the training pairs, where a policy's method uses a Bayesian last layer."""
    return features_of_pairs(uses_last_layer(config["methods"][wildcards.method]))


def features_of_calibration(wildcards):
    """The same for a rule that is cached."""
    found = features_of_policy(wildcards)
    return found | {"base": made(found["base"])} if found else found


def features_of_pairs(used):
    """The base model and the features of the pairs by it, if they are used."""
    if not used:
        return {}
    return {
        "base": f"{R}/reward/base",
        "features": f"{R}/reward/features.safetensors",
    }


def policy_settings(wildcards):
    """A policy's PPO settings; its number of threads says nothing about the result."""
    settings = method_settings(config, wildcards.method)
    return {key: value for key, value in settings.items() if key != "threads"}


def policy_threads(wildcards):
    """The CPU threads of a policy's training."""
    return method_settings(config, wildcards.method)["threads"]


def data_cards():
    """The data cards of the tables that the run makes."""
    tables = ["prompts", "preferences", "benchmark"]
    tables += ["texts"] if config["reference"]["train"] else []
    return expand(f"{R}/data/{{table}}.card.json", table=tables)


def figures():
    """All figures, for people."""
    return expand(f"{R}/figures/{{name}}.{{form}}", name=FIGURES, form=["png", "pdf"])


def module_of(name):
    """The module that draws a figure, and whose caption it has; its name, where none is said."""
    return FIGURES[name].get("module", name)


def figure_caption(name):
    """A figure's caption."""
    return (
        (CLONE / f"rules/captions/{module_of(name)}.rst")
        .read_text(encoding="utf-8")
        .strip()
    )


def figure_files(wildcards, input):
    """A figure's inputs by name, as its script takes them."""
    return {
        name: value if isinstance(value, str) else list(value)
        for name, value in input.items()
    }


def figure_labels(wildcards):
    """A figure's labels in the report."""
    number = re.match(r"fig(\d+)_", wildcards.figure)
    return {
        "what": FIGURES[wildcards.figure]["what"],
        "form": f"figure {number[1]}" if number else "figure",
    }


def figures_of_page():
    """What the page says of the figures that are in it."""
    return [
        {
            "name": name,
            "category": figure["category"],
            "caption": figure_caption(name),
        }
        for name, figure in FIGURES.items()
    ]


def tables_of_trained(*names):
    """Tables of the trained policies, if there are any."""
    return {name: f"{R}/summary/{name}.csv" for name in names if SEEDS}


def tables_of_policies():
    """What there is to say of all policies."""
    found = {"verdict": f"{R}/summary/verdict.json", "exact": f"{R}/exact/summary.csv"}
    found |= (
        {"exact_kinds": f"{R}/exact/kinds.csv"} if config["exact"]["checked"] else {}
    )
    trained = tables_of_trained("policies", "summary", "tests", "components")
    return trained | found


def summary():
    """The summary: page and tables."""
    return [*tables_of_policies().values(), f"{R}/summary/summary.html"]


def trainings():
    """The logs and the folders of the trainings whose resources the paper's tables have."""
    policies = [f"{method}/seed{seed}" for method in METHODS for seed in SEEDS]
    return {
        "Table 3": {
            "logs": [f"{R}/logs/train_reward_base.log"],
            "folders": [f"{R}/reward/base"],
        },
        "Table 5": {
            "logs": [f"{R}/logs/train_ensemble/{config['ensemble']}.log"],
            "folders": [REWARDS],
        },
        "Table 8": {
            "logs": [f"{R}/logs/train_policy/{policy}.log" for policy in policies],
            "folders": [f"{R}/policies/{policy}" for policy in policies],
        },
    }


def item_of_paper(item):
    """The files of one of the paper's figures or tables; refuses what the scenario cannot make."""
    kind, number = item.split("_")

    def files(wildcards):
        if kind == "figure" and int(number) not in DRAWN:
            refuse(f"{item}: needs trained policies; `seeds` is {len(SEEDS)} here")
        if item == "table_1" and all(
            "world" in s for s in config["benchmark"]["sources"]
        ):
            refuse(
                f"{item}: needs RewardBench's data; `benchmark.sources` has none here"
            )
        if kind == "table":
            return f"{R}/paper/{item}.csv"
        return expand(f"{R}/figures/{DRAWN[int(number)]}.{{form}}", form=["png", "pdf"])

    return files


def regimes():
    """The table of the grid, if there is one."""
    return [f"{R}/regimes/regimes.csv"] if REGIMES["pools"] else []


def independent_draws():
    """The independent draws behind each comparison of methods."""
    units = {objective.unit for objective in OBJECTIVES.values()}
    found = {}
    if "member" in units and SEEDS:
        found["trained policies, by member"] = len(set(map(tuple, PAIRS)))
    if "ensemble" in units and SEEDS:
        found["trained policies, by ensemble"] = len({draw for draw, _ in PAIRS})
    given = config["exact"]["ensembles"] if FRESH_HEADS else ENSEMBLE["draws"]
    found["optimal policies, given the backbone"] = given
    if REPLICATES:
        found["optimal policies, all drawn anew"] = len(REPLICATES)
    return found


def answerers():
    """Whose responses are rewarded and judged."""
    return [*METHODS, "reference"] if SEEDS else []
