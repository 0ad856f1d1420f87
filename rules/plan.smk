# What all of it takes, before anything is queued.


rule plan:
    """Jobs, memory, disk, FLOPs and hours of the configured study: `snakemake plan`."""
    input:
        [],
    output:
        table=f"{R}/summary/plan.csv",
    log:
        f"{R}/logs/plan.log",
    benchmark:
        f"{R}/timings/plan.tsv"
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=4, minutes=30),
    params:
        settings=lambda wildcards: portable(config),
        rows=lambda wildcards: row_counts(config, memory),
        code=lambda wildcards: code_digest("plan"),
    message:
        "What this study takes"
    script:
        "../workflow_scripts/plan.py"
