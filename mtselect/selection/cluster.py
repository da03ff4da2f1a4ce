"""K-means over gradient sketches: the diversity half of G-DIG (arXiv 2405.12915, section 3.3).

    sketches [N, R] -> rows of unit length -> K-means -> label [N]

Rows are scaled to unit length first, because a raw gradient's norm follows the length of its target (the
loss is summed over target tokens) and Euclidean K-means would then cluster by length. Between unit vectors
the squared distance is 2 - 2 cos, so K-means compares directions, which say what a pair teaches.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score
from threadpoolctl import threadpool_limits

from mtselect.errors import NonFiniteError

# Above it full K-means passes over the sketches take minutes on one core (N R K multiplications each), and the sketches in
# float32 would no longer fit everybody's memory: mini-batches, read as they are needed.
FULL_BATCH_ROWS = 50_000
# Greedy k-means++ rarely starts badly; a few starts guard against the times it does.
N_INIT = 3
# Of a mini-batch, and in memory at a time: enough that a batch holds some of each of hundreds of clusters.
BLOCK_ROWS = 8192
# Rows labelled at a time: few enough that their float32 copies stay in a processor's cache.
LABEL_ROWS = 1024
# The centres are fitted on this many rows per cluster; more change them little (the number FAISS settled on).
FIT_ROWS = 256


class Sketches(Protocol):
    """Sketches `[N, R]`: an array, a memory map, or what reads its rows from disk when asked (`attribution.index`)."""

    @property
    def shape(self) -> Any:
        """(N, R)."""

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[Any]:
        """The rows asked for, `[n, R]`."""


def check_finite_column(name: str, values: NDArray[np.floating], rows: NDArray[np.int64] | None = None) -> None:
    """Stop at NaN or infinity in `values [N, ...]`; `rows [N]` are the numbers by which to name the rows.

    Raises:
        NonFiniteError: names the first such row and says how many there are.
    """
    bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
    if len(bad):
        first = bad[0] if rows is None else rows[bad[0]]
        raise NonFiniteError(f"{name} must be finite, got NaN or infinity in row {first} ({len(bad)} of {len(values)} "
                             "rows): set model.dtype to float32 or raise attribution.damping")


def unit_rows(sketches: NDArray[np.floating], rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """Sketches `[N, R]` with every row scaled to unit length, in float32; a zero row stays zero.

    Raises:
        NonFiniteError: a row holds NaN or infinity; the first one is named, by its number in `rows [N]` if given.
    """
    unit = np.array(sketches, dtype=np.float32)
    check_finite_column("gradient sketches", unit, rows)
    # Dividing by the largest entry first keeps the squares inside float32.
    largest = np.abs(unit).max(axis=1, keepdims=True, initial=0)
    largest[largest == 0] = 1
    unit /= largest
    norms = np.linalg.norm(unit, axis=1, keepdims=True)
    norms[norms == 0] = 1
    unit /= norms
    return unit


def cluster(sketches: Sketches, n_clusters: int, seed: int, rows: NDArray[np.int64] | None = None) -> NDArray[np.int32]:
    """Cluster of every row, numbered by size (largest first), ties by first row.

    The result depends on the sketches, `n_clusters` and `seed` only: equal clusterings have equal labels, and
    the computation is held to one thread, as OpenMP adds partial sums in the order in which threads finish.
    With at most `n_clusters` rows every row is a cluster of its own. Identical sketches share a cluster, so
    fewer than `n_clusters` labels may come out. Above 50,000 rows mini-batch K-means is used, fitted on 50,000
    rows (or 256 K) and never holding more than 8,192 (or 4 K).

    Args:
        sketches: gradient sketches, `[N, R]`, float16 or float32.
        n_clusters: K.
        seed: of the k-means++ starts and of the mini-batches.
        rows: the candidates that passed, ascending, `[n]`; without it all.

    Returns:
        Labels `[n]`, from 0 without gaps.

    Raises:
        NonFiniteError: a sketch holds NaN or infinity.
    """
    rows = np.arange(sketches.shape[0]) if rows is None else rows
    if len(rows) <= n_clusters:
        unit_rows(sketches[rows], rows)  # for its errors
        return np.arange(len(rows), dtype=np.int32)
    generator = np.random.default_rng([seed, zlib.crc32(b"selection/cluster")])
    fit = _full if len(rows) <= FULL_BATCH_ROWS else _in_batches
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: documented
        return _renumbered(fit(sketches, rows, n_clusters, generator))


def agreement(labels: Sequence[int], others: Sequence[int]) -> float:
    """Adjusted mutual information of two clusterings `[n]` of the same rows: 1 the same, about 0 unrelated."""
    return float(adjusted_mutual_info_score(labels, others))


def _full(sketches: Sketches, rows: NDArray[np.int64], n_clusters: int, generator: np.random.Generator) -> NDArray[np.int32]:
    model = KMeans(n_clusters=n_clusters, n_init=N_INIT, random_state=int(generator.integers(2**32)))
    labels: NDArray[np.int32] = model.fit_predict(unit_rows(sketches[rows], rows))
    return labels


def _in_batches(sketches: Sketches, rows: NDArray[np.int64], n_clusters: int,
                generator: np.random.Generator) -> NDArray[np.int32]:
    """Centres from one random batch, moved by mini-batches; then a pass that gives every row its nearest."""
    state = int(generator.integers(2**32))
    fitted_on = generator.permutation(len(rows))[: max(FULL_BATCH_ROWS, FIT_ROWS * n_clusters)]
    size = max(BLOCK_ROWS, 4 * n_clusters)
    # In ascending order a batch is read faster, and K-means does not mind.
    batches = [rows[np.sort(fitted_on[begin : begin + size])] for begin in range(0, len(fitted_on), size)]
    # Mini-batches alone do not mend a bad start: on planted groups that overlap the sum of squares was 2 % larger without.
    start = KMeans(n_clusters=n_clusters, n_init=N_INIT, random_state=state).fit(unit_rows(sketches[batches[0]], batches[0]))
    model = MiniBatchKMeans(n_clusters=n_clusters, init=start.cluster_centers_, n_init=1, random_state=state)
    for batch in batches:
        model.partial_fit(unit_rows(sketches[batch], batch))
    labels = np.empty(len(rows), dtype=np.int32)
    for begin in range(0, len(rows), LABEL_ROWS):
        block = slice(begin, begin + LABEL_ROWS)
        labels[block] = model.predict(unit_rows(sketches[rows[block]], rows[block]))
    return labels


def _renumbered(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    _, first, inverse, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    by_size = np.lexsort((first, -sizes))
    number = np.empty(len(by_size), dtype=np.int32)
    number[by_size] = np.arange(len(by_size))
    return number[inverse]
