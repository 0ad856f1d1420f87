"""Prudent: RLHF that knows when its reward is guessing.

The rules, one file per stage in the order of the pipeline, read as a paper's method section.
"""

from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


report: "rules/captions/workflow.rst"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/reference.smk"
include: "rules/reward.smk"
include: "rules/rewardbench.smk"
include: "rules/policy.smk"
include: "rules/judge.smk"
include: "rules/figures.smk"


onstart:
    # The effective configuration lies beside the results.
    save_config(config, f"{R}/config.yaml")


localrules:
    all,
    tabulate_variance,


rule all:
    """Everything: the figures, the summary and the data cards."""
    default_target: True
    input:
        cards=data_cards(),
        figures=figures(),
        summary=summary(),
