"""What of a trial and of its gradients goes to MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtselect.config import OPTIONS, Experiment, TrackingConfig, to_yaml
from mtselect.data.pairs import Pair
from mtselect.gate_record import record_gate
from mtselect.provenance import corpus_inputs, model_tags, part_input, selected_input
from mtselect.reports import figures as plots
from mtselect.selectors.base import SELECTORS
from mtselect.significance import Score
from mtselect.stages.columns import STANDARDISED, load_columns
from mtselect.stages.corpus import POOL, corpus_of, scored_part
from mtselect.stages.curvature import CURVATURE
from mtselect.stages.duplicates import is_thinned
from mtselect.stages.gate import is_gated
from mtselect.stages.gradients import GRADIENTS, INDEXED
from mtselect.stages.lineage import Lineage
from mtselect.stages.selection import Selection
from mtselect.stages.sketch_map import MAP
from mtselect.stages.trial import TrialResult
from mtselect.store import jsonl
from mtselect.tracking.base import Tracker

TABLE = "translations.json"
_MEASURED_NORMS = 200_000  # candidates, evenly spaced, of whose gradient norms quantiles are taken


_SORTED_BY = ("budget", "gate", "gate_keeps", "rank", "n_clusters", "threshold")


def trial_params(experiment: Experiment, searched: Mapping[str, object], rival: str | None = None) -> dict[str, object]:
    """The params people sort by, and whatever else is searched.

    Args:
        experiment: of the trial.
        searched: fields and their values.
        rival: the kind of a baseline, which stands for its method.
    """
    selection = experiment.selection
    params: dict[str, object] = {"method": rival or selection.method}
    selector = SELECTORS.load(selection.method)
    if selector.sized:
        params["budget"] = selection.budget
        if is_gated(selection):
            params |= {"gate": selection.gate, "gate_keeps": round(selection.gate_keeps, 4)}
    shown = {name: getattr(selection, name) for name in selector.shown}
    params |= {name: round(value, 4) if isinstance(value, float) else value for name, value in shown.items()}
    params |= {f"{OPTIONS}{name}": value for name, value in (selection.options or {}).items()}
    return params | {path: value for path, value in searched.items()
                     if path.removeprefix("selection.") not in (*_SORTED_BY, "method")}


def trial_metrics(results: Sequence[TrialResult], scores: Sequence[Score]) -> dict[str, float]:
    """Scores first, then what was selected (at the first finetuning seed) and the optimiser steps."""
    return scores_as_metrics(scores) | _set_metrics(results)


def _set_metrics(results: Sequence[TrialResult]) -> dict[str, float]:
    result = results[0]
    metrics: dict[str, float] = {"select/pairs": len(result.selection.pairs)}
    metrics["finetune/steps"] = 0.0 if result.evaluation.cost is None else result.evaluation.cost["steps"]
    metrics["finetune/seeds"] = len(results)
    if result.selection.gate is not None:
        metrics["select/gate_dropped"] = result.selection.gate["dropped"]
    if is_thinned(result.experiment.selection):
        metrics["select/near_duplicates"] = result.selection.n_repeats
    if result.noise_share is not None:
        metrics["select/noise_share"] = result.noise_share
    selector = SELECTORS.load(result.experiment.selection.method)
    if selector.needs:
        metrics["select/passed"] = result.selection.n_passed
    if "cluster" in selector.columns:
        metrics["select/clusters"] = len({pair.scores["cluster"] for pair in result.selection.pairs})
    return metrics


def scores_as_metrics(scores: Sequence[Score], prefix: str = "eval") -> dict[str, float]:
    """`<prefix>/<name>` and its interval's ends, scores first (the UI opens on what was logged first)."""
    metrics = {f"{prefix}/{score.name}": score.value for score in scores}
    for score in scores:
        metrics |= {f"{prefix}/{score.name}_low": score.low, f"{prefix}/{score.name}_high": score.high}
    return metrics


def record_trial(tracker: Tracker, run_id: str, results: Sequence[TrialResult], scores: Sequence[Score],
                 config: TrackingConfig) -> None:
    """Metrics, the model, the selected set, the experiment that replays it, what the gate dropped, translations, curve and
    pictures; of several finetuning seeds the means, and what else there is of the first."""
    result = results[0]
    experiment, selection, evaluation = result.experiment, result.selection, result.evaluation
    signatures = {f"mtselect.signature.{score.name}": score.signature for score in scores}
    dev = part_input(result.lineage, "dev")
    tracker.log_model(run_id, "finetuned" if selection.pairs else "untuned", model_tags(results),
                      scores_as_metrics(scores), dev)
    tracker.log(run_id, metrics=_set_metrics(results), note=_note(results, scores),
                tags={**signatures, "mtselect.selected": selection.digest})
    record_gate(tracker, run_id, result.lineage, selection)
    tracker.log_text(run_id, to_yaml(experiment, "experiment"), "experiment.yaml")
    tracker.log_text(run_id, jsonl(pair.row() for pair in selection.pairs), "selected.jsonl")
    if selection.pairs:
        tracker.log_curve(run_id, evaluation.curve)
    tracker.log_inputs(run_id, [selected_input(selection), dev] if selection.pairs else [dev])
    shown = dev_pairs(result.lineage)[: config.sample_sentences]
    tracker.log_table(run_id, {"src": [pair.src for pair in shown], "hyp": evaluation.hypotheses[: len(shown)],
                               "ref": [pair.tgt for pair in shown]}, TABLE)
    if "benefits" in SELECTORS.load(experiment.selection.method).needs and selection.pairs:
        _record_pictures(tracker, run_id, result)


def dev_pairs(lineage: Lineage) -> list[Pair]:
    """The split that decides, as it is translated."""
    return scored_part(corpus_of(lineage).dev, "dev", lineage.experiment)[:]


def record_corpus(tracker: Tracker, parent: str, lineage: Lineage) -> None:
    """On the study's run: the four sources, what became of their rows, and the noise of the pool."""
    tracker.log_inputs(parent, corpus_inputs(lineage))
    corpus = corpus_of(lineage)
    counts = {f"data/{name}".replace(",", ""): count for name, count in corpus.summary.items()}
    noise = {} if (noisy := corpus.noisy) is None else {"select/pool_noise_share": float(noisy.mean())}
    tracker.log(parent, metrics={**counts, **noise})


def record_gradients(tracker: Tracker, parent: str, lineage: Lineage, config: TrackingConfig) -> None:
    """Once per gradients entry, on the study's run: norm quantiles per layer, spectra, and the sketch index or where
    it is."""
    entry = lineage.entry(GRADIENTS)
    folder = f"gradients/{entry.key}"
    if tracker.has_file(parent, f"{folder}/manifest.json"):
        return
    layers = json.loads((entry.path / "layers.json").read_text(encoding="utf-8"))
    index = INDEXED.read(lineage)
    step = -(-len(index) // _MEASURED_NORMS)
    norms = index.column("gradient_norms", lambda norms: norms[::step])
    quantiles = {name: dict(zip(("p05", "p50", "p95"), map(float, values), strict=True))
                 for name, values in zip(layers, np.percentile(norms, (5, 50, 95), axis=0).T, strict=True)}
    tracker.log_text(parent, json.dumps(quantiles, indent=1), f"{folder}/norms.json")
    tracker.log_figure(parent, plots.norms_by_layer(layers, norms), f"{folder}/norms.png")
    spectra = json.loads((lineage.path(CURVATURE) / "spectra.json").read_text(encoding="utf-8"))
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


@dataclass(frozen=True, kw_only=True)
class SeenCandidates:
    """The candidates as pictures show them: points [N, 2] (null without sketches), whether chosen [N], clusters of the chosen
    [n], pairs [N], mean benefit [N], benefit share [N]."""

    points: NDArray[np.float32] | None
    chosen: NDArray[np.bool_]
    labels: NDArray[np.int64]
    pairs: Sequence[Pair]
    mean: NDArray[np.floating]
    share: NDArray[np.floating]


def seen_candidates(lineage: Lineage, selection: Selection) -> SeenCandidates:
    """Those of a trial, and what it selected of them."""
    index = INDEXED.read(lineage)
    pairs = POOL.read(lineage).take(index.rows)
    clusters = {pair.id: pair.scores.get("cluster", 0) for pair in selection.pairs}
    chosen = pairs.among(list(clusters))
    columns = load_columns(index, STANDARDISED.read(lineage))
    points = np.load(lineage.path(MAP) / "points.npy") if lineage.experiment.attribution.sketch_rank else None
    labels = np.array([clusters[pair.id] for pair in pairs.take(np.flatnonzero(chosen))])
    return SeenCandidates(points=points, pairs=pairs, mean=columns.mean, share=columns.share, chosen=chosen, labels=labels)


def _record_pictures(tracker: Tracker, run_id: str, result: TrialResult) -> None:
    experiment = result.experiment
    seen = seen_candidates(result.lineage, result.selection)
    threshold = experiment.selection.threshold if experiment.selection.threshold_on == "share" else 0.0
    histogram = plots.benefit_histograms(seen.mean, seen.share, seen.chosen, threshold)
    tracker.log_figure(run_id, histogram, "plots/benefits.png")
    if experiment.selection.n_clusters > 1:
        assert seen.points is not None
        tracker.log_figure(run_id, plots.cluster_map(seen.points, seen.chosen, seen.labels), "plots/clusters.png")


def _note(results: Sequence[TrialResult], scores: Sequence[Score]) -> str:
    selection, experiment = results[0].selection, results[0].experiment
    pairs, candidates = f"{len(selection.pairs):,} pairs", f"{selection.n_candidates:,} candidates"
    said = [f"**{pairs}** by `{experiment.selection.method}`, from {candidates}.", *selection.in_words(experiment)]
    if selection.gate is not None:
        said.append("Examples of what the gate dropped are in `gate.html`.")
    listed = [f"- {score.name}: **{score.value:.2f}** [{score.low:.2f}, {score.high:.2f}] `{score.signature}`"
              for score in scores]
    seeds = [] if len(results) == 1 else [f"Means of {len(results)} finetuning seeds."]
    return "\n\n".join([*said, *seeds, "\n".join(listed), "Replay: `python -m mtselect.sweep experiment.yaml`\n"])
