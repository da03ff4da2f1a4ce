"""From benefits and clusters to the selected set: gate, threshold, rank, even draw.

    benefit(z, q) = -influence(z, q)           larger is better
    keep z if the gate lets it through          `gate`
    keep z if what the threshold is on reaches it: the share of seeds for which its benefit is above the pool's mean, the share
           for which it is above 0 (the paper's rule, arXiv 2405.12915, with threshold 1.0), or a quantile of the rank
    draw evenly over the clusters of what was kept; with one cluster, the best of all

Shapes: N candidates, Q seeds, R sketch width, n selected rows.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtselect.config import SelectionConfig
from mtselect.selection.cluster import Sketches, check_finite_column, cluster

# Shares are multiples of 1/Q. A float32 share or a threshold such as 0.1 + 0.2 may miss its multiple by 6e-8;
# the tolerance lies above that, and below 1/Q for any Q under ten million, so it never admits a lower count.
SHARE_TOLERANCE = 1e-7


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """What is known of each candidate, [N] each.

    Args:
        mean: mean benefit over the seeds, larger is better.
        z: mean of the benefits' z-scores (`standardise`).
        share: share of the seeds for which its benefit is above the pool's mean.
        raw_share: share of the seeds with a benefit above 0.
        norm: total gradient norm.
    """

    mean: NDArray[np.float64]
    z: NDArray[np.float64]
    share: NDArray[np.float64]
    raw_share: NDArray[np.float64]
    norm: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectedSet:
    """What was selected and why. All arrays `[n]` are aligned and in the order of the pool.

    Args:
        rows: indices into the candidates, ascending, without repetition.
        cluster: label of the row's cluster.
        n_passed: candidates that passed gate and threshold; fewer than the budget means that all of them, and no
            others, were selected.
        order: indices into the candidates of all that passed, `[n_passed]`, in the order of the draw: the first n are the set.
    """

    rows: NDArray[np.int64]
    cluster: NDArray[np.int32]
    n_passed: int
    order: NDArray[np.int64]


def benefit_share(benefits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Share of the seeds with a benefit above 0, `[N]` from `[N, Q]`."""
    share: NDArray[np.float64] = (benefits > 0).mean(axis=1, dtype=np.float64)
    return share


def passes(share: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Whether `share >= threshold`, unharmed by rounding: 3 of 5 seeds pass 0.6, and 0.1 + 0.2 is 3 of 10."""
    return np.asarray(share, dtype=np.float64) >= threshold - SHARE_TOLERANCE


def rank_values(columns: Columns, rank: Literal["z", "benefit", "benefit_per_norm"]) -> NDArray[np.float64]:
    """What candidates are ordered by, larger first, `[N]`: the mean z-score, the mean benefit, or the mean benefit divided by
    the gradient's norm (a zero gradient helps nobody and ranks at 0)."""
    if rank == "z":
        return columns.z
    if rank == "benefit":
        return columns.mean
    return np.divide(columns.mean, columns.norm, out=np.zeros(len(columns.mean)), where=columns.norm > 0)


def draw_order(clusters: NDArray[np.integer], ranks: NDArray[np.floating], draw: Literal["best", "random"],
               generator: np.random.Generator) -> NDArray[np.int64]:
    """The same number of rows from every cluster, wherever a budget ends; one that runs short leaves its share to the others.

    Clusters take turns. In a turn each cluster that has rows left gives its next one, the best of these first: so the turn in
    which the budget ends is given to the clusters whose next row ranks best. Ties go to the lower row.

    Args:
        clusters: label of each row, `[N]`.
        ranks: larger is better, `[N]`.
        draw: `best` goes down the ranks; `random` replaces them by a random order.
        generator: read by `random` only.

    Returns:
        All rows in the order in which they are drawn, `[N]`.
    """
    assert len(clusters) == len(ranks)
    place = np.argsort(np.argsort(-ranks if draw == "best" else generator.permutation(len(ranks)), kind="stable"))
    return np.lexsort((place, _turns(clusters, place)))


def select_rows(columns: Columns, ranks: NDArray[np.floating], sketches: Sketches | None, gated: NDArray[np.bool_],
                budget: int, config: SelectionConfig, seed: int) -> SelectedSet:
    """Gate, threshold, cluster what passed, draw evenly.

    Args:
        columns: of the candidates.
        ranks: what they are ordered by, larger first, `[N]`.
        sketches: gradient sketches, `[N, R]`; may be memory-mapped, only rows that pass are read. Not read for one cluster.
        gated: whether the gate lets each candidate through, `[N]`.
        budget: pairs to select.
        config: threshold, clusters and draw.
        seed: of K-means and of a random draw.

    Returns:
        `budget` rows, or all that passed when fewer did: a set is never filled up with rows that missed the threshold. When
        none passed the set is empty, and the caller decides what that means.

    Raises:
        NonFiniteError: a benefit, a norm, a rank or a passing row's sketch is NaN or infinite.
    """
    check_finite_column("benefits", columns.mean)
    check_finite_column("gradient norms", columns.norm)
    check_finite_column("ranks", ranks)
    passed = np.flatnonzero(gated & _reaches(columns, ranks, gated, config))
    if config.n_clusters == 1:
        labels = np.zeros(len(passed), dtype=np.int32)
    else:
        assert sketches is not None
        labels = cluster(sketches, config.n_clusters, seed, rows=passed)
    generator = np.random.default_rng([seed, zlib.crc32(b"selection/draw")])
    order = draw_order(labels, ranks[passed], config.draw, generator)
    drawn = np.sort(order[:budget])
    return SelectedSet(rows=passed[drawn], cluster=labels[drawn], n_passed=len(passed), order=passed[order])


def _reaches(columns: Columns, ranks: NDArray[np.floating], gated: NDArray[np.bool_],
             config: SelectionConfig) -> NDArray[np.bool_]:
    """Whether each candidate reaches the threshold."""
    if config.threshold_on == "rank":
        return ranks >= (np.quantile(ranks[gated], config.threshold) if gated.any() else 0.0)
    return passes(columns.share if config.threshold_on == "share" else columns.raw_share, config.threshold)


def _turns(clusters: NDArray[np.integer], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn in which each row is drawn: how many rows of its own cluster come before it."""
    order = np.lexsort((place, clusters))
    _, start, sizes = np.unique(clusters[order], return_index=True, return_counts=True)
    turns = np.empty(len(clusters), dtype=np.int64)
    turns[order] = np.arange(len(clusters)) - np.repeat(start, sizes)
    return turns
