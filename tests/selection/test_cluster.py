"""K-means labels: what they follow, how they are numbered, that nothing but the arguments changes them."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mtselect.errors import NonFiniteError
from mtselect.selection import cluster as cluster_module
from mtselect.selection.cluster import cluster, unit_rows

# A row of R numbers, each rounded to float32 (relative 6e-8), then the norm's rounding: well within this.
NORM_TOLERANCE = 1e-6

# Structureless rows, where border rows change cluster with the last bit of a centre. With free threads these two
# seeds gave other labels under OMP_NUM_THREADS=2 than under 1 (scikit-learn 1.9, two cores).
PRINT_DIGEST = """
import hashlib
import numpy as np
from mtselect.selection.cluster import cluster
digest = hashlib.sha256()
for seed in (2, 9):
    rows = np.random.default_rng(seed).normal(size=(8000, 48)).astype(np.float16)
    digest.update(cluster(rows, 40, seed).tobytes())
print(digest.hexdigest())
"""


def directions(sizes: list[int], seed: int = 0) -> NDArray[np.float32]:
    """Rows around orthogonal directions, `sizes[k]` along axis k, with lengths from 0.01 to 100."""
    generator = np.random.default_rng(seed)
    axis = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.eye(len(sizes) + 4)[axis] + generator.normal(scale=0.05, size=(len(axis), len(sizes) + 4))
    return (rows * 10 ** generator.uniform(-2, 2, size=(len(axis), 1))).astype(np.float32)


def test_rows_are_clustered_by_direction_not_by_length() -> None:
    sizes = [30, 20, 10]
    assert np.array_equal(cluster(directions(sizes), 3, seed=0), np.repeat([0, 1, 2], sizes))


def test_labels_are_numbered_by_size_then_first_row() -> None:
    rows = directions([5, 9, 5])
    expected = np.repeat([1, 0, 2], [5, 9, 5])
    for seed in range(5):
        assert np.array_equal(cluster(rows, 3, seed), expected)


def test_minibatches_above_the_limit_find_the_same_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [300, 200, 100]
    monkeypatch.setattr(cluster_module, "FULL_BATCH_ROWS", 500)
    monkeypatch.setattr(cluster_module, "_full", None)  # full K-means would fail
    first, second = (cluster(directions(sizes), 3, seed=0) for _ in range(2))
    assert np.array_equal(first, np.repeat([0, 1, 2], sizes))
    assert first.tobytes() == second.tobytes()


class Rows:
    """Sketches that are read when asked for, as from disk; keeps how many at most."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self._rows = rows
        self.shape = rows.shape
        self.most = 0

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        self.most = max(self.most, len(rows))
        return self._rows[rows]


def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of the mini-batch path at a hundredth."""
    for name in ("FULL_BATCH_ROWS", "BLOCK_ROWS", "LABEL_ROWS"):
        monkeypatch.setattr(cluster_module, name, getattr(cluster_module, name) // 100)


@pytest.mark.parametrize("shuffled", [False, True])
def test_minibatches_find_groups_of_any_size_in_a_pool_in_any_order(monkeypatch: pytest.MonkeyPatch, shuffled: bool) -> None:
    """A batch of 81 rows holds three or so of the smallest group."""
    small_batches(monkeypatch)
    sizes = [2000, 1200, 1000, 500, 200]
    order = np.random.default_rng(1).permutation(sum(sizes)) if shuffled else np.arange(sum(sizes))
    rows, planted = directions(sizes)[order], np.repeat(range(5), sizes)[order]
    labels = cluster(rows, 5, seed=0)
    assert (labels == planted).mean() > 0.99


def test_minibatches_hold_few_rows_and_equal_those_of_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch)
    rows = directions([600, 500, 400])
    read = Rows(rows)
    labels = cluster(read, 3, seed=0)
    assert read.most == cluster_module.BLOCK_ROWS == 81
    assert labels.tobytes() == cluster(rows, 3, seed=0).tobytes()


@pytest.mark.parametrize("limit", [500, 50_000])
def test_only_the_rows_asked_for_are_clustered(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(cluster_module, "FULL_BATCH_ROWS", limit)
    rows = directions([400, 300, 200])
    some = np.flatnonzero(np.arange(900) % 3 < 2)
    rows[2] = np.nan  # of no interest
    assert cluster(rows, 3, 0, rows=some).tobytes() == cluster(rows[some], 3, 0).tobytes()
    rows[some[77]] = np.inf
    with pytest.raises(NonFiniteError, match=f"gradient sketches must be finite, got NaN or infinity in row {some[77]} "):
        cluster(rows, 3, 0, rows=some)


def test_minibatches_with_as_many_clusters_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch)
    rows = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float16)
    labels = cluster(rows, 590, seed=0)
    assert (np.diff(np.bincount(labels)) <= 0).all()
    assert labels.max() > 500


@pytest.mark.parametrize("n_rows", [0, 1, 4, 5])
def test_no_more_rows_than_clusters_gives_each_row_its_own(n_rows: int) -> None:
    labels = cluster(np.ones((n_rows, 3), dtype=np.float16), 5, seed=0)
    assert labels.dtype == np.int32
    assert labels.tolist() == list(range(n_rows))


@pytest.mark.filterwarnings("error")
def test_identical_rows_share_a_cluster() -> None:
    rows = np.repeat(np.eye(2, dtype=np.float32), [3, 6], axis=0)
    assert cluster(rows, 4, seed=0).tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_unit_rows_have_length_one_and_zero_stays_zero(dtype: type[np.floating]) -> None:
    limits = np.finfo(dtype)
    rows = np.array([[3, 4], [0, 0], [limits.max, limits.max], [limits.smallest_subnormal, 0]], dtype=dtype)
    unit = unit_rows(rows)
    assert unit.dtype == np.float32
    assert np.linalg.norm(unit, axis=1) == pytest.approx([1, 0, 1, 1], abs=NORM_TOLERANCE)
    assert unit[0] == pytest.approx([0.6, 0.8], abs=NORM_TOLERANCE)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sketch_that_is_not_finite_names_its_row(bad: float) -> None:
    rows = np.ones((9, 3), dtype=np.float32)
    rows[4, 1] = rows[7, 0] = bad
    with pytest.raises(NonFiniteError, match=r"gradient sketches must be finite, got NaN or infinity in row 4 "
                                             r"\(2 of 9 rows\): set model.dtype to float32"):
        cluster(rows, 3, seed=0)


@settings(max_examples=25, deadline=None)
@given(n_rows=st.integers(1, 40), n_clusters=st.integers(1, 12), seed=st.integers(0, 2**63))
def test_labels_have_no_gaps_fall_in_size_and_repeat(n_rows: int, n_clusters: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(n_rows, 4)).astype(np.float16)
    labels = cluster(rows, n_clusters, seed)
    sizes = np.bincount(labels)
    assert len(sizes) == min(n_rows, n_clusters)
    assert sizes.min() > 0
    assert (np.diff(sizes) <= 0).all()
    assert np.array_equal(labels, cluster(rows, n_clusters, seed))


def test_another_seed_may_cluster_otherwise() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    assert not np.array_equal(cluster(rows, 20, seed=0), cluster(rows, 20, seed=1))


def test_another_process_with_other_threads_gives_the_same_bytes() -> None:
    digests = set()
    for threads in ("1", "2"):
        environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads,
                                    "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", PRINT_DIGEST], env=environment, capture_output=True, text=True,
                              check=True)
        digests.add(done.stdout)
    assert len(digests) == 1
