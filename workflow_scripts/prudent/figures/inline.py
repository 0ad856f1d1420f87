"""Figures as parts of a page: an SVG file's drawing, with unique names."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from markupsafe import Markup

from prudent.errors import InputError

# The elements that Matplotlib draws with. Metadata, comments and its style sheet, which would apply
# to the whole page, are left out, and so is anything unexpected: a page runs and loads nothing.
DRAWN = {"svg", "g", "defs", "clipPath", "path", "rect", "circle", "use", "image"}
# The content of its style sheet.
STROKES = "stroke-linejoin: round; stroke-linecap: butt"
URL = re.compile(r"url\(#([^)]+)\)")


def inline_svg(text: str, name: str, title: str) -> Markup:
    """The ``<svg>`` element of an SVG file, for HTML.

    Names of parts (clips, letters) repeat between files, but must be unique within a page. So they
    are numbered and begin with ``name``; names that nothing refers to are removed.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{name}.svg: not readable as SVG: {error}") from error
    _only_what_is_drawn(root)
    names = {old: f"{name}-{number}" for number, old in enumerate(_referred_to(root))}
    for element in root.iter():
        element.attrib = _renamed(element.attrib, names)
    # As wide as drawn, and narrower in a narrow window.
    width = root.attrib.pop("width", "100%")
    root.attrib.pop("height", None)
    root.attrib |= {"role": "img", "aria-label": title}
    root.attrib["style"] = f"max-width: {width}; {STROKES}"
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _only_what_is_drawn(element: ElementTree.Element) -> None:
    """Removes other elements, white space, and the elements' namespaces."""
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
    """The names that elements refer to, in order of reference."""
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
