"""What several of these tests are given: rows of scores, texts that pages have to get along with, a reader of pages."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from hypothesis import strategies as st

NASTY = "<script>alert(1)</script>\x00\x1b[31m\u202eevil & \"q\" 'p' %{x} </del>"
TEXTS = st.text(max_size=60) | st.sampled_from([NASTY, "\ud800", "</script><img src=x onerror=alert(1)>", "&lt;b&gt;", ""])


class Tags(HTMLParser):
    """Names and attributes of all tags, and the text between them; scripts and styles aside."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def tables(page: str) -> list[list[list[str]]]:
    """Cells of the rows of the page's tables."""
    def inside(tag: str, text: str) -> list[str]:
        return re.findall(f"<{tag}(?: [^>]*)?>(.*?)</{tag}>", text, re.DOTALL)

    return [[[re.sub("<[^>]*>", "", cell).strip() for cell in inside("t[dh]", row)] for row in inside("tr", table)]
            for table in inside("table", page)]


def rows(kinds: list[tuple[str, int, float]]) -> list[dict[str, Any]]:
    """Of (method, pairs, value); ours are trials."""
    return [{"kind": "trial" if method == "gdig" else "baseline", "name": f"{method}{i}", "method": method, "pairs": pairs,
             "value": value, "low": value - 1, "high": value + 1} for i, (method, pairs, value) in enumerate(kinds)]
