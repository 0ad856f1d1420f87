"""The command line: ``prudent audit FILE`` and ``prudent plan``, or ``python -m prudent ...``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from prudent.errors import InputError, tolerate_any_text

ABOUT = """
What the scores of a reward model or ensemble are worth: accuracy beside length, calibration, and
whether the disagreement of the members knows of their errors.
"""

FILE = """
FILE is a parquet, jsonl, json or csv file. One row is one labelled pair:

  prompt            a text, or a list of messages with role and content
  chosen, rejected  the two responses; chosen is the better one. Without a prompt they are whole
                    dialogues, as HH-RLHF's
  the scores, in one of two forms, and with --model none:
    chosen_0, rejected_0, chosen_1, rejected_1, ...     a pair of columns for each member
    score_chosen, score_rejected                        a number, or a list with one per member
  subset, section   optional names; RewardBench's subsets get their sections by themselves
  id                optional, each once within a subset

Two benchmarks have other columns, and are read as published:

  RewardBench 2     lists of texts in chosen and rejected. Scores are lists, too: chosen_0 has the
                    first member's score of each chosen response, rejected_0 of each rejected one.
                    Each chosen one makes a pair with each rejected one. Best of n is scored, and
                    the subset Ties (with its ids, ref:0 and tied:0) by its own rule.
  JudgeBench        question, response_A, response_B, and the label A>B or B>A; source is the
                    subset. The columns of scores are those above, chosen being the better response.

feature_norm and untrained_spread, where there are such columns, are what the spread may come from:
the norm of the difference of a pair's features, and the spread of its margin before training.

One score for each response is a single reward model; two or more are an ensemble, and its spread is
judged, too. For example, in Python:

  import pandas as pd
  pairs = pd.DataFrame({"prompt": prompts, "chosen": chosen, "rejected": rejected})
  pairs["chosen_0"] = [model(p, c) for p, c in zip(prompts, chosen)]
  pairs["rejected_0"] = [model(p, r) for p, r in zip(prompts, rejected)]
  pairs.to_parquet("scores.parquet")

With --model, FILE needs no scores, and those that it has are not read. A checkpoint is a sequence
classifier as the hub stores it, with a chat template, or a folder of one of Prudent's ensembles;
its members' own standard deviations are not used. All members of all checkpoints are one ensemble.
Their scores go to FOLDER/scores.parquet, which is a FILE with the same audit. For a single ensemble
of heads it also has feature_norm, and untrained_spread if the checkpoint kept its initial heads.

FOLDER gets audit.html, one page that opens in any browser without a network, and audit.csv and
audit.json with every number. The summary is printed. The exit status is 1 where the file or a
checkpoint is bad; the message names the file, the row and the column.
"""

PLAN = """
What a scenario takes before anything is queued: for each rule with a model its jobs, memory by
parts, disk, FLOPs and hours on the GPU of the section `plan`, and what does not fit on it. From
configurations alone; no weights are read.
"""


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    result = argparse.ArgumentParser(prog="prudent", description="Uncertainty-aware RLHF.")
    commands = result.add_subparsers(dest="command", required=True, metavar="COMMAND")
    audit = commands.add_parser(
        "audit",
        help="what a reward model's or an ensemble's scores of labelled pairs are worth",
        description=ABOUT,
        epilog=FILE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    audit.add_argument("file", type=Path, metavar="FILE", help="labelled pairs")
    audit.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="CHECKPOINT",
        help="scores the pairs; repeat it for an ensemble of several checkpoints",
    )
    audit.add_argument(
        "--output",
        type=Path,
        default=Path("audit"),
        metavar="FOLDER",
        help="where the page and its numbers go (default: %(default)s)",
    )
    audit.add_argument(
        "--seed", type=int, default=0, help="of the resamples (default: %(default)s)"
    )
    plan = commands.add_parser(
        "plan",
        help="what a scenario takes: jobs, memory, disk, FLOPs and hours",
        description=PLAN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    plan.add_argument(
        "--configfile",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="scenarios, over the default one",
    )
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; an ``InputError`` is one line, and status 1."""
    tolerate_any_text()
    args = parser().parse_args(arguments)
    try:
        print(*(_audit(args) if args.command == "audit" else _plan(args)), sep="\n")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _audit(args: argparse.Namespace) -> list[str]:
    from prudent.audit.command import PAGE, audit  # slow to import, and not needed for --help

    said = audit(args.file, args.output, args.seed, args.model)
    return [*said, f"The page: {args.output / PAGE}"]


def _plan(args: argparse.Namespace) -> list[str]:
    from prudent.plan.command import plan

    return plan(args.configfile)


if __name__ == "__main__":
    main()
