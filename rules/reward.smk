# Stages 3 and 4: the base reward model, its features, the ensembles, and what they know.


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
        **needs(memory=16, minutes=720, gpu=1),
    params:
        settings=portable(config["reward"]),
        content=content_of(config["reward"]["checkpoint"], memory),
        split="train",
        checkpoints=f"{TRAININGS}/reward/base",
        seed=config["seed"],
        code=lambda wildcards: code_digest("train_reward_base"),
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
        metadata=f"{R}/reward/features.json",
    log:
        f"{R}/logs/compute_features.log",
    cache: bool(CACHE)
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        **needs(memory=16, minutes=240, gpu=1),
    params:
        batch_tokens=8192,
        code=lambda wildcards: code_digest("compute_features"),
    message:
        "Computing the features of the pairs"
    script:
        "../workflow_scripts/compute_features.py"


rule train_members:
    """Independent reward models of an ensemble: own heads, data orders, labels, backbones."""
    input:
        preferences=f"{R}/data/preferences.parquet",
        backbone=backbone(config["reward"]),
        base=start_of_member,
    output:
        checkpoints=directory(f"{R}/reward/members/{{ensemble}}/{{first}}"),
    log:
        f"{R}/logs/train_members/{{ensemble}}/{{first}}.log",
    cache: bool(CACHE)
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=16, minutes=720, gpu=1),
    params:
        reward=portable(config["reward"]),
        settings=settings_of_members,
        content=content_of(config["reward"]["checkpoint"], memory),
        members=members_of_job,
        resume=f"{TRAININGS}/reward/members",
        seed=config["seed"],
        code=lambda wildcards: code_digest("train_members"),
    message:
        "Training members {params.members} of {wildcards.ensemble}"
    script:
        "../workflow_scripts/train_members.py"


rule train_ensemble:
    """All draws of an ensemble, from the base model's features, the pairs, or its members."""
    input:
        unpack(ensemble_inputs),
    output:
        ensemble=directory(f"{R}/reward/ensembles/{{ensemble}}"),
        loss=f"{R}/reward/ensembles/{{ensemble}}.csv",
    log:
        f"{R}/logs/train_ensemble/{{ensemble}}.log",
    benchmark:
        f"{R}/timings/train_ensemble/{{ensemble}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=16, minutes=240, gpu=1),
    params:
        kind=kind_of,
        size=lambda wildcards: config["ensembles"][wildcards.ensemble]["count"],
        draws=lambda wildcards: config["ensembles"][wildcards.ensemble]["draws"],
        reward=portable(config["reward"]),
        settings=settings_of_ensemble,
        content=content_of(config["reward"]["checkpoint"], memory),
        seed=config["seed"],
        code=lambda wildcards: code_of_ensembles("train_ensemble", [wildcards.ensemble]),
    message:
        "Training the ensemble {wildcards.ensemble}"
    script:
        "../workflow_scripts/train_ensemble.py"


use rule train_ensemble as train_pilots with:
    input:
        unpack(
            lambda wildcards: inputs_of_draws(config["ensemble"], ENSEMBLE["draws"], 1)
        ),
    output:
        ensemble=directory(f"{R}/reward/pilots"),
        digest=f"{R}/reward/pilots.sha256",
        loss=f"{R}/reward/pilots.csv",
    log:
        f"{R}/logs/train_pilots.log",
    benchmark:
        f"{R}/timings/train_pilots.tsv"
    params:
        kind=ENSEMBLE["kind"],
        size=ENSEMBLE["count"],
        draws=1,
        first=ENSEMBLE["draws"],
        # Pilots stand for policies whose one ensemble has the labels that are stored.
        stored_labels=ENSEMBLE["draws"] == 1,
        reward=portable(config["reward"]),
        settings=ensemble_settings(ENSEMBLE),
        content=content_of(config["reward"]["checkpoint"], memory),
        seed=config["seed"],
        code=lambda wildcards: code_of_ensembles("train_ensemble", [config["ensemble"]]),
    message:
        "Training the pilots' ensemble"


rule train_replicate:
    """One replicate of the ensemble that rewards the policies: pairs, labels, base model, members."""
    input:
        preferences=f"{R}/data/preferences.parquet",
        backbone=backbone(config["reward"]),
    output:
        checkpoint=directory(f"{R}/reward/replicates/{{replicate}}"),
        loss=f"{R}/reward/replicates/{{replicate}}.csv",
    log:
        f"{R}/logs/train_replicate/{{replicate}}.log",
    benchmark:
        f"{R}/timings/train_replicate/{{replicate}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=16, minutes=720, gpu=1),
    params:
        kind=ENSEMBLE["kind"],
        size=ENSEMBLE["count"],
        models=models_of(ENSEMBLE),
        reward=portable(config["reward"]),
        settings=ensemble_settings(ENSEMBLE),
        content=content_of(config["reward"]["checkpoint"], memory),
        replicate=lambda wildcards: int(wildcards.replicate),
        seed=config["seed"],
        code=lambda wildcards: code_of_ensembles(
            "train_replicate", [config["ensemble"]]
        ),
    message:
        "Training replicate {wildcards.replicate} of the rewards"
    script:
        "../workflow_scripts/train_replicate.py"


rule diagnose_rewards:
    """What the rewards, and their spread, know of the judge's on the reference's responses."""
    input:
        reference=f"{R}/reference",
        base=f"{R}/reward/base",
        backbone=backbone(config["reward"]),
        ensembles=expand(f"{R}/reward/ensembles/{{ensemble}}", ensemble=CHECKED),
        replicates=REPLICATES,
        prompts=f"{R}/data/prompts.parquet",
        preferences=f"{R}/data/preferences.parquet",
        judge=judge_model(),
        trained_judge=trained_judge(),
    output:
        **kinds_by_judge(),
        samples=f"{R}/reward/samples.parquet",
        table=f"{R}/reward/diagnosis.csv",
        kinds=f"{R}/reward/kinds.csv",
        frequency=f"{R}/reward/frequency.csv",
    log:
        f"{R}/logs/diagnose_rewards.log",
    benchmark:
        f"{R}/timings/diagnose_rewards.tsv"
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=16, minutes=120, gpu=1),
    params:
        names=CHECKED,
        from_base=[
            name for name in CHECKED if starts_from_base(config["ensembles"][name])
        ],
        promised=config["ensemble"],
        reward=portable(config["reward"]),
        prompt_count=config["diagnosis"]["prompts"],
        response_count=config["diagnosis"]["responses"],
        model=config["judge"]["model"],
        revision=config["judge"]["revision"],
        content=content_of(config["judge"]["model"], memory),
        sampling=config["sampling"],
        seed=config["seed"],
        code=lambda wildcards: code_of_ensembles("diagnose_rewards", CHECKED),
    message:
        "Diagnosing the rewards"
    script:
        "../workflow_scripts/diagnose_rewards.py"
