"""The interactive figures and the pages: what they show, what they say when there is nothing, and that no text gets out."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtselect.reports import pages
from mtselect.reports import study_figures as sp
from tests.reports.given import NASTY, TEXTS


def study(values: Sequence[Any], directions: Sequence[Any] = ("maximize",), params: Sequence[str] = ("selection.a", "train.b"),
          ) -> optuna.Study:
    """A study with a finished trial for each value."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = optuna.create_study(directions=list(directions))
    rng = np.random.default_rng(0)
    space = {name: optuna.distributions.FloatDistribution(0, 1) for name in params}
    for value in values:
        some = {name: float(rng.random()) for name in params}
        made.add_trial(optuna.trial.create_trial(params=some, distributions=space,
                                                 values=value if isinstance(value, list) else [value]))
    return made


def candidates(count: int, text: str = "Haus") -> list[Any]:
    return [SimpleNamespace(id=f"id{i}", src=text, tgt=text) for i in range(count)]


def a_map(count: int = 30, chosen: int = 10, text: str = "Haus", **more: Any) -> Any:
    rng = np.random.default_rng(0)
    return sp.cluster_figure(rng.normal(size=(count, 2)), np.arange(count) < chosen, np.arange(chosen) % 3,
                             candidates(count, text), rng.normal(size=count), rng.random(count), name="t005", **more)


def said(figure: Any) -> str:
    """What a figure without data tells."""
    assert not figure.data
    return str(figure.layout.title.subtitle.text)


def test_the_map_has_each_selected_pair_in_its_cluster() -> None:
    others, *clusters = a_map().data
    assert len(others.x) == 20
    assert [trace.name for trace in clusters] == ["cluster 0 (4)", "cluster 1 (3)", "cluster 2 (3)"]
    assert [len(trace.x) for trace in clusters] == [4, 3, 3]
    assert [text.rpartition("id ")[2] for text in clusters[1].hovertext] == ["id1", "id4", "id7"]
    assert all(text.startswith("cluster 1, benefit ") for text in clusters[1].hovertext)
    looks = {(trace.marker.color, trace.marker.symbol) for trace in clusters}
    assert len(looks) == 3


def test_a_large_map_is_thinned_and_says_so() -> None:
    figure = a_map(400, 100, limit=50)
    assert sum(len(trace.x) for trace in figure.data[1:]) == 50
    assert len(figure.data[0].x) == 50
    note = figure.layout.title.subtitle.text.replace("<br>", " ")
    assert "50 (picked at random) of 100 pairs selected by t005" in note
    assert "50 (picked at random) of 300 others" in note
    assert figure == a_map(400, 100, limit=50), "another sample each time"


def test_a_map_without_selected_pairs_says_so() -> None:
    figure = a_map(chosen=0)
    assert "t005 selected nothing" in figure.layout.title.subtitle.text
    assert len(figure.data) == 1


@pytest.mark.parametrize("directions", [["maximize"], ["maximize", "minimize"]])
def test_importance_and_settings_of_a_study(directions: list[str]) -> None:
    values: list[Any] = [[float(i), float(i % 3)][: len(directions)] for i in range(12)]
    objectives = ["eval/chrf", "select/pairs"][: len(directions)]
    finished = study(values, directions)
    importance, settings_ = sp.importance_figure(finished, objectives), sp.parallel_figure(finished, objectives)
    assert [bar.name for bar in importance.data] == objectives
    assert all(set(bar.y) == {"a", "b"} for bar in importance.data)
    assert all(sum(bar.x) == pytest.approx(1) for bar in importance.data)
    assert list(settings_.layout.xaxis.ticktext) == [*objectives, "a", "b"]
    assert sum(trace.mode == "lines" for trace in settings_.data) == 12


def test_importance_is_about_the_good_trials() -> None:
    made = optuna.create_study(direction="maximize")
    space = {name: optuna.distributions.FloatDistribution(0, 1) for name in ("a", "b")}
    rng = np.random.default_rng(0)
    for a, b in rng.random((60, 2)).tolist():  # b decides how bad a bad trial is, a whether it is good
        made.add_trial(optuna.trial.create_trial(params={"a": a, "b": b}, distributions=space, value=a if a > 0.8 else -b))
    (bar,) = sp.importance_figure(made, ["eval/chrf"]).data
    assert dict(zip(bar.y, bar.x, strict=True)) == pytest.approx(optuna.importance.get_param_importances(made))
    assert bar.y[-1] == "a", "Optuna's default for a target are the low values"


@pytest.mark.parametrize(("made", "reason"), [
    (lambda: study([]), "at least 2 finished trials; none has finished"),
    (lambda: study([1.0]), "at least 2 finished trials; 1 has finished"),
    (lambda: study([2.0, float("inf")]), "at least 2 finished trials; 1 has finished"),
    (lambda: study([1.0, 2.0], params=["selection.a"]), "Only selection.a was searched"),
    (lambda: study([1.0, 2.0], params=[]), "No setting was searched"),
    (lambda: study([3.0] * 5), "All 5 finished trials have the same eval/chrf"),
])
def test_where_importance_cannot_be_told_the_figure_says_why(made: Any, reason: str) -> None:
    assert reason in said(sp.importance_figure(made(), ["eval/chrf"]))


def test_baselines_are_not_settings() -> None:
    finished = study([1.0])
    finished.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.PRUNED, value=2.0))
    assert "1 has finished" in said(sp.parallel_figure(finished, ["eval/chrf"]))


def test_one_parameter_and_equal_scores_still_have_lines() -> None:
    assert len(sp.parallel_figure(study([3.0, 3.0], params=["selection.a"]), ["eval/chrf"]).data) == 3


def test_names_that_would_be_the_same_stay_whole() -> None:
    assert sp._short_names(["a.rate", "b.rate", "a.size"]) == {"a.rate": "a.rate", "b.rate": "b.rate", "a.size": "size"}


def test_the_page_needs_no_network_and_holds_the_script_once() -> None:
    figures = [a_map(text=NASTY), sp.parallel_figure(study([1.0, 2.0]), ["x"]), sp.importance_figure(study([]), ["x"])]
    page = pages.study_page("quick<b>", figures)
    assert page.count("plotly.js v") == 1
    assert not re.search(r"<(script|link|img|iframe)[^>]*\s(src|href)=", page)
    assert len(re.findall(r'<div id="figure-\d"', page)) == 2
    assert '"showSendToCloud": false' in page, "a button would send the figure to a server"
    assert "<script>alert" not in page
    assert "quick&lt;b&gt;" in page
    for i, title in enumerate(("Map of the candidates", "Settings of every trial")):
        assert f'<a href="#part-{i}">{title}</a>' in page and f'<h2 id="part-{i}">{title}</h2>' in page
    assert "Which setting matters: “Which setting matters” takes at least 2 finished trials; none has finished so far." in page
    assert pages.study_page("quick", figures[:2]).count("Not shown") == 0
    page.encode("utf-8")


@given(TEXTS, TEXTS)
def test_no_text_of_a_pair_gets_out_of_its_hover(src: str, tgt: str) -> None:
    hover = sp._hover(SimpleNamespace(id="x", src=src, tgt=tgt), 1.0, 0.5, None)
    assert set(re.findall("<[^>]*>", hover)) <= {"<br>"}
    shown = [html.unescape(line) for line in hover.split("<br>")]
    assert all(len(line) <= 60 and (line.isprintable() or set(line) & set("\u200c\u200d")) for line in shown)
    assert pages.short_text(src).replace(" ", "") in "".join(shown).replace(" ", "")
    hover.encode("utf-8")


@given(st.text())
def test_an_excerpt_is_one_short_printable_line(text: str) -> None:
    shown = pages.short_text(text, 20)
    assert len(shown) <= 20
    assert all(c.isprintable() or c in "\u200c\u200d" for c in shown)
    if text.isprintable() and len(text) <= 20:
        assert shown == " ".join(text.split())


def test_an_excerpt_that_is_cut_says_so() -> None:
    assert pages.short_text("a" * 81) == "a" * 79 + "…"
    assert pages.short_text("a" * 80) == "a" * 80
    assert pages.short_text(" " * 1000 + "a").endswith("…")
