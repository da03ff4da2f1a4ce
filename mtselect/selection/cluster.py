"""K-means over gradient sketches: the diversity half of G-DIG (arXiv 2405.12915, section 3.3).

    sketches [N, R] -> rows of unit length -> K-means -> label [N]

Rows are scaled to unit length first, because a raw gradient's norm follows the length of its target (the
loss is summed over target tokens) and Euclidean K-means would then cluster by length. Between unit vectors
the squared distance is 2 - 2 cos, so K-means compares directions, which say what a pair teaches.
"""

from __future__ import annotations

import warnings
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from mtselect.errors import NonFiniteError

# Above it full K-means passes over the sketches take minutes on one core (N R K multiplications each).
FULL_BATCH_ROWS = 50_000
# Greedy k-means++ rarely starts badly; a few starts guard against the times it does.
N_INIT = 3


def check_finite(name: str, values: NDArray[np.floating[Any]], rows: NDArray[np.int64] | None = None) -> None:
    """Stop at NaN or infinity in `values [N, ...]`; `rows [N]` are the numbers by which to name the rows.

    Raises:
        NonFiniteError: names the first such row and says how many there are.
    """
    bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
    if len(bad):
        first = bad[0] if rows is None else rows[bad[0]]
        raise NonFiniteError(f"{name} must be finite, got NaN or infinity in row {first} ({len(bad)} of {len(values)} "
                             "rows): set model.dtype to float32 or raise attribution.damping")


def unit_rows(sketches: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Sketches `[N, R]` with every row scaled to unit length, in float32; a zero row stays zero.

    Raises:
        NonFiniteError: a row holds NaN or infinity; the first one is named.
    """
    rows = np.asarray(sketches, dtype=np.float32)
    check_finite("gradient sketches", rows)
    # Dividing by the largest entry first keeps the squares inside float32.
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    largest[largest == 0] = 1
    rows = rows / largest
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    norms[norms == 0] = 1
    unit: NDArray[np.float32] = rows / norms
    return unit


def cluster(sketches: NDArray[np.floating[Any]], n_clusters: int, seed: int) -> NDArray[np.int32]:
    """Cluster of every row, numbered by size (largest first), ties by first row.

    The result depends on the sketches, `n_clusters` and `seed` only: equal clusterings have equal labels, and
    the computation is held to one thread, as OpenMP adds partial sums in the order in which threads finish.
    With at most `n_clusters` rows every row is a cluster of its own. Identical sketches share a cluster, so
    fewer than `n_clusters` labels may come out. Above 50,000 rows mini-batch K-means is used.

    Args:
        sketches: gradient sketches of the candidates that passed, `[N, R]`, float16 or float32.
        n_clusters: K.
        seed: of the k-means++ starts and of the mini-batches.

    Returns:
        Labels `[N]`, from 0 without gaps.

    Raises:
        NonFiniteError: a sketch holds NaN or infinity.
    """
    assert n_clusters > 0
    assert sketches.ndim == 2
    rows = unit_rows(sketches)
    if len(rows) <= n_clusters:
        return np.arange(len(rows), dtype=np.int32)
    generator = np.random.default_rng([seed, zlib.crc32(b"selection/cluster")])
    model = _kmeans(len(rows), n_clusters, random_state=int(generator.integers(2**32)))
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: documented
        labels = model.fit_predict(rows)
    return _renumbered(labels)


def _kmeans(n_rows: int, n_clusters: int, random_state: int) -> KMeans | MiniBatchKMeans:
    kind = KMeans if n_rows <= FULL_BATCH_ROWS else MiniBatchKMeans
    return kind(n_clusters=n_clusters, n_init=N_INIT, random_state=random_state)


def _renumbered(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    _, first, inverse, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    by_size = np.lexsort((first, -sizes))
    number = np.empty(len(by_size), dtype=np.int32)
    number[by_size] = np.arange(len(by_size))
    return number[inverse]
