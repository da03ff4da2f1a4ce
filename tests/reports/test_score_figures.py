"""The interactive figures of scores: what is drawn of what is given."""

from __future__ import annotations

from typing import Any

import pytest

from mtselect.reports import score_figures as sf
from mtselect.significance import PairedResult


def row(name: str, pairs: int, value: float, kind: str = "trial", method: str = "gdig", **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": kind, "method": method, "pairs": pairs, "value": value, "low": value - 1, "high": value + 1,
            **more}


def marks(figure: Any) -> dict[str, Any]:
    """Legend text -> trace of marks."""
    return {trace.name: trace for trace in figure.data if trace.mode == "markers"}


def ends(error: Any, middle: Any) -> list[tuple[float, float]]:
    return [(at - less, at + more) for at, less, more in zip(middle, error.arrayminus, error.array, strict=True)]


def test_pointing_at_a_trial_tells_its_settings() -> None:
    figure = sf.score_figure([row("t<b>1", 700, 71.2, clusters=9, threshold=0.4717, noise_share=0.125)], "chrf")
    (trace,) = marks(figure).values()
    assert trace.hovertext == ("<b>t&lt;b&gt;1</b><br>chrF 71.20 [70.20, 72.20]<br>700 pairs<br>9 clusters<br>"
                               "threshold 0.472<br>noise 12.5%",)


def test_a_curve_has_the_trials_the_filters_and_the_pool_with_their_intervals() -> None:
    rows = [row("t000", 700, 71), row("t001", 1400, 72), row("t001-again", 1400, 71.5, "again"),
            *(row(f"random-1400-{i}", 1400, 60 + i, "baseline", "random") for i in range(3)),
            row("pool", 12000, 75, "baseline", "pool"), row("pool-epochs", 12000, 76, "baseline", "pool-epochs"),
            row("untuned", 0, 1, "baseline", "untuned")]
    figure = sf.score_figure(rows, "chrf")
    names = marks(figure)
    assert list(names) == ["trials (2)", "best trial, fresh seeds", "random (3)", "pool: all, as many steps",
                           "pool-epochs: all, its own epochs"]
    assert len({(trace.marker.symbol, trace.marker.color) for trace in names.values()}) == 5
    assert list(names["trials (2)"].y) == [71, 72] and ends(names["trials (2)"].error_y, (71, 72)) == [(70, 72), (71, 73)]
    assert 10 ** names["trials (2)"].x[0] == pytest.approx(700)
    assert len(set(names["random (3)"].x)) == 3, "marks of equal size lie on one another"
    (front,) = [trace for trace in figure.data if trace.mode == "lines"]
    assert list(front.y) == [71, 72]
    assert [line.y0 for line in figure.layout.shapes] == [1]
    assert [note.text for note in figure.layout.annotations] == ["untuned 1.0 (below)"]
    assert figure.layout.title.text == "Score against pairs selected"


def test_trials_of_one_size_stand_below_one_another() -> None:
    rows = [row(f"t{i:03d}", 700, 70 + i) for i in range(3)] + [row("random-700", 700, 71.5, "baseline", "random"),
                                                                row("untuned", 0, 1, "baseline", "untuned")]
    figure = sf.score_figure(rows, "chrf")
    assert figure.layout.title.text == "Scores of the runs"
    assert list(figure.layout.yaxis.ticktext) == ["t002", "random-700", "t001", "t000", "untuned 1.0 (below)"]
    trials = marks(figure)["trials (3)"]
    assert dict(zip(trials.y, trials.x, strict=True)) == {0: 72, 2: 71, 3: 70}
    assert ends(trials.error_x, trials.x) == [(value - 1, value + 1) for value in trials.x]
    assert not figure.layout.shapes


def compared(difference: float, low: float, high: float) -> PairedResult:
    return PairedResult(name="chrf", system=70, baseline=70 - difference, difference=difference, low=low, high=high,
                        p_value=0.0123, n_bootstrap=100, n_seeds=3, signature="")


def test_the_best_trial_against_its_rivals_is_drawn_with_its_intervals() -> None:
    figure = sf.forest_figure({"random-700": compared(5, 3, 6.5), "pool<b>": compared(0.5, -1, 2),
                               "loss-700": compared(-3, -4, -2), "untuned": compared(60, 55, 66)})
    assert list(figure.layout.yaxis.ticktext) == ["loss-700", "pool&lt;b&gt;", "random-700", "untuned"]
    assert [note.text for note in figure.layout.annotations] == [
        f"{text}  p 0.012" for text in ("-3.0 [-4.0, -2.0]", "+0.5 [-1.0, +2.0]", "+5.0 [+3.0, +6.5]", "+60.0 [+55.0, +66.0]")]
    better, level, _ = figure.data
    assert [trace.name for trace in figure.data] == ["the best trial is better", "not told apart", "the best trial is worse"]
    assert [list(trace.y) for trace in figure.data] == [[2, 3], [1], [0]]
    assert [list(trace.x) for trace in figure.data] == [[5, 6.5], [0.5], [-3]]
    assert [ends(trace.error_x, trace.x) for trace in figure.data] == [[(3, 6.5), (6.5, 6.5)], [(-1, 2)], [(-4, -2)]]
    assert list(better.marker.symbol) == ["square", "triangle-right"]
    low, high = figure.layout.xaxis.range
    assert -5 < low < -4 and 6.5 < high < 7, "a rival far away does not flatten the picture"
    assert "chrF 70.0" in figure.layout.title.subtitle.text
    assert "pool&lt;b&gt;" in level.hovertext[0] and "chrF 69.50, the best trial 70.00" in level.hovertext[0]


def test_without_a_score_there_is_no_picture() -> None:
    assert not sf.score_figure([row("t000", 0, float("nan"))], "chrf").data


def test_one_rival_is_a_forest_too() -> None:
    figure = sf.forest_figure({"random-700": compared(5, 3, 6.5)})
    assert figure.layout.xaxis.range[0] < 0 < 6.5 < figure.layout.xaxis.range[1]
    assert sf.forest_figure({"pool": compared(0, 0, 0)}).data[0].name == "not told apart"
