"""Plot one figure: reads its files and draws it, as PNG, PDF and SVG."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prudent.figures.style import save
from prudent.workflow import entry


@dataclass
class Args:
    figure: str  # name of a module in prudent/figures
    files: dict[str, Any]  # its inputs, by name
    settings: dict[str, Any]  # its other arguments
    png: Path  # written
    pdf: Path  # written
    svg: Path  # written


def main(args: Args) -> None:
    # By name, so that a job imports, and its digest covers, nothing of the other figures.
    module = importlib.import_module(f"prudent.figures.{args.figure}")
    files = {
        name: Path(value) if isinstance(value, str) else [Path(path) for path in value]
        for name, value in args.files.items()
    }
    save(module.plot(**files, **args.settings), args.png, args.pdf, args.svg)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
