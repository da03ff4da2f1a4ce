"""Interactive pictures of a study's scores (plotly): every run, and the best trial against its rivals.

Texts that come from elsewhere pass `short_text` and are escaped before they get into a figure.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtselect.metrics.base import METRICS
from mtselect.reports.pages import short_text
from mtselect.reports.score_layout import COLOURS, level_label, name_of, score_layout
from mtselect.reports.study_figures import SYMBOLS, empty_figure, named, titled

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from mtselect.significance import PairedResult


def score_figure(rows: Sequence[Mapping[str, Any]], metric: str) -> Figure:
    """`figures.score_against_pairs` with each run's settings under the pointer.

    Args:
        rows: as there; clusters, threshold and noise_share are shown where a row has them.
        metric: name for the axis.
    """
    import plotly.graph_objects as go

    layout, title = score_layout(rows, metric), METRICS.load(metric).title
    points, curve = layout.points, layout.is_curve
    if not points:
        return empty_figure("Scores of the runs", "none has a score so far.")
    figure = go.Figure()
    if layout.front:
        figure.add_scatter(x=layout.place[layout.front], y=[points[i]["value"] for i in layout.front], mode="lines",
                           line={"shape": "hv", "color": COLOURS[0], "width": 2}, opacity=0.6, hoverinfo="skip",
                           name="best trial up to a size")
    for group in layout.groups:
        value, low, high = (np.array([points[i][key] for i in group.rows], float) for key in ("value", "low", "high"))
        ends = {"array": np.maximum(high - value, 0), "arrayminus": np.maximum(value - low, 0), "symmetric": False,
                "thickness": 1.2, "width": 3}
        place = layout.place[group.rows]
        where = {"x": place, "y": value, "error_y": ends} if curve else {"x": value, "y": place, "error_x": ends}
        figure.add_scatter(
            **where, mode="markers", name=html.escape(group.label, quote=False), hovertemplate="%{hovertext}<extra></extra>",
            marker={"symbol": SYMBOLS[group.marker], "color": group.colour, "size": 16 if group.marker == "*" else 11,
                    "line": {"width": 1, "color": "white"}}, hovertext=[_described(points[i], title) for i in group.rows])
    figure.update_layout(showlegend=True, legend={"font": {"size": 13}})
    higher, axis = METRICS.load(metric).higher_is_better, f"{title} on dev, 95% interval"
    seeds = "Trials have one finetuning seed, the others as many as study.finetune_seeds says."
    if not curve:
        figure.update_xaxes(title=axis, range=layout.scores)
        figure.update_yaxes(tickvals=list(layout.ticks), ticktext=list(map(named, layout.ticks.values())),
                            range=[len(points) - 0.5, -0.5], zeroline=False)
        more = f" The {layout.left_out:,} trials of the worst scores are left out." if layout.left_out else ""
        return titled(figure, "Scores of the runs", f"All trials have about as many pairs. Further "
                      f"{'right' if higher else 'left'} is better.{more} {seeds}", height=190 + 28 * len(points))
    for row, height in zip(layout.lines, layout.heights, strict=True):
        figure.add_hline(y=row["value"], line={"color": "#595959", "width": 1, "dash": "dot"})
        figure.add_annotation(x=0, xref="paper", xanchor="left", y=height, yanchor="bottom", showarrow=False,
                              text=named(level_label(row, layout.scores)), hovertext=_described(row, title))
    figure.update_xaxes(title="pairs selected", tickvals=list(layout.ticks), ticktext=list(layout.ticks.values()))
    figure.update_yaxes(title=axis, range=layout.scores)
    return titled(figure, "Score against pairs selected",
                  f"Further {'up' if higher else 'down'} is better, further left is cheaper. The line is the best score of a "
                  f"trial with at most so many pairs; marks of nearly equal size stand side by side. {seeds}")


def forest_figure(comparisons: Mapping[str, PairedResult]) -> Figure:
    """How much better the best trial is than each rival, with the 95% interval, the nearest rival first.

    Args:
        comparisons: rival's name -> the best trial against it; at least one.
    """
    import plotly.graph_objects as go

    order = sorted(comparisons, key=lambda name: comparisons[name].difference)
    found = [comparisons[name] for name in order]
    low, high = _reach([(one.low, one.high) for one in found])
    title, figure = METRICS.load(found[0].name).title, go.Figure()
    for label, colour, some in (
            ("the best trial is better", COLOURS[0], [i for i, one in enumerate(found) if one.low > 0]),
            ("not told apart", "#7f7f7f", [i for i, one in enumerate(found) if one.low <= 0 <= one.high]),
            ("the best trial is worse", COLOURS[1], [i for i, one in enumerate(found) if one.high < 0])):
        ends = np.clip([(found[i].low, found[i].difference, found[i].high) for i in some], low, high).reshape(-1, 3)
        if some:
            figure.add_scatter(
                x=ends[:, 1], y=some, mode="markers", name=label, hovertemplate="%{hovertext}<extra></extra>",
                marker={"symbol": [_symbol(found[i].difference, low, high) for i in some], "size": 11, "color": colour},
                error_x={"array": ends[:, 2] - ends[:, 1], "arrayminus": ends[:, 1] - ends[:, 0], "symmetric": False,
                         "thickness": 2, "width": 5},
                hovertext=[_compared(order[i], found[i], title) for i in some])
    for i, one in enumerate(found):
        figure.add_annotation(x=1.01, xref="paper", xanchor="left", y=i, showarrow=False, font={"size": 13},
                              text=f"{one.difference:+.1f} [{one.low:+.1f}, {one.high:+.1f}]  p {one.p_value:.3f}")
    figure.add_vline(x=0, line={"color": "#333", "width": 1})
    pad = 0.04 * (high - low)
    figure.update_xaxes(title=f"{title} on dev by which the best trial is better, 95% interval", range=[low - pad, high + pad],
                        zeroline=False)
    figure.update_yaxes(tickvals=list(range(len(order))), ticktext=[named(name) for name in order],
                        range=[len(order) - 0.5, -0.5], tickfont={"size": 13}, zeroline=False)
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"}, margin={"r": 210})
    return titled(figure, "The best trial against its rivals",
                  f"The best trial, finetuned anew with fresh seeds like its rivals, has {title} {found[0].system:.1f}. An "
                  "interval that leaves the line at 0 out is a difference that seeds and sentences do not explain. Dev chose "
                  "the trial: test decides, when it is promoted.", height=190 + 44 * len(order))


def _described(row: Mapping[str, Any], metric: str) -> str:
    """A row of scores as hover text."""
    facts = [f"<b>{html.escape(short_text(name_of(row)), quote=False)}</b>",
             f"{metric} {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]", f"{row['pairs']:,} pairs"]
    for key, form in (("clusters", "{:,} clusters"), ("threshold", "threshold {:.3f}"), ("noise_share", "noise {:.1%}")):
        facts += [form.format(row[key])] if row.get(key) is not None else []
    return "<br>".join(facts)


def _symbol(value: float, low: float, high: float) -> str:
    """An arrow for what is beyond the picture."""
    return "triangle-left" if value < low else "triangle-right" if value > high else "square"


def _compared(name: str, one: PairedResult, title: str) -> str:
    """The best trial against a rival as hover text."""
    return (f"<b>{named(name)}</b><br>{title} {one.baseline:.2f}, the best trial {one.system:.2f}<br>better by "
            f"{one.difference:+.2f} [{one.low:+.2f}, {one.high:+.2f}], p {one.p_value:.4f}")


def _reach(intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """What an axis shows of intervals: 0, and all but those that reach over three times as far as the middle one."""
    far = sorted(max(abs(low), abs(high)) for low, high in intervals)
    near = [ends for ends in intervals if max(map(abs, ends)) <= 3 * far[len(far) // 2]]
    low, high = min(0.0, *(low for low, _ in near)), max(0.0, *(high for _, high in near))
    return (low, high) if high > low else (-1.0, 1.0)
