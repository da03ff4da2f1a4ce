"""Where the pictures of a study's scores have what; the PNG (`figures`) and the interactive one (`score_figures`) agree.

A curve over the number of pairs where the trials' sets differ in size, else the runs below one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from mtselect.metrics.base import METRICS

Array = NDArray[Any]
Row = Mapping[str, Any]

# Okabe and Ito's colours, which colour-blind people can tell apart, without the yellow that white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Kind of run -> legend, matplotlib's marker, colour; in the legend's order.
_LOOKS = {"trial": ("trials", "o", COLOURS[0]), "again": ("best trial, fresh seeds", "*", COLOURS[6]),
          "random": ("random", "s", COLOURS[1]), "filter-random": ("filter-random: random behind the gate", "D", COLOURS[4]),
          "loss": ("loss: lowest loss", "^", COLOURS[2]), "pool": ("pool: all, as many steps", "v", COLOURS[3]),
          "pool-epochs": ("pool-epochs: all, its own epochs", "P", COLOURS[3]),
          "pool-cost": ("pool-cost: all, steps of equal cost", "X", COLOURS[3]), "untuned": ("untuned", "<", "#595959"),
          "few-shot": ("few-shot: untuned, with examples", ">", "#595959")}
_MORE = tuple((marker, colour) for marker in "phd" for colour in (COLOURS[5], "#7F7F7F"))  # of other rivals
_ALIKE = 1.1  # sizes within this factor of one another make no curve
_LOG = 4  # from this factor on their scale is logarithmic
_ROOM = 0.022  # of the axis, that a mark needs
_SHOWN_TRIALS = 20


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of one kind: legend text, matplotlib's marker, colour, indices into the layout's points."""

    label: str
    marker: str
    colour: str
    rows: list[int]


@dataclass(frozen=True, kw_only=True)
class ScoreLayout:
    """The picture of a study's scores.

    Args:
        is_curve: whether the trials' sets differ in size.
        points: the runs to draw: of a curve those that train, by rising pairs; else the baselines and the best of the trials,
            best first.
        left_out: trials that are not among them.
        place: of each point; of a curve those with nearly equal pairs stand side by side.
        ticks: place -> number of pairs, or the run's name, with its score if that is out of the picture.
        front: of a curve, the points (indices, by rising pairs) of trials that no other trial beats with as few pairs.
        lines: of a curve, baselines that nothing was trained for: a level to compare with.
        heights: a score for each line's name: its own unless another name is there or it is out of the picture.
        scores: the picture's lowest and highest; a level that is far away is beyond them.
        groups: the points by kind.
    """

    is_curve: bool
    points: list[Row]
    left_out: int
    place: Array
    ticks: dict[float, str]
    front: list[int]
    lines: list[Row]
    heights: list[float]
    scores: tuple[float, float]
    groups: list[Group]


def score_layout(rows: Sequence[Row], metric: str) -> ScoreLayout:
    """Lay out the rows that `figures.score_against_pairs` takes; those without a finite score are left out."""
    higher = METRICS.load(metric).higher_is_better
    rows = sorted((row for row in rows if np.isfinite(row["value"])), key=lambda row: float(row["value"]))
    levels = [row for row in rows if row["kind"] == "baseline" and not row["pairs"]]
    trained = sorted((row for row in rows if row not in levels), key=lambda row: (row["pairs"], row["kind"] == "trial"))
    of_trials = [row["pairs"] for row in trained if row["kind"] == "trial"]
    is_curve = bool(of_trials) and max(of_trials) > _ALIKE * min(of_trials)
    scores = _score_range(trained or levels, levels)
    if is_curve:
        points, lines = trained, levels
        place, ticks = _places(np.array([row["pairs"] for row in points], float))
    else:
        points, lines = _best([*levels, *trained], higher), []
        place = np.arange(len(points))
        ticks = {i: name_of(row) if scores[0] <= row["value"] <= scores[1] else level_label(row, scores)
                 for i, row in enumerate(points)}
    heights: list[float] = []
    for row in lines:  # by rising score
        lowest = heights[-1] + 0.06 * (scores[1] - scores[0]) if heights else -np.inf
        heights.append(float(max(np.clip(row["value"], *scores), lowest)))
    return ScoreLayout(is_curve=is_curve, points=points, left_out=len(rows) - len(points) - len(lines), place=place,
                       ticks=ticks, front=_front(points, higher) if is_curve else [], lines=lines, heights=heights,
                       scores=scores, groups=_groups(points))


def name_of(row: Row) -> str:
    """Of a run."""
    return str(row.get("name", row["method"]))


def level_label(row: Row, scores: tuple[float, float]) -> str:
    """Name and score of a level, and whether it is out of the picture."""
    beyond = " (below)" if row["value"] < scores[0] else " (above)" if row["value"] > scores[1] else ""
    return f"{name_of(row)} {row['value']:.1f}{beyond}"


def _places(sizes: Array) -> tuple[Array, dict[float, str]]:
    """Places of sets of these rising sizes on an axis, log if they differ much, and its ticks.

    Marks need room: the places are those nearest to the sizes (least squares) that keep a distance from one another.
    """
    log = sizes[0] > 0 and sizes[-1] >= _LOG * sizes[0]
    scale = np.log10 if log else np.asarray
    true, at = scale(sizes), np.unique(sizes)
    span = np.ptp(true) or 1.0
    room = np.arange(len(sizes)) * span * min(_ROOM, 0.5 / len(sizes))
    if len(at) > 1 and np.diff(scale(at)).min() < 0.06 * span:
        powers = 10.0 ** np.arange(int(true[0]), int(true[-1]) + 1) if log else np.ones(0)
        at = np.unique([float(f"{size:.2g}") for size in np.linspace(sizes[0], sizes[-1], 5)]) if not log else np.array(
            [size for size in np.outer(powers, (1, 2, 5)).ravel() if sizes[0] <= size <= sizes[-1]])
    return isotonic_regression(true - room).x + room, {float(scale(size)): f"{size:,.0f}" for size in at}


def _groups(points: Sequence[Row]) -> list[Group]:
    found: dict[str, list[int]] = {}
    for i, row in enumerate(points):
        found.setdefault(row["method"] if row["kind"] == "baseline" else row["kind"], []).append(i)
    others = sorted(found.keys() - _LOOKS.keys())
    looks = {**_LOOKS, **{name: (name, *_MORE[i % len(_MORE)]) for i, name in enumerate(others)}}
    return [Group(label=label if len(found[name]) == 1 else f"{label} ({len(found[name])})", marker=marker, colour=colour,
                  rows=found[name]) for name, (label, marker, colour) in looks.items() if name in found]


def _best(rows: Sequence[Row], higher: bool) -> list[Row]:
    """Best first, of the trials `_SHOWN_TRIALS` at most."""
    order = sorted(rows, key=lambda row: -row["value"] if higher else row["value"])
    trials = [row for row in order if row["kind"] == "trial"][:_SHOWN_TRIALS]
    return [row for row in order if row["kind"] != "trial" or row in trials]


def _score_range(points: Sequence[Row], lines: Sequence[Row]) -> tuple[float, float]:
    """Lowest and highest score to show: all the points' intervals, and the lines that are not far from them."""
    ends = [float(row[key]) for row in points for key in ("low", "value", "high") if np.isfinite(row[key])] or [0.0]
    low, high = min(ends), max(ends)
    reach = (high - low) or 1.0
    near = [row["value"] for row in lines if low - reach <= row["value"] <= high + reach]
    low, high = min([low, *near]), max([high, *near])
    return low - 0.06 * reach, high + 0.06 * reach


def _front(points: Sequence[Row], higher: bool) -> list[int]:
    """Trials, by rising pairs, that score better than every trial with fewer or as many pairs."""
    front: list[int] = []
    worth = [point["value"] if higher else -point["value"] for point in points]
    for i in sorted(range(len(points)), key=lambda i: (points[i]["pairs"], -worth[i])):
        if points[i]["kind"] == "trial" and (not front or worth[i] > worth[front[-1]]):
            front.append(i)
    return front
