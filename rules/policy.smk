# Stage 6: the policies, one job per method and seed, and the coefficients that they need.


rule calibrate_beta:
    """The coefficient for a method's KL: from the exact policies, corrected by pilots."""
    input:
        unpack(features_of_calibration),
        reference=made(f"{R}/reference"),
        pilots=made(f"{R}/reward/pilots"),
        prompts=f"{R}/data/prompts.parquet",
        samples=f"{R}/exact/samples.parquet",
        scores=f"{R}/exact/scores.safetensors",
    output:
        table=f"{R}/calibration/{{method}}.csv",
        calibration=f"{R}/calibration/{{method}}.json",
    log:
        f"{R}/logs/calibrate_beta/{{method}}.log",
    cache: bool(CACHE)
    conda:
        ENVIRONMENT
    threads: policy_threads
    resources:
        **needs(memory=16, minutes=720, gpu=1),
    params:
        method_settings=lambda wildcards: EXACT[wildcards.method],
        kl=lambda wildcards: CALIBRATED.get(wildcards.method),
        pilot_count=config["pilots"],
        prompt_count=config["judge"]["prompts"],
        settings=policy_settings,
        sampling=config["sampling"],
        checkpoints=f"{CHECKPOINTS}/calibration/{{method}}",
        seed=config["seed"],
        code=lambda wildcards: code_of_policy("calibrate_beta", wildcards),
    message:
        "Calibrating the coefficient of {wildcards.method}"
    script:
        "../workflow_scripts/calibrate_beta.py"


rule train_policy:
    """One policy, by PPO against its own head of its ensemble."""
    input:
        unpack(features_of_policy),
        reference=f"{R}/reference",
        calibration=calibration_of_policy,
        ensemble=REWARDS,
        prompts=f"{R}/data/prompts.parquet",
    output:
        policy=directory(f"{R}/policies/{{method}}/seed{{seed}}"),
        training_log=f"{R}/policies/{{method}}/seed{{seed}}.csv",
    log:
        f"{R}/logs/train_policy/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{R}/timings/train_policy/{{method}}/seed{{seed}}.tsv"
    conda:
        ENVIRONMENT
    threads: policy_threads
    resources:
        **needs(memory=16, minutes=480, gpu=1),
    params:
        objective=objective_of_policy,
        parameters=parameters_of_policy,
        spread=lambda wildcards: config["methods"][wildcards.method]["spread"],
        beta=lambda wildcards: given_beta(wildcards.method),
        # The world's judge is cheap enough to be asked at each step.
        judge="world" if config["judge"]["model"] == "world" else None,
        draw=lambda wildcards: PAIRS[int(wildcards.seed)][0],
        head=lambda wildcards: PAIRS[int(wildcards.seed)][1],
        settings=policy_settings,
        sampling=config["sampling"],
        # Outputs of a failed job are deleted; checkpoints survive in a folder of their own.
        checkpoints=f"{CHECKPOINTS}/policies/{{method}}/seed{{seed}}",
        run_seed=lambda wildcards: int(wildcards.seed),
        seed=config["seed"],
        code=lambda wildcards: code_of_policy("train_policy", wildcards),
    message:
        "Training policy {wildcards.method}, seed {wildcards.seed}"
    script:
        "../workflow_scripts/train_policy.py"
