"""From benefits and clusters to the selected set: threshold, rank, even draw.

    benefit(z, q) = -influence(z, q)           larger is better
    share(z)      = share of the seeds q with benefit(z, q) > 0
    keep z if share(z) >= threshold            the paper's rule (arXiv 2405.12915) is threshold = 1.0
    draw evenly over the clusters of what was kept

Shapes: N candidates, Q seeds, R sketch width, n selected rows.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mtselect.config import SelectionConfig
from mtselect.selection.cluster import Sketches, check_finite, cluster

# Shares are multiples of 1/Q. A float32 share or a threshold such as 0.1 + 0.2 may miss its multiple by 6e-8;
# the tolerance lies above that, and below 1/Q for any Q under ten million, so it never admits a lower count.
SHARE_TOLERANCE = 1e-7


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectedSet:
    """What was selected and why. All arrays `[n]` are aligned and in the order of the pool.

    Args:
        rows: indices into the candidates, ascending, without repetition.
        benefit: mean benefit over the seeds.
        benefit_share: share of the seeds that the row benefits.
        cluster: label of the row's cluster.
        n_passed: candidates that met the threshold; fewer than the budget means that all of them, and no
            others, were selected.
    """

    rows: NDArray[np.int64]
    benefit: NDArray[np.float32]
    benefit_share: NDArray[np.float32]
    cluster: NDArray[np.int32]
    n_passed: int


def benefit_share(benefits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Share of the seeds with a benefit above 0, `[N]` from `[N, Q]`."""
    assert benefits.ndim == 2
    assert benefits.shape[1] > 0
    share: NDArray[np.float64] = (benefits > 0).mean(axis=1, dtype=np.float64)
    return share


def passes(share: NDArray[np.floating[Any]], threshold: float) -> NDArray[np.bool_]:
    """Whether `share >= threshold`, unharmed by rounding: 3 of 5 seeds pass 0.6, and 0.1 + 0.2 is 3 of 10."""
    return np.asarray(share, dtype=np.float64) >= threshold - SHARE_TOLERANCE


def rank_values(benefits: NDArray[np.floating[Any]], norms: NDArray[np.floating[Any]],
                rank: Literal["benefit", "benefit_per_norm"]) -> NDArray[np.float64]:
    """What candidates are ordered by, larger first, `[N]`.

    Args:
        benefits: `[N, Q]`, or their means `[N]`.
        norms: total gradient norm of each candidate, `[N]`; a zero gradient helps nobody and ranks at 0.
        rank: the mean benefit, or the mean benefit divided by the norm.
    """
    mean: NDArray[np.float64] = benefits.astype(np.float64) if benefits.ndim == 1 else benefits.mean(axis=1, dtype=np.float64)
    if rank == "benefit":
        return mean
    norms = np.asarray(norms, dtype=np.float64)
    ratio: NDArray[np.float64] = np.divide(mean, norms, out=np.zeros(len(mean)), where=norms > 0)
    return ratio


def draw_evenly(clusters: NDArray[np.integer[Any]], ranks: NDArray[np.floating[Any]], budget: int,
                draw: Literal["best", "random"], generator: np.random.Generator) -> NDArray[np.int64]:
    """The same number of rows from every cluster; one that runs short leaves its share to the others.

    Clusters take turns. In a turn each cluster that has rows left gives its next one; the turn in which the
    budget ends is given to the clusters whose next row ranks best. Ties go to the lower row.

    Args:
        clusters: label of each row, `[N]`.
        ranks: larger is better, `[N]`.
        budget: rows to draw; all rows when there are fewer.
        draw: `best` goes down the ranks; `random` replaces them by a random order.
        generator: read by `random` only.

    Returns:
        Rows, ascending, `[min(budget, N)]`.
    """
    assert budget >= 0
    assert len(clusters) == len(ranks)
    place = _places(-ranks if draw == "best" else generator.permutation(len(ranks)))
    drawn = np.lexsort((place, _turns(clusters, place)))[:budget]
    return np.sort(drawn)


def select(mean: NDArray[np.floating[Any]], share: NDArray[np.floating[Any]], sketches: Sketches,
           norms: NDArray[np.floating[Any]], config: SelectionConfig) -> SelectedSet:
    """G-DIG's selection: threshold on the benefit share, cluster what passed, draw evenly.

    Args:
        mean: mean benefit over the seeds, `[N]`, larger is better.
        share: share of the seeds with a benefit above 0, `[N]`.
        sketches: gradient sketches, `[N, R]`; may be memory-mapped, only rows that pass are read.
        norms: total gradient norm of each candidate, `[N]`.
        config: method `gdig`.

    Returns:
        `config.budget` rows, or all that passed when fewer did: a set is never filled up with rows that
        missed the threshold. When none passed the set is empty, and the caller decides what that means.

    Raises:
        NonFiniteError: a benefit, a norm or a passing row's sketch is NaN or infinite.
    """
    assert config.method == "gdig"
    assert len(mean) == len(share) == sketches.shape[0] == len(norms)
    check_finite("benefits", mean)
    check_finite("gradient norms", norms)
    passed = np.flatnonzero(passes(share, config.threshold))
    labels = cluster(sketches, config.n_clusters, config.seed, rows=passed)
    generator = np.random.default_rng([config.seed, zlib.crc32(b"selection/draw")])
    ranks = rank_values(mean[passed], norms[passed], config.rank)
    drawn = draw_evenly(labels, ranks, config.budget, config.draw, generator)
    rows = passed[drawn]
    return SelectedSet(rows=rows, benefit=mean[rows].astype(np.float32), benefit_share=share[rows].astype(np.float32),
                       cluster=labels[drawn], n_passed=len(passed))


def _places(keys: NDArray[Any]) -> NDArray[np.int64]:
    """Place of each row in ascending order of its key, equal keys in row order."""
    places = np.empty(len(keys), dtype=np.int64)
    places[np.argsort(keys, kind="stable")] = np.arange(len(keys))
    return places


def _turns(clusters: NDArray[np.integer[Any]], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn in which each row is drawn: how many rows of its own cluster come before it."""
    order = np.lexsort((place, clusters))
    _, start, sizes = np.unique(clusters[order], return_index=True, return_counts=True)
    turns = np.empty(len(clusters), dtype=np.int64)
    turns[order] = np.arange(len(clusters)) - np.repeat(start, sizes)
    return turns
