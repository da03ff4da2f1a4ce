"""Every picture renders to PNG without a warning, also from inputs with next to nothing in them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mtselect.attribution.kfac import spectrum
from mtselect.reports import figures as plots

RNG = np.random.default_rng(0)
NONE, SOME = np.zeros(30, bool), np.arange(30) < 10


def png(make: Callable[[], Any]) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = io.BytesIO()
        make().savefig(out, format="png")
    return out.getvalue()


def rows(kinds: list[tuple[str, int, float]]) -> list[dict[str, Any]]:
    return [{"kind": "trial" if method == "gdig" else "baseline", "name": f"{method}{i}", "method": method, "pairs": pairs,
             "value": value, "low": value - 1, "high": value + 1} for i, (method, pairs, value) in enumerate(kinds)]


def spectra(eigenvalues: dict[str, Any]) -> Any:
    return plots.spectra({name: spectrum(torch.from_numpy(values)) for name, values in eigenvalues.items()})


MANY = {f"model.layers.{i}.mlp": RNG.random((8, 4)) + 0.1 for i in range(40)}

FIGURES = {
    "benefits": lambda: plots.benefit_histograms(RNG.normal(size=30), RNG.random(30), SOME, 0.6),
    "benefits, nothing selected": lambda: plots.benefit_histograms(RNG.normal(size=30), RNG.random(30), NONE, 1.0),
    "benefits, all alike": lambda: plots.benefit_histograms(np.zeros(30), np.ones(30), ~NONE, 0.0),
    "benefits, one candidate": lambda: plots.benefit_histograms(np.ones(1), np.ones(1), np.ones(1, bool), 0.5),
    "gate": lambda: plots.gate_histogram(RNG.random(300), RNG.random(20), 0.4),
    "gate, all pass": lambda: plots.gate_histogram(RNG.random(30) + 1, RNG.random(20), 0.0),
    "gate, none passes": lambda: plots.gate_histogram(RNG.random(30), RNG.random(20) + 2, 2.5),
    "gate, all alike": lambda: plots.gate_histogram(np.ones(30), np.ones(20), 1.0),
    "gate, one candidate and one seed": lambda: plots.gate_histogram(np.zeros(1), np.ones(1), 1.0),
    "map": lambda: plots.cluster_map(RNG.normal(size=(30, 2)), SOME, np.arange(10) % 3),
    "map, one cluster": lambda: plots.cluster_map(RNG.normal(size=(30, 2)), SOME, np.zeros(10, int)),
    "map, nothing selected": lambda: plots.cluster_map(RNG.normal(size=(30, 2)), NONE, np.zeros(0, int)),
    "map, all selected": lambda: plots.cluster_map(RNG.normal(size=(30, 2)), ~NONE, np.arange(30)),
    "map, one point": lambda: plots.cluster_map(np.zeros((1, 2)), np.ones(1, bool), np.zeros(1, int)),
    "spectra": lambda: spectra({"a": RNG.random((8, 4)), "b": RNG.random((16, 2))}),
    "spectra, single layer with one value": lambda: spectra({"a": np.ones((1, 1))}),
    "spectra, zeros": lambda: spectra({"a": np.array([[1.0, 0.0]])}),
    "spectra, all zero": lambda: spectra({"a": np.zeros((2, 2))}),
    "spectra, more layers than fit the legend": lambda: spectra(MANY),
    "norms": lambda: plots.norms_by_layer(["a", "b"], RNG.random((30, 2)) + 0.1),
    "norms, single layer and pair": lambda: plots.norms_by_layer(["a"], np.ones((1, 1))),
    "norms, all zero": lambda: plots.norms_by_layer(["a", "b"], np.zeros((30, 2))),
    "scores": lambda: plots.score_against_pairs(rows([("gdig", 100, 20.0), ("random", 100, 15.0), ("pool", 9000, 18.0),
                                                      ("untuned", 0, 3.0)]), "chrf"),
    "scores, none": lambda: plots.score_against_pairs([], "chrf"),
    "scores, not a number": lambda: plots.score_against_pairs(rows([("gdig", 10, float("nan")), ("gdig", 9, 1.0)]), "chrf"),
    "scores, all the same": lambda: plots.score_against_pairs(rows([("gdig", 10, 5.0)] * 30), "chrf"),
    "scores, nothing selected": lambda: plots.score_against_pairs(rows([("gdig", 0, 5.0), ("gdig", 9000, 6.0)]), "chrf"),
    "scores, one": lambda: plots.score_against_pairs(rows([("untuned", 0, 0.0)]), "chrf"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_renders_without_a_warning(name: str) -> None:
    picture = png(FIGURES[name])
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 5000, "an empty canvas"  # axes and labels alone take more


def test_the_histograms_count_every_candidate_and_every_selected_pair() -> None:
    share = RNG.random(30)
    left, right = plots.benefit_histograms(RNG.normal(size=30), share, SOME, 0.6).axes
    for axes in (left, right):
        assert [patch.get_data().values.sum() for patch in axes.patches] == [30, 10]


@pytest.mark.parametrize("cut", [-0.7, -0.31, 0.0])
def test_the_gates_histogram_has_everyone_on_the_right_side_of_the_cut(cut: float) -> None:
    """Each group in per cent of itself; what lies far below stands in the first bin."""
    pool, seeds = np.concatenate([-RNG.random(500), [-50.0]]), -RNG.random(40) / 2
    (axes,) = plots.gate_histogram(pool, seeds, cut).axes
    dropped, passed, trusted = (patch.get_data() for patch in axes.patches)
    assert cut in dropped.edges and dropped.edges[0] > -2
    assert (dropped.values[dropped.edges[1:] > cut] == 0).all() and (passed.values[passed.edges[:-1] < cut] == 0).all()
    for data, share in ((dropped, (pool < cut).mean()), (passed, (pool >= cut).mean()), (trusted, 1)):
        assert data.values.sum() == pytest.approx(100 * share)


def test_the_map_colours_the_selected_by_cluster() -> None:
    points, labels = RNG.normal(size=(30, 2)), np.arange(10) % 3
    (axes,) = plots.cluster_map(points, SOME, labels).axes
    others, chosen = axes.collections
    assert np.array_equal(chosen.get_offsets(), points[SOME])
    assert np.array_equal(others.get_offsets(), points[~SOME])
    assert np.array_equal(chosen.get_array(), labels)


def test_the_spectrum_descends() -> None:
    eigenvalues = RNG.random((50, 20))
    (axes,) = spectra({"a": eigenvalues}).axes
    ranks, values = axes.lines[0].get_data()
    assert ranks[0] == 1
    assert ranks[-1] == 1000
    assert (np.diff(ranks) > 0).all()
    assert values == pytest.approx(np.sort(eigenvalues.ravel())[::-1][ranks - 1])


def a_layout(given: Any) -> plots.ScoreLayout:
    return plots.score_layout(rows(given), "chrf")


def test_the_front_is_of_trials_that_none_beats_with_as_few_pairs() -> None:
    given = rows([("gdig", 100, 20.0), ("gdig", 100, 22.0), ("gdig", 200, 21.0), ("gdig", 300, 25.0), ("gdig", 400, 25.0),
                  ("random", 50, 30.0)])
    layout = plots.score_layout(given, "chrf")
    assert [layout.points[i]["name"] for i in layout.front] == ["gdig1", "gdig3"]
    errors = plots.score_layout([{**row, "value": -row["value"]} for row in given], "ter")
    assert [errors.points[i]["name"] for i in errors.front] == ["gdig1", "gdig3"], "less is better"


def test_points_of_equal_size_stand_side_by_side_and_sizes_stay_apart() -> None:
    layout = a_layout([("gdig", 100, float(i)) for i in range(40)] + [("gdig", 120, 1.0), ("random", 200, 2.0)])
    sizes = np.array([row["pairs"] for row in layout.points])
    assert len(set(layout.x.tolist())) == 42
    assert layout.x[sizes == 100].max() < layout.x[sizes == 120].min()
    assert layout.x[sizes == 100].mean() == pytest.approx(100)
    assert layout.ticks == {100: "100", 120: "120", 200: "200"}


def test_sizes_that_differ_tenfold_are_on_a_log_scale() -> None:
    layout = a_layout([("gdig", 100, 1.0), ("gdig", 1000, 2.0), ("gdig", 10000, 3.0)])
    assert layout.x == pytest.approx([2, 3, 4])
    assert list(layout.ticks.values()) == ["100", "1,000", "10,000"]


def test_a_level_far_away_does_not_flatten_the_picture() -> None:
    layout = a_layout([("gdig", 100, 40.0), ("gdig", 200, 42.0), ("untuned", 0, 1.0), ("pool", 9000, 43.0)])
    assert layout.y[0] > 38
    assert layout.y[1] > 43
    assert [plots.line_label(row, layout.y) for row in layout.lines] == ["untuned2 1.0 (below)", "pool3 43.0, 9,000 pairs"]


def test_names_of_close_levels_do_not_overlap() -> None:
    layout = a_layout([("gdig", 100, 40.0), ("untuned", 0, 40.0), ("pool", 9000, 40.01)])
    assert layout.heights[1] - layout.heights[0] >= 0.08 * (layout.y[1] - layout.y[0])


def test_a_baseline_of_any_method_is_a_point_of_its_own_kind() -> None:
    layout = a_layout([("gdig", 100, 40.0), ("random", 100, 30.0), ("random", 100, 31.0), ("laser", 100, 35.0)])
    groups = plots.point_groups(layout)
    assert [label for label, *_ in groups] == ["trials (1)", "baseline: random (2)", "baseline: laser (1)"]
    assert len({(marker, colour) for _, marker, colour, _ in groups}) == 3
