"""Every picture renders to PNG without a warning, also from inputs with next to nothing in them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mtselect import plots

RNG = np.random.default_rng(0)
NONE, SOME = np.zeros(30, bool), np.arange(30) < 10


def png(make: Callable[[], Any]) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = io.BytesIO()
        make().savefig(out, format="png")
    return out.getvalue()


def rows(kinds: list[tuple[str, int, float]]) -> list[dict[str, Any]]:
    return [{"kind": "trial", "method": method, "pairs": pairs, "value": value, "low": value - 1, "high": value + 1}
            for method, pairs, value in kinds]


MANY = {f"model.layers.{i}.mlp": RNG.random((8, 4)) + 0.1 for i in range(40)}

FIGURES = {
    "benefits": lambda: plots.benefit_histograms(RNG.normal(size=30), RNG.random(30), SOME, 0.6),
    "benefits, nothing selected": lambda: plots.benefit_histograms(RNG.normal(size=30), RNG.random(30), NONE, 1.0),
    "benefits, all alike": lambda: plots.benefit_histograms(np.zeros(30), np.ones(30), ~NONE, 0.0),
    "benefits, one candidate": lambda: plots.benefit_histograms(np.ones(1), np.ones(1), np.ones(1, bool), 0.5),
    "map": lambda: plots.cluster_map(RNG.normal(size=(30, 2)), SOME, np.arange(10) % 3),
    "map, one cluster": lambda: plots.cluster_map(RNG.normal(size=(30, 2)), SOME, np.zeros(10, int)),
    "map, nothing selected": lambda: plots.cluster_map(RNG.normal(size=(30, 2)), NONE, np.zeros(0, int)),
    "map, all selected": lambda: plots.cluster_map(RNG.normal(size=(30, 2)), ~NONE, np.arange(30)),
    "map, one point": lambda: plots.cluster_map(np.zeros((1, 2)), np.ones(1, bool), np.zeros(1, int)),
    "spectra": lambda: plots.spectra({"a": RNG.random((8, 4)), "b": RNG.random((16, 2))}),
    "spectra, single layer with one value": lambda: plots.spectra({"a": np.ones((1, 1))}),
    "spectra, zeros": lambda: plots.spectra({"a": np.array([[1.0, 0.0]])}),
    "spectra, all zero": lambda: plots.spectra({"a": np.zeros((2, 2))}),
    "spectra, more layers than fit the legend": lambda: plots.spectra(MANY),
    "norms": lambda: plots.norms_by_layer(["a", "b"], RNG.random((30, 2)) + 0.1),
    "norms, single layer and pair": lambda: plots.norms_by_layer(["a"], np.ones((1, 1))),
    "norms, all zero": lambda: plots.norms_by_layer(["a", "b"], np.zeros((30, 2))),
    "scores": lambda: plots.score_against_pairs(rows([("gdig", 100, 20.0), ("random", 100, 15.0), ("pool", 9000, 18.0),
                                                      ("untuned", 0, 3.0)]), "chrf"),
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


def test_the_map_colours_the_selected_by_cluster() -> None:
    points, labels = RNG.normal(size=(30, 2)), np.arange(10) % 3
    (axes,) = plots.cluster_map(points, SOME, labels).axes
    others, chosen = axes.collections
    assert np.array_equal(chosen.get_offsets(), points[SOME])
    assert np.array_equal(others.get_offsets(), points[~SOME])
    assert np.array_equal(chosen.get_array(), labels)


def test_the_spectrum_descends() -> None:
    (axes,) = plots.spectra({"a": RNG.random((50, 20))}).axes
    ranks, values = axes.lines[0].get_data()
    assert ranks[0] == 1
    assert ranks[-1] == 1000
    assert (np.diff(values) <= 0).all()
