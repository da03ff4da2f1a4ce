"""`python -m mtselect.explain`: the benefits of words add up to the pair's own benefit, and the text is the pair's."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtselect.attribution.index import SketchIndex
from mtselect.data.pairs import PairTable
from mtselect.explain import into_words
from mtselect.explain import main as explain

END = "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"


def test_words_join_at_spaces_and_at_characters_without() -> None:
    tokens = [(" ein", 1.0), ("zeln", 2.0), (" Wort", 4.0), (".", 8.0), ("", 16.0), ("é", 32.0), ("", 64.0)]
    assert into_words(tokens) == [(" einzeln", 3.0), (" Wort.é", 60.0), (END, 64.0)]
    assert into_words([("\u6211", 1.0), ("\u4eec", 2.0), ("ok", 4.0), ("\u65e0\u4eba", 8.0), ("", 0.0)]) == [
        ("\u6211", 1.0), ("\u4eec", 2.0), ("ok", 4.0), ("\u65e0\u4eba", 8.0), (END, 0.0)]
    assert into_words([("\uc548\ub155", 1.0), ("\ud558\uc138\uc694", 2.0), (" \uc138", 4.0), ("", 0.0)])[0][1] == 3.0  # Korean


@given(st.lists(st.tuples(st.text(max_size=4), st.integers(-9, 9)), min_size=1))
def test_words_lose_nothing(tokens: list[tuple[str, float]]) -> None:
    words = into_words(tokens)
    assert "".join(word for word, _ in words[:-1]) == "".join(text for text, _ in tokens[:-1])
    assert sum(benefit for _, benefit in words) == sum(benefit for _, benefit in tokens)


def test_the_best_and_the_worst_add_up_to_their_benefits(warm_lab: Callable[..., Any]) -> None:
    lab = warm_lab()
    with contextlib.chdir(lab.folder):
        assert explain(["sweep.yaml", "--top", "3", "--out", "words.jsonl"]) == 0
    rows = [json.loads(line) for line in (lab.folder / "words.jsonl").read_text(encoding="utf-8").splitlines()]
    (entry,) = (path.parent for path in lab.store.glob("gradients/*/manifest.json"))
    means = np.sort(SketchIndex(entry).column("benefits").mean(1))[::-1]
    expected = [*means[:3], *means[-3:]]
    assert [row["benefit"] for row in rows] == pytest.approx(expected, rel=1e-3, abs=1e-4 * float(np.abs(means).max()))
    pool = {row["tgt"] for row in map(json.loads, (lab.folder / "data/pool.jsonl").read_text(encoding="utf-8").splitlines())}
    for row in rows:
        assert row["tgt"] in pool
        assert row["words"][-1]["text"] == END
        assert "".join(word["text"] for word in row["words"][:-1]).strip() == " ".join(row["tgt"].split())
        assert sum(word["benefit"] for word in row["words"]) == pytest.approx(row["benefit"])
        assert any(word["benefit"] != 0 for word in row["words"])


def test_a_page_of_the_pairs_asked_for(warm_lab: Callable[..., Any]) -> None:
    lab = warm_lab()
    ids = [pair.id for pair in PairTable(next(lab.store.glob("corpus/*/pool.arrow")))[4:6]]
    with contextlib.chdir(lab.folder):
        assert explain(["sweep.yaml", f"--ids={','.join(ids)}", "--out", "words.html"]) == 0
    page = (lab.folder / "words.html").read_text(encoding="utf-8")
    assert page.count("benefit") == 2 and all(one in page for one in ids)
    assert "background-color" in page


@pytest.mark.parametrize(("arguments", "message"), [
    (["--ids", "nobody"], "--ids: 'nobody' is no id of the pool: take them from a selected.jsonl"),
    (["--top", "no"], "--top must be a number of pairs above 0, got 'no'"),
    (["--top", "0"], "--top must be a number of pairs above 0, got '0'"),
    (["--out", "words.txt"], "--out must be a .html or .jsonl file in a folder that exists, got 'words.txt'"),
    (["--out", "nowhere/words.html"], "--out must be a .html or .jsonl file in a folder that exists"),
])
def test_errors_say_what_to_do(warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str], arguments: list[str],
                               message: str) -> None:
    lab = warm_lab()
    with contextlib.chdir(lab.folder):
        assert explain(["sweep.yaml", *arguments]) == 2
    assert message in capsys.readouterr().err
