"""The pictures of a trial and of its gradients, as matplotlib figures. No figure is shown; tracking stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[Any]


def benefit_histograms(mean_benefit: Array, share: Array, selected: NDArray[np.bool_], threshold: float) -> Figure:
    """Candidates and selected pairs over the mean benefit [N] (cut at its 1st and 99th percentile) and over the share
    of seeds benefited [N], with the threshold."""
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
    right.set_xlabel("share of seeds benefited")
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


def spectra(eigenvalues: Mapping[str, Array]) -> Figure:
    """Eigenvalues of each tracked layer's curvature, largest first, log-log."""
    figure, (axes,) = _figure(1)
    colours = _colours(len(eigenvalues))
    for colour, (name, values) in zip(colours, eigenvalues.items(), strict=True):
        ordered = np.sort(values.ravel())[::-1]
        ranks = np.unique(np.geomspace(1, len(ordered), 200).astype(int))
        axes.plot(ranks, np.maximum(ordered[ranks - 1], max(ordered[0] * 1e-12, 1e-30)), color=colour, linewidth=1, label=name)
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
    """Every trial and baseline: `metric` with its interval against the number of pairs.

    Args:
        rows: with keys kind, method, pairs, and for the metric value, low, high.
        metric: name for the axis.
    """
    figure, (axes,) = _figure(1)
    for method, marker, colour in (("gdig", "o", "tab:blue"), ("random", "s", "tab:orange"), ("pool", "D", "tab:red"),
                                   ("untuned", "x", "0.4")):
        some = [row for row in rows if row["method"] == method]
        if some:
            value, low, high = (np.array([row[key] for row in some]) for key in ("value", "low", "high"))
            axes.errorbar([row["pairs"] for row in some], value, yerr=np.maximum([value - low, high - value], 0),
                          fmt=marker, color=colour, elinewidth=0.5, label=method)
    axes.set(xscale="symlog", xlabel="pairs selected", ylabel=f"{metric} on dev, 95% interval")
    axes.legend()
    return figure


def _figure(columns: int) -> tuple[Figure, Sequence[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * columns, 4.4), layout="constrained", dpi=110)
    return figure, np.atleast_1d(figure.subplots(1, columns)).tolist()


def _colours(n: int) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0, 0.95, n))
