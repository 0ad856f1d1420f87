# Stage 1: sources of any form become tables of one schema each, with a data card.


rule prepare_texts:
    """The texts that the reference policy is trained on."""
    input:
        files=files("texts"),
    output:
        texts=f"{R}/data/texts.parquet",
        card=f"{R}/data/texts.card.json",
    log:
        f"{R}/logs/prepare_texts.log",
    cache: bool(CACHE)
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=4, minutes=60),
    params:
        settings=portable(config["texts"]),
        content=contents(config["texts"]["sources"], memory),
        bad_rows=config["bad_rows"],
        seed=config["seed"],
        code=lambda wildcards: code_digest("prepare_texts"),
    message:
        "Preparing the texts"
    script:
        "../workflow_scripts/prepare_texts.py"


rule prepare_prompts:
    """The prompts: the first tokens of texts, some of them kept for judging."""
    input:
        files=files("prompts"),
        reference=made(f"{R}/reference"),
    output:
        prompts=f"{R}/data/prompts.parquet",
        card=f"{R}/data/prompts.card.json",
    log:
        f"{R}/logs/prepare_prompts.log",
    cache: bool(CACHE)
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=4, minutes=60),
    params:
        settings=portable(config["prompts"]),
        content=contents(config["prompts"]["sources"], memory),
        bad_rows=config["bad_rows"],
        seed=config["seed"],
        code=lambda wildcards: code_digest("prepare_prompts"),
    message:
        "Preparing the prompts"
    script:
        "../workflow_scripts/prepare_prompts.py"


rule prepare_preferences:
    """Preference pairs, given or sampled from the reference policy, split by prompt."""
    input:
        files=files("preferences"),
        reference=made(f"{R}/reference") if CONFIG.preferences.sampled else [],
        prompts=f"{R}/data/prompts.parquet" if CONFIG.preferences.sampled else [],
        gold=local(config["preferences"]["gold"]) if CONFIG.preferences.labelled else [],
    output:
        preferences=f"{R}/data/preferences.parquet",
        card=f"{R}/data/preferences.card.json",
    log:
        f"{R}/logs/prepare_preferences.log",
    cache: bool(CACHE)
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        **needs(memory=8, minutes=120, gpu=1),
    params:
        settings=portable(config["preferences"]),
        content=contents(config["preferences"]["sources"], memory),
        gold_content=content_of(config["preferences"]["gold"], memory),
        bad_rows=config["bad_rows"],
        sampling=config["sampling"],
        seed=config["seed"],
        code=lambda wildcards: code_digest("prepare_preferences"),
    message:
        "Preparing the preference pairs"
    script:
        "../workflow_scripts/prepare_preferences.py"


rule prepare_benchmark:
    """The pairs that reward models are measured on, in sections and subsets."""
    input:
        files=files("benchmark"),
    output:
        benchmark=f"{R}/data/benchmark.parquet",
        card=f"{R}/data/benchmark.card.json",
    log:
        f"{R}/logs/prepare_benchmark.log",
    cache: bool(CACHE)
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=4, minutes=60),
    params:
        settings=portable(config["benchmark"]),
        content=contents(config["benchmark"]["sources"], memory),
        bad_rows=config["bad_rows"],
        seed=config["seed"],
        code=lambda wildcards: code_digest("prepare_benchmark"),
    message:
        "Preparing the benchmark"
    script:
        "../workflow_scripts/prepare_benchmark.py"
