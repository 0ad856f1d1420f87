"""What a page must be: whole, closed to the outside, and readable in the dark."""

import re
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np

VOID = {"br", "meta"}
HOSTILE = (
    """<script src="http://a.b/x.js"></script>&amp;"'><img src=x onerror=alert(1)>"""
    "{{ 7919 * 7907 }}"
)


class Checker(HTMLParser):
    """Every tag is closed by its own end, nothing comes from outside, and every id is one's own."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.ids, self.links, self.drawn = [], "", [], [], 0

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag not in {"script", "link", "iframe", "img", "foreignobject"}
        for name, value in attrs:
            assert name != "src" and not name.startswith("on")
            if name == "href":
                assert value.startswith("#" if tag != "image" else "data:image/png;base64,")
            if name == "href" and value.startswith("#"):
                self.links.append(value[1:])
            if name == "id":
                self.ids.append(value)
            self.links += re.findall(r"url\(#([^)]*)\)", value or "")
            assert "url(" not in (value or "").replace("url(#", "")
        self.drawn += tag == "svg"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.text += " "

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


def check(html):
    """The page's text."""
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids)), "an id that is not one element's alone"
    assert set(checker.links) <= set(checker.ids), "a reference to nothing"
    return checker


def check_closed(html):
    """The page loads and runs nothing."""
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html).group(1)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert not re.findall(r"https?://|@import|url\((?!#)", html)


def check_dark(html):
    """Every text has enough contrast, on white and on black."""
    style = re.search(r"<style>(.*?)</style>", html, re.S).group(1)
    light, dark = re.findall(r":root \{([^}]*)\}", style)
    assert style.index("@media (prefers-color-scheme: dark)") < style.index(dark)
    colours = [dict(re.findall(r"(--\w+): (#\w+)", part)) for part in (light, dark)]
    assert colours[0].keys() == colours[1].keys() >= set(re.findall(r"var\((--\w+)\)", style))
    for found in colours:
        for ink in ("--ink", "--soft", "--good", "--bad", "--link"):
            for paper in ("--paper", "--box"):
                assert contrast(found[ink], found[paper]) >= 4.5, (ink, paper)
    # Drawn for white paper.
    assert re.search(r"\.panel \{ background: #fff;", style)


def contrast(first, second):
    """WCAG's contrast of two colours."""

    def light(colour):
        parts = np.array(mpl.colors.to_rgb(colour))
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted((light(first), light(second)))
    return (high + 0.05) / (low + 0.05)
