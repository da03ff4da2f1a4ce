"""Translations side by side: which sentences are shown, what is marked, and that no text becomes a tag."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtselect.reports import pages
from mtselect.reports.pages import System
from tests.reports.given import TEXTS, Tags, tables


@pytest.mark.parametrize(("reference", "text", "marked"), [
    ("the old house", "the new house", "the <mark>new</mark> house"),
    ("the old house", "the old house", "the old house"),
    ("the old house", "the house", "the <del></del>house"),
    ("the old house", "a new house", "<mark>a new</mark> house"),
    ("the house", "the house of the king", "the house<mark> of the king</mark>"),
    ("我有大房子。", "我有房子。", "我有<del></del>房子。"),
    ("それは本", "これは本", "<mark>こ</mark>れは本"),
    ("नमस्ते भारत", "नमस्ते दुनिया", "नमस्ते <mark>दुनिया</mark>"),
    ("a", "", "<del></del>"),
    ("", "a", "<mark>a</mark>"),
    ("same & <b>", "same & <b>", "same &amp; &lt;b&gt;"),
])
def test_what_the_reference_has_not_is_marked(reference: str, text: str, marked: str) -> None:
    assert pages.marked_words(reference, text) == marked


@given(TEXTS, TEXTS)
def test_marks_keep_the_text_and_escape_it(reference: str, text: str) -> None:
    tags = Tags(str(pages.marked_words(reference, text)))
    assert tags.text == pages.short_text(text, 2000)
    assert tags.tags <= {"mark", "del"} and not tags.attributes


def compared(higher_is_better: bool = True) -> list[pages.Compared]:
    """Six sentences; the best trial's lead over the better of two rivals is 30 for s5, 20 for s4, ... -20 for s0."""
    sign = 1 if higher_is_better else -1
    best = System(name="t005", texts=[f"new{i}" for i in range(6)], scores=[50 + sign * 10 * (i - 2) for i in range(6)])
    near = System(name="near", texts=["old"] * 6, scores=[50] * 6)
    far = System(name="far", texts=["old"] * 6, scores=[50 - sign * 15] * 6)
    return pages.compare_translations([f"s{i}" for i in range(6)], ["r"] * 6, [best, near, far], higher_is_better)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_sentences_are_in_the_order_of_the_lead_over_the_best_rival(higher_is_better: bool) -> None:
    rows = compared(higher_is_better)
    assert [(row.src, row.lead) for row in rows] == [("s5", 30), ("s4", 20), ("s3", 10), ("s2", 0), ("s1", -10), ("s0", -20)]
    assert rows[0].leads == [30, 45] and rows[0].texts == ("new5", "old", "old")


def test_lists_of_other_lengths_are_no_comparison() -> None:
    one = System(name="a", texts=["x"], scores=[1.0])
    with pytest.raises(ValueError, match="shorter"):
        pages.compare_translations(["a", "b"], ["a", "b"], [one, one], True)
    with pytest.raises(ValueError, match="shorter"):
        pages.compare_translations(["a"], ["a"], [one, System(name="b", texts=[], scores=[])], True)


def test_the_page_counts_and_shows_the_furthest_ahead_and_behind() -> None:
    page = pages.translation_page(compared(), ["t<b>5", "near", "far"], metric="chrF", count=4)
    assert tables(page) == [[["t&lt;b&gt;5 against", "better", "worse", "the same"],
                             ["near", "3", "2", "1"], ["far", "5", "1", "0"]]]
    assert "Of 6 dev sentences" in page
    assert re.findall(r"<b>([+-][\d.]+)</b>", page) == ["+30.0", "+20.0", "-20.0", "-10.0"]
    assert re.findall("<dd class=\"number\">([\\d.]+)</dd>", page)[:3] == ["80.0", "50.0", "35.0"]
    assert len(re.findall("<article>", pages.translation_page(compared(), "abc", metric="chrF", count=1))) == 2
    assert "prefers-color-scheme: dark" in page
    alike = pages.translation_page([row for row in compared() if not row.lead], "abc", metric="chrF", count=4)
    assert alike.count("No sentence.") == 2


@settings(max_examples=40)
@given(TEXTS, TEXTS, TEXTS, TEXTS, st.tuples(TEXTS, TEXTS))
def test_no_text_becomes_a_tag_of_the_page(src: str, ref: str, best: str, rival: str, names: tuple[str, str]) -> None:
    rows = pages.compare_translations([src], [ref], [System(name=name, texts=[text], scores=[score]) for name, text, score in
                                                     zip(names, (best, rival), (2.0, 1.0), strict=True)], True)
    page = pages.translation_page(rows, names, metric="chrF", count=1)
    tags = Tags(page)
    assert tags.tags <= {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "mark", "del", "a", "article", "b",
                         "span", "dl", "dt", "dd", "table", "tr", "th", "td"}
    assert tags.attributes <= {"lang", "charset", "name", "content", "id", "href", "class", "dir"}
    assert pages.short_text(ref, 2000) in tags.text
    page.encode("utf-8")
