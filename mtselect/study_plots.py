"""Interactive pictures of a study (plotly), and pages of HTML that need no network: the study's and the translations'.

Texts come from a noisy pool: every one passes `excerpt` and is escaped before it gets into a figure or a page.
"""

from __future__ import annotations

import html
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mtselect.metrics.base import METRICS
from mtselect.plots import COLOURS, Array, line_label, point_groups, score_layout

if TYPE_CHECKING:
    import optuna
    from plotly.graph_objects import Figure

_SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "D": "diamond", "P": "cross"}
_LONGEST = 2000  # characters of a text that a page of translations shows
# Chinese characters and Japanese kana: written without spaces, so each is compared by itself.
_UNSPACED = "\u3041-\u3096\u3099-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_MARKS = r"""!-/:-@\[-`{-~«»¿¡‐-‧、-】，．：；？！（）"""
_TOKEN = re.compile(rf"[{_UNSPACED}]|\s+|[{_MARKS}]|[^\s{_UNSPACED}{_MARKS}]+")

_STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --page: #f6f7f9; --card: #fff; --line: #d5d9df; --soft: #5b6470;
        --ins: #cfe3f7; --del: #fbdcc4; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e6ea; --page: #16181c; --card: #22252a; --line: #3b4048;
        --soft: #a3abb6; --ins: #12446e; --del: #6e3a12; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); margin: 1.2rem auto;
       max-width: 1200px; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.15rem; margin: 1.6rem 0 .2rem; } p { margin: .2rem 0 .6rem; }
a { color: inherit; } .soft { color: var(--soft); }
.figure { background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: 4px; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 6px; margin: .6rem 0; padding: .5rem .8rem; }
dl { display: grid; grid-template-columns: minmax(5rem, max-content) 1fr; gap: .1rem .8rem; margin: .3rem 0 0; }
dt { color: var(--soft); max-width: 12rem; } dd { margin: 0; }
ins, del { border-radius: 3px; padding: 0 2px; } ins { background: var(--ins); font-weight: 600; text-decoration: none; }
del { background: var(--del); }
"""


def excerpt(text: str, limit: int = 80) -> str:
    """The beginning of a text on one line: what cannot be printed (control characters, changes of direction, halves of a
    surrogate pair) and any white space becomes one space; joiners stay, which Persian and emoji need. Not escaped."""
    shown = "".join(c if c.isprintable() or c in "\u200c\u200d" else " " for c in text[: 4 * limit])
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit and len(text) <= 4 * limit else shown[: limit - 1] + "…"


def score_figure(rows: Sequence[Mapping[str, Any]], metric: str) -> Figure:
    """`plots.score_against_pairs` with each trial's settings under the pointer.

    Args:
        rows: as there; clusters, threshold and noise_share are shown where a row has them.
        metric: name for the axis.
    """
    import plotly.graph_objects as go

    layout, title = score_layout(rows, metric), METRICS.load(metric).title
    points = layout.points
    figure = go.Figure()
    if layout.front:
        figure.add_scatter(x=layout.x[layout.front], y=[points[i]["value"] for i in layout.front], mode="lines",
                           line={"shape": "hv", "color": COLOURS[0], "width": 2}, opacity=0.6, hoverinfo="skip",
                           name="best score up to a size")
    for label, marker, colour, some in point_groups(layout):
        value, low, high = (np.array([points[i][key] for i in some], float) for key in ("value", "low", "high"))
        figure.add_scatter(
            x=layout.x[some], y=value, mode="markers", name=html.escape(label, quote=False),
            marker={"symbol": _SYMBOLS[marker], "color": colour, "size": 9, "line": {"width": 1, "color": "white"}},
            error_y={"array": np.maximum(high - value, 0), "arrayminus": np.maximum(value - low, 0), "symmetric": False,
                     "thickness": 0.8, "width": 2},
            hovertext=[_described(points[i], title) for i in some], hovertemplate="%{hovertext}<extra></extra>")
    for row, height in zip(layout.lines, layout.heights, strict=True):
        figure.add_hline(y=row["value"], line={"color": "#595959", "width": 1, "dash": "dash" if row["pairs"] else "dot"})
        figure.add_annotation(x=1.005, xref="paper", xanchor="left", y=height, showarrow=False, align="left",
                              text=html.escape(line_label(row, layout.y), quote=False).replace(", ", "<br>"),
                              hovertext=_described(row, title))
    figure.update_layout(legend={"orientation": "h", "y": -0.18}, margin={"r": 160})
    figure.update_xaxes(title="pairs selected", tickvals=list(layout.ticks), ticktext=list(layout.ticks.values()))
    figure.update_yaxes(title=f"{title} on dev, 95% interval", range=layout.y)
    up = "up" if METRICS.load(metric).higher_is_better else "down"
    note = (f"Further {up} is better, further left is cheaper. The line is the best score that a trial reaches with at most so "
            "many pairs; marks of equal size stand side by side. Dashed and dotted: baselines to compare with.")
    return _titled(figure, "Score against pairs selected", note if rows else "No trial has finished.")


def cluster_figure(points: Array, selected: NDArray[np.bool_], clusters: Array, pairs: Sequence[Any], benefit: Array,
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

    def draw(rows: Array, label: str, numbers: Array | None, **look: Any) -> None:
        texts = [_hover(pairs[row], benefit[row], share[row], None if numbers is None else numbers[i])
                 for i, row in enumerate(rows)]
        figure.add_scatter(x=points[rows, 0], y=points[rows, 1], mode="markers", name=label, marker=look, hovertext=texts,
                           hovertemplate="%{hovertext}<extra></extra>")

    others, chosen = np.flatnonzero(~selected), np.flatnonzero(selected)
    some_others, some_chosen = _sampled(len(others), limit), _sampled(len(chosen), limit)
    draw(others[some_others], "not selected", None, color="#c8ccd2", size=4)
    rows, labels = chosen[some_chosen], np.asarray(clusters)[some_chosen]
    numbers = np.unique(clusters)
    for i, number in enumerate(numbers):
        here = labels == number
        draw(rows[here], f"cluster {number} ({np.sum(clusters == number):,})", labels[here], color=COLOURS[i % len(COLOURS)],
             symbol=list(_SYMBOLS.values())[i % len(_SYMBOLS)], size=7, line={"width": 0.5, "color": "white"})
    figure.update_xaxes(title="first principal component of the gradient sketches")
    figure.update_yaxes(title="second")
    figure.update_layout(legend={"itemsizing": "constant"}, hoverlabel={"align": "left"})
    shown = (f"{_of(len(rows), len(chosen))} pairs selected by {name}, each of the {len(numbers)} clusters in its colour and "
             f"shape, above {_of(len(some_others), len(others))} others in grey") if len(chosen) else (
             f"{name} selected nothing; {_of(len(some_others), len(others))} candidates in grey")
    return _titled(figure, "Map of the candidates",
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
        return _empty(title, reason)
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
    return _titled(figure, title, f"From {len(trials)} finished trials: how far the better trials' values of a setting differ "
                                  "from what was tried, as shares of 1. With few trials this is a hint, not a finding.",
                   height=180 + 60 * len(names))


def parallel_figure(study: optuna.Study, objectives: Sequence[str]) -> Figure:
    """A line for each finished trial through its settings and objectives, or why there is none; arguments as above."""
    title = "Settings of every trial"
    trials, names = _finished(study)
    if reason := _too_little(trials, names, title):
        return _empty(title, reason)
    from optuna.visualization import plot_parallel_coordinate

    figure = plot_parallel_coordinate(study, target_name=objectives[0])
    short = _short_names(names)
    figure.update_xaxes(ticktext=[*objectives, *(short[name] for name in names)], tickfont={"size": 13})
    figure.update_traces(line_width=2, opacity=0.8, selector={"mode": "lines"})
    figure.update_annotations(font={"size": 12, "color": "#333"}, xshift=-8, bgcolor="rgba(255, 255, 255, 0.6)")
    colour = "its Pareto rank (0: no trial is better in everything)" if len(objectives) > 1 else objectives[0]
    figure = _titled(figure, title, f"Each line is one of {len(trials)} finished trials, coloured by {colour}. Where the dark "
                                    "lines meet on an axis is a good value.")
    return figure.update_layout(plot_bgcolor="#dfe3e8")  # the scale begins with white


def study_page(name: str, figures: Sequence[Figure]) -> str:
    """Figures made here as one page of HTML, which holds plotly's script (4.8 MB) once and works without a network.

    Args:
        name: the study's.
        figures: their titles become headings, what they explain the text below.
    """
    from plotly.offline import get_plotlyjs

    parts, contents = [], []
    for i, figure in enumerate(figures):
        title, note = figure.layout.title.text, figure.layout.title.subtitle.text
        bare = type(figure)(figure).update_layout(title=None, margin={"t": 25})
        piece = bare.to_html(full_html=False, include_plotlyjs=False, div_id=f"figure-{i}", default_width="100%",
                             config={"displaylogo": False, "responsive": True, "showSendToCloud": False})
        contents.append(f'<a href="#part-{i}">{title}</a>')
        parts.append(f'<h2 id="part-{i}">{title}</h2>\n<p class="soft">{note.replace("<br>", " ")}</p>\n'
                     f'<div class="figure">{piece}</div>')
    script = f"<script>{get_plotlyjs()}</script>"
    return _page(f"Study {name}", f'<p>{" · ".join(contents)}</p>\n{script}\n' + "\n".join(parts))


def compare_translations(sources: Sequence[str], references: Sequence[str], before: Sequence[str], after: Sequence[str],
                         scores_before: Sequence[float], scores_after: Sequence[float]) -> list[dict[str, Any]]:
    """A row for each sentence, most improved first: src, ref, before, after (the translations), score_before, score_after,
    difference.

    Raises:
        ValueError: the arguments are not equally long.
    """
    rows = [{"src": src, "ref": ref, "before": old, "after": new, "score_before": float(low), "score_after": float(high),
             "difference": float(high) - float(low)} for src, ref, old, new, low, high
            in zip(sources, references, before, after, scores_before, scores_after, strict=True)]
    return sorted(rows, key=lambda row: -float(row["difference"]))


def most_changed(rows: Sequence[dict[str, Any]], count: int = 10) -> list[dict[str, Any]]:
    """Of `compare_translations`' rows the `count` most improved, then the `count` most worsened, worst first."""
    better = [row for row in rows if row["difference"] > 0]
    worse = [row for row in rows[::-1] if row["difference"] < 0]
    return better[:count] + worse[:count]


def translation_page(rows: Sequence[dict[str, Any]], *, before: str, after: str, metric: str = "chrF",
                     count: int = 10) -> str:
    """What a trial changed in the translations, as one page of HTML without scripts.

    Args:
        rows: all of `compare_translations`.
        before: the baseline's name.
        after: the trial's name.
        metric: name of the sentence scores, 0 to 100.
        count: so many improved and so many worsened sentences are shown.
    """
    better, worse = (sum(sign * row["difference"] > 0 for row in rows) for sign in (1, -1))
    old, new = html.escape(excerpt(before)), html.escape(excerpt(after))
    intro = (f"<p>Of {len(rows):,} sentences {new} translates {better:,} better than {old} and {worse:,} worse; "
             f"{len(rows) - better - worse:,} score the same in {html.escape(metric)}. A sentence's score is only good for "
             f'finding examples.</p>\n<p><del>Only in {old}</del> &nbsp; <ins>Only in {new}</ins> &nbsp; '
             '<a href="#better">most improved</a> · <a href="#worse">most worsened</a></p>')
    changed = most_changed(rows, count)
    parts = [intro]
    for anchor, heading, sign in (("better", "Most improved", 1), ("worse", "Most worsened", -1)):
        some = [row for row in changed if sign * row["difference"] > 0]
        parts += [f'<h2 id="{anchor}">{heading}</h2>', *(_article(row, old, new, html.escape(metric)) for row in some)]
        parts += [] if some else ['<p class="soft">No sentence.</p>']
    return _page(f"Translations: {after} against {before}", "\n".join(parts))


def marked_words(before: str, after: str) -> tuple[str, str]:
    """Two texts as escaped HTML, with what only the first has in <del> and what only the second has in <ins>; Chinese and
    Japanese are compared by character, the rest by word."""
    old, new = (_TOKEN.findall(excerpt(text, _LONGEST)) for text in (before, after))
    blocks = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return (_marked("del", [(old[i:j], kind == "equal") for kind, i, j, _, _ in blocks]),
            _marked("ins", [(new[i:j], kind == "equal") for kind, _, _, i, j in blocks]))


def _marked(tag: str, parts: Sequence[tuple[Sequence[str], bool]]) -> str:
    texts = [(html.escape("".join(tokens)), same) for tokens, same in parts if tokens]
    return "".join(text if same else f"<{tag}>{text}</{tag}>" for text, same in texts)


def _article(row: Mapping[str, Any], before: str, after: str, metric: str) -> str:
    marked = marked_words(row["before"], row["after"])
    source, reference = (html.escape(excerpt(row[key], _LONGEST)) for key in ("src", "ref"))
    lines = [("source", source), ("reference", reference), (before, marked[0]), (after, marked[1])]
    cells = "".join(f'<dt>{label}</dt><dd dir="auto">{text or "<i>(empty)</i>"}</dd>' for label, text in lines)
    return (f"<article><b>{row['difference']:+.1f}</b> <span class=\"soft\">{metric} {row['score_before']:.1f} → "
            f"{row['score_after']:.1f}</span><dl>{cells}</dl></article>")


def _page(title: str, body: str) -> str:
    title = html.escape(excerpt(title))
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
            f"<body><h1>{title}</h1>\n{body}\n</body></html>\n")


def _titled(figure: Figure, title: str, note: str, height: int = 520) -> Figure:
    lines = textwrap.wrap(html.escape(note, quote=False), 150)
    heading = {"text": title, "subtitle": {"text": "<br>".join(lines)}, "x": 0.01, "yanchor": "top", "y": 0.97}
    return figure.update_layout(template="plotly_white", height=height, title=heading, margin={"t": 80 + 18 * len(lines)})


def _empty(title: str, reason: str) -> Figure:
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.add_annotation(text=html.escape(reason, quote=False), showarrow=False, font={"size": 15}, xref="paper", yref="paper",
                          x=0.5, y=0.5)
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return _titled(figure, title, "Nothing to show yet.", height=220)


def _described(row: Mapping[str, Any], metric: str) -> str:
    """A row of scores as hover text."""
    facts = [f"<b>{html.escape(excerpt(str(row.get('name', row['method']))), quote=False)}</b>",
             f"{metric} {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]", f"{row['pairs']:,} pairs"]
    for key, form in (("clusters", "{:,} clusters"), ("threshold", "threshold {:.3f}"), ("noise_share", "noise {:.1%}")):
        facts += [form.format(row[key])] if row.get(key) is not None else []
    return "<br>".join(facts)


def _hover(pair: Any, benefit: float, share: float, cluster: Any) -> str:
    """A candidate as hover text."""
    texts = [line for text in (pair.src, pair.tgt) for line in textwrap.wrap(excerpt(text), 60) or ["(empty)"]]
    head = f"benefit {benefit:.3g}, above the pool's mean for {share:.1%} of the seeds"
    facts = [head if cluster is None else f"cluster {cluster}, {head}", *texts, f"id {excerpt(pair.id, 40)}"]
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


def _too_little(trials: Sequence[Any], names: Sequence[str], what: str) -> str | None:
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
