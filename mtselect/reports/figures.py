"""The pictures of a trial and of its gradients, as matplotlib figures. No figure is shown; tracking stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mtselect.metrics.base import METRICS
from mtselect.reports.score_layout import COLOURS, Array, ScoreLayout, level_label, name_of, score_layout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 50  # of a gate's scores


def benefit_histograms(mean_benefit: Array, share: Array, selected: NDArray[np.bool_], threshold: float) -> Figure:
    """Candidates and selected pairs over the mean benefit [N] (cut at its 1st and 99th percentile) and over the share
    of seeds for which a pair is above the pool's mean [N], with the threshold, which is an edge of the bins."""
    figure, (left, right) = _figure(2)
    low, high = np.percentile(mean_benefit, [1, 99])
    around = threshold + np.arange(-32, 33) / 32
    for axes, values, bins in ((left, np.clip(mean_benefit, low, high), 50), (right, share, around)):
        counts, edges = np.histogram(values, bins)
        axes.stairs(counts, edges, fill=True, color="0.75", label=f"{len(values):,} candidates")
        axes.stairs(np.histogram(values[selected], edges)[0], edges, fill=True, color="tab:blue", alpha=0.8,
                    label=f"{int(selected.sum()):,} selected")
        axes.set_ylabel("pairs")
        axes.spines[["top", "right"]].set_visible(False)
    left.axvline(0, color="0.3", linewidth=1)
    left.set_xlabel("mean benefit over the seeds (right: helps; the outer bars hold what is beyond)")
    right.axvline(threshold, color="tab:red", label=f"threshold {threshold:.3g}")
    right.set_xlabel("share of seeds for which it is above the pool's mean")
    right.set_xlim(min(share.min(), threshold) - 0.04, max(share.max(), threshold) + 0.04)
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def cluster_map(points: Array, selected: NDArray[np.bool_], clusters: Array) -> Figure:
    """Principal plane of the unit sketches: points [N, 2], the selected ones in their cluster's colour [n]."""
    figure, (axes,) = _figure(1)
    axes.scatter(*points[~selected].T, s=3, color="0.85", linewidths=0, label="not selected")
    axes.scatter(*points[selected].T, s=7, c=clusters, cmap="nipy_spectral", linewidths=0)
    axes.set_xlabel("first principal component of the gradient sketches")
    axes.set_ylabel("second")
    axes.set_title(f"{int(selected.sum()):,} selected of {len(points):,}, coloured by cluster "
                   f"({len(np.unique(clusters))})")
    return figure


def gate_histogram(pool: Array, seeds: Array, cut: float) -> Figure:
    """Scores of the gate for candidates [N] and seeds [Q], each group as shares of itself, with the cut, which is an edge of
    the bins. Scores below the 1st percentile of the candidates stand in the first bin, so that a few do not flatten all."""
    figure, (axes,) = _figure(1)
    figure.set_size_inches(9.5, 3.6)
    low, high = min(np.percentile(pool, 1), seeds.min(), cut), max(pool.max(), seeds.max(), cut)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    below = round(_BINS * (cut - low) / (high - low))
    edges = np.unique(np.concatenate([np.linspace(low, cut, below + 1), np.linspace(cut, high, _BINS - below + 1)]))
    for scores, of, look in ((pool[pool < cut], pool, {"fill": True, "color": "0.72", "label": "candidates dropped"}),
                             (pool[pool >= cut], pool, {"fill": True, "color": "#4094c5", "label": "candidates let through"}),
                             (seeds, seeds, {"color": COLOURS[1], "linewidth": 1.8, "label": f"the {len(seeds):,} seeds"})):
        axes.stairs(100 * np.histogram(np.maximum(scores, low), edges)[0] / len(of), edges, **look)
    axes.axvline(cut, color="0.15", linewidth=1.4, linestyle="--", label=f"cut {cut:.3g}")
    axes.set(xlabel="score of the gate (right: more like the seeds)", ylabel="% of the candidates, of the seeds")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    return figure


def spectra(eigenvalues: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Eigenvalues of each tracked layer's curvature (`attribution.kfac.spectrum`), largest first, log-log."""
    from matplotlib import colormaps

    figure, (axes,) = _figure(1)
    colours = colormaps["viridis"](np.linspace(0, 0.95, len(eigenvalues)))
    for colour, (name, points) in zip(colours, eigenvalues.items(), strict=True):
        values = np.asarray(points["values"])
        axes.plot(points["ranks"], np.maximum(values, max(values[0] * 1e-12, 1e-30)), color=colour, linewidth=1, label=name)
    axes.set(xscale="log", yscale="log", xlabel="rank", ylabel="eigenvalue of the layer's curvature")
    if len(eigenvalues) <= 24:
        axes.legend(fontsize=5, ncols=2)
    return figure


def norms_by_layer(names: Sequence[str], norms: Array) -> Figure:
    """Median and 5-95% range of the per-example gradient norm [N, layers]."""
    figure, (axes,) = _figure(1)
    low, middle, high = np.percentile(norms, [5, 50, 95], axis=0)
    rows = np.arange(len(names))
    axes.errorbar(middle, rows, xerr=[middle - low, high - middle], fmt="o", markersize=3)
    axes.set_yticks(rows, names, fontsize=6)
    axes.set(xscale="log" if (middle > 0).any() else "linear", xlabel="gradient norm of a pair (median, 5-95%)")
    return figure


def score_against_pairs(rows: Sequence[Mapping[str, Any]], metric: str) -> Figure:
    """Every run: `metric` with its 95% interval against the number of pairs, and the trials' front; where all trials have about
    as many pairs, the runs below one another, best first.

    Args:
        rows: with keys kind (trial, baseline or again), method, pairs, and for the metric value, low, high; name if
            there is one.
        metric: name for the axis.
    """
    layout = score_layout(rows, metric)
    figure, (axes,) = _figure(1)
    figure.set_size_inches(8.5, 5.4)
    value, low, high = (np.array([row[key] for row in layout.points]) for key in ("value", "low", "high"))
    score_axis = f"{METRICS.load(metric).title} on dev, 95% interval"
    for group in layout.groups:
        some = group.rows
        ends = np.maximum([value[some] - low[some], high[some] - value[some]], 0)
        place, score = layout.place[some], value[some]
        where = {"x": place, "y": score, "yerr": ends} if layout.is_curve else {"x": score, "y": place, "xerr": ends}
        axes.errorbar(**where, fmt=group.marker, color=group.colour, elinewidth=0.8, label=group.label,
                      markersize=10 if group.marker == "*" else 6)
    higher = METRICS.load(metric).higher_is_better
    if layout.is_curve:
        axes.step(layout.place[layout.front], value[layout.front], where="post", color=COLOURS[0], linewidth=1.5, alpha=0.6,
                  label="best trial up to a size")
        for i in _named(layout):
            axes.annotate(name_of(layout.points[i]), (layout.place[i], high[i]), xytext=(0, 3), textcoords="offset points",
                          fontsize=8, ha="center", bbox={"boxstyle": "square,pad=0.1", "color": "white", "alpha": 0.8})
        for row, height in zip(layout.lines, layout.heights, strict=True):
            axes.axhline(row["value"], color="0.35", linestyle=":", linewidth=1)
            axes.annotate(level_label(row, layout.scores), (1.01, height), xycoords=("axes fraction", "data"), va="center",
                          fontsize=8, annotation_clip=False)
        axes.set_xticks(list(layout.ticks), list(layout.ticks.values()))
        axes.set(xlabel="pairs selected", ylabel=score_axis, ylim=layout.scores)
        axes.margins(x=0.08)
        title = f"Score against pairs selected: further {'up' if higher else 'down'} is better, further left is cheaper"
    else:
        axes.set_yticks(list(layout.ticks), list(layout.ticks.values()), fontsize=8)
        axes.set(xlabel=score_axis, xlim=layout.scores, ylim=(max(1, len(layout.points)) - 0.5, -0.5))
        title = f"Scores of the runs: further {'right' if higher else 'left'} is better"
    figure.suptitle(title, fontsize=11)
    if layout.points:
        figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _named(layout: ScoreLayout) -> list[int]:
    """The front's points whose names have room, the best first."""
    size = np.array([(np.ptp(layout.place) or 1) * 0.07, (layout.scores[1] - layout.scores[0]) * 0.04])
    named: dict[int, Array] = {}
    for i in reversed(layout.front):
        place = np.array([layout.place[i], layout.points[i]["value"]]) / size
        if all(np.abs(place - other).max() >= 1 for other in named.values()):
            named[i] = place
    return list(named)


def _figure(columns: int) -> tuple[Figure, Sequence[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * columns, 4.4), layout="constrained", dpi=110)
    return figure, np.atleast_1d(figure.subplots(1, columns)).tolist()
