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
from tests.reports.given import rows

RNG = np.random.default_rng(0)
NONE, SOME = np.zeros(30, bool), np.arange(30) < 10


def png(make: Callable[[], Any]) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = io.BytesIO()
        make().savefig(out, format="png")
    return out.getvalue()


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
    "scores, one size": lambda: plots.score_against_pairs(rows([("gdig", 100, 20.0 + i) for i in range(30)] + [
        ("random", 100, 15.0), ("pool", 9000, 18.0), ("untuned", 0, 3.0)]), "chrf"),
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
    assert 0.6 in right.patches[0].get_data().edges


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


def test_what_is_drawn_of_the_scores_are_the_scores() -> None:
    given = rows([("gdig", 100, 40.0), ("gdig", 200, 42.0), ("random", 200, 30.0), ("pool", 9000, 35.0), ("untuned", 0, 39.0)])
    (axes,) = plots.score_against_pairs(given, "chrf").axes
    drawn = {container.get_label(): container.lines[0].get_ydata().tolist() for container in axes.containers}
    assert drawn == {"trials (2)": [40, 42], "random": [30], "pool: all, as many steps": [35]}
    assert [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [39]
    (axes,) = plots.score_against_pairs([{**row, "pairs": row["pairs"] and 100} for row in given], "chrf").axes
    drawn = {container.get_label(): container.lines[0].get_xdata().tolist() for container in axes.containers}
    assert drawn == {"trials (2)": [42, 40], "random": [30], "pool: all, as many steps": [35], "untuned": [39]}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["gdig1", "gdig0", "untuned4", "pool3", "random2"]
