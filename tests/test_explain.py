"""`python -m mtselect.explain`: the benefits of words add up to the pair's own benefit, and the text is the pair's."""

from __future__ import annotations

import contextlib
import json
import re
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
    assert page.count("  benefit ") == 2 and all(one in page for one in ids)
    assert "background-color" in page


def test_it_says_of_one_pair_why_it_is_in_or_out(warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(experiment__warmup={"epochs": 1, "learning_rate": 0.01, "rows": 100, "exclude": True})
    settings = ("--experiment.selection.budget", "20")

    def said(pair: str) -> str:
        capsys.readouterr()
        assert lab.run("explain", "sweep.yaml", *settings, "--pair", pair) == 0
        return capsys.readouterr().out

    assert lab.run("score", "sweep.yaml", "--out", "scores.jsonl", "--signals", "benefits,set", *settings) == 0
    scores = [json.loads(line) for line in (lab.folder / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    first, last = (next(row for row in scores if row["rank"] == rank) for rank in (1, 200))
    assert re.search(rf"{first['id']}  benefit \S+  in: rank 1 of 200 \(benefit_per_norm \S+\)\n", said(first["id"]))
    by = last["benefit"] / last["gradient_norm"]
    assert f"out: rank 200 of 200 (benefit_per_norm {by:.3g}), the budget took 20\n" in said(last["src"])
    numbers = [float(value) for value in re.findall(r" ([+-]\d\S*)(?=  |\n)", said(last["id"]).splitlines()[-3])]
    assert len(numbers) > 2 and sum(numbers) == pytest.approx(last["benefit"], rel=0.2), "values of its words are printed"
    lines = [json.loads(line) for line in (lab.folder / "data/pool.jsonl").read_text(encoding="utf-8").splitlines()]
    candidates = {row["src"] for row in scores}
    learnt = next(number for number, row in enumerate(lines, 1) if row["src"] not in candidates)
    assert "out: the warm-up learns it, and warmup.exclude leaves such pairs out" in said(str(learnt))
    settings = ("--experiment.selection.method", "pool")
    assert "  in: pool took 300 of 300\n" in said(str(learnt)), "it takes what the warm-up learns, too"
    assert "  in: pool took 300 of 300\n" in said(first["id"])


def test_it_says_why_a_row_is_no_pair_of_the_pool(warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(stages=("base",), experiment__selection={"method": "random", "gate": None, "budget": 20},
                   experiment__data__drop_leaked=True, experiment__model__max_tokens=100)
    path = lab.folder / "data" / "pool.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    seed, dev = (json.loads((lab.folder / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[0])
                 for name in ("seeds", "dev"))
    rows = [{"src": "Hallo", "tgt": ""}, seed, {**dev, "tgt": "something else"}, {"src": "Wort " * 200, "tgt": "word"}]
    path.write_text("\n".join([*lines, *map(json.dumps, rows)]), encoding="utf-8")
    for pair, why in (("301", "out: line 301 cannot be used, empty side (mlruns/store/corpus/"),
                      ("302", f"out: line 302 is one of the seeds: {' '.join(seed['src'].split())} ||| "),
                      (dev["src"], "out: line 303 has a source sentence of dev or test: "),
                      ("304", "  out: 2")):
        capsys.readouterr()
        assert lab.run("explain", "sweep.yaml", "--pair", pair) == 0
        assert why in capsys.readouterr().out
    assert lab.run("score", "sweep.yaml", "--signals", "set", "--out", "scores.jsonl") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"rows of the pool that are no candidates: 1 unusable \(mlruns/store/corpus/\w+/quarantine\.jsonl\), "
                     r"1 among the seeds, 1 in dev or test, 1 longer than model\.max_tokens, 100 learnt by the warm-up", said)


@pytest.mark.parametrize("pair", ["302", "1", "0", "Nobody said this."])
def test_a_pair_that_is_not_there_is_said_before_the_work(pair: str, make_lab: Callable[..., Any],
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    lab = make_lab(database=False, experiment__data__pool="pool.tsv")
    rows = map(json.loads, (lab.folder / "data/pool.jsonl").read_text(encoding="utf-8").splitlines())
    text = "".join(f"{row['src']}\t{row['tgt']}\t{row['noise'] or ''}\n" for row in rows)
    (lab.folder / "pool.tsv").write_text(f"src\ttgt\tnoise\n{text}", encoding="utf-8")
    assert lab.run("explain", "sweep.yaml", "--pair", pair) == 2
    assert capsys.readouterr().err == (f"error: --pair: {pair!r} is no id, line or source sentence of data.pool (pool.tsv): "
                                       "the pool has lines 2 to 301, correct it\n")
    assert {path.name for path in lab.store.iterdir()} == {"corpus"}


@pytest.mark.parametrize(("arguments", "message"), [
    (["--pair", "nobody"], "--pair: 'nobody' is no id, line or source sentence of data.pool (data/pool.jsonl): "
     "the pool has lines 1 to 300, correct it"),
    (["--pair", "999"], "--pair: '999' is no id, line or source sentence of data.pool (data/pool.jsonl): "
     "the pool has lines 1 to 300, correct it"),
    (["--pair", "a", "--ids", "b"], "--pair and --ids are two ways to name pairs, got both: leave one out"),
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
