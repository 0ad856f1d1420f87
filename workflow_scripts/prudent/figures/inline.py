"""Figures as a part of a page: an SVG file's drawing, with names that are its own."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from markupsafe import Markup

from prudent.errors import InputError

# What Matplotlib draws with. Metadata, comments and its style sheet, which would hold for the whole
# page, are left out, and so is whatever a file should not have: a page runs and loads nothing.
DRAWN = {"svg", "g", "defs", "clipPath", "path", "rect", "circle", "use", "image"}
# What its style sheet says.
STROKES = "stroke-linejoin: round; stroke-linecap: butt"
URL = re.compile(r"url\(#([^)]+)\)")


def inline_svg(text: str, name: str, title: str) -> Markup:
    """The ``<svg>`` element of an SVG file, for HTML.

    Several files have names for their parts in common (clips, letters), which must be one part's
    within a page. So they are numbered and begin with ``name``; those that nothing refers to go.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{name}.svg: not readable as SVG: {error}") from error
    _only_what_is_drawn(root)
    names = {old: f"{name}-{number}" for number, old in enumerate(_referred_to(root))}
    for element in root.iter():
        element.attrib = _renamed(element.attrib, names)
    # As wide as drawn, and less where the window is narrow.
    width = root.attrib.pop("width", "100%")
    root.attrib.pop("height", None)
    root.attrib |= {"role": "img", "aria-label": title}
    root.attrib["style"] = f"max-width: {width}; {STROKES}"
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _only_what_is_drawn(element: ElementTree.Element) -> None:
    """Leaves out other elements, white space, and the names of the elements' namespaces."""
    element.tag = element.tag.rpartition("}")[2]
    element.text = element.tail = None
    element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    href = element.attrib.get("href", "#")
    if not href.startswith(("#", "data:image/png;base64,")):
        del element.attrib["href"]
    for key in [key for key in element.attrib if key.startswith("on")]:
        del element.attrib[key]
    for child in list(element):
        if not isinstance(child.tag, str) or child.tag.rpartition("}")[2] not in DRAWN:
            element.remove(child)
        else:
            _only_what_is_drawn(child)


def _referred_to(root: ElementTree.Element) -> list[str]:
    """The names that elements refer to, in the order in which they do."""
    found: dict[str, None] = {}
    for element in root.iter():
        for key, value in element.attrib.items():
            found |= dict.fromkeys(URL.findall(value))
            if key == "href" and value.startswith("#"):
                found[value[1:]] = None
    return list(found)


def _renamed(attributes: dict[str, str], names: dict[str, str]) -> dict[str, str]:
    result = {}
    for key, value in attributes.items():
        if key == "id":
            if value in names:
                result[key] = names[value]
        elif key == "href" and value.startswith("#"):
            result[key] = f"#{names[value[1:]]}"
        else:
            result[key] = URL.sub(lambda match: f"url(#{names[match[1]]})", value)
    return result
