"""The outline of an HTML page, and what holds of every page that has charts."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

from modulant.reports.run.charts import MOST_OPEN

VOID = {"meta", "input", "link", "img", "br", "hr"}


class Outline(HTMLParser):
    """Headings, and figures with what is in them, each with whether it is inside a <details>."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[tuple[str, str]] = []
        self.figures: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if name := attributes.get("id"):
            self.ids.append(name)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append((tag, ""))
        if tag == "figure":
            self.figures.append({"folded": "details" in self.open, "text": "", "alt": ""})
        if attributes.get("role") == "img":
            self.figures[-1]["alt"] = attributes.get("aria-label") or ""

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and re.fullmatch(r"h[1-6]", self.open[-1]):
            tag, text = self.headings[-1]
            self.headings[-1] = tag, text + data
        if "figure" in self.open:
            self.figures[-1]["text"] += data


def outline(page: str) -> Outline:
    return Outline(page[: page.find('<script type="application/json"')])


def check_structure(page: str) -> Outline:
    """What holds of every page with charts."""
    found = outline(page)
    assert [tag for tag, _ in found.headings].count("h1") == 1
    assert found.headings[0][0] == "h1"
    levels = [int(tag[1]) for tag, _ in found.headings]
    assert all(b - a <= 1 for a, b in pairwise(levels)), found.headings
    assert found.headings[1] == ("h2", "In short")
    assert len(found.ids) == len(set(found.ids))
    shown = [figure for figure in found.figures if not figure["folded"]]
    assert 1 <= len(shown) <= MOST_OPEN
    for figure in found.figures:
        assert len(re.search(r"How to read this: (.*)", figure["text"])[1]) > 30, figure
        assert figure["alt"], figure
    return found
