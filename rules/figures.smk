# Stage 8: the statistics, the figures and the page, from files alone.

TRAINING_LOGS = expand(
    f"{R}/policies/{{method}}/seed{{seed}}.csv", method=METHODS, seed=SEEDS
)

# A figure is a row here, a module prudent/figures/NAME.py and a caption captions/NAME.rst. Its
# inputs and settings are the arguments of the module's function `plot`, by name.
FIGURES = {
    "verdict": {
        "what": "The verdicts",
        "category": "Verdict",
        "inputs": {"verdict": f"{R}/summary/verdict.json"},
        "settings": {"margin": config["statistics"]["margin"]},
    },
    "risk_return": {
        "what": "Risk and return of optimal policies",
        "category": "Exact policies",
        "inputs": {"exact": f"{R}/exact/summary.csv"},
        "settings": {"baseline": config["statistics"]["baseline"]},
    },
    "gain_over_kl": {
        "what": "Optimal policies over the KL",
        "category": "Exact policies",
        "inputs": {"policies": f"{R}/exact/policies.parquet"},
        "settings": {},
    },
    "fig1_heads": {
        "what": "Members on one response",
        "category": "Reward models",
        "inputs": {
            "scores": f"{R}/benchmark/scores.parquet",
            "benchmark": f"{R}/data/benchmark.parquet",
        },
        "settings": {},
    },
    "fig6_variance": {
        "what": "Variance of the members' rewards",
        "category": "Reward models",
        "inputs": {"scores": f"{R}/benchmark/scores.parquet"},
        "settings": {},
    },
    "fig7_scores": {
        "what": "Judge scores",
        "category": "Policies",
        "inputs": {
            "policies": f"{R}/summary/policies.csv",
            "reference": f"{R}/judge/reference.parquet",
        },
        "settings": {"methods": METHODS},
    },
    "frontier": {
        "what": "Trained policies and their optima",
        "category": "Policies",
        "inputs": {
            "frontier": f"{R}/exact/frontier.parquet",
            "policies": f"{R}/summary/policies.csv",
            "reference": f"{R}/judge/reference.parquet",
        },
        "settings": {"methods": METHODS},
    },
    "fig8_losses": {
        "what": "Loss curves",
        "category": "Reward models",
        "inputs": {
            "base": f"{R}/reward/base_loss.csv",
            "heads": f"{REWARDS}.csv",
        },
        "settings": {"stop_loss": config["reward"]["stop_loss"]},
    },
    "fig9_accuracy": {
        "what": "Accuracy on the benchmark",
        "category": "Reward models",
        "inputs": {"accuracy": f"{R}/benchmark/accuracy.csv"},
        "settings": {},
    },
    "kinds": {
        "what": "What each kind's sigma is worth",
        "category": "Reward models",
        "inputs": {"diagnosis": f"{R}/reward/diagnosis.csv"},
        "settings": {},
    },
    "frequency": {
        "what": "Accuracy, error and sigma by frequency",
        "category": "Reward models",
        "inputs": {"frequency": f"{R}/reward/frequency.csv"},
        "settings": {},
    },
    "fig10_kl": {
        "what": "KL over steps",
        "category": "Policies",
        "inputs": {
            "training_logs": TRAINING_LOGS,
            "policies": f"{R}/summary/policies.csv",
        },
        "settings": {"methods": METHODS, "seeds": SEEDS},
    },
    "fig11_reward": {
        "what": "Proxy reward over steps",
        "category": "Policies",
        "inputs": {
            "training_logs": TRAINING_LOGS,
            "policies": f"{R}/summary/policies.csv",
        },
        "settings": {"methods": METHODS, "seeds": SEEDS},
    },
    "overoptimisation": {
        "what": "Proxy and judge along training",
        "category": "Policies",
        "inputs": {
            "training_logs": TRAINING_LOGS,
            "policies": f"{R}/summary/policies.csv",
        },
        "settings": {"methods": METHODS, "seeds": SEEDS},
    },
    "calibration": {
        "what": "The search for the coefficients",
        "category": "Policies",
        "inputs": {
            "tables": expand(f"{R}/calibration/{{method}}.csv", method=CALIBRATED),
            "calibrations": expand(
                f"{R}/calibration/{{method}}.json", method=CALIBRATED
            ),
        },
        "settings": {"methods": list(CALIBRATED)},
    },
    "fig2_bandit": {
        "what": "A bandit of three arms",
        "category": "Theory",
        "inputs": {"curves": f"{R}/theory/curves.parquet"},
        "settings": {},
    },
    "fig3_high_variability": {
        "what": "Returns where variances differ much",
        "category": "Theory",
        "inputs": {"curves": f"{R}/theory/curves.parquet"},
        "settings": {},
    },
    "fig4_low_variability": {
        "what": "Returns where variances are alike",
        "category": "Theory",
        "inputs": {"curves": f"{R}/theory/curves.parquet"},
        "settings": {},
    },
    "fig5_matched_steps": {
        "what": "The same with steps of the same length",
        "category": "Theory",
        "inputs": {"curves": f"{R}/theory/curves.parquet"},
        "settings": {},
    },
    "theorems": {
        "what": "The theorems, and what is true",
        "category": "Theory",
        "inputs": {"curves": f"{R}/theory/curves.parquet"},
        "settings": {},
    },
}


# One map for each method that is held against the baseline on the grid.
if REGIMES["pools"]:
    FIGURES |= {
        f"regimes_{method}": {
            "what": f"Where {method} helps",
            "category": "Regimes",
            "module": "regimes",
            "inputs": {"table": f"{R}/regimes/regimes.csv"},
            "settings": {
                "method": method,
                "baseline": config["statistics"]["baseline"],
                "objective": EXACT[method]["objective"],
            },
        }
        for method in CONTROLS
    }
# Only the world's judge knows which judgements are rare, and is asked at each step.
if config["judge"]["model"] != "world":
    del FIGURES["frequency"], FIGURES["overoptimisation"]
if not CALIBRATED:
    del FIGURES["calibration"]
# Without policies, what is drawn is of the rewards.
if not SEEDS:
    FIGURES = {
        name: figure
        for name, figure in FIGURES.items()
        if figure["category"] != "Policies"
    }


wildcard_constraints:
    figure="|".join(FIGURES),


rule compare_methods:
    """Policies' scores, a summary of each method, and its comparison with the baseline."""
    input:
        reference=f"{R}/judge/reference.parquet",
        judgements=expand(f"{R}/judge/{{method}}.parquet", method=METHODS),
        frontier=f"{R}/exact/frontier.parquet",
        calibrations=expand(f"{R}/calibration/{{method}}.json", method=CALIBRATED),
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
        components=report(
            f"{R}/summary/components.csv",
            caption="captions/components.rst",
            category="Summary",
            labels={"what": "Variance components", "form": "table"},
        ),
    log:
        f"{R}/logs/compare_methods.log",
    benchmark:
        f"{R}/timings/compare_methods.tsv"
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=4, minutes=30),
    params:
        methods=METHODS,
        seeds=SEEDS,
        units={name: objective.unit for name, objective in OBJECTIVES.items()},
        betas={name: given_beta(name) for name in METHODS},
        controls=[name for name in METHODS if EXACT[name]["control"]],
        baseline=config["statistics"]["baseline"],
        ensembles=ENSEMBLE["draws"],
        heads=members_of(ENSEMBLE),
        permutations=config["statistics"]["permutations"],
        seed=config["seed"],
        code=lambda wildcards: code_digest("compare_methods"),
    message:
        "Comparing the methods"
    script:
        "../workflow_scripts/compare_methods.py"


rule verdict:
    """What may be said of each method, by the rule that was stated before."""
    input:
        **tables_of_trained("policies", "summary", "tests"),
        stated=f"{R}/summary/preregistration.json",
        exact=f"{R}/exact/policies.parquet",
        logs=TRAINING_LOGS,
    output:
        verdict=f"{R}/summary/verdict.json",
    log:
        f"{R}/logs/verdict.log",
    benchmark:
        f"{R}/timings/verdict.tsv"
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=4, minutes=30),
    params:
        code=lambda wildcards: code_digest("verdict"),
    message:
        "Reaching the verdicts"
    script:
        "../workflow_scripts/verdict.py"


rule power:
    """What the configured study can find, before it is run: `snakemake power`."""
    input:
        [],
    output:
        table=f"{R}/summary/power.csv",
    log:
        f"{R}/logs/power.log",
    benchmark:
        f"{R}/timings/power.tsv"
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=4, minutes=30),
    params:
        draws=independent_draws(),
        code=lambda wildcards: code_digest("power"),
    message:
        "What this study can find"
    script:
        "../workflow_scripts/power.py"


rule plot_figure:
    """A figure of the table above, as PNG, PDF and SVG."""
    input:
        unpack(lambda wildcards: FIGURES[wildcards.figure]["inputs"]),
    output:
        png=report(
            f"{R}/figures/{{figure}}.png",
            caption="captions/figure.rst",
            category=lambda wildcards: FIGURES[wildcards.figure]["category"],
            labels=figure_labels,
        ),
        pdf=f"{R}/figures/{{figure}}.pdf",
        svg=f"{R}/figures/{{figure}}.svg",
    log:
        f"{R}/logs/plot_figure/{{figure}}.log",
    benchmark:
        f"{R}/timings/plot_figure/{{figure}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=4, minutes=30),
    params:
        files=figure_files,
        figure=lambda wildcards: module_of(wildcards.figure),
        settings=lambda wildcards: FIGURES[wildcards.figure]["settings"],
        # For the report. It depends on the input, so that Snakemake draws nothing again for it.
        caption=lambda wildcards, input: figure_caption(wildcards.figure),
        code=lambda wildcards: code_digest(
            "plot_figure", loads=[f"prudent/figures/{module_of(wildcards.figure)}.py"]
        ),
    message:
        "Plotting {wildcards.figure}"
    script:
        "../workflow_scripts/plot_figure.py"


rule write_page:
    """One file that says what the numbers say, with the tables and the figures in it."""
    input:
        **tables_of_policies(),
        diagnosis=f"{R}/reward/diagnosis.csv",
        frequency=f"{R}/reward/frequency.csv",
        accuracy=f"{R}/benchmark/accuracy.csv",
        variance=f"{R}/benchmark/variance.csv",
        samples=f"{R}/reward/samples.parquet",
        judgements=expand(f"{R}/judge/{{answerer}}.parquet", answerer=answerers()),
        rewards=expand(
            f"{R}/reward/responses/{{answerer}}.parquet", answerer=answerers()
        ),
        svgs=expand(f"{R}/figures/{{figure}}.svg", figure=FIGURES),
    output:
        page=report(
            f"{R}/summary/summary.html",
            caption="captions/summary.rst",
            category="Summary",
            labels={"what": "What the numbers say", "form": "page"},
        ),
    log:
        f"{R}/logs/write_page.log",
    benchmark:
        f"{R}/timings/write_page.tsv"
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=4, minutes=30),
    params:
        figures=figures_of_page(),
        scenario=config["scenario"],
        seed=config["seed"],
        config_digest=config_digest(config),
        code=lambda wildcards: code_digest(
            "write_page",
            loads=["prudent/figures/page.html", "prudent/figures/parts.html"],
        ),
    message:
        "Writing the page"
    script:
        "../workflow_scripts/write_page.py"
