"""Pages of HTML that need no network, from `templates/`: a study's pictures, what a trial changed in the translations, and what
its gate dropped.

Texts come from a noisy pool: every one passes `short_text`, and Jinja2 escapes what is not marked as HTML.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mtselect.reports.figures import gate_histogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing
    from plotly.graph_objects import Figure as Figure

_LONGEST = 2000  # characters of a text that a page of translations shows
# Chinese characters and Japanese kana: written without spaces, so each is compared by itself.
_UNSPACED = "\u3041-\u3096\u3099-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_MARKS = r"""!-/:-@\[-`{-~«»¿¡‐-‧、-】，．：；？！（）"""
_TOKEN = re.compile(rf"[{_UNSPACED}]|\s+|[{_MARKS}]|[^\s{_UNSPACED}{_MARKS}]+")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A candidate, its score by the gate, and what it looks like if it is no seed: the reason, if it was dropped."""

    src: str
    tgt: str
    score: float
    look: str


@dataclass(frozen=True, kw_only=True)
class GateReason:
    """What the gate dropped for one reason.

    Args:
        look: what these candidates look like.
        rows: how many they are.
        noise: share of them with a noise label, 0 to 1; null where the pool has none.
        examples: evenly from the clearest to the closest.
    """

    look: str
    rows: int
    noise: float | None
    examples: Sequence[Judged]


@dataclass(frozen=True, kw_only=True)
class Strictness:
    """What the gate would let through.

    Args:
        keeps: if it had to let this share of the seeds through.
        cut: score that it would ask for.
        passed: how many candidates reach it.
        noise: share of these with a noise label; null where there are none of either.
    """

    keeps: float
    cut: float
    passed: int
    noise: float | None


@dataclass(frozen=True, kw_only=True)
class GateView:
    """What one trial's gate did.

    Args:
        gate: its name.
        keeps: share of the seeds that it has to let through.
        cut: the score that it asks for.
        pool: scores of the candidates, [N].
        seeds: scores of the seeds, [Q].
        reasons: of what it dropped, most first.
        noise: share of all candidates with a noise label; null where the pool has none.
        noise_passed: the same of those that passed; null too where none did.
        strictness: what it would let through at other values of `keeps`, rising, and at its own.
        failed: those that just failed, nearest first.
        passed: those that just passed, nearest first.
        repeats: of those that passed, near-duplicates of another, which were left out.
        selected: pairs of the trial's set.
    """

    gate: str
    keeps: float
    cut: float
    pool: NDArray[np.float64]
    seeds: NDArray[np.float64]
    reasons: Sequence[GateReason]
    noise: float | None
    noise_passed: float | None
    strictness: Sequence[Strictness]
    failed: Sequence[Judged]
    passed: Sequence[Judged]
    repeats: int
    selected: int

    @property
    def dropped(self) -> int:
        """Candidates below the cut."""
        return sum(reason.rows for reason in self.reasons)


def short_text(text: str, limit: int = 80) -> str:
    """The beginning of a text on one line: what cannot be printed (control characters, changes of direction, halves of a
    surrogate pair) and any white space becomes one space; joiners stay, which Persian and emoji need. Not escaped."""
    shown = "".join(c if c.isprintable() or c in "\u200c\u200d" else " " for c in text[: 4 * limit])
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit and len(text) <= 4 * limit else shown[: limit - 1] + "…"


def study_page(name: str, figures: Sequence[Figure]) -> str:
    """Figures of `study_figures` as one page of HTML, which holds plotly's script (4.8 MB) once and works without a network.

    Args:
        name: the study's.
        figures: their titles become headings, what they explain the text below; of those without data the page says why.
    """
    from plotly.offline import get_plotlyjs

    parts, missing = [], []
    for i, figure in enumerate(figures):
        title, note = figure.layout.title.text, figure.layout.title.subtitle.text
        if not figure.data:
            missing.append({"title": title, "reason": Markup(note.replace("<br>", " "))})
            continue
        untitled = type(figure)(figure).update_layout(title=None, margin={"t": 25})
        piece = untitled.to_html(full_html=False, include_plotlyjs=False, div_id=f"figure-{i}", default_width="100%",
                                 config={"displaylogo": False, "responsive": True, "showSendToCloud": False})
        # What a figure holds was escaped when it was made.
        parts.append({"title": title, "note": Markup(note.replace("<br>", " ")), "figure": Markup(piece)})
    return _render("study.html", f"Study {name}", parts=parts, missing=missing,
                   script=Markup(get_plotlyjs()))


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
    old, new = short_text(before), short_text(after)
    changed = [{**row, "lines": _lines(row, old, new)} for row in most_changed(rows, count)]
    groups = [(anchor, heading, [row for row in changed if sign * row["difference"] > 0]) for anchor, heading, sign in
              (("better", "Most improved", 1), ("worse", "Most worsened", -1))]
    return _render("translations.html", f"Translations: {after} against {before}", total=len(rows), better=better, worse=worse,
                   before=old, after=new, metric=metric, groups=groups)


def marked_words(before: str, after: str) -> tuple[Markup, Markup]:
    """Two texts as escaped HTML, with what only the first has in <del> and what only the second has in <ins>; Chinese and
    Japanese are compared by character, the rest by word."""
    old, new = (_TOKEN.findall(short_text(text, _LONGEST)) for text in (before, after))
    blocks = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return (_marked("del", [(old[i:j], kind == "equal") for kind, i, j, _, _ in blocks]),
            _marked("ins", [(new[i:j], kind == "equal") for kind, _, _, i, j in blocks]))


def gate_page(view: GateView) -> str:
    """What a gate dropped and let through, as one page of HTML without scripts."""
    figure = Markup(_svg(gate_histogram(view.pool, view.seeds, view.cut)))
    return _render("gate.html", f"What the gate {view.gate} lets through", view=view, figure=figure,
                   shown=lambda text: short_text(text, _LONGEST))


def _svg(figure: Drawing) -> str:
    """A picture as an element of a page, the same text for the same figure."""
    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context({"svg.hashsalt": "mtselect"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return out.getvalue()[out.getvalue().index("<svg"):]


def _marked(tag: Literal["del", "ins"], parts: Sequence[tuple[Sequence[str], bool]]) -> Markup:
    around = Markup(f"<{tag}>{{}}</{tag}>")
    texts = [("".join(tokens), same) for tokens, same in parts if tokens]
    return Markup("").join(text if same else around.format(text) for text, same in texts)


def _lines(row: Mapping[str, Any], before: str, after: str) -> list[tuple[str, str]]:
    """What a page shows of a sentence, with labels."""
    marked = marked_words(row["before"], row["after"])
    source, reference = (short_text(row[key], _LONGEST) for key in ("src", "ref"))
    return [("source", source), ("reference", reference), (before, marked[0]), (after, marked[1])]


def _render(template: str, title: str, **values: object) -> str:
    from jinja2 import Environment, PackageLoader

    pages = Environment(loader=PackageLoader("mtselect.reports"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
                        keep_trailing_newline=True)
    return pages.get_template(template).render(title=short_text(title), **values)
