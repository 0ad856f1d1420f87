"""What the paper prints beside this scenario: a table, those of its tables alone, and a page."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prudent import paths
from prudent.analysis import paper
from prudent.analysis.printed import Resources
from prudent.figures.paper_page import render
from prudent.tables import read_csv, read_table, write_csv, write_text
from prudent.workflow import entry
from prudent.workflow.provenance import provenance


@dataclass
class Args:
    theory: Path  # table
    accuracy: Path  # table
    variance: Path  # table
    base: Path  # losses of the base reward model
    heads: Path  # losses of the members
    preferences: Path  # table
    svgs: list[Path]  # the figures that the paper has, in their order
    table: Path  # written: every printed number beside ours
    tables: list[Path]  # written: those of each table of the paper
    page: Path  # written
    settings: dict[str, Any]  # sections of the configuration
    figures: list[dict[str, str]]  # item, name and caption of each figure
    trained: dict[str, dict[str, list[str]]]  # logs and folders of the trainings, by table
    scenario: str  # its name
    seed: int  # of the study
    config_digest: str  # SHA-256 of the effective configuration
    summary: Path | None = None  # table
    tests: Path | None = None  # table
    training_logs: list[Path] = field(default_factory=list)  # of the policies


def main(args: Args) -> None:
    accuracy = read_csv(args.accuracy, "accuracy")
    pairs = read_table(args.preferences, "preferences")
    run = paper.Run(
        config=args.settings,
        theory=read_csv(args.theory, "claims"),
        accuracy=accuracy,
        variance=read_csv(args.variance, "variance"),
        base=read_csv(args.base, "losses"),
        heads=read_csv(args.heads, "head_losses"),
        pairs=int((pairs["split"] == "train").sum()),
        summary=read_csv(args.summary, "summary") if args.summary else None,
        tests=read_csv(args.tests, "tests") if args.tests else None,
        proxy=final_proxy(args.training_logs),
        used={name: used(**of) for name, of in args.trained.items()},
    )
    rows = pd.DataFrame(paper.rows(run))
    write_csv(rows, args.table, "paper")
    rewardbench = paper.rewardbench_table(accuracy)
    for number, path in enumerate(args.tables, 1):
        of_table = rows[rows["item"] == f"Table {number}"]
        if number == 1:
            write_csv(rewardbench, path, "paper_rewardbench")
        else:
            write_csv(of_table, path, "paper")
    figures = [
        {**figure, "svg": svg.read_text(encoding="utf-8")}
        for figure, svg in zip(args.figures, args.svgs, strict=True)
    ]
    facts = provenance(args.scenario, args.seed, args.config_digest)
    write_text(render(rows, rewardbench, figures, facts), args.page)


def final_proxy(logs: list[Path]) -> dict[str, float]:
    """The mean proxy reward of each method's policies at the last step; a log's folder is its
    method."""
    found: dict[str, list[float]] = {}
    for path in logs:
        log = read_csv(path, "training_log")
        found.setdefault(path.parent.name, []).append(float(log["proxy_reward"].iloc[-1]))
    return {method: float(np.mean(values)) for method, values in found.items()}


def used(logs: list[str], folders: list[str]) -> Resources | None:
    """The mean hours and the largest memory that the logs of some jobs tell, and the mean size of
    what they made; None where no log tells."""
    told = [found for log in logs if (found := entry.logged_use(Path(log))) is not None]
    if not told:
        return None
    seconds, memory = zip(*told, strict=True)
    sizes = [
        sum(file.stat().st_size for file in map(Path, paths.folder_files(folder)))
        for folder in folders
        if Path(folder).is_dir()
    ]
    return Resources(
        float(np.mean(seconds)) / 3600,
        max(memory),
        float(np.mean(sizes)) / 1e9 if sizes else np.nan,
    )


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
