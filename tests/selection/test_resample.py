"""Threshold, rank and even draw: laws, a slow oracle, a golden example."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mtselect.attribution.index import IndexWriter, Layout, SketchIndex
from mtselect.config import SelectionConfig, budget_pairs
from mtselect.errors import NonFiniteError
from mtselect.selection.projection import planar_map
from mtselect.selection.resample import Columns, SelectedSet, benefit_share, draw_order, passes, rank_values, select_rows
from mtselect.selection.standardise import standardise

# Seed 0, numpy 2.4; a change here changes every set drawn at random.
GOLDEN_DRAW = [19, 33, 42, 74, 90, 115, 118, 188]

Draw = Literal["best", "random"]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def draw_by_turns(clusters: list[int], ranks: list[float], budget: int) -> list[int]:
    """The oracle: clusters take turns, each giving its best row; the last turn is for the best of those rows."""
    left = {label: sorted((row for row, c in enumerate(clusters) if c == label), key=lambda row: (-ranks[row], row))
            for label in set(clusters)}
    drawn: list[int] = []
    while len(drawn) < budget and any(left.values()):
        turn = [rows.pop(0) for rows in left.values() if rows]
        turn.sort(key=lambda row: (-ranks[row], row))
        drawn.extend(turn[:budget - len(drawn)])
    return sorted(drawn)


def draw_evenly(clusters: NDArray[Any], ranks: NDArray[Any], budget: int, draw: Draw,
                random: np.random.Generator) -> NDArray[Any]:
    """The rows drawn by a budget, ascending."""
    return np.sort(draw_order(clusters, ranks, draw, random)[:budget])


@st.composite
def pools(draw: st.DrawFn) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Clusters, ranks with ties, and a budget that may exceed the rows."""
    rows = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(-3, 3)), max_size=40))
    clusters, ranks = np.array(rows, dtype=np.int32).reshape(-1, 2).T
    return clusters, ranks.astype(np.float64) / 4, draw(st.integers(0, 45))


@given(pools())
def test_best_draw_equals_taking_turns(pool: tuple[NDArray[Any], NDArray[Any], int]) -> None:
    clusters, ranks, budget = pool
    expected = draw_by_turns(clusters.tolist(), ranks.tolist(), budget)
    assert draw_evenly(clusters, ranks, budget, "best", generator()).tolist() == expected


@given(pools(), st.sampled_from(["best", "random"]))
def test_clusters_with_rows_left_give_equally(pool: tuple[NDArray[Any], NDArray[Any], int], draw: Draw) -> None:
    clusters, ranks, budget = pool
    rows = draw_evenly(clusters, ranks, budget, draw, generator())
    assert len(rows) == min(budget, len(clusters))
    assert (np.diff(rows) > 0).all()
    given_, sizes = np.bincount(clusters[rows], minlength=7), np.bincount(clusters, minlength=7)
    exhausted = given_ == sizes
    if not exhausted.all():
        most = given_[~exhausted].max()
        assert most - given_[~exhausted].min() <= 1
        assert given_.max() <= given_[~exhausted].min() + 1


@given(pools(), st.randoms(use_true_random=False))
def test_best_draw_does_not_depend_on_the_order_of_the_pool(pool: tuple[NDArray[Any], NDArray[Any], int],
                                                            random: Any) -> None:
    clusters, _, budget = pool
    ranks = generator(1).permutation(len(clusters)).astype(float)  # no ties: those go by row
    order = np.array(random.sample(range(len(clusters)), len(clusters)), dtype=int)
    permuted = draw_evenly(clusters[order], ranks[order], budget, "best", generator())
    assert sorted(order[permuted]) == draw_evenly(clusters, ranks, budget, "best", generator()).tolist()


def test_a_short_cluster_leaves_its_share_to_the_others() -> None:
    clusters = np.repeat([0, 1, 2], [10, 2, 10])
    rows = draw_evenly(clusters, np.arange(22.0), 11, "best", generator())
    # 2 from the short one, 9 from the others: the odd one goes to cluster 2, whose next row ranks best.
    assert rows.tolist() == [6, 7, 8, 9, 10, 11, 17, 18, 19, 20, 21]


def test_ties_go_to_the_lower_row() -> None:
    assert draw_evenly(np.array([0, 0, 1, 1]), np.zeros(4), 3, "best", generator()).tolist() == [0, 1, 2]


def test_random_draw_ignores_ranks_and_follows_its_generator() -> None:
    clusters, ranks = np.repeat([0, 1], 50), np.arange(100.0)
    first = draw_evenly(clusters, ranks, 20, "random", generator(3))
    assert first.tolist() == draw_evenly(clusters, -ranks, 20, "random", generator(3)).tolist()
    assert first.tolist() != draw_evenly(clusters, ranks, 20, "random", generator(4)).tolist()


def test_random_draw_is_uniform_within_a_cluster() -> None:
    n_draws, size, each = 2000, 8, 3
    random = generator()
    drawn = [draw_evenly(np.repeat([0, 1], [size, 2]), np.zeros(size + 2), each + 2, "random", random)
             for _ in range(n_draws)]
    counts = np.bincount(np.concatenate(drawn), minlength=size + 2)
    assert counts[size:].tolist() == [n_draws, n_draws]
    share = each / size
    five_sigma = 5 * np.sqrt(share * (1 - share) / n_draws)
    assert counts[:size] / n_draws == pytest.approx([share] * size, abs=five_sigma)


@pytest.mark.parametrize("n_seeds", [1, 3, 5, 7, 10, 48, 64, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_share_equal_to_the_threshold_passes_and_one_seed_fewer_does_not(n_seeds: int, dtype: type) -> None:
    for count in range(1, n_seeds + 1):
        benefits = np.where(np.arange(n_seeds) < [[count], [count - 1]], 1.0, -1.0)
        share: NDArray[Any] = benefit_share(benefits).astype(dtype)
        for threshold in (count / n_seeds, sum([1 / n_seeds] * count), 1 - (n_seeds - count) / n_seeds):
            assert passes(share, threshold).tolist() == [True, False], (count, n_seeds, threshold)


def test_three_of_five_seeds_pass_six_tenths() -> None:
    assert passes(benefit_share(np.array([[1, 1, 1, -1, -1.0]])), 0.6).all()
    assert passes(np.array([0.3]), 0.1 + 0.2).all()


def test_threshold_one_asks_for_all_seeds_and_a_zero_benefit_is_none() -> None:
    benefits = np.array([[1, 1, 1], [1, 1, 0], [1, 1, -1], [2, 1e-30, 3]])
    assert passes(benefit_share(benefits), 1.0).tolist() == [True, False, False, True]
    assert passes(benefit_share(benefits), 0.0).all()


@given(st.integers(1, 12), st.floats(0, 1), st.floats(0, 1))
def test_a_stricter_threshold_passes_a_subset(n_seeds: int, one: float, other: float) -> None:
    share = benefit_share(generator(n_seeds).normal(size=(30, n_seeds)))
    loose, strict = sorted((one, other))
    assert not (passes(share, strict) & ~passes(share, loose)).any()


def columns_of(benefits: NDArray[Any], norms: NDArray[Any]) -> Columns:
    """From all benefits [N, Q]."""
    z, share = standardise(lambda: iter([benefits]))
    return Columns(mean=benefits.mean(axis=1, dtype=np.float64), z=z, share=share, raw_share=benefit_share(benefits),
                   norm=norms)


def test_ranks_by_hand() -> None:
    benefits = np.array([[1, 3], [4, 0], [-1, -3], [0, 0]], dtype=np.float32)
    columns = columns_of(benefits, np.array([1, 4, 2, 0], dtype=np.float32))
    assert rank_values(columns, "benefit").tolist() == [2, 2, -2, 0]
    assert rank_values(columns, "benefit_per_norm").tolist() == [2, 0.5, -1, 0]
    exact = benefits.astype(float)
    expected = [sum((exact[row, seed] - exact[:, seed].mean()) / exact[:, seed].std() for seed in range(2)) / 2
                for row in range(4)]
    assert rank_values(columns, "z") == pytest.approx(expected)


def select_by(benefits: NDArray[Any], sketches: Any, norms: NDArray[Any], config: SelectionConfig,
              gated: NDArray[np.bool_] | None = None) -> SelectedSet:
    """From all benefits [N, Q]."""
    gated = np.ones(len(benefits), bool) if gated is None else gated
    columns, budget = columns_of(benefits, norms), budget_pairs(config.budget, len(benefits))
    return select_rows(columns, rank_values(columns, config.rank), sketches, gated, budget, config, config.seed)


def paper(**changes: Any) -> SelectionConfig:
    """The rule of the paper, with a threshold of 0.6."""
    return SelectionConfig(**{"budget": 40, "threshold": 0.6, "threshold_on": "raw_share", "rank": "benefit_per_norm",
                              "n_clusters": 8, **changes})


def a_pool(n_rows: int = 200, n_seeds: int = 10, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    random = generator(seed)
    benefits = random.normal(loc=random.normal(scale=0.5, size=(n_rows, 1)), size=(n_rows, n_seeds))
    sketches = np.eye(8)[random.integers(0, 8, n_rows)] + random.normal(scale=0.1, size=(n_rows, 8))
    return benefits.astype(np.float32), sketches.astype(np.float16), random.uniform(0.5, 2, n_rows).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.integers(4, 150), st.sampled_from(["best", "random"]))
def test_the_budget_is_met_exactly_or_all_that_passed_is_taken(threshold: float, budget: int, draw: Draw) -> None:
    benefits, sketches, norms = a_pool()
    config = paper(budget=budget, threshold=threshold, n_clusters=4, draw=draw)
    chosen = select_by(benefits, sketches, norms, config)
    passed = np.flatnonzero(passes(benefit_share(benefits), threshold))
    assert chosen.n_passed == len(passed)
    assert len(chosen.rows) == min(budget, len(passed))
    assert np.isin(chosen.rows, passed).all()
    assert (np.diff(chosen.rows) > 0).all()
    if len(passed) <= budget:
        assert np.array_equal(chosen.rows, passed)


def test_columns_belong_to_their_rows() -> None:
    benefits, sketches, norms = a_pool()
    chosen = select_by(benefits, sketches, norms, paper())
    assert passes(benefit_share(benefits)[chosen.rows], 0.6).all()
    assert chosen.cluster.dtype.name == "int32"
    axis = np.abs(sketches[chosen.rows]).argmax(axis=1)
    assert len(set(zip(axis.tolist(), chosen.cluster.tolist(), strict=True))) == 8
    assert np.bincount(chosen.cluster).tolist() == [5] * 8


def test_golden_example() -> None:
    """Three directions, five seeds; worked out by hand."""
    n_positive = np.array([5, 5, 3, 2, 4, 5, 3, 0, 3, 5])  # rows 3 and 7 miss 0.6
    benefits = np.where(np.arange(5) < n_positive[:, None], 1.0, -1.0)
    sketches = np.eye(3, dtype=np.float16)[[0, 0, 0, 0, 0, 1, 1, 1, 2, 2]]
    norms = np.array([2, 1, 1, 1, 0.5, 1, 1, 1, 0.1, 1])
    chosen = select_by(benefits, sketches, norms, paper(budget=5, n_clusters=3))
    # First turn 4 (0.6 / 0.5), 5 (1 / 1) and 8 (0.2 / 0.1); second turn 1 (1) and 9 (1) before 6 (0.2).
    assert chosen.rows.tolist() == [1, 4, 5, 8, 9]
    assert chosen.cluster.tolist() == [0, 0, 1, 2, 2]
    assert chosen.n_passed == 8
    by_benefit = select_by(benefits, sketches, norms, paper(budget=5, n_clusters=3, rank="benefit"))
    assert by_benefit.rows.tolist() == [0, 1, 5, 6, 9]
    all_seeds = select_by(benefits, sketches, norms, paper(budget=5, n_clusters=3, threshold=1.0))
    assert all_seeds.rows.tolist() == [0, 1, 5, 9]


def test_one_cluster_is_the_best_of_what_passed_and_reads_no_sketch() -> None:
    benefits, _, norms = a_pool()
    gated = generator(5).random(200) < 0.5
    config = SelectionConfig(budget=30, rank="z", gate_keeps=0.5)
    chosen = select_by(benefits, None, norms, config, gated)
    z = columns_of(benefits, norms).z
    expected = sorted(sorted(np.flatnonzero(gated).tolist(), key=lambda row: -z[row])[:30])
    assert chosen.rows.tolist() == expected
    assert chosen.n_passed == gated.sum()
    assert set(chosen.cluster.tolist()) == {0}


@pytest.mark.parametrize(("kind", "threshold", "expected"), [
    ("share", 0.5, lambda columns, gated: columns.share >= 0.5),
    ("raw_share", 0.5, lambda columns, gated: columns.raw_share >= 0.5),
    ("rank", 0.25, lambda columns, gated: columns.z >= np.quantile(columns.z[gated], 0.25)),
])
def test_what_a_threshold_is_on(kind: Any, threshold: float, expected: Any) -> None:
    benefits, _, norms = a_pool()
    columns, gated = columns_of(benefits, norms), np.arange(200) % 3 > 0
    config = SelectionConfig(budget=200, rank="z", threshold=threshold, threshold_on=kind)
    chosen = select_by(benefits, None, norms, config, gated)
    assert chosen.rows.tolist() == np.flatnonzero(gated & expected(columns, gated)).tolist()


def test_a_budget_may_be_a_share_of_the_pool() -> None:
    benefits, _, norms = a_pool()
    assert len(select_by(benefits, None, norms, SelectionConfig(budget=0.33, rank="z")).rows) == 66
    assert budget_pairs(0.001, 10) == 1
    assert budget_pairs(500, 10) == 500


def test_golden_random_draws() -> None:
    benefits, sketches, norms = a_pool()
    config = paper(budget=8, draw="random")
    assert select_by(benefits, sketches, norms, config).rows.tolist() == GOLDEN_DRAW


def test_no_row_that_passes_gives_an_empty_set() -> None:
    _, sketches, norms = a_pool()
    chosen = select_by(np.full((200, 3), -1.0), sketches, norms, paper())
    assert (chosen.n_passed, len(chosen.rows), len(chosen.cluster)) == (0, 0, 0)
    benefits, _, _ = a_pool()
    none = np.zeros(200, bool)
    assert len(select_by(benefits, None, norms, SelectionConfig(rank="z", threshold=0.5, threshold_on="rank"), none).rows) == 0


def test_benefits_that_are_not_finite_name_the_first_row() -> None:
    benefits, sketches, norms = a_pool()
    benefits[[17, 40], 2] = np.nan, np.inf
    with pytest.raises(NonFiniteError, match=r"benefits must be finite, .* in row 17 \(2 of 200 rows\): set model"):
        select_by(benefits, sketches, norms, paper())


def test_norms_that_are_not_finite_name_the_first_row() -> None:
    benefits, sketches, norms = a_pool()
    norms[5] = np.inf
    with pytest.raises(NonFiniteError, match=r"gradient norms must be finite, .* in row 5 \(1 of 200 rows\)"):
        select_by(benefits, sketches, norms, paper())


def test_a_sketch_that_is_not_finite_is_named_by_its_row_in_the_pool() -> None:
    benefits, sketches, norms = a_pool()
    row = int(np.flatnonzero(passes(benefit_share(benefits), 0.6))[7])
    sketches[row] = np.nan
    with pytest.raises(NonFiniteError, match=rf"gradient sketches must be finite, .* in row {row} \("):
        select_by(benefits, sketches, norms, paper())


def test_an_index_on_disk_selects_what_an_array_does(tmp_path: Path) -> None:
    benefits, sketches, norms = a_pool()
    for shard in IndexWriter(tmp_path, Layout(n_rows=200, width=8, shard_rows=64, content="")).shards():
        rows = slice(shard.rows.start, shard.rows.stop)
        shard.sketches[:], shard.norms[:] = sketches[rows], norms[rows]
    index = SketchIndex(tmp_path)
    config = paper()
    stored, held = (select_by(benefits, *these, config) for these in ((index, index.column("norms")), (sketches, norms)))
    assert np.array_equal(stored.rows, held.rows)
    assert np.array_equal(planar_map(index), planar_map(sketches))
