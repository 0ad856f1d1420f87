"""Write the page that says what the numbers say, with its tables and figures, in one file."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from prudent import tables
from prudent.analysis.verdict import read_verdicts
from prudent.figures import page
from prudent.workflow import entry
from prudent.workflow.provenance import provenance


@dataclass
class Args:
    diagnosis: Path  # table
    frequency: Path  # table
    accuracy: Path  # table
    variance: Path  # table
    samples: Path  # rewards of the reference's responses
    exact: Path  # table of the methods by their exact policies
    verdict: Path  # what is found of each method
    svgs: list[Path]  # the figures, in their order
    page: Path  # written
    figures: list[dict[str, str]]  # name and caption of each
    scenario: str  # its name
    seed: int  # of the study
    config_digest: str  # SHA-256 of the effective configuration
    policies: Path | None = None  # table
    summary: Path | None = None  # table
    tests: Path | None = None  # table
    components: Path | None = None  # table
    exact_kinds: Path | None = None  # table of the methods by every ensemble
    judgements: list[Path] = field(default_factory=list)  # tables of each method and the reference
    rewards: list[Path] = field(default_factory=list)  # tables of the same responses


def main(args: Args) -> None:
    names = ("diagnosis", "frequency", "accuracy", "variance")
    names += ("policies", "summary", "tests", "components") if args.policies else ()
    found = {name: tables.read_csv(getattr(args, name), name) for name in names}
    found["exact"] = tables.read_csv(args.exact, "exact_summary")
    if args.exact_kinds:
        found["exact_kinds"] = tables.read_csv(args.exact_kinds, "exact_kinds")
    found["samples"] = tables.read_table(args.samples, "reward_samples")
    for name in ("judgements", "rewards") if args.judgements else ():
        found[name] = pd.concat(tables.read_table(path, name) for path in getattr(args, name))
    found["verdict"] = read_verdicts(args.verdict)
    figures = [
        page.Figure(svg=svg.read_text(encoding="utf-8"), **figure)
        for figure, svg in zip(args.figures, args.svgs, strict=True)
    ]
    facts = provenance(args.scenario, args.seed, args.config_digest)
    tables.write_text(page.render(**found, figures=figures, facts=facts), args.page)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
