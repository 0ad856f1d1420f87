"""The command line: ``prudent audit FILE`` or ``python -m prudent audit FILE``."""

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
  chosen, rejected  the two responses, as texts; chosen is the better one
  the scores, in one of two forms:
    chosen_0, rejected_0, chosen_1, rejected_1, ...     a pair of columns for each member
    score_chosen, score_rejected                        a number, or a list with one per member
  subset, section   optional names; RewardBench's subsets get their sections by themselves
  id                optional, each once within a subset

One score for each response is a single reward model; two or more are an ensemble, and its spread is
judged, too. For example, in Python:

  import pandas as pd
  pairs = pd.DataFrame({"prompt": prompts, "chosen": chosen, "rejected": rejected})
  pairs["chosen_0"] = [model(p, c) for p, c in zip(prompts, chosen)]
  pairs["rejected_0"] = [model(p, r) for p, r in zip(prompts, rejected)]
  pairs.to_parquet("scores.parquet")

FOLDER gets audit.html, one page that opens in any browser without a network, and audit.json with
every number. The summary is printed. The exit status is 1 where the file is bad; the message names
the row and the column.
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
    audit.add_argument("file", type=Path, metavar="FILE", help="labelled pairs with their scores")
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
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; an ``InputError`` is one line, and status 1."""
    tolerate_any_text()
    args = parser().parse_args(arguments)
    from prudent.audit.command import PAGE, audit  # slow to import, and not needed for --help

    try:
        said = audit(args.file, args.output, args.seed)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    print(*said, f"The page: {args.output / PAGE}", sep="\n")


if __name__ == "__main__":
    main()
