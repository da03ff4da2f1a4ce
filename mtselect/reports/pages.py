"""Pages of HTML that need no network, from `templates/`: a study's pictures, translations side by side, what a gate dropped.

Texts come from a noisy pool: every one passes `short_text`, and Jinja2 escapes what is not marked as HTML.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mtselect.reports.figures import gate_histogram
from mtselect.template import fill

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
    """What the gate dropped for one reason: what these candidates look like, how many they are, the share of them with a noise
    label (null where the pool has none), and examples, evenly from the clearest to the closest."""

    look: str
    rows: int
    noise: float | None
    examples: Sequence[Judged]


@dataclass(frozen=True, kw_only=True)
class Strictness:
    """What the gate would let through if it had to let a share `keeps` of the seeds through: the score that it would ask for,
    how many candidates reach it, and the share of these with a noise label (null where there are none of either)."""

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


def study_page(name: str, figures: Sequence[Figure], said: Sequence[str] = ()) -> str:
    """Figures of `study_figures` as one page of HTML, which holds plotly's script (4.8 MB) once and works without a network.

    Args:
        name: the study's.
        figures: their titles become headings, what they explain the text below; of those without data the page says why.
        said: sentences that stand before them.
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
    return _render("study.html", f"Study {name}", parts=parts, missing=missing, said=said,
                   script=Markup(get_plotlyjs()))


@dataclass(frozen=True, kw_only=True)
class System:
    """A run's translations of the dev sentences: its name, the texts, and each sentence's score."""

    name: str
    texts: Sequence[str]
    scores: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A sentence as the best trial and its rivals translate it.

    Args:
        src: source.
        ref: reference.
        texts: of the best trial, then of each rival.
        scores: likewise.
        leads: how much better the best trial's score is than each rival's.
    """

    src: str
    ref: str
    texts: Sequence[str]
    scores: Sequence[float]
    leads: Sequence[float]

    @property
    def lead(self) -> float:
        """Over the best of the rivals; below 0 where one of them is better."""
        return min(self.leads)


def compare_translations(sources: Sequence[str], references: Sequence[str], systems: Sequence[System], higher_is_better: bool
                         ) -> list[Compared]:
    """Each sentence, that with the best trial's largest lead first.

    Args:
        sources: of the dev sentences.
        references: likewise.
        systems: the best trial, then at least one rival.
        higher_is_better: of the scores.

    Raises:
        ValueError: the arguments are not equally long.
    """
    texts, scores = ([*zip(*column, strict=True)] for column in zip(*((one.texts, one.scores) for one in systems), strict=True))
    sign = 1 if higher_is_better else -1
    rows = [Compared(src=src, ref=ref, texts=given, scores=(own, *others), leads=[sign * (own - other) for other in others])
            for src, ref, given, (own, *others) in zip(sources, references, texts, scores, strict=True)]
    return sorted(rows, key=lambda row: -row.lead)


def translation_page(rows: Sequence[Compared], names: Sequence[str], *, metric: str, count: int) -> str:
    """Where the best trial is furthest ahead of its rivals, and where furthest behind, as one page of HTML without scripts.

    Args:
        rows: all of `compare_translations`.
        names: of the best trial and of each rival.
        metric: title of the scores.
        count: so many sentences are shown, half of them of either kind.
    """
    best, *rivals = map(short_text, names)
    counts = [(rival, *(sum(sign * row.leads[i] > 0 for row in rows) for sign in (1, -1))) for i, rival in enumerate(rivals)]
    half = (count + 1) // 2
    groups = [("ahead", "Ahead of every rival", [row for row in rows if row.lead > 0][:half]),
              ("behind", "Behind a rival", [row for row in rows[::-1] if row.lead < 0][:half])]
    return _render("translations.html", f"Translations: {best} and its rivals", total=len(rows), best=best, counts=counts,
                   metric=metric, groups=groups, names=[best, *rivals], shown=lambda text: short_text(text, _LONGEST),
                   marked=marked_words)


def marked_words(reference: str, text: str) -> Markup:
    """A translation as escaped HTML, with what the reference has not in <mark>, and an empty <del> where something of it is
    missing; Chinese and Japanese are compared by character, the rest by word."""
    old, new = (_TOKEN.findall(short_text(one, _LONGEST)) for one in (reference, text))
    parts: list[list[str]] = []  # kind, words
    for kind, i, j, k, n in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        words = "".join(new[k:n])
        if kind == "delete":
            parts += [["missing", ""]] if "".join(old[i:j]).strip() else []
        elif kind != "equal" and words.strip() and len(parts) > 1 and parts[-2][0] == "mark" and not parts[-1][1].strip():
            parts[-2][1] += parts.pop()[1] + words  # one mark, the space between included
        else:
            parts.append(["equal" if kind == "equal" or not words.strip() else "mark", words])
    forms = {"missing": Markup("<del>{}</del>"), "mark": Markup("<mark>{}</mark>"), "equal": Markup("{}")}
    return Markup("").join(forms[kind].format(words) for kind, words in parts)


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


def _render(template: str, title: str, **values: object) -> str:
    return fill(Path(__file__).parent / "templates" / template, title=short_text(title), **values)
