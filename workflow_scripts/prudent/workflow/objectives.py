"""The objectives' names, read without importing torch, which is slow."""

from __future__ import annotations

import ast
from pathlib import Path

OBJECTIVES = Path(__file__).parents[1] / "objectives.py"


def objective_names(module: Path = OBJECTIVES) -> list[str]:
    """The public functions of the objectives' module."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]
