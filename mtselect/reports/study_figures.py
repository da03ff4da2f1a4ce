"""Interactive pictures of a study's candidates and settings (plotly).

Texts come from a noisy pool: every one passes `short_text` and is escaped before it gets into a figure.
"""

from __future__ import annotations

import html
import math
import textwrap
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mtselect.data.pairs import Pair
from mtselect.reports.pages import short_text
from mtselect.reports.score_layout import COLOURS, Array

if TYPE_CHECKING:
    import optuna
    from plotly.graph_objects import Figure

# matplotlib's marker -> plotly's.
SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "D": "diamond", "P": "cross", "X": "x",
           "*": "star", "p": "pentagon", "h": "hexagon", "<": "triangle-left", ">": "triangle-right", "d": "diamond-tall"}


def cluster_figure(points: Array, selected: NDArray[np.bool_], clusters: Array, pairs: Sequence[Pair], benefit: Array,
                   share: Array, *, name: str, limit: int = 5000) -> Figure:
    """The candidates in the principal plane of their gradient sketches, one trial's selected set in its clusters' colours.

    Args:
        points: places of the candidates [N, 2].
        selected: which of them the trial selected [N].
        clusters: numbers of the selected ones' clusters [n].
        pairs: the candidates [N], with id, src and tgt.
        benefit: mean over the seeds [N].
        share: share of the seeds for which each is above the pool's mean [N].
        name: the trial's.
        limit: at most so many selected and so many others are drawn, picked at random with a fixed seed.
    """
    import plotly.graph_objects as go

    figure = go.Figure()

    def draw(rows: Array, label: str, cluster: int | None, **look: object) -> None:
        texts = [_hover(pairs[row], benefit[row], share[row], cluster) for row in rows]
        figure.add_scatter(x=points[rows, 0], y=points[rows, 1], mode="markers", name=label, marker=look, hovertext=texts,
                           hovertemplate="%{hovertext}<extra></extra>")

    others, chosen = np.flatnonzero(~selected), np.flatnonzero(selected)
    some_others, some_chosen = _sampled(len(others), limit), _sampled(len(chosen), limit)
    draw(others[some_others], "not selected", None, color="#c8ccd2", size=4)
    rows, labels = chosen[some_chosen], np.asarray(clusters)[some_chosen]
    numbers = np.unique(clusters)
    for i, number in enumerate(numbers):
        draw(rows[labels == number], f"cluster {number} ({np.sum(clusters == number):,})", number,
             color=COLOURS[i % len(COLOURS)], symbol=list(SYMBOLS.values())[i % len(SYMBOLS)], size=7,
             line={"width": 0.5, "color": "white"})
    figure.update_xaxes(title="first principal component of the gradient sketches")
    figure.update_yaxes(title="second")
    figure.update_layout(legend={"itemsizing": "constant"}, hoverlabel={"align": "left"})
    shown = (f"{_of(len(rows), len(chosen))} pairs selected by {name}, each of the {len(numbers)} clusters in its colour and "
             f"shape, above {_of(len(some_others), len(others))} others in grey") if len(chosen) else (
             f"{name} selected nothing; {_of(len(some_others), len(others))} candidates in grey")
    return titled(figure, "Map of the candidates",
                  f"{shown}. Pairs that pull the model the same way lie close together. Point at one to read it; click a "
                  "cluster in the legend to hide it, twice to see it alone.", height=680)


def importance_figure(study: optuna.Study, objectives: Sequence[str]) -> Figure:
    """Which searched field decides the objectives most (Optuna's PED-ANOVA), or why that cannot be told.

    Args:
        study: Optuna's; its COMPLETE trials count.
        objectives: a name for each of the study's objectives.
    """
    import plotly.graph_objects as go

    title = "Which setting matters"
    trials, names = _finished(study)
    told = [i for i in range(len(objectives)) if len({trial.values[i] for trial in trials}) > 1]
    reason = _too_little(trials, names, title) or (
        f"Only {names[0]} was searched: there is nothing to weigh it against." if len(names) == 1 else
        f"All {len(trials)} finished trials have the same {' and '.join(objectives)}: no setting made a difference."
        if not told else None)
    if reason:
        return empty_figure(title, reason)
    from optuna.visualization import plot_param_importances

    short = _short_names(names)
    figure = go.Figure(layout={"barmode": "group", "legend": {"orientation": "h", "y": -0.25}})
    for i in told:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna looks for what lowers a target, and says so each time
            (bar,) = plot_param_importances(study, target=_lowered(i, study), target_name=objectives[i]).data
        figure.add_trace(bar)
        figure.data[-1].update(y=[short[name] for name in bar.y], marker={"color": COLOURS[i % len(COLOURS)]},
                               text=[f"{value:.0%}" for value in bar.x],
                               hovertemplate="%{y}: %{x:.1%}<extra>%{fullData.name}</extra>")
    figure.update_xaxes(title="share of what the search changed", tickformat=".0%", rangemode="tozero")
    return titled(figure, title, f"From {len(trials)} finished trials: how far the better trials' values of a setting differ "
                                 "from what was tried, as shares of 1. With few trials this is a hint, not a finding.",
                  height=180 + 60 * len(names))


def parallel_figure(study: optuna.Study, objectives: Sequence[str]) -> Figure:
    """A line for each finished trial through its settings and objectives, or why there is none; arguments as above."""
    title = "Settings of every trial"
    trials, names = _finished(study)
    if reason := _too_little(trials, names, title):
        return empty_figure(title, reason)
    from optuna.visualization import plot_parallel_coordinate

    figure = plot_parallel_coordinate(study, target_name=objectives[0])
    short = _short_names(names)
    figure.update_xaxes(ticktext=[*objectives, *(short[name] for name in names)], tickfont={"size": 13})
    figure.update_traces(line_width=2, opacity=0.8, selector={"mode": "lines"})
    figure.update_annotations(font={"size": 12, "color": "#333"}, xshift=-8, bgcolor="rgba(255, 255, 255, 0.6)")
    colour = "its Pareto rank (0: no trial is better in everything)" if len(objectives) > 1 else objectives[0]
    figure = titled(figure, title, f"Each line is one of {len(trials)} finished trials, coloured by {colour}. Where the dark "
                                   "lines meet on an axis is a good value.")
    return figure.update_layout(plot_bgcolor="#dfe3e8")  # the scale begins with white


def titled(figure: Figure, title: str, note: str, height: int = 520) -> Figure:
    """With a title and an explanation, which a page takes as heading and text."""
    lines = textwrap.wrap(html.escape(note, quote=False), 150)
    heading = {"text": title, "subtitle": {"text": "<br>".join(lines)}, "x": 0.01, "yanchor": "top", "y": 0.97}
    margin = {"t": 80 + 18 * len(lines), "b": 60}
    return figure.update_layout(template="plotly_white", height=height, title=heading, margin=margin)


def named(name: str) -> str:
    """A run's name as an axis shows it."""
    return html.escape(short_text(name, 40), quote=False)


def empty_figure(title: str, reason: str) -> Figure:
    """No picture, and why: a page says so in a line."""
    import plotly.graph_objects as go

    return titled(go.Figure(), title, reason)


def _hover(pair: Pair, benefit: float, share: float, cluster: int | None) -> str:
    """A candidate as hover text."""
    texts = [line for text in (pair.src, pair.tgt) for line in textwrap.wrap(short_text(text), 60) or ["(empty)"]]
    head = f"benefit {benefit:.3g}, above the pool's mean for {share:.1%} of the seeds"
    facts = [head if cluster is None else f"cluster {cluster}, {head}", *texts, f"id {short_text(pair.id, 40)}"]
    return "<br>".join(html.escape(fact, quote=False) for fact in facts)


def _sampled(count: int, limit: int) -> Array:
    """Up to `limit` of the places 0 to count - 1, rising."""
    return np.arange(count) if count <= limit else np.sort(np.random.default_rng(0).choice(count, limit, replace=False))


def _of(shown: int, total: int) -> str:
    return f"{total:,}" if shown == total else f"{shown:,} (picked at random) of {total:,}"


def _finished(study: optuna.Study) -> tuple[list[Any], list[str]]:
    """Finished trials whose objectives are finite, and the names of what they searched."""
    trials = [trial for trial in study.get_trials(deepcopy=False)
              if trial.state.name == "COMPLETE" and all(map(math.isfinite, trial.values))]
    return trials, sorted({name for trial in trials for name in trial.params})


def _too_little(trials: Sequence[object], names: Sequence[str], what: str) -> str | None:
    if len(trials) < 2:
        return f"“{what}” takes at least 2 finished trials; {len(trials) or 'none'} has finished so far."
    return None if names else "No setting was searched."


def _short_names(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each dotted path, the whole path where two would be the same."""
    last = [path.rpartition(".")[2] for path in paths]
    return {path: short if last.count(short) == 1 else path for path, short in zip(paths, last, strict=True)}


def _lowered(i: int, study: optuna.Study) -> Callable[[optuna.trial.FrozenTrial], float]:
    """An objective, turned so that less is better."""
    sign = -1 if study.directions[i].name == "MAXIMIZE" else 1
    return lambda trial: sign * trial.values[i]
