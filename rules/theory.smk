# The theory of arXiv 2410.23726, which depends on no data.


rule theory:
    """What the theorems and the simulations say, beside what is true: `snakemake theory`."""
    input:
        [],
    output:
        table=report(
            f"{R}/theory/theory.csv",
            caption="captions/theory_table.rst",
            category="Theory",
            labels={"what": "Theory beside the truth", "form": "table"},
        ),
        curves=f"{R}/theory/curves.parquet",
    log:
        f"{R}/logs/theory.log",
    benchmark:
        f"{R}/timings/theory.tsv"
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=4, minutes=30),
    params:
        seed=config["seed"],
        code=lambda wildcards: code_digest("theory"),
    message:
        "Checking the theory"
    script:
        "../workflow_scripts/theory.py"
