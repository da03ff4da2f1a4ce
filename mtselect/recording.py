"""What of a trial and of its gradients goes to MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtselect import plots
from mtselect.attribution.index import SketchIndex
from mtselect.config import Experiment, Sweep, TrackingConfig, to_yaml
from mtselect.data.corpus import Pair, load_corpus
from mtselect.evaluation.metrics import sentence_scores
from mtselect.pipeline import (
    Bench,
    Evaluation,
    Selection,
    TrialResult,
    candidate_values,
    compare,
    corpus_entry,
    curvature_entry,
    evaluate,
    gradients_entry,
    map_entry,
    select_pairs,
    split_pairs,
)
from mtselect.tracking import Tracker, jsonl, scores_as_metrics

TABLE = "translations.json"
_MEASURED_NORMS = 200_000  # candidates, evenly spaced, of whose gradient norms quantiles are taken


def trial_params(experiment: Experiment, searched: dict[str, Any]) -> dict[str, Any]:
    """The four params people sort by, and whatever else is searched."""
    selection = experiment.selection
    params: dict[str, Any] = {"method": selection.method}
    if selection.method in ("gdig", "random"):
        params["budget"] = selection.budget
    if selection.method == "gdig":
        params |= {"n_clusters": selection.n_clusters, "threshold": round(selection.threshold, 4)}
    return params | {path: value for path, value in searched.items()
                     if path not in ("selection.budget", "selection.n_clusters", "selection.threshold", "selection.method")}


def trial_metrics(result: TrialResult) -> dict[str, float]:
    """Scores first, then what was selected."""
    metrics = scores_as_metrics(result.evaluation.scores)
    metrics["select/pairs"] = len(result.selection.pairs)
    if result.noise_share is not None:
        metrics["select/noise_share"] = result.noise_share
    if result.experiment.selection.method == "gdig":
        metrics["select/passed"] = result.selection.n_passed
        metrics["select/clusters"] = len({pair.cluster for pair in result.selection.pairs})
    return metrics


def record_trial(tracker: Tracker, run_id: str, bench: Bench, result: TrialResult, config: TrackingConfig) -> None:
    """Metrics, the selected set, the experiment that replays it, translations, curve and pictures."""
    experiment, selection, evaluation = result.experiment, result.selection, result.evaluation
    signatures = {f"mtselect.signature.{score.name}": score.signature for score in evaluation.scores}
    tracker.log(run_id, metrics=trial_metrics(result), note=_note(result),
                tags={**signatures, "mtselect.selected": selection.digest})
    tracker.log_text(run_id, to_yaml(experiment, "experiment"), "experiment.yaml")
    tracker.log_text(run_id, jsonl(selection.pairs), "selected.jsonl")
    if selection.pairs:
        tracker.log_dataset(run_id, "selected", selection.digest, len(selection.pairs))
        tracker.log_curve(run_id, evaluation.curve)
    shown = split_pairs(bench, experiment, "dev")[: config.sample_sentences]
    tracker.log_table(run_id, {"src": [pair.src for pair in shown], "hyp": evaluation.hypotheses[: len(shown)],
                               "ref": [pair.tgt for pair in shown]}, TABLE)
    if experiment.selection.method == "gdig" and selection.pairs:
        _record_pictures(tracker, run_id, bench, result)


def record_corpus(tracker: Tracker, parent: str, bench: Bench, experiment: Experiment) -> None:
    """On the study's run: what became of the rows of each source, and the noise of the pool."""
    summary = json.loads((corpus_entry(bench, experiment).path / "summary.json").read_text(encoding="utf-8"))
    tracker.log(parent, metrics={**{f"data/{name}".replace(",", ""): count for name, count in summary.items()},
                                 **_pool_noise(bench, experiment)})


def record_gradients(tracker: Tracker, parent: str, bench: Bench, experiment: Experiment, config: TrackingConfig) -> None:
    """Once per gradients entry, on the study's run: norm quantiles per layer, spectra, and the sketch index or where
    it is."""
    entry = gradients_entry(bench, experiment)
    folder = f"gradients/{entry.key}"
    if tracker.has_artifact(parent, f"{folder}/manifest.json"):
        return
    layers = json.loads((entry.path / "layers.json").read_text(encoding="utf-8"))
    index = SketchIndex(entry.path)
    step = -(-len(index) // _MEASURED_NORMS)
    norms = index.column("gradient_norms", lambda norms: norms[::step])
    quantiles = {name: dict(zip(("p05", "p50", "p95"), map(float, values), strict=True))
                 for name, values in zip(layers, np.percentile(norms, (5, 50, 95), axis=0).T, strict=True)}
    tracker.log_text(parent, json.dumps(quantiles, indent=1), f"{folder}/norms.json")
    tracker.log_figure(parent, plots.norms_by_layer(layers, norms), f"{folder}/norms.png")
    spectra = json.loads((curvature_entry(bench, experiment).path / "spectra.json").read_text(encoding="utf-8"))
    if spectra:
        tracker.log_figure(parent, plots.spectra(spectra), f"{folder}/spectra.png")
    files = [path for path in sorted(entry.path.rglob("*")) if path.suffix in (".npy", ".json")]
    size = sum(path.stat().st_size for path in files)
    if size <= config.index_limit_mb * 2**20:
        for path in files:
            if path.name != "manifest.json":
                tracker.log_file(parent, path, str(Path(folder, path.parent.relative_to(entry.path))))
    manifest = json.loads((entry.path / "manifest.json").read_text(encoding="utf-8"))
    manifest |= {"key": entry.key, "path": str(entry.path.resolve()), "bytes": size, "layers": layers}
    tracker.log_text(parent, json.dumps(manifest, indent=1), f"{folder}/manifest.json")


def _pool_noise(bench: Bench, experiment: Experiment) -> dict[str, float]:
    noisy = load_corpus(corpus_entry(bench, experiment).path).noisy
    return {} if noisy is None else {"select/pool_noise_share": float(noisy.mean())}


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """The candidates as pictures show them: points [N, 2], whether chosen [N], clusters of the chosen [n], pairs [N], mean
    benefit [N], benefit share [N]."""

    points: Any
    chosen: Any
    labels: Any
    pairs: Sequence[Pair]
    mean: Any
    share: Any


def _seen_candidates(bench: Bench, experiment: Experiment, selection: Selection) -> _Seen:
    entry = gradients_entry(bench, experiment)
    pairs = load_corpus(corpus_entry(bench, experiment).path).pool.take(np.load(entry.path / "rows.npy"))
    clusters = {pair.id: pair.cluster for pair in selection.pairs}
    chosen = pairs.among(list(clusters))
    mean, share, _ = candidate_values(SketchIndex(entry.path))
    return _Seen(points=np.load(map_entry(bench, experiment).path / "points.npy"), pairs=pairs, mean=mean, share=share,
                 chosen=chosen, labels=np.array([clusters[pair.id] for pair in pairs.take(np.flatnonzero(chosen))]))


def _record_pictures(tracker: Tracker, run_id: str, bench: Bench, result: TrialResult) -> None:
    seen = _seen_candidates(bench, result.experiment, result.selection)
    histogram = plots.benefit_histograms(seen.mean, seen.share, seen.chosen, result.experiment.selection.threshold)
    tracker.log_figure(run_id, histogram, "plots/benefits.png")
    tracker.log_figure(run_id, plots.cluster_map(seen.points, seen.chosen, seen.labels), "plots/clusters.png")


def _note(result: TrialResult) -> str:
    selection, chosen = result.selection, result.experiment.selection
    lines = [f"**{len(selection.pairs):,} pairs** by `{chosen.method}`, from {selection.n_candidates:,} candidates."]
    if chosen.method == "gdig":
        lines.append(f"{selection.n_passed:,} benefit at least {chosen.threshold:.0%} of the seeds; the budget is "
                     f"{chosen.budget:,}, drawn evenly from {chosen.n_clusters} clusters.")
        if selection.n_passed < chosen.budget:
            lines.append("Fewer passed than the budget: what passed was taken, nothing was filled up.")
    lines += [f"- {score.name}: **{score.value:.2f}** [{score.low:.2f}, {score.high:.2f}] `{score.signature}`"
              for score in result.evaluation.scores]
    return "\n\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:]) + (
        "\n\nReplay: `python -m mtselect.sweep experiment.yaml`\n")


def record_study(tracker: Tracker, parent: str, bench: Bench, sweep: Sweep, study: Any, rows: Sequence[Any],
                 experiments: Mapping[str, Experiment]) -> list[str]:
    """The study's pictures and the best trial's translation changes; every run's difference to the baselines.

    Args:
        tracker: MLflow.
        parent: the study's run.
        bench: store, runtime, progress.
        sweep: as it ran.
        study: Optuna's.
        rows: finished trials and baselines, best first.
        experiments: run id -> experiment.

    Returns:
        Lines that say how the best trial compares with the baselines on dev.
    """
    from mtselect import study_plots

    objective = sweep.study.objectives[0]
    if not objective.startswith("eval/"):
        return []
    metric: Any = objective.removeprefix("eval/")
    for run_id, differences in differences_to_baselines(rows, objective).items():
        tracker.log(run_id, metrics=differences)
    points = score_rows(rows, objective)
    tracker.log_figure(parent, plots.score_against_pairs(points, metric), "score_against_pairs.png")
    figures = [study_plots.score_figure(points, metric)]
    best = next((row for row in rows if row.kind == "trial" and row.pairs), None)
    found = []
    if best is not None:
        if experiments[best.run_id].selection.method == "gdig":
            figures.append(_candidates_figure(bench, experiments[best.run_id], best.name))
        found = _compare_with_baselines(tracker, parent, bench, metric, best, rows, experiments)
    figures += [study_plots.importance_figure(study, sweep.study.objectives),
                study_plots.parallel_figure(study, sweep.study.objectives)]
    tracker.log_text(parent, study_plots.study_page(sweep.study.name, figures), "study.html")
    return found


def differences_to_baselines(rows: Sequence[Any], objective: str) -> dict[str, dict[str, float]]:
    """Run id of every trial -> its score minus the untuned model's, and minus the mean of random sets of its size, where there
    are such. Named so that they stand behind the score in MLflow's columns, which are in alphabetical order."""
    untuned = [row.metrics[objective] for row in rows if row.params["method"] == "untuned"]
    random: dict[int, list[float]] = {}
    for row in rows:
        if row.params["method"] == "random":
            random.setdefault(row.pairs, []).append(row.metrics[objective])
    found = {}
    for row in rows:
        if row.kind == "trial":
            against = {f"{objective}_vs_random": random.get(row.pairs, []), f"{objective}_vs_untuned": untuned}
            found[row.run_id] = {name: row.metrics[objective] - sum(scores) / len(scores)
                                 for name, scores in against.items() if scores}
    return found


def _candidates_figure(bench: Bench, experiment: Experiment, name: str) -> Any:
    from mtselect import study_plots

    seen = _seen_candidates(bench, experiment, select_pairs(bench, experiment))
    return study_plots.cluster_figure(seen.points, seen.chosen, seen.labels, seen.pairs, seen.mean, seen.share, name=name)


def _compare_with_baselines(tracker: Tracker, parent: str, bench: Bench, metric: Any, best: Any, rows: Sequence[Any],
                            experiments: Mapping[str, Experiment]) -> list[str]:
    """Paired bootstrap on dev against each baseline of the best trial's size, or the untuned model; the sentences that changed
    most against the first."""
    from mtselect import study_plots

    rivals = [row for row in rows if row.params["method"] == "random" and row.pairs == best.pairs] or [
        row for row in rows if row.params["method"] == "untuned"]
    experiment = experiments[best.run_id]

    def evaluation(row: Any) -> Evaluation:
        return evaluate(bench, experiments[row.run_id], select_pairs(bench, experiments[row.run_id]), "dev")

    mine, theirs, found = evaluation(best), [evaluation(rival) for rival in rivals], []
    for rival, other in zip(rivals, theirs, strict=True):
        result = compare(bench, experiment, metric, mine, other, "dev")
        found.append(f"{best.name} against {rival.name} on dev: {metric} {result.difference:+.2f} [{result.low:+.2f}, "
                     f"{result.high:+.2f}], p = {result.p_value:.3f} (dev chose it: only test decides)")
    if rivals:
        pairs = split_pairs(bench, experiment, "dev")
        references, before = [pair.tgt for pair in pairs], theirs[0].hypotheses
        scores = [sentence_scores("chrf", texts, references, tgt_lang=experiment.data.tgt_lang)
                  for texts in (before, mine.hypotheses)]
        changes = study_plots.compare_translations([pair.src for pair in pairs], references, before, mine.hypotheses, *scores)
        page = study_plots.translation_page(changes, before=rivals[0].name, after=best.name)
        for run_id in (parent, best.run_id):
            tracker.log_text(run_id, page, "translation_changes.html")
    return found


def score_rows(rows: Sequence[Any], metric: str) -> list[dict[str, Any]]:
    """Rows of a sweep's final table as the pictures take them."""
    return [{"name": row.name, "kind": row.kind, "method": row.params["method"], "pairs": row.pairs,
             "value": row.metrics[metric], "low": row.metrics[f"{metric}_low"], "high": row.metrics[f"{metric}_high"],
             "clusters": row.params.get("n_clusters"), "threshold": row.params.get("threshold"),
             "noise_share": row.metrics.get("select/noise_share")} for row in rows]
