# Stage 8: the statistics, the figures and the report, from files alone.


rule compare_methods:
    """Policies' scores, the comparison of the methods, and a page that says what they show."""
    input:
        reference=f"{R}/judge/reference.parquet",
        judgements=expand(
            f"{R}/judge/{{method}}/seed{{seed}}.parquet", method=METHODS, seed=SEEDS
        ),
        training_logs=expand(
            f"{R}/policies/{{method}}/seed{{seed}}.csv", method=METHODS, seed=SEEDS
        ),
        diagnosis=f"{R}/reward/diagnosis.csv",
        accuracy=f"{R}/benchmark/accuracy.csv",
        variance=f"{R}/benchmark/variance.csv",
    output:
        policies=report(
            f"{R}/summary/policies.csv",
            caption="captions/policies.rst",
            category="Summary",
            labels={"what": "Policies", "form": "table"},
        ),
        summary=report(
            f"{R}/summary/summary.csv",
            caption="captions/summary.rst",
            category="Summary",
            labels={"what": "Methods", "form": "table"},
        ),
        tests=report(
            f"{R}/summary/tests.csv",
            caption="captions/tests.rst",
            category="Summary",
            labels={"what": "Tests", "form": "table"},
        ),
        page=report(
            f"{R}/summary/summary.html",
            caption="captions/summary.rst",
            category="Summary",
            labels={"what": "What the numbers say", "form": "page"},
        ),
    log:
        f"{R}/logs/compare_methods.log",
    benchmark:
        f"{R}/benchmarks/compare_methods.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        methods=METHODS,
        seeds=SEEDS,
        baseline=config["statistics"]["baseline"],
        ensembles=config["heads"]["ensembles"],
        heads=config["heads"]["count"],
        bootstrap=config["statistics"]["bootstrap"],
        seed=config["seed"],
        code=code_digest("compare_methods"),
    message:
        "Comparing the methods"
    script:
        "../workflow_scripts/compare_methods.py"


rule plot_heads:
    """Ten heads on one response (Fig 1)."""
    input:
        scores=f"{R}/benchmark/scores.parquet",
        benchmark=f"{R}/data/benchmark.parquet",
    output:
        png=report(
            f"{R}/figures/fig1_heads.png",
            caption="captions/fig1.rst",
            category="Reward models",
            labels={"what": "Heads on one response", "form": "figure 1"},
        ),
        pdf=f"{R}/figures/fig1_heads.pdf",
    log:
        f"{R}/logs/plot_heads.log",
    benchmark:
        f"{R}/benchmarks/plot_heads.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        code=code_digest("plot_heads"),
    message:
        "Plotting figure 1: heads on one response"
    script:
        "../workflow_scripts/plot_heads.py"


rule plot_variance:
    """Histograms of the variance of the heads' rewards per section (Fig 6)."""
    input:
        scores=f"{R}/benchmark/scores.parquet",
    output:
        png=report(
            f"{R}/figures/fig6_variance.png",
            caption="captions/fig6.rst",
            category="Reward models",
            labels={"what": "Variance of the heads' rewards", "form": "figure 6"},
        ),
        pdf=f"{R}/figures/fig6_variance.pdf",
    log:
        f"{R}/logs/plot_variance.log",
    benchmark:
        f"{R}/benchmarks/plot_variance.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        code=code_digest("plot_variance"),
    message:
        "Plotting figure 6: variance of the heads' rewards"
    script:
        "../workflow_scripts/plot_variance.py"


rule plot_scores:
    """Distribution of the policies' judge scores, every seed shown (Fig 7)."""
    input:
        policies=f"{R}/summary/policies.csv",
        reference=f"{R}/judge/reference.parquet",
    output:
        png=report(
            f"{R}/figures/fig7_scores.png",
            caption="captions/fig7.rst",
            category="Policies",
            labels={"what": "Judge scores", "form": "figure 7"},
        ),
        pdf=f"{R}/figures/fig7_scores.pdf",
    log:
        f"{R}/logs/plot_scores.log",
    benchmark:
        f"{R}/benchmarks/plot_scores.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        methods=METHODS,
        code=code_digest("plot_scores"),
    message:
        "Plotting figure 7: judge scores"
    script:
        "../workflow_scripts/plot_scores.py"


rule plot_losses:
    """Loss curves of the base model and the heads (Fig 8)."""
    input:
        base=f"{R}/reward/base_loss.csv",
        heads=f"{R}/reward/heads_loss.csv",
    output:
        png=report(
            f"{R}/figures/fig8_losses.png",
            caption="captions/fig8.rst",
            category="Reward models",
            labels={"what": "Loss curves", "form": "figure 8"},
        ),
        pdf=f"{R}/figures/fig8_losses.pdf",
    log:
        f"{R}/logs/plot_losses.log",
    benchmark:
        f"{R}/benchmarks/plot_losses.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        stop_loss=config["reward"]["stop_loss"],
        code=code_digest("plot_losses"),
    message:
        "Plotting figure 8: loss curves"
    script:
        "../workflow_scripts/plot_losses.py"


rule plot_accuracy:
    """Accuracy of the heads, their mean and the base model (Fig 9)."""
    input:
        accuracy=f"{R}/benchmark/accuracy.csv",
    output:
        png=report(
            f"{R}/figures/fig9_accuracy.png",
            caption="captions/fig9.rst",
            category="Reward models",
            labels={"what": "Accuracy on the benchmark", "form": "figure 9"},
        ),
        pdf=f"{R}/figures/fig9_accuracy.pdf",
    log:
        f"{R}/logs/plot_accuracy.log",
    benchmark:
        f"{R}/benchmarks/plot_accuracy.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        code=code_digest("plot_accuracy"),
    message:
        "Plotting figure 9: accuracy on the benchmark"
    script:
        "../workflow_scripts/plot_accuracy.py"


rule plot_kl:
    """KL to the reference over the steps of training (Fig 10)."""
    input:
        training_logs=expand(
            f"{R}/policies/{{method}}/seed{{seed}}.csv", method=METHODS, seed=SEEDS
        ),
    output:
        png=report(
            f"{R}/figures/fig10_kl.png",
            caption="captions/fig10.rst",
            category="Policies",
            labels={"what": "KL over steps", "form": "figure 10"},
        ),
        pdf=f"{R}/figures/fig10_kl.pdf",
    log:
        f"{R}/logs/plot_kl.log",
    benchmark:
        f"{R}/benchmarks/plot_kl.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        methods=METHODS,
        seeds=SEEDS,
        code=code_digest("plot_kl"),
    message:
        "Plotting figure 10: KL over steps"
    script:
        "../workflow_scripts/plot_kl.py"


rule plot_reward:
    """Proxy reward over the steps of training (Fig 11)."""
    input:
        training_logs=expand(
            f"{R}/policies/{{method}}/seed{{seed}}.csv", method=METHODS, seed=SEEDS
        ),
    output:
        png=report(
            f"{R}/figures/fig11_reward.png",
            caption="captions/fig11.rst",
            category="Policies",
            labels={"what": "Proxy reward over steps", "form": "figure 11"},
        ),
        pdf=f"{R}/figures/fig11_reward.pdf",
    log:
        f"{R}/logs/plot_reward.log",
    benchmark:
        f"{R}/benchmarks/plot_reward.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        methods=METHODS,
        seeds=SEEDS,
        code=code_digest("plot_reward"),
    message:
        "Plotting figure 11: proxy reward over steps"
    script:
        "../workflow_scripts/plot_reward.py"
