# Stages 3 and 4: the base reward model, its features, and the ensembles of heads on them.


rule train_reward_base:
    """The base reward model: a sequence classifier with one label."""
    input:
        preferences=f"{R}/data/preferences.parquet",
        backbone=backbone(config["reward"]),
    output:
        checkpoint=directory(f"{R}/reward/base"),
        digest=f"{R}/reward/base.sha256",
        loss=f"{R}/reward/base_loss.csv",
    log:
        f"{R}/logs/train_reward_base.log",
    cache: bool(CACHE)
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 720 * attempt,
    params:
        settings=portable(config["reward"]),
        content=content_of(config["reward"]["checkpoint"], memory),
        split="train",
        seed=config["seed"],
        code=code_digest("train_reward_base"),
    message:
        "Training the base reward model"
    script:
        "../workflow_scripts/train_reward_base.py"


rule compute_features:
    """What enters the base model's final layer, for both responses of every pair."""
    input:
        base=made(f"{R}/reward/base"),
        preferences=f"{R}/data/preferences.parquet",
    output:
        features=f"{R}/reward/features.safetensors",
        sidecar=f"{R}/reward/features.json",
    log:
        f"{R}/logs/compute_features.log",
    cache: bool(CACHE)
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        batch_tokens=8192,
        code=code_digest("compute_features"),
    message:
        "Computing the features of the pairs"
    script:
        "../workflow_scripts/compute_features.py"


rule train_reward_heads:
    """The ensembles: heads trained on the frozen base model's features."""
    input:
        base=f"{R}/reward/base",
        features=f"{R}/reward/features.safetensors",
        sidecar=f"{R}/reward/features.json",
        preferences=f"{R}/data/preferences.parquet",
    output:
        ensembles=directory(ENSEMBLES),
        loss=f"{R}/reward/heads_loss.csv",
    log:
        f"{R}/logs/train_reward_heads.log",
    benchmark:
        f"{R}/benchmarks/train_reward_heads.tsv"
    conda:
        ENVIRONMENT
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        settings=config["heads"],
        seed=config["seed"],
        code=code_digest("train_reward_heads"),
    message:
        "Training the ensembles' heads"
    script:
        "../workflow_scripts/train_reward_heads.py"


rule diagnose_rewards:
    """How the rewards agree with each other and with the judge on the reference's responses."""
    input:
        reference=f"{R}/reference",
        base=f"{R}/reward/base",
        ensembles=ENSEMBLES,
        prompts=f"{R}/data/prompts.parquet",
        features=f"{R}/reward/features.safetensors",
        preferences=f"{R}/data/preferences.parquet",
        judge=judge_model(),
    output:
        samples=f"{R}/reward/samples.parquet",
        table=f"{R}/reward/diagnosis.csv",
    log:
        f"{R}/logs/diagnose_rewards.log",
    benchmark:
        f"{R}/benchmarks/diagnose_rewards.tsv"
    conda:
        ENVIRONMENT
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        settings=config["diagnosis"],
        scorer=config["judge"]["scorer"],
        content=content_of(config["judge"]["scorer"], memory),
        sampling=config["sampling"],
        seed=config["seed"],
        code=code_digest("diagnose_rewards"),
    message:
        "Diagnosing the rewards"
    script:
        "../workflow_scripts/diagnose_rewards.py"
