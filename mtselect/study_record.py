"""What of a study is recorded at its end: the best trial against its rivals, the study's page, translations that changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from mtselect.config import Experiment, Sweep
from mtselect.metrics.base import sign
from mtselect.recording import dev_pairs, seen_candidates
from mtselect.reports import figures as plots
from mtselect.reports import pages
from mtselect.reports import score_figures as score_plots
from mtselect.reports import study_figures as study_plots
from mtselect.reports.verdict import is_rival, verdict
from mtselect.search.trials import Study, TrialRow
from mtselect.significance import PairedResult
from mtselect.stages.evaluation import Evaluation, evaluate, scoring
from mtselect.stages.lineage import Bench, Lineage
from mtselect.stages.selection import select_pairs
from mtselect.stages.sketch_map import MAP
from mtselect.stages.trial import all_stages, compare_systems
from mtselect.tracking.base import Tracker

# Rivals whose translations stand beside the best trial's, if there are such; else as many others.
_SIDE_BY_SIDE = ("random", "filter-random", "pool", "untuned")


def record_study(tracker: Tracker, parent: str, bench: Bench, sweep: Sweep, study: Study, rows: Sequence[TrialRow],
                 experiments: Mapping[str, Sequence[Experiment]], comparisons: Mapping[str, PairedResult]) -> None:
    """The study's pictures and the best trial's translation changes; every run's difference to the baselines.

    Args:
        tracker: MLflow.
        parent: the study's run.
        bench: store, runtime, progress.
        sweep: as it ran.
        study: Optuna's.
        rows: finished trials and baselines, best first.
        experiments: run id -> experiment, at each of its finetuning seeds.
        comparisons: rival -> the best trial against it (`compare_rivals`).
    """
    objective = sweep.study.objectives[0]
    if not objective.startswith("eval/"):
        return
    metric = objective.removeprefix("eval/")
    for run_id, differences in differences_to_baselines(rows, objective).items():
        tracker.log(run_id, metrics=differences)
    points = score_rows(rows, objective)
    tracker.log_figure(parent, plots.score_against_pairs(points, metric), "score_against_pairs.png")
    figures = [*([score_plots.forest_figure(comparisons)] if comparisons else []), score_plots.score_figure(points, metric)]
    tracker.log_text(parent, json.dumps({name: asdict(one) for name, one in comparisons.items()}, indent=1), "rivals.json")
    best = next((row for row in rows if row.kind == "trial" and row.pairs), None)
    if best is not None:
        experiment = experiments[best.run_id][0]
        if MAP in all_stages(experiment):
            figures.append(_candidates_figure(Lineage(bench, experiment), best.name))
        _record_changes(tracker, parent, bench, sweep, best, rows, experiments)
    figures += [study_plots.importance_figure(study, sweep.study.objectives),
                study_plots.parallel_figure(study, sweep.study.objectives)]
    tracker.log_text(parent, pages.study_page(sweep.study.name, figures, verdict(rows, comparisons)), "study.html")


def differences_to_baselines(rows: Sequence[TrialRow], objective: str) -> dict[str, dict[str, float]]:
    """Run id of every trial -> how much better it scores than the untuned model, and than sets of its size, drawn from all or
    behind its gate, on average, where there are such. Named so that they stand behind the score in MLflow's columns, which are
    in alphabetical order."""
    better = sign(objective)
    untuned = [row.metrics[objective] for row in rows if row.params["method"] == "untuned"]
    found = {}
    for row in rows:
        if row.kind == "trial":
            drawn = {end: [one.metrics[objective] for one in rows if one.params["method"] == kind and one.pairs == row.pairs]
                     for end, kind in (("filter", "filter-random"), ("random", "random"))}
            against = {f"{objective}_vs_{end}": scores for end, scores in {**drawn, "untuned": untuned}.items()}
            found[row.run_id] = {name: better * (row.metrics[objective] - sum(scores) / len(scores))
                                 for name, scores in against.items() if scores}
    return found


def _candidates_figure(lineage: Lineage, name: str) -> pages.Figure:
    seen = seen_candidates(lineage, select_pairs(lineage))
    assert seen.points is not None
    return study_plots.cluster_figure(seen.points, seen.chosen, seen.labels, seen.pairs, seen.mean, seen.share, name=name)


def compare_rivals(bench: Bench, sweep: Sweep, rows: Sequence[TrialRow], experiments: Mapping[str, Sequence[Experiment]]
                   ) -> dict[str, PairedResult]:
    """Rival's name -> the best trial, finetuned again, against it on dev; rivals of other trials' sizes are left out.

    Args:
        bench: store, runtime, progress.
        sweep: its first objective is the score compared.
        rows: best trials again, and their rivals, best first.
        experiments: run id -> experiment, at each of its finetuning seeds.
    """
    objective = sweep.study.objectives[0]
    best = next((row for row in rows if row.kind == "again"), None)
    if best is None or not objective.startswith("eval/"):
        return {}

    def evaluations(row: TrialRow) -> list[Evaluation]:
        return [evaluate(Lineage(bench, one), "dev") for one in experiments[row.run_id]]

    metric = objective.removeprefix("eval/")
    mine = evaluations(best)
    rivals = [row for row in rows if row.kind == "baseline" and is_rival(row, best)]
    lineage = Lineage(bench, experiments[best.run_id][0])
    return {row.name: compare_systems(lineage, metric, mine, evaluations(row)) for row in rivals}


def _record_changes(tracker: Tracker, parent: str, bench: Bench, sweep: Sweep, best: TrialRow, rows: Sequence[TrialRow],
                    experiments: Mapping[str, Sequence[Experiment]]) -> None:
    """A page of the sentences in which the best trial's translation differs most from those of some rivals."""
    rivals = {str(row.params["method"]): row for row in reversed(rows)  # of a kind the best
              if row.kind == "baseline" and is_rival(row, best)}
    shown = sorted(rivals, key=lambda kind: (kind not in _SIDE_BY_SIDE, (*_SIDE_BY_SIDE, kind).index(kind)))
    if not rivals:
        return
    lineage, name = Lineage(bench, experiments[best.run_id][0]), sweep.study.objectives[0].removeprefix("eval/")
    metric, asked = bench.metrics[name], scoring(lineage.experiment, bench.progress)

    def translated(row: TrialRow) -> pages.System:
        found = evaluate(Lineage(bench, experiments[row.run_id][0]), "dev")
        scores = [metric.score(one, asked) for one in found.statistics[name]]
        return pages.System(name=row.name, texts=found.hypotheses, scores=scores)

    pairs = dev_pairs(lineage)
    systems = [translated(row) for row in (best, *(rivals[kind] for kind in shown[: len(_SIDE_BY_SIDE)]))]
    compared = pages.compare_translations([pair.src for pair in pairs], [pair.tgt for pair in pairs], systems,
                                          metric.higher_is_better)
    page = pages.translation_page(compared, [one.name for one in systems], metric=metric.title,
                                  count=sweep.tracking.sample_sentences)
    for run_id in (parent, best.run_id):
        tracker.log_text(run_id, page, "translation_changes.html")


def score_rows(rows: Sequence[TrialRow], metric: str) -> list[dict[str, object]]:
    """Rows of a sweep's final table as the pictures take them."""
    return [{"name": row.name, "kind": row.kind, "method": row.params["method"], "pairs": row.pairs,
             "value": row.metrics[metric], "low": row.metrics[f"{metric}_low"], "high": row.metrics[f"{metric}_high"],
             "clusters": row.params.get("n_clusters"), "threshold": row.params.get("threshold"),
             "noise_share": row.metrics.get("select/noise_share")} for row in rows]
