# Stage 5: accuracy and disagreement on the benchmark, and the audit of the rewards there.


rule score_benchmark:
    """Every head's and the base model's reward of both sides of every row."""
    input:
        benchmark=f"{R}/data/benchmark.parquet",
        base=f"{R}/reward/base",
        ensemble=REWARDS,
    output:
        scores=f"{R}/benchmark/scores.parquet",
    log:
        f"{R}/logs/score_benchmark.log",
    benchmark:
        f"{R}/timings/score_benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        **needs(memory=16, minutes=120, gpu=1),
    params:
        batch_tokens=8192,
        code=lambda wildcards: code_of_ensembles(
            "score_benchmark", [config["ensemble"]]
        ),
    message:
        "Scoring the benchmark"
    script:
        "../workflow_scripts/score_benchmark.py"


rule tabulate_variance:
    """Accuracy per subset and section, and the variance of the heads' rewards."""
    input:
        scores=f"{R}/benchmark/scores.parquet",
    output:
        accuracy=report(
            f"{R}/benchmark/accuracy.csv",
            caption="captions/accuracy.rst",
            category="Reward models",
            labels={"what": "Accuracy on the benchmark", "form": "table"},
        ),
        variance=report(
            f"{R}/benchmark/variance.csv",
            caption="captions/variance.rst",
            category="Reward models",
            labels={"what": "Variance of the members' rewards", "form": "table"},
        ),
    log:
        f"{R}/logs/tabulate_variance.log",
    benchmark:
        f"{R}/timings/tabulate_variance.tsv"
    conda:
        ENVIRONMENT
    params:
        code=lambda wildcards: code_digest("tabulate_variance"),
    message:
        "Tabulating accuracy and variance"
    script:
        "../workflow_scripts/tabulate_variance.py"


rule audit_rewards:
    """What `prudent audit` says of the ensemble's first draw, from the benchmark's scores."""
    input:
        scores=f"{R}/benchmark/scores.parquet",
        benchmark=f"{R}/data/benchmark.parquet",
    output:
        page=report(
            f"{R}/audit/audit.html",
            caption="captions/audit.rst",
            category="Reward models",
            labels={"what": "Audit on the benchmark", "form": "page"},
        ),
        table=f"{R}/audit/audit.csv",
        numbers=f"{R}/audit/audit.json",
    log:
        f"{R}/logs/audit_rewards.log",
    benchmark:
        f"{R}/timings/audit_rewards.tsv"
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=4, minutes=30),
    params:
        scenario=config["scenario"],
        ensemble=config["ensemble"],
        seed=config["seed"],
        code=lambda wildcards: code_digest(
            "audit_rewards",
            loads=[
                "prudent/audit/figures.py",
                "prudent/audit/page.html",
                "prudent/figures/parts.html",
            ],
        ),
    message:
        "Auditing the rewards"
    script:
        "../workflow_scripts/audit_rewards.py"
