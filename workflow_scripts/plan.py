"""What a scenario takes, before it is run."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prudent.plan.command import made
from prudent.tables import write_csv
from prudent.workflow import entry

logger = logging.getLogger(__name__)


@dataclass
class Args:
    table: Path  # written
    settings: dict[str, Any]  # the effective configuration
    rows: dict[str, int | None]  # of each table's sources, where they are known


def main(args: Args) -> None:
    table, said = made(args.settings, args.rows)
    write_csv(table, args.table, "plan")
    for sentence in said:
        logger.info("%s", sentence)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
