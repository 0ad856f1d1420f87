# What all rules share: the checked configuration, the paths and the wildcards.

import os
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
from prudent.errors import InputError
from prudent.seeding import seed_parts
from prudent.workflow.checks import (
    check_folders,
    content_of,
    contents,
    effective_config,
    is_labelled,
    is_local,
    is_sampled,
    local_files,
    save_config,
)
from prudent.workflow.config import (
    Config,
    judge_reward_settings,
    method_settings,
    objective_parameters,
)
from prudent.workflow.configfiles import merged, read_config, typed
from prudent.workflow.digest import code_digest
from prudent.workflow.remembered import Memory
from prudent.workflow.slurm import check_requests


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
    for overlay in settings.configfiles:
        values = merged(values, read_config(overlay))
    return merged(values, typed(settings.config, Config))


memory = Memory(Path(".snakemake/prudent/files.json"))
try:
    config = effective_config(merged(read_config(DEFAULTS), said()), memory)
    R = f"results/{config['scenario']}"
    CHECKPOINTS = f"checkpoints/{config['scenario']}"
    check_folders(R, CHECKPOINTS)
except InputError as error:
    refuse(error)
# Jobs that share no file system are sent the files that the workflow reads.
workflow.configfiles.append(str(DEFAULTS))

# Whether files go through a storage provider, since jobs share no file system.
STORED = workflow.storage_settings.default_storage_provider is not None
# Profiles name the rules to cache, but only this variable says where. Without it Snakemake would
# fail at the first of them, and with a bad one at its end, when its work is done.
CACHE = "" if STORED else os.environ.get("SNAKEMAKE_OUTPUT_CACHE", "")
if not CACHE:
    workflow.workflow_settings.cache = None
elif workflow.enable_cache and "://" not in CACHE:
    if not (os.path.isdir(CACHE) and os.access(CACHE, os.W_OK)):
        refuse(
            f"SNAKEMAKE_OUTPUT_CACHE: {CACHE} is no folder that can be written to; create it, or "
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
SEEDS = list(range(config["seeds"]))
ENSEMBLES = [f"{R}/reward/ensemble_{e}" for e in range(config["heads"]["ensembles"])]


wildcard_constraints:
    method="|".join(METHODS),
    seed=r"\d+",


def backbone(settings):
    """What a reward model starts from; nothing where it comes from the hub."""
    if settings["checkpoint"] == "reference":
        return made(f"{R}/reference")
    return local(settings["checkpoint"])


def made(checkpoint):
    """A rule's checkpoint as input of a cached rule: its digest, as the key hashes no folders.

    Where jobs share no file system, they need the folder itself, and there is no cache.
    """
    return checkpoint if STORED else f"{checkpoint}.sha256"


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
    scorer = config["judge"]["scorer"]
    return f"{R}/judge/model" if scorer == "trained" else local(scorer)


def seed_of_policy(wildcards):
    """The ensemble and the head of a policy's seed."""
    heads = config["heads"]
    return seed_parts(int(wildcards.seed), heads["ensembles"], heads["count"])


def objective_of_policy(wildcards):
    """The objective of a policy's method."""
    return config["methods"][wildcards.method]["objective"]


def parameters_of_policy(wildcards):
    """The parameters of a policy's objective."""
    return objective_parameters(config["methods"][wildcards.method])


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
    """All figures."""
    names = [
        "fig1_heads",
        "fig6_variance",
        "fig7_scores",
        "fig8_losses",
        "fig9_accuracy",
        "fig10_kl",
        "fig11_reward",
    ]
    return expand(f"{R}/figures/{{name}}.{{form}}", name=names, form=["png", "pdf"])


def summary():
    """The summary: page and tables."""
    names = ["policies.csv", "summary.csv", "tests.csv", "summary.html"]
    return expand(f"{R}/summary/{{name}}", name=names)
