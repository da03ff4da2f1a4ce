"""What of a trial and of its gradients goes to MLflow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from mtselect import plots
from mtselect.attribution.index import SketchIndex
from mtselect.config import Experiment, TrackingConfig, to_yaml
from mtselect.data.corpus import load_corpus
from mtselect.pipeline import (
    Bench,
    TrialResult,
    candidate_values,
    corpus_entry,
    curvature_entry,
    gradients_entry,
    map_entry,
    split_pairs,
)
from mtselect.pipeline import noise_share as share_of_noise
from mtselect.tracking import Tracker, jsonl, scores_as_metrics

TABLE = "translations.json"


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


def record_gradients(tracker: Tracker, parent: str, bench: Bench, experiment: Experiment, config: TrackingConfig) -> None:
    """Once per gradients entry, on the study's run: norm quantiles per layer, spectra, and the sketch index or where
    it is."""
    entry = gradients_entry(bench, experiment)
    folder = f"gradients/{entry.key}"
    if tracker.has_artifact(parent, f"{folder}/manifest.json"):
        return
    layers = json.loads((entry.path / "layers.json").read_text(encoding="utf-8"))
    index = SketchIndex(entry.path)
    norms = index.column("gradient_norms")
    quantiles = {f"gradients/norm_p{q:02d}/{name.replace('model.', '')}": value for q in (5, 50, 95)
                 for name, value in zip(layers, np.percentile(norms, q, axis=0), strict=True)}
    summary = json.loads((corpus_entry(bench, experiment).path / "summary.json").read_text(encoding="utf-8"))
    tracker.log(parent, metrics={**quantiles, **{f"data/{name}".replace(",", ""): count
                                                 for name, count in summary.items()},
                                 **_pool_noise(bench, experiment)})
    tracker.log_figure(parent, plots.norms_by_layer(layers, norms), f"{folder}/norms.png")
    tensors = load_file(curvature_entry(bench, experiment).path / "curvature.safetensors")
    eigenvalues = {key.split("|")[0]: value for key, value in tensors.items() if key.endswith("|eigenvalues")}
    if eigenvalues:
        tracker.log_figure(parent, plots.spectra(eigenvalues), f"{folder}/spectra.png")
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
    corpus = load_corpus(corpus_entry(bench, experiment).path)
    share = share_of_noise(corpus, [pair.id for pair in corpus.pool])
    return {} if share is None else {"select/pool_noise_share": share}


def _record_pictures(tracker: Tracker, run_id: str, bench: Bench, result: TrialResult) -> None:
    entry = gradients_entry(bench, result.experiment)
    pool = load_corpus(corpus_entry(bench, result.experiment).path).pool
    rows = np.load(entry.path / "rows.npy")
    clusters = {pair.id: pair.cluster for pair in result.selection.pairs}
    chosen = np.array([pool[row].id in clusters for row in rows])
    labels = np.array([clusters[pool[row].id] for row in rows[chosen]])
    mean, share, _ = candidate_values(SketchIndex(entry.path))
    histogram = plots.benefit_histograms(mean, share, chosen, result.experiment.selection.threshold)
    tracker.log_figure(run_id, histogram, "plots/benefits.png")
    points = np.load(map_entry(bench, result.experiment).path / "points.npy")
    tracker.log_figure(run_id, plots.cluster_map(points, chosen, labels), "plots/clusters.png")


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


def score_rows(rows: Sequence[Any], metric: str) -> list[dict[str, Any]]:
    """Rows of a sweep's final table as `plots.score_against_pairs` takes them."""
    return [{"kind": row.kind, "method": row.params["method"], "pairs": row.pairs, "value": row.metrics[metric],
             "low": row.metrics[f"{metric}_low"], "high": row.metrics[f"{metric}_high"]} for row in rows]


def write_lines(path: Path, text: str) -> None:
    """Write a text whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
