"""The tables of a study, for the console and for its note."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

from mtselect.config import Sweep
from mtselect.metrics.base import METRICS
from mtselect.reports.verdict import verdict
from mtselect.search.trials import TrialRow
from mtselect.significance import PairedResult, Score
from mtselect.stages.trial import TrialResult


def final_table(rows: list[TrialRow], sweep: Sweep) -> Table:
    """Trials, best first, for the console."""
    return _table(table_cells(rows, sweep), f"{sweep.study.name}: {len(rows)} trials on dev, best first",
                  "[ ]: 95% interval over sentences, one finetuning seed")


def proof_table(rows: list[TrialRow], comparisons: Mapping[str, PairedResult], sweep: Sweep) -> Table:
    """The best trial again and its rivals, best first, for the console."""
    seeds = sweep.study.finetune_seeds
    return _table(proof_cells(rows, comparisons, sweep), f"{sweep.study.name}: the best trial and its rivals on dev",
                  f"mean of {seeds} fresh finetuning seeds; [ ]: 95% interval over seeds and sentences\n"
                  "dev chose the best trial: test decides, when it is promoted")


def _table(cells: list[list[str]], title: str, caption: str) -> Table:
    headings, *lines = cells
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, caption=caption)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "run" else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table


def table_cells(rows: list[TrialRow], sweep: Sweep) -> list[list[str]]:
    """The trials as texts, headings first: the score that decides with its interval, the others, then what was searched."""
    headings, *lines = _cells(rows, sweep)
    searched = [path.rpartition(".")[2] for path in sweep.search]
    return [[*headings, *searched], *([*cells, *(_param(row, path) for path in sweep.search)]
                                      for row, cells in zip(rows, lines, strict=True))]


def proof_cells(rows: list[TrialRow], comparisons: Mapping[str, PairedResult], sweep: Sweep) -> list[list[str]]:
    """The best trial again and its rivals as texts: scores, steps of finetuning, and how much better the trial is."""
    headings, *lines = _cells(rows, sweep)
    for row, cells in zip(rows, lines, strict=True):
        found = comparisons.get(row.name)
        against = ["", ""] if found is None else [f"{found.difference:+.1f} [{found.low:+.1f}, {found.high:+.1f}]",
                                                  f"{found.p_value:.3f}"]
        cells += [f"{row.metrics['finetune/steps']:,.0f}", *against]
    return [[*headings, "steps", "the best is better by", "p"], *lines]


def _cells(rows: list[TrialRow], sweep: Sweep) -> list[list[str]]:
    """What both tables begin with, headings first: name, scores, pairs and, where it is known, noise."""
    metrics = sorted(sweep.experiment.evaluation.metrics, key=lambda name: f"eval/{name}" not in sweep.study.objectives)
    noise = any("select/noise_share" in row.metrics for row in rows)
    found = [["run", *(METRICS.load(name).title for name in metrics), "pairs", *(["noise"] if noise else [])]]
    for row in rows:
        first, *others = (row.metrics[f"eval/{name}"] for name in metrics)
        low, high = (row.metrics[f"eval/{metrics[0]}_{end}"] for end in ("low", "high"))
        share = row.metrics.get("select/noise_share")
        found.append([row.name, f"{first:.1f} [{low:.1f}, {high:.1f}]", *(f"{value:.1f}" for value in others),
                      f"{row.pairs:,}", *([f"{share:.1%}" if share is not None else ""] if noise else [])])
    return found


def _param(row: TrialRow, path: str) -> str:
    value = row.params.get(path, row.params.get(path.removeprefix("selection.")))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def study_note(trials: list[TrialRow], proof: list[TrialRow], comparisons: Mapping[str, PairedResult], sweep: Sweep,
                links: dict[str, str], promote: str) -> str:
    """What a person wants first comes first: MLflow shows a few lines and folds the rest."""
    headings, *lines = table_cells(trials, sweep)
    best = [f"**Best trial: {cells[0]}**, {headings[1]} {cells[1]} with {row.pairs:,} pairs."
            for row, cells in zip(trials, lines, strict=True)][:1]
    return "\n".join([
        *best, "",
        f"[Trials, best first]({links['trials']}) · [charts]({links['charts']}) · "
        f"[translations side by side]({links['translations']}) · among the artifacts `study.html` (the best trial "
        "against its rivals, score against pairs, which setting matters, the candidates where they are clustered) and "
        "`translation_changes.html`", "",
        f"Promote the best: `{promote}`", "",
        f"## {sweep.study.name}: the best trial and its rivals on dev", "",
        *_markdown(proof_cells(proof, comparisons, sweep)), "",
        " ".join(verdict(proof, comparisons)), "",
        f"Means of {sweep.study.finetune_seeds} fresh finetuning seeds; [ ]: 95% interval over seeds and sentences. "
        "Dev chose the best trial: test decides, when it is promoted.", "",
        "## Trials on dev, best first", "", *_markdown([headings, *lines]), "",
        "[ ]: 95% interval over sentences, one finetuning seed."])


def _markdown(cells: list[list[str]]) -> list[str]:
    headings, *lines = cells
    return [f"| {' | '.join(line)} |" for line in (headings, ["---"] * len(headings), *lines)]


def scores_text(results: Sequence[TrialResult], scores: Sequence[Score]) -> str:
    said = "  ".join(f"{one.name} {one.value:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in scores)
    noise = "" if results[0].noise_share is None else f"  noise {results[0].noise_share:.1%}"
    seeds = "" if len(results) == 1 else f"  {len(results)} seeds"
    return f"{said}  pairs {len(results[0].selection.pairs):,}{noise}{seeds}"
