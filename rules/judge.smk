# Stage 7: the policies and the reference answer the same prompts; the judge and all reward heads
# say what they make of the answers.

JUDGE_REWARD = CONFIG.judge_reward().model_dump()

if config["judge"]["model"] == "trained" or config["diagnosis"]["trained_judge"]:

    use rule train_reward_base as train_judge with:
        input:
            preferences=f"{R}/data/preferences.parquet",
            backbone=backbone(JUDGE_REWARD),
        output:
            checkpoint=directory(f"{R}/judge/model"),
            digest=f"{R}/judge/model.sha256",
            loss=f"{R}/judge/model_loss.csv",
        log:
            f"{R}/logs/train_judge.log",
        params:
            settings=portable(JUDGE_REWARD),
            content=content_of(JUDGE_REWARD["checkpoint"], memory),
            split="judge",
            checkpoints=f"{TRAININGS}/judge",
        message:
            "Training the judge"


rule respond:
    """The responses of a method's policies to the test prompts."""
    input:
        policies=expand(f"{R}/policies/{{{{method}}}}/seed{{seed}}", seed=SEEDS),
        reference=f"{R}/reference",
        prompts=f"{R}/data/prompts.parquet",
    output:
        responses=f"{R}/responses/{{method}}.parquet",
        metadata=f"{R}/responses/{{method}}.json",
    log:
        f"{R}/logs/respond/{{method}}.log",
    benchmark:
        f"{R}/timings/respond/{{method}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, input, attempt: (30 + 15 * len(input.policies))
        * attempt,
    params:
        method=lambda wildcards: wildcards.method,
        seeds=SEEDS,
        prompt_count=config["judge"]["prompts"],
        sampling=config["sampling"],
        seed=config["seed"],
        code=lambda wildcards: code_digest("respond"),
    message:
        "Letting the policies of {wildcards.method} answer the test prompts"
    script:
        "../workflow_scripts/respond.py"


use rule respond as respond_reference with:
    input:
        policies=[f"{R}/reference"],
        reference=f"{R}/reference",
        prompts=f"{R}/data/prompts.parquet",
    output:
        responses=f"{R}/responses/reference.parquet",
        metadata=f"{R}/responses/reference.json",
    log:
        f"{R}/logs/respond/reference.log",
    benchmark:
        f"{R}/timings/respond/reference.tsv"
    params:
        method="reference",
        seeds=[0],
        prompt_count=config["judge"]["prompts"],
        sampling=config["sampling"],
        seed=config["seed"],
        code=lambda wildcards: code_digest("respond"),
    message:
        "Letting the reference policy answer the test prompts"


rule judge_responses:
    """The judge's scores of the responses of a method's policies, or of the reference policy."""
    input:
        responses=f"{R}/responses/{{answerer}}.parquet",
        judge=judge_model(),
    output:
        scores=f"{R}/judge/{{answerer}}.parquet",
        metadata=f"{R}/judge/{{answerer}}.json",
    log:
        f"{R}/logs/judge_responses/{{answerer}}.log",
    benchmark:
        f"{R}/timings/judge_responses/{{answerer}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=16, minutes=120, gpu=1),
    params:
        model=config["judge"]["model"],
        revision=config["judge"]["revision"],
        content=content_of(config["judge"]["model"], memory),
        code=lambda wildcards: code_digest("judge_responses"),
    message:
        "Judging the responses of {wildcards.answerer}"
    script:
        "../workflow_scripts/judge_responses.py"


rule reward_responses:
    """What every member of the ensemble says of the responses, in all its draws."""
    input:
        responses=f"{R}/responses/{{answerer}}.parquet",
        ensemble=REWARDS,
    output:
        rewards=f"{R}/reward/responses/{{answerer}}.parquet",
    log:
        f"{R}/logs/reward_responses/{{answerer}}.log",
    benchmark:
        f"{R}/timings/reward_responses/{{answerer}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=16, minutes=120, gpu=1),
    params:
        code=lambda wildcards: code_of_ensembles(
            "reward_responses", [config["ensemble"]]
        ),
    message:
        "Rewarding the responses of {wildcards.answerer}"
    script:
        "../workflow_scripts/reward_responses.py"
