# Stage 6: the policies, one job per method and seed.


rule train_policy:
    """One policy, by PPO against its own head of its ensemble."""
    input:
        unpack(features_of_policy),
        reference=f"{R}/reference",
        ensemble=REWARDS,
        prompts=f"{R}/data/prompts.parquet",
    output:
        policy=directory(f"{R}/policies/{{method}}/seed{{seed}}"),
        training_log=f"{R}/policies/{{method}}/seed{{seed}}.csv",
    log:
        f"{R}/logs/train_policy/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{R}/benchmarks/train_policy/{{method}}/seed{{seed}}.tsv"
    conda:
        ENVIRONMENT
    threads: policy_threads
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 480 * attempt,
    params:
        objective=objective_of_policy,
        parameters=parameters_of_policy,
        spread=lambda wildcards: config["methods"][wildcards.method]["spread"],
        beta=lambda wildcards: config["methods"][wildcards.method]["beta"],
        draw=lambda wildcards: seed_of(int(wildcards.seed))[0],
        head=lambda wildcards: seed_of(int(wildcards.seed))[1],
        settings=policy_settings,
        sampling=config["sampling"],
        # Outputs of a failed job are deleted; checkpoints survive in a folder of their own.
        checkpoints=f"{CHECKPOINTS}/policies/{{method}}/seed{{seed}}",
        run_seed=lambda wildcards: int(wildcards.seed),
        seed=config["seed"],
        code=lambda wildcards: code_digest(
            "train_policy",
            objective=objective_of_policy(wildcards),
            loads=modules_of([ENSEMBLE["kind"]]),
        ),
    message:
        "Training policy {wildcards.method}, seed {wildcards.seed}"
    script:
        "../workflow_scripts/train_policy.py"
