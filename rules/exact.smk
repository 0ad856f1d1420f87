# Stage 5: optimal policies, which need no training: the reference policy's responses, weighted.


rule preregister:
    """How methods will be judged, stated before any policy is trained."""
    input:
        [],
    output:
        stated=f"{R}/summary/preregistration.json",
    log:
        f"{R}/logs/preregister.log",
    benchmark:
        f"{R}/timings/preregister.tsv"
    # The first job, and no input of others: Snakemake would not see what else has changed of these.
    priority: 100
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=4, minutes=30),
    params:
        methods=held_methods(config),
        baseline=config["statistics"]["baseline"],
        kl=max(config["exact"]["kl"]),
        margin=config["statistics"]["margin"],
        permutations=config["statistics"]["permutations"],
        seed=config["seed"],
        code=lambda wildcards: code_digest("preregister"),
    message:
        "Stating how methods will be judged"
    script:
        "../workflow_scripts/preregister.py"


rule sample_reference:
    """Several responses of the reference policy to each of some prompts, or those of a file."""
    input:
        reference=[] if config["exact"]["responses"] else f"{R}/reference",
        prompts=[] if config["exact"]["responses"] else f"{R}/data/prompts.parquet",
        responses=local(config["exact"]["responses"]),
    output:
        samples=f"{R}/exact/samples.parquet",
        metadata=f"{R}/exact/samples.json",
    log:
        f"{R}/logs/sample_reference.log",
    benchmark:
        f"{R}/timings/sample_reference.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        **needs(memory=8, minutes=240, gpu=1),
    params:
        prompt_count=config["exact"]["prompts"],
        sample_count=config["exact"]["samples"],
        sampling=config["sampling"],
        # Outputs of a failed job are deleted; what was sampled survives in a folder of its own.
        checkpoints=f"{CHECKPOINTS}/exact",
        content=content_of(config["exact"]["responses"], memory),
        seed=config["seed"],
        code=lambda wildcards: code_digest("sample_reference"),
    message:
        "Sampling the reference policy"
    script:
        "../workflow_scripts/sample_reference.py"


rule score_reference:
    """What the judge, the ensemble and its replicates say of these responses."""
    input:
        samples=f"{R}/exact/samples.parquet",
        ensemble=REWARDS,
        replicates=REPLICATES,
        base=f"{R}/reward/base" if ON_BASE else [],
        judge=judge_model(),
    output:
        scores=f"{R}/exact/scores.safetensors",
        metadata=f"{R}/exact/scores.json",
    log:
        f"{R}/logs/score_reference.log",
    benchmark:
        f"{R}/timings/score_reference.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        **needs(memory=16, minutes=240, gpu=1),
    params:
        model=config["judge"]["model"],
        revision=config["judge"]["revision"],
        content=content_of(config["judge"]["model"], memory),
        code=lambda wildcards: code_of_ensembles(
            "score_reference", [config["ensemble"]]
        ),
    message:
        "Scoring the reference policy's responses"
    script:
        "../workflow_scripts/score_reference.py"


rule exact_policies:
    """The optimal policies of every method, for many ensembles, at the same KLs."""
    input:
        **features_of_pairs(PAIR_FEATURES),
        samples=f"{R}/exact/samples.parquet",
        scores=f"{R}/exact/scores.safetensors",
    output:
        policies=f"{R}/exact/policies.parquet",
        summary=report(
            f"{R}/exact/summary.csv",
            caption="captions/exact_summary.rst",
            category="Exact policies",
            labels={"what": "Methods at the same KL", "form": "table"},
        ),
        best=f"{R}/exact/best_of_n.csv",
    log:
        f"{R}/logs/exact_policies.log",
    benchmark:
        f"{R}/timings/exact_policies.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        **needs(memory=8, minutes=240),
    params:
        methods=EXACT,
        kl=config["exact"]["kl"],
        ensembles=config["exact"]["ensembles"],
        heads=ensemble_settings(ENSEMBLE) if FRESH_HEADS else None,
        size=ENSEMBLE["count"],
        baseline=config["statistics"]["baseline"],
        seed=config["seed"],
        code=lambda wildcards: [
            code_digest("exact_policies", objective=name)
            for name in sorted({method["objective"] for method in EXACT.values()})
        ],
    message:
        "Finding the optimal policies"
    script:
        "../workflow_scripts/exact_policies.py"


rule exact_kinds:
    """The optimal policies of every method by each ensemble that is checked."""
    input:
        samples=f"{R}/exact/samples.parquet",
        scores=f"{R}/exact/scores.safetensors",
        ensembles=expand(f"{R}/reward/ensembles/{{ensemble}}", ensemble=CHECKED),
    output:
        table=f"{R}/exact/kinds.csv",
    log:
        f"{R}/logs/exact_kinds.log",
    benchmark:
        f"{R}/timings/exact_kinds.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        **needs(memory=16, minutes=240, gpu=1),
    params:
        names=CHECKED,
        methods=EXACT,
        kl=config["exact"]["kl"],
        baseline=config["statistics"]["baseline"],
        seed=config["seed"],
        code=lambda wildcards: [
            code_of_ensembles("exact_kinds", CHECKED),
            *(
                code_digest("exact_kinds", objective=name)
                for name in sorted({method["objective"] for method in EXACT.values()})
            ),
        ],
    message:
        "Finding the optimal policies by every ensemble"
    script:
        "../workflow_scripts/exact_kinds.py"


rule exact_frontier:
    """The optimal policies of the trained methods over the KL, to hold their policies against."""
    input:
        **features_of_pairs(any(map(uses_last_layer, config["methods"].values()))),
        samples=f"{R}/exact/samples.parquet",
        scores=f"{R}/exact/scores.safetensors",
    output:
        frontier=f"{R}/exact/frontier.parquet",
    log:
        f"{R}/logs/exact_frontier.log",
    benchmark:
        f"{R}/timings/exact_frontier.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        **needs(memory=8, minutes=60),
    params:
        methods={name: EXACT[name] for name in METHODS},
        pairs=[list(pair) for pair in dict.fromkeys(map(tuple, PAIRS))],
        seed=config["seed"],
        code=lambda wildcards: [
            code_digest("exact_frontier", objective=name)
            for name in sorted({EXACT[name]["objective"] for name in METHODS})
        ],
    message:
        "Finding the optimal policies of the trained methods"
    script:
        "../workflow_scripts/exact_frontier.py"
