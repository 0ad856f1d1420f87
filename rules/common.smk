# What all rules share: the checked configuration, the paths and the wildcards.

import os
import sys

from snakemake.logging import logger

SCRIPTS = f"{workflow.basedir}/workflow_scripts"
sys.path.insert(0, SCRIPTS)
# Jobs take this clone's modules, too, wherever the environment was installed from.
# No empty part: Python would take it for the working directory.
theirs = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
os.environ.update(PYTHONPATH=os.pathsep.join(dict.fromkeys([SCRIPTS, *theirs])))

from prudent.workflow import paths
from prudent.workflow.config import (
    effective_config,
    is_labelled,
    is_local,
    is_sampled,
    judge_reward_settings,
    local_files,
    method_settings,
    save_config,
)
from prudent.workflow.digest import code_digest
from prudent.errors import InputError
from prudent.seeding import seed_parts

try:
    config = effective_config(config)
except InputError as error:
    # The message alone: an exception would come with the place in this file.
    logger.error(str(error))
    sys.exit(1)

# Whether files go through a storage provider, since jobs share no file system.
STORED = workflow.storage_settings.default_storage_provider is not None
# Profiles name the rules to cache, but only this variable says where. Without it Snakemake would
# fail at the first of them, and with a bad one at its end, when its work is done.
CACHE = "" if STORED else os.environ.get("SNAKEMAKE_OUTPUT_CACHE", "")
if not CACHE:
    workflow.workflow_settings.cache = None
elif workflow.enable_cache and "://" not in CACHE and not os.access(CACHE, os.W_OK):
    logger.error(
        f"SNAKEMAKE_OUTPUT_CACHE: {CACHE} is no folder that can be written to; create it, or "
        "name another"
    )
    sys.exit(1)


def last_answer(ask):
    """A function that asks, and answers as before where there is no answer."""
    answers = [None]

    def asked():
        answers[0] = ask() or answers[0]
        return answers[0]

    return asked


# At each look at the jobs the SLURM executor asks slurmctld for a setting. Where it got no answer, it
# would turn to sacct, which may know of no jobs, and wait for ever: so the last answer is kept.
if slurm := sys.modules.get("snakemake_executor_plugin_slurm"):
    slurm.get_min_job_age = last_answer(slurm.get_min_job_age)

R = f"results/{config['scenario']}"
CHECKPOINTS = f"checkpoints/{config['scenario']}"
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
        list(map(str, paths.folder_files(checkpoint))) if is_local(checkpoint) else []
    )


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
