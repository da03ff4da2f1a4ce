"""The pictures of a trial and of its gradients, as matplotlib figures. No figure is shown; tracking stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mtselect.metrics.base import METRICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[Any]

# Okabe and Ito's colours, which colour-blind people can tell apart, without the yellow that white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Baselines that are a level to compare with, whatever the size of a set.
LEVELS = ("untuned", "few-shot", "pool", "pool-epochs", "pool-cost")

_BINS = 50


def benefit_histograms(mean_benefit: Array, share: Array, selected: NDArray[np.bool_], threshold: float) -> Figure:
    """Candidates and selected pairs over the mean benefit [N] (cut at its 1st and 99th percentile) and over the share
    of seeds for which a pair is above the pool's mean [N], with the threshold."""
    figure, (left, right) = _figure(2)
    low, high = np.percentile(mean_benefit, [1, 99])
    for axes, values, bins in ((left, np.clip(mean_benefit, low, high), 50), (right, share, np.linspace(0, 1, 34))):
        counts, edges = np.histogram(values, bins)
        axes.stairs(counts, edges, fill=True, color="0.75", label=f"{len(values):,} candidates")
        axes.stairs(np.histogram(values[selected], edges)[0], edges, fill=True, color="tab:blue", alpha=0.8,
                    label=f"{int(selected.sum()):,} selected")
        axes.set_ylabel("pairs")
    left.axvline(0, color="0.3", linewidth=1)
    left.set_xlabel("mean benefit over the seeds (right: helps)")
    right.axvline(threshold, color="tab:red", label=f"threshold {threshold:g}")
    right.set_xlabel("share of seeds for which it is above the pool's mean")
    right.legend()
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
    figure, (axes,) = _figure(1)
    colours = _colours(len(eigenvalues))
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


@dataclass(frozen=True, kw_only=True)
class ScoreLayout:
    """Where the picture of scores against pairs has what; both the PNG and the interactive figure are drawn from it.

    Args:
        points: trials, and baselines that train on a part of the pool.
        x: a place for each point; those with equal pairs stand side by side. The scale is log if sizes differ tenfold.
        front: the points (indices, by rising pairs) of trials that no other trial beats with as few pairs.
        lines: baselines that are a level to compare with: the whole pool, and the model as it was.
        heights: a height for each line's name, at the line unless another name is there or it is out of the picture.
        y: the picture's lowest and highest score.
        ticks: place -> number of pairs.
    """

    points: list[Mapping[str, Any]]
    x: Array
    front: list[int]
    lines: list[Mapping[str, Any]]
    heights: list[float]
    y: tuple[float, float]
    ticks: dict[float, str]


def score_layout(rows: Sequence[Mapping[str, Any]], metric: str) -> ScoreLayout:
    """Lay out the rows that `score_against_pairs` takes; those without a finite score are left out."""
    rows = sorted((row for row in rows if np.isfinite(row["value"])), key=lambda row: float(row["value"]))
    lines = [row for row in rows if row["method"] in LEVELS and row["kind"] == "baseline"]
    points = sorted((row for row in rows if row not in lines), key=lambda row: (row["pairs"], row["kind"] == "trial"))
    sizes = np.array([row["pairs"] for row in points], float)
    log = len(sizes) > 0 and sizes.min() > 0 and sizes.max() >= 10 * sizes.min()
    scale = np.log10 if log else np.asarray
    places, group, counts = np.unique(scale(sizes), return_inverse=True, return_counts=True)
    span = (np.ptp(places) if len(places) else 0) or 1.0
    rank = np.arange(len(points)) - np.concatenate([[0], np.cumsum(counts)])[group]
    gap = np.diff(places).min() if len(places) > 1 else span
    step = np.minimum(0.015 * span, 0.6 * gap / np.maximum(counts, 1))
    x = scale(sizes) + ((rank - (counts[group] - 1) / 2) * step[group] if len(points) else 0)
    if len(places) > 7 or gap < 0.06 * span:
        rounded = {float(f"{size:.2g}") for size in (np.geomspace if log else np.linspace)(sizes.min(), sizes.max(), 5)}
        ticks = {float(scale(size)): f"{size:,.0f}" for size in sorted(rounded)}
    else:
        ticks = {float(place): f"{size:,.0f}" for place, size in zip(places, np.unique(sizes), strict=True)}
    y = _score_range(points or lines, lines)
    heights: list[float] = []
    for row in lines:  # by rising score
        lowest = heights[-1] + 0.09 * (y[1] - y[0]) if heights else -np.inf
        heights.append(float(max(np.clip(row["value"], *y), lowest)))
    front = _front(points, METRICS.load(metric).higher_is_better)
    return ScoreLayout(points=points, x=x, front=front, lines=lines, heights=heights, y=y, ticks=ticks)


def line_label(row: Mapping[str, Any], y: tuple[float, float]) -> str:
    """Name and score of a baseline drawn as a line, and whether the line is out of the picture."""
    beyond = " (below)" if row["value"] < y[0] else " (above)" if row["value"] > y[1] else ""
    size = f", {row['pairs']:,} pairs" if row["pairs"] else ""
    return f"{row.get('name', row['method'])} {row['value']:.1f}{size}{beyond}"


def point_groups(layout: ScoreLayout) -> list[tuple[str, str, str, list[int]]]:
    """Legend text, matplotlib marker, colour and indices of the kinds of points."""
    found: dict[str, list[int]] = {}
    for i, row in enumerate(layout.points):
        found.setdefault(row["method"] if row["kind"] == "baseline" else row["kind"], []).append(i)
    names = sorted(found, key=lambda name: (name != "trial", name != "random", name))
    marks = [("o", COLOURS[0]) if name == "trial" else ("s", COLOURS[1]) if name == "random" else
             ("^vDP"[i % 4], COLOURS[2 + i % 4]) for i, name in enumerate(names)]
    told = {"trial": "trials", "again": "best trial, fresh seeds"}
    return [(f"{told.get(name, f'baseline: {name}')} ({len(found[name])})", *mark, found[name])
            for name, mark in zip(names, marks, strict=True)]


def score_against_pairs(rows: Sequence[Mapping[str, Any]], metric: str) -> Figure:
    """Every trial and baseline: `metric` with its 95% interval against the number of pairs, and the trials' front.

    Args:
        rows: with keys kind (trial, baseline or again), method, pairs, and for the metric value, low, high; name if
            there is one.
        metric: name for the axis.
    """
    layout = score_layout(rows, metric)
    figure, (axes,) = _figure(1)
    figure.set_size_inches(8.5, 5)
    value, low, high = (np.array([row[key] for row in layout.points]) for key in ("value", "low", "high"))
    for label, marker, colour, some in point_groups(layout):
        axes.errorbar(layout.x[some], value[some], yerr=np.maximum([value[some] - low[some], high[some] - value[some]], 0),
                      fmt=marker, color=colour, elinewidth=0.7, markersize=5, label=label)
    if layout.front:
        axes.step(layout.x[layout.front], value[layout.front], where="post", color=COLOURS[0], linewidth=1.5, alpha=0.6,
                  label="best score up to a size")
        for i in _named(layout):
            axes.annotate(layout.points[i].get("name", ""), (layout.x[i], value[i]), xytext=(-5, 4), fontsize=8, ha="right",
                          textcoords="offset points", bbox={"boxstyle": "square,pad=0.1", "color": "white", "alpha": 0.8})
    for row, height in zip(layout.lines, layout.heights, strict=True):
        axes.axhline(row["value"], color="0.35", linestyle="--" if row["pairs"] else ":", linewidth=1)
        axes.annotate(line_label(row, layout.y).replace(", ", "\n"), (1.01, height), xycoords=("axes fraction", "data"),
                      va="center", fontsize=8, annotation_clip=False)
    axes.set_xticks(list(layout.ticks), list(layout.ticks.values()))
    axes.set_ylim(*layout.y)
    axes.margins(x=0.1)
    axes.set(xlabel="pairs selected", ylabel=f"{METRICS.load(metric).title} on dev, 95% interval")
    up = "up" if METRICS.load(metric).higher_is_better else "down"
    figure.suptitle(f"Score against pairs selected: further {up} is better, further left is cheaper", fontsize=11)
    if layout.points:
        figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _named(layout: ScoreLayout) -> list[int]:
    """The front's points whose names have room, the best first."""
    size = np.array([(np.ptp(layout.x) or 1) * 0.07, (layout.y[1] - layout.y[0]) * 0.04])
    named: dict[int, Array] = {}
    for i in reversed(layout.front):
        place = np.array([layout.x[i], layout.points[i]["value"]]) / size
        if all(np.abs(place - other).max() >= 1 for other in named.values()):
            named[i] = place
    return list(named)


def _score_range(points: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Lowest and highest score to show: all the points' intervals, and the lines that are not far from them."""
    ends = [float(row[key]) for row in points for key in ("low", "value", "high") if np.isfinite(row[key])] or [0.0]
    low, high = min(ends), max(ends)
    reach = (high - low) or 1.0
    near = [row["value"] for row in lines if low - reach <= row["value"] <= high + reach]
    low, high = min([low, *near]), max([high, *near])
    return low - 0.06 * reach, high + 0.06 * reach


def _front(points: Sequence[Mapping[str, Any]], higher: bool) -> list[int]:
    """Trials, by rising pairs, that score better than every trial with fewer or as many pairs."""
    front: list[int] = []
    worth = [point["value"] if higher else -point["value"] for point in points]
    for i in sorted(range(len(points)), key=lambda i: (points[i]["pairs"], -worth[i])):
        if points[i]["kind"] == "trial" and (not front or worth[i] > worth[front[-1]]):
            front.append(i)
    return front


def _figure(columns: int) -> tuple[Figure, Sequence[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * columns, 4.4), layout="constrained", dpi=110)
    return figure, np.atleast_1d(figure.subplots(1, columns)).tolist()


def _colours(n: int) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0, 0.95, n))
