# Stage 2: the policy that everything starts from and is compared with.


rule train_reference:
    """The reference policy: trained from scratch or fine-tuned on the texts, or as it is."""
    input:
        texts=f"{R}/data/texts.parquet" if config["reference"]["train"] else [],
        start=local(config["reference"]["checkpoint"]),
    output:
        checkpoint=directory(f"{R}/reference"),
        digest=f"{R}/reference.sha256",
        loss=f"{R}/reference_loss.csv",
    log:
        f"{R}/logs/train_reference.log",
    cache: bool(CACHE)
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        **needs(memory=8, minutes=240, gpu=1),
    params:
        settings=portable(config["reference"]),
        content=content_of(config["reference"]["checkpoint"], memory),
        checkpoints=f"{TRAININGS}/reference",
        seed=config["seed"],
        code=lambda wildcards: code_digest("train_reference"),
    message:
        "Training the reference policy"
    script:
        "../workflow_scripts/train_reference.py"
