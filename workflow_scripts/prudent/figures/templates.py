"""Templates of pages, which escape all texts; those in this folder are for all of them."""

from __future__ import annotations

from pathlib import Path

import jinja2

from prudent.analysis.wording import name_of


def template(path: Path) -> jinja2.Template:
    """The template in a file, which may use ``parts.html``."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([path.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["name"] = name_of
    return environment.get_template(path.name)
