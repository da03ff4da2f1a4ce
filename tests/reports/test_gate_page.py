"""The gate's page: what it says of a view, and that no text of the pool becomes a tag of it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mtselect.reports.pages import GateReason, GateView, Judged, Strictness, gate_page, short_text
from tests.reports.given import TEXTS, Tags, tables


def a_view(**changes: Any) -> GateView:
    """Of 200 candidates 80 are dropped."""
    one = Judged(src="Haus", tgt="Haus", score=0.25, look="copied")
    given = {"gate": "learned", "keeps": 0.9, "cut": 0.4, "pool": np.arange(200) / 200, "seeds": np.linspace(0.3, 1, 20),
             "reasons": [GateReason(look="copied", rows=70, noise=0.5, examples=[one] * 6),
                         GateReason(look="merged", rows=10, noise=1.0, examples=[one])],
             "noise": 0.25, "noise_passed": 0.125, "failed": [one] * 3, "passed": [one] * 2, "repeats": 4, "selected": 50,
             "strictness": [Strictness(keeps=0.9, cut=0.4, passed=120, noise=0.125),
                            Strictness(keeps=0.99, cut=0.2, passed=160, noise=None)]}
    return GateView(**{**given, **changes})


def test_the_page_counts_what_was_dropped_and_why() -> None:
    page = gate_page(a_view())
    said = Tags(page).text
    assert "Of 200 candidates it drops 80 (40.0 %): those that score below 0.4, which 90 % of the 20 seeds reach" in said
    assert "4 are near-duplicates" in said and "set has 50 pairs" in said
    reasons, strictness, passed, failed, copied, merged = tables(page)
    assert reasons[1:] == [["copied", "70", "35.0 %", "50.0 %"], ["merged", "10", "5.0 %", "100.0 %"],
                           ["lets through", "120", "60.0 %", "12.5 %"], ["all candidates", "200", "", "25.0 %"]]
    assert strictness[1:] == [["0.9", "0.4", "120", "60.0 %", "12.5 %"], ["0.99", "0.2", "160", "80.0 %", ""]]
    assert passed[1:] == [["0.250", "Haus", "Haus"]] * 2 and failed[1:] == [["0.250", "Haus", "Haus", "copied"]] * 3
    assert len(copied) == 7 and len(merged) == 2
    assert page == gate_page(a_view()), "another text for the same gate"
    assert not re.search(r"<(script|link|img|iframe)", page) and page.count("<svg") == 1


def test_without_labels_and_without_drops_it_says_less() -> None:
    page = gate_page(a_view(noise=None, noise_passed=None, reasons=[], failed=[], repeats=0))
    assert "noise" not in Tags(page).text and "near-duplicates" not in page
    assert "It drops none." in page and tables(page)[3][1:] == [["No candidate."]]


@settings(max_examples=4, deadline=None)  # each draws a picture
@given(st.lists(TEXTS, min_size=20, max_size=20))
def test_no_text_becomes_a_tag_of_the_page(texts: list[str]) -> None:
    page = gate_page(a_view(failed=[Judged(src=text, tgt=text[::-1], score=0.25, look="copied") for text in texts]))
    page.encode("utf-8")
    page = re.sub("<svg.*</svg>", "", page, flags=re.DOTALL)
    tags = Tags(page)
    assert all(short_text(text, 2000) in tags.text for text in texts)
    assert tags.tags <= {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "a", "b", "code", "div",
                         "table", "tr", "th", "td"}
    assert tags.attributes <= {"lang", "charset", "name", "content", "id", "href", "class", "dir", "colspan"}
