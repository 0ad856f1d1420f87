# The figures and tables of arXiv 2410.23726, each beside what it prints there.

# The figures that the paper has, by number; what it prints of them is in prudent/analysis/printed.py.
NUMBERED = {
    int(found[1]): name for name in FIGURES if (found := re.match(r"fig(\d+)_", name))
}
# Figure 12 is Figure 7 with other numbers of policies, which `seeds` says here.
DRAWN = NUMBERED | ({12: NUMBERED[7]} if 7 in NUMBERED else {})
PAPER = [
    *(f"figure_{n}" for n in range(1, 13)),
    *(f"table_{n}" for n in range(1, 9)),
]


rule paper:
    """Each number that the paper prints beside ours, by its figures and tables."""
    input:
        **tables_of_trained("summary", "tests"),
        theory=f"{R}/theory/theory.csv",
        accuracy=f"{R}/benchmark/accuracy.csv",
        variance=f"{R}/benchmark/variance.csv",
        base=f"{R}/reward/base_loss.csv",
        heads=f"{REWARDS}.csv",
        preferences=f"{R}/data/preferences.parquet",
        training_logs=TRAINING_LOGS,
        svgs=expand(f"{R}/figures/{{name}}.svg", name=NUMBERED.values()),
    output:
        table=report(
            f"{R}/paper/paper.csv",
            caption="captions/paper.rst",
            category="Summary",
            labels={"what": "The paper beside this run", "form": "table"},
        ),
        page=report(
            f"{R}/paper/paper.html",
            caption="captions/paper.rst",
            category="Summary",
            labels={"what": "The paper beside this run", "form": "page"},
        ),
        tables=expand(f"{R}/paper/table_{{n}}.csv", n=range(1, 9)),
    log:
        f"{R}/logs/paper.log",
    benchmark:
        f"{R}/timings/paper.tsv"
    conda:
        ENVIRONMENT
    resources:
        **needs(memory=4, minutes=30),
    params:
        settings={
            "reward": portable(config["reward"]),
            "ensemble": ENSEMBLE,
            "prompts": portable(config["prompts"]),
            "ppo": config["ppo"],
            "methods": config["methods"],
        },
        figures=[
            {"item": f"Figure {n}", "name": name, "caption": figure_caption(name)}
            for n, name in NUMBERED.items()
        ],
        trained=trainings(),
        scenario=config["scenario"],
        seed=config["seed"],
        config_digest=config_digest(config),
        code=lambda wildcards: code_digest(
            "paper", loads=["prudent/figures/paper.html", "prudent/figures/parts.html"]
        ),
    message:
        "Setting the paper beside this run"
    script:
        "../workflow_scripts/paper.py"


# `snakemake figure_7`, `snakemake table_1`: by the paper's own names.
for item in PAPER:

    rule:
        name:
            item
        input:
            item_of_paper(item),
