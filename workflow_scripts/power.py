"""What the configured study can find, before it is run."""

import logging
from dataclasses import dataclass
from pathlib import Path

from prudent.analysis.power import power_table, sentences
from prudent.tables import write_csv
from prudent.workflow import entry

logger = logging.getLogger(__name__)


@dataclass
class Args:
    table: Path  # written
    draws: dict[str, int]  # independent draws of each comparison, by its name


def main(args: Args) -> None:
    table = power_table(args.draws)
    write_csv(table, args.table, "power")
    for sentence in sentences(table):
        logger.info("%s", sentence)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
