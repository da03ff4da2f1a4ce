"""docs/study.md's tables and pictures, from the records of `study.py`.

The prose is written by hand; what stands between `<!-- NAME -->` and `<!-- end -->` is written here. Differences are of chrF,
with intervals over sentences and finetuning seeds within a cell, and over cells too in what is said of several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from study_records import Record

from mtselect.config import EvaluationConfig
from mtselect.metrics.base import METRICS, Scoring
from mtselect.progress import SilentProgress
from mtselect.significance import difference_interval, redrawn_mean, scored_runs, two_sided_p

METRIC = "chrf"
SCORING = Scoring(settings=EvaluationConfig(), tgt_lang="English", progress=SilentProgress())
Draws = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better one system is than another, with the middle 95 % of the draws."""

    value: float
    low: float
    high: float
    p: float

    @staticmethod
    def of(value: float, draws: Draws) -> Difference:
        """Of a value and its draws [B]."""
        low, high = difference_interval(draws)
        return Difference(value=value, low=low, high=high, p=two_sided_p(draws))

    def __str__(self) -> str:
        text = f"{self.value:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"
        return f"**{text}**" if self.low > 0 or self.high < 0 else text


class Split:
    """All records at one split.

    Args:
        records: of the study.
        split: dev or test.
        cells: in the order that they are shown.
        ours: the system that is mtselect's default.
    """

    def __init__(self, records: Sequence[Record], split: str, cells: Sequence[str], ours: str) -> None:
        self.split, self.ours = split, ours
        self._records = {(one.cell, one.system): one for one in records if one.cell in cells}
        begun = self._records.keys()
        self.cells = [cell for cell in cells if {(cell, ours), (cell, "random")} <= begun]
        self.systems = sorted({system for _, system in self._records})  # equal scores stand in this order

    @cached_property
    def _scores(self) -> dict[tuple[str, str], tuple[Draws, NDArray[np.float64]]]:
        metric = METRICS.load(METRIC)()
        found = {}
        for where, one in self._records.items():
            runs = [values.astype(np.float64) for name, values in sorted(one.statistics.items())
                    if name.startswith(f"{self.split}/{METRIC}/")]
            found[where] = scored_runs(metric, runs, SCORING, 0)
        return found

    def record(self, cell: str, system: str) -> Record | None:
        """If there is one."""
        return self._records.get((cell, system))

    def widely(self, cells: Sequence[str]) -> list[str]:
        """The systems that have a record in half of some cells or more."""
        return [system for system in self.systems if 2 * sum((cell, system) in self._records for cell in cells) >= len(cells)]

    def score(self, cell: str, system: str) -> float:
        """Mean over the finetuning seeds."""
        return float(self._scores[cell, system][1].mean())

    def _drawn(self, cell: str, system: str) -> Draws:
        return redrawn_mean(self._scores[cell, system][0], np.random.default_rng([0, len(system), *system.encode()]))

    def difference(self, cell: str, system: str, other: str) -> Difference:
        """In one cell."""
        return Difference.of(self.score(cell, system) - self.score(cell, other),
                             self._drawn(cell, system) - self._drawn(cell, other))

    def over_cells(self, cells: Sequence[str], system: str, other: str) -> tuple[Difference, int, int, int, int] | None:
        """On average, and in how many of how many cells it is better, surely better and surely worse."""
        both = [cell for cell in cells if self.record(cell, system) and self.record(cell, other)]
        if not both or system == other:
            return None
        each = [self.difference(cell, system, other) for cell in both]
        draws = np.stack([self._drawn(cell, system) - self._drawn(cell, other) for cell in both])
        mean = Difference.of(float(np.mean([one.value for one in each])), redrawn_mean(draws, np.random.default_rng(1)))
        return (mean, sum(one.value > 0 for one in each), sum(one.low > 0 for one in each),
                sum(one.high < 0 for one in each), len(both))


def summary(split: Split, cells: Sequence[str]) -> str:
    """The default against every system that is in half of some cells or more, in the cells of both; the hardest rival first."""
    found = {system: split.over_cells(cells, split.ours, system) for system in split.widely(cells)}
    rows = sorted(((system, one) for system, one in found.items() if one is not None), key=lambda row: row[1][0].value)
    lines = ["| rival | the default is better by (chrF) | p | better in | surely better | surely worse |",
             "|---|---|---|---|---|---|"]
    lines += [f"| {system} | {mean} | {mean.p:.3f} | {better} of {n} | {surely} | {worse} |"
              for system, (mean, better, surely, worse, n) in rows]
    if others := [system for system in split.systems if system not in found and split.over_cells(cells, split.ours, system)]:
        lines += ["", f"In fewer than half of the {len(cells)} cells: {', '.join(sorted(others))}."]
    return "\n".join(lines)


def cell_table(split: Split, cell: str) -> str:
    """Every system of a cell, the best first."""
    here = split.widely([cell])
    lines = [f"### {cell}", "", "| system | chrF | noise | pairs | seconds to choose | the default is better by |",
             "|---|---|---|---|---|---|"]
    for system in sorted(here, key=lambda one: -split.score(cell, one)):
        one = split.record(cell, system)
        assert one is not None
        noise = one.facts["noise"]
        beside = "" if system == split.ours else str(split.difference(cell, split.ours, system))
        shown = "" if noise is None else f"{noise:.0%}"
        lines.append(f"| {f'**{system}**' if system == split.ours else system} | {split.score(cell, system):.1f} | {shown} | "
                     f"{one.facts['pairs']:,} | {one.facts['seconds']:.0f} | {beside} |")
    return "\n".join(lines)


def matrix(split: Split) -> str:
    """chrF of every system in every cell."""
    order = sorted(split.systems, key=lambda system: -np.mean([split.score(cell, system) - split.score(cell, "random")
                                                               for cell in split.cells if split.record(cell, system)] or [-99]))
    lines = ["| system | " + " | ".join(split.cells) + " |", "|---" * (1 + len(split.cells)) + "|"]
    best = {cell: max(split.score(cell, system) for system in order if split.record(cell, system)) for cell in split.cells}
    for system in order:
        shown = []
        for cell in split.cells:
            score = split.score(cell, system) if split.record(cell, system) else None
            shown.append("" if score is None else f"**{score:.1f}**" if score == best[cell] else f"{score:.1f}")
        lines.append(f"| {system} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def forest(split: Split, cells: Sequence[str], path: Path) -> None:
    """The summary as a picture: differences with their intervals, in faint marks each cell's."""
    found = {system: split.over_cells(cells, split.ours, system) for system in split.widely(cells)}
    rows = sorted(((system, one[0]) for system, one in found.items() if one is not None), key=lambda row: -row[1].value)
    figure = Figure(figsize=(8, 1 + 0.28 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for y, (system, mean) in enumerate(rows):
        each = [split.difference(cell, split.ours, system).value for cell in cells if split.record(cell, system)]
        axes.plot(each, [y] * len(each), "|", color="0.6")
        axes.errorbar(mean.value, y, xerr=[[mean.value - mean.low], [mean.high - mean.value]], fmt="o", color="#0072B2",
                      capsize=3)
    axes.axvline(0, color="0.3", linewidth=1)
    axes.set_yticks(range(len(rows)), [system for system, _ in rows])
    axes.set_xlabel(f"chrF that the default is better by, {split.split}")
    axes.set_title(f"mean of {len(cells)} cells with 95 % interval; bars: each cell", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def costs(split: Split, cells: Sequence[str], path: Path) -> None:
    """What a choice costs, against what it gains over a random one."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for system in split.widely(cells):
        found = split.over_cells(cells, system, "random")
        if found is None or system in ("untuned", "few-shot"):
            continue
        seconds = np.mean([one.facts["seconds"] for cell in cells if (one := split.record(cell, system))])
        axes.plot(max(seconds, 0.5), found[0].value, "o", color="#D55E00" if system == split.ours else "#0072B2")
        axes.annotate(system, (max(seconds, 0.5), found[0].value), xytext=(4, 3), textcoords="offset points", fontsize=8)
    axes.axhline(0, color="0.3", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("seconds to choose, mean of the cells")
    axes.set_ylabel(f"chrF over random, {split.split}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def write(records: Sequence[Record], order: Sequence[str], ours: str, page: Path, pictures: Path) -> None:
    """The page's generated parts, and the pictures; test is read last.

    Args:
        records: all.
        order: of the cells.
        ours: the system that is mtselect's default.
        page: whose marked parts are written anew.
        pictures: folder.
    """
    pictures.mkdir(parents=True, exist_ok=True)
    dev = Split(records, "dev", order, ours)
    groups: Mapping[str, Callable[[str], bool]] = {
        "noisy": lambda cell: "noise 0%" not in cell and "gemma" not in cell,
        "one domain": lambda cell: "noise 0%" not in cell and "gemma" not in cell and "mixed" not in cell,
        "mixed": lambda cell: "mixed" in cell and "gemma" not in cell, "clean": lambda cell: "noise 0%" in cell,
        "pretrained": lambda cell: "gemma" in cell}
    cells = {group: [cell for cell in dev.cells if belongs(cell)] for group, belongs in groups.items()}
    parts = {f"{group} dev": summary(dev, some) for group, some in cells.items() if some}
    parts |= {"scores": matrix(dev), "cells": "\n\n".join(cell_table(dev, cell) for cell in dev.cells)}
    for group, some in cells.items():
        if some:
            forest(dev, some, pictures / f"{group.replace(' ', '-')}.png")
            costs(dev, some, pictures / f"{group.replace(' ', '-')}-cost.png")
    test = Split(records, "test", order, ours)
    parts |= {f"{group} test": summary(test, some) for group, some in cells.items() if some}
    text = page.read_text(encoding="utf-8")
    for name, content in parts.items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        if text.count(begin) != 1:
            raise SystemExit(f"error: {page} must have one part {begin.strip()}, has {text.count(begin)}")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{content}\n{end}{rest.partition(end)[2]}"
    page.write_text(text, encoding="utf-8")
