"""Prudent: RLHF that knows when its reward is guessing.

The rules, one file per stage in the order of the pipeline, read as a paper's method section.
"""

import os
import socket

from snakemake.utils import min_version

min_version("9.27")


report: "rules/captions/workflow.rst"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/reference.smk"
include: "rules/reward.smk"
include: "rules/rewardbench.smk"
include: "rules/exact.smk"
include: "rules/regimes.smk"
include: "rules/policy.smk"
include: "rules/judge.smk"
include: "rules/theory.smk"
include: "rules/plan.smk"
include: "rules/figures.smk"
include: "rules/paper.smk"


# Digests that this call has computed are remembered for the jobs, which read all this again.
memory.save()


onstart:
    try:
        check_results(R, CHECKPOINTS, ".snakemake", write=True)
        if slurm and isinstance(workflow.executor_settings, slurm.ExecutorSettings):
            check_requests(workflow, slurm)
        # The effective configuration lies beside the results.
        save_config(config, f"{R}/config.yaml")
        # Who runs here, for profiles/slurm/resume.py.
        with open(".snakemake/controller", "w") as controller:
            print(socket.gethostname(), os.getpid(), file=controller)
    except InputError as error:
        refuse(error)
    except OSError as error:
        refuse(
            f"{error.filename}: {error.strerror}; expected a file that this run may write"
        )


# Seconds each, so not worth a place in a cluster's queue.
localrules:
    all,
    tabulate_variance,
    tabulate_regimes,
    audit_rewards,
    preregister,
    power,
    plan,
    theory,
    verdict,
    plot_figure,
    write_page,
    paper,


rule all:
    """Everything: figures, summary, audit, data cards, and tables for later analyses."""
    default_target: True
    input:
        cards=data_cards(),
        figures=figures(),
        summary=summary(),
        regimes=regimes(),
        theory=f"{R}/theory/theory.csv",
        paper=f"{R}/paper/paper.html",
        audit=f"{R}/audit/audit.html",
        rewards=expand(
            f"{R}/reward/responses/{{answerer}}.parquet",
            answerer=answerers(),
        ),
