# Stage 7: the policies and the reference answer the same prompts, and the judge scores them.


if config["judge"]["scorer"] == "trained":

    use rule train_reward_base as train_judge with:
        input:
            preferences=f"{R}/data/preferences.parquet",
            backbone=backbone(judge_reward_settings(config)),
        output:
            checkpoint=directory(f"{R}/judge/model"),
            digest=f"{R}/judge/model.sha256",
            loss=f"{R}/judge/model_loss.csv",
        log:
            f"{R}/logs/train_judge.log",
        params:
            settings=portable(judge_reward_settings(config)),
            content=content_of(judge_reward_settings(config)["checkpoint"], memory),
            split="judge",
        message:
            "Training the judge"


rule judge_policy:
    """One policy's responses to the test prompts, with the judge's scores."""
    input:
        policy=f"{R}/policies/{{method}}/seed{{seed}}",
        prompts=f"{R}/data/prompts.parquet",
        judge=judge_model(),
    output:
        scores=f"{R}/judge/{{method}}/seed{{seed}}.parquet",
        metadata=f"{R}/judge/{{method}}/seed{{seed}}.json",
    log:
        f"{R}/logs/judge_policy/{{method}}/seed{{seed}}.log",
    benchmark:
        f"{R}/benchmarks/judge_policy/{{method}}/seed{{seed}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        scorer=config["judge"]["scorer"],
        content=content_of(config["judge"]["scorer"], memory),
        prompt_count=config["judge"]["prompts"],
        sampling=config["sampling"],
        seed=config["seed"],
        code=code_digest("judge_policy"),
    message:
        "Judging policy {wildcards.method}, seed {wildcards.seed}"
    script:
        "../workflow_scripts/judge_policy.py"


use rule judge_policy as judge_reference with:
    input:
        policy=f"{R}/reference",
        prompts=f"{R}/data/prompts.parquet",
        judge=judge_model(),
    output:
        scores=f"{R}/judge/reference.parquet",
        metadata=f"{R}/judge/reference.json",
    log:
        f"{R}/logs/judge_reference.log",
    benchmark:
        f"{R}/benchmarks/judge_reference.tsv"
    message:
        "Judging the reference policy"
