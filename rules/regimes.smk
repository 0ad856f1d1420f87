# Stage 5, over a grid of rewards: where does a method help?


rule train_pool:
    """Base reward models of some replicates, of one number of pairs and one label noise."""
    input:
        preferences=f"{R}/data/preferences.parquet",
        backbone=backbone(config["reward"]),
    output:
        models=directory(f"{R}/regimes/{{pairs}}_pairs/noise_{{noise}}/{{first}}"),
    log:
        f"{R}/logs/train_pool/{{pairs}}_pairs/noise_{{noise}}/{{first}}.log",
    cache: bool(CACHE)
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=16, minutes=720, gpu=1),
    params:
        pairs=number_of_pairs,
        noise=noise_of,
        replicates=replicates_of_job,
        reward=portable(config["reward"]),
        content=content_of(config["reward"]["checkpoint"], memory),
        seed=config["seed"],
        code=lambda wildcards: code_digest("train_pool"),
    message:
        "Training replicates {params.replicates} of {wildcards.pairs} pairs, noise {wildcards.noise}"
    script:
        "../workflow_scripts/train_pool.py"


rule regime_policies:
    """The optimal policies by every ensemble of one number of pairs and one label noise."""
    input:
        samples=f"{R}/exact/samples.parquet",
        scores=f"{R}/exact/scores.safetensors",
        preferences=f"{R}/data/preferences.parquet",
        backbone=backbone(config["reward"]),
        models=models_of_pool,
    output:
        policies=f"{R}/regimes/{{pairs}}_pairs/noise_{{noise}}.parquet",
    log:
        f"{R}/logs/regime_policies/{{pairs}}_pairs/noise_{{noise}}.log",
    benchmark:
        f"{R}/timings/regime_policies/{{pairs}}_pairs_noise_{{noise}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=8, minutes=240, gpu=1),
    params:
        pairs=number_of_pairs,
        noise=noise_of,
        ensembles={
            name: {
                "kind": config["ensembles"][name]["kind"],
                "settings": ensemble_settings(config["ensembles"][name]),
            }
            for name in REGIMES["ensembles"]
        },
        members=REGIMES["members"],
        reward=portable(config["reward"]),
        content=content_of(config["reward"]["checkpoint"], memory),
        methods={name: EXACT[name] for name in COMPARED},
        kl=REGIMES["kl"],
        seed=config["seed"],
        code=lambda wildcards: [
            code_of_ensembles("regime_policies", REGIMES["ensembles"]),
            *(
                code_digest("regime_policies", objective=name)
                for name in sorted({EXACT[name]["objective"] for name in COMPARED})
            ),
        ],
    message:
        "Finding the optimal policies of {wildcards.pairs} pairs, noise {wildcards.noise}"
    script:
        "../workflow_scripts/regime_policies.py"


rule tabulate_regimes:
    """What each method is worth in each cell, against the baseline and against its controls."""
    input:
        policies=[
            f"{R}/regimes/{pool['pairs']}_pairs/noise_{noise:g}.parquet"
            for pool in REGIMES["pools"]
            for noise in REGIMES["noise"]
        ],
    output:
        table=report(
            f"{R}/regimes/regimes.csv",
            caption="captions/regimes_table.rst",
            category="Regimes",
            labels={"what": "Methods in each cell", "form": "table"},
        ),
    log:
        f"{R}/logs/tabulate_regimes.log",
    benchmark:
        f"{R}/timings/tabulate_regimes.tsv"
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=4, minutes=30),
    params:
        baseline=config["statistics"]["baseline"],
        controls=CONTROLS,
        code=lambda wildcards: code_digest("tabulate_regimes"),
    message:
        "Comparing the methods in each cell"
    script:
        "../workflow_scripts/tabulate_regimes.py"
