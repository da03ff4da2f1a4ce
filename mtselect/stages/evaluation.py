"""evaluation: a split translated by the finetuned model, and its scores.

hypotheses.jsonl, scores.json, and curve.jsonl and cost.json of the finetuning, whose weights may go.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mtselect.config import EvaluationConfig, Experiment
from mtselect.data.corpus import source_fingerprint
from mtselect.data.prompts import encode_prompts
from mtselect.evaluation.comet.install import comet_version
from mtselect.evaluation.decode import decode, decoding_signature
from mtselect.evaluation.metrics import Score, mean_score, score
from mtselect.stages.corpus import Pairs, Split, split_pairs
from mtselect.stages.finetune import FINETUNE, TUNED_MODEL
from mtselect.stages.lineage import Bench, Lineage, Stage, Work
from mtselect.stages.models import load_weights, to_device
from mtselect.store import derive_seed, read_lines, write_lines


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Hypotheses of a split and their scores.

    Args:
        hypotheses: in the order of the split.
        scores: of the whole split.
        curve: of the finetuning.
        cost: its steps, and their seconds; null where nothing was trained.
        comet: COMET's score of each sentence, where it is one of the metrics.
    """

    hypotheses: list[str]
    scores: list[Score]
    curve: list[dict[str, Any]]
    cost: dict[str, float] | None = None
    comet: list[float] | None = None


def _run(work: Work, split: Split) -> None:
    experiment, runtime = work.experiment, work.bench.runtime
    weights = work.read(TUNED_MODEL)
    pairs = split_pairs(work.read(Pairs(role=split)), split, experiment.evaluation.dev_rows)
    # As it was trained: adapters stay apart, since what they add to a bfloat16 weight is lost in its last digits.
    lm = load_weights(experiment, runtime, weights.name, adapter=weights.adapter)
    to_device(lm, runtime)
    sources, references = [pair.src for pair in pairs], [pair.tgt for pair in pairs]
    prompts = encode_prompts(sources, lm.tokenizer, experiment.data, experiment.model, lm.decoder_start)
    with work.bench.progress.task(f"translate {split}", len(prompts)) as advance:
        hypotheses = decode(lm.model, lm.tokenizer, prompts, experiment.evaluation, pad_id=lm.pad_id,
                            batch_size=4 * runtime.batch_size, dtype=experiment.model.dtype, advance=advance,
                            decoder_start=lm.decoder_start)
    settings, seed = experiment.evaluation, derive_seed(experiment.seed, "bootstrap")
    rows: list[dict[str, Any]] = [{"src": pair.src, "ref": pair.tgt, "hyp": hypothesis}
                                  for pair, hypothesis in zip(pairs, hypotheses, strict=True)]
    scores = []
    for metric in settings.metrics:
        if metric == "comet":
            lm.model.to("cpu")  # COMET's process wants the GPU
            with work.bench.progress.task(f"COMET on {split}", len(rows)) as advance:
                values = work.bench.comet.score(settings.comet_model, sources, hypotheses, references, advance=advance)
            rows = [{**row, "comet": value} for row, value in zip(rows, values, strict=True)]
            scores.append(mean_score(metric, values, bootstrap=settings.bootstrap, seed=seed,
                                     signature=comet_signature(settings)))
        else:
            scores.append(score(metric, sources, hypotheses, references, bootstrap=settings.bootstrap, seed=seed,
                                tgt_lang=experiment.data.tgt_lang))
    decoded = decoding_signature(settings, experiment.model.dtype)
    scores = [replace(one, signature=f"{one.signature}|{decoded}") for one in scores]
    write_lines(work.out / "hypotheses.jsonl", rows)
    (work.out / "scores.json").write_text(json.dumps([asdict(one) for one in scores], indent=1), encoding="utf-8")
    if weights.trained:
        for kept in ("curve.jsonl", "cost.json"):
            shutil.copy(weights.trained / kept, work.out)


def start_comet(bench: Bench, experiment: Experiment) -> None:
    """Start COMET and load its model, if it is to score: what is wrong with it is said before hours of work."""
    if "comet" in experiment.evaluation.metrics:
        with bench.progress.task(f"COMET: load {experiment.evaluation.comet_model}", 1) as advance:
            bench.comet.requires_references(experiment.evaluation.comet_model)
            advance(1)


def comet_signature(settings: EvaluationConfig) -> str:
    """COMET's model and version."""
    return f"model:{settings.comet_model}|comet:{comet_version()}"


def _comet_model(experiment: Experiment) -> list[str]:
    settings = experiment.evaluation
    here = "comet" in settings.metrics and Path(settings.comet_model).exists()
    return [source_fingerprint(settings.comet_model)] if here else []


def _stage(split: Split) -> Stage:
    return Stage(name="evaluation", version=3, constants={"split": split}, sources=_comet_model, run=partial(_run, split=split),
                 inputs=lambda _: [TUNED_MODEL, Pairs(role=split)],
                 reads=("evaluation", "model", "data.src_lang", "data.tgt_lang", "seed"))


EVALUATION: Mapping[Split, Stage] = {"dev": _stage("dev"), "test": _stage("test")}


def evaluate(lineage: Lineage, split: Split) -> Evaluation:
    """Finetune if that was not done yet, decode the split and score it; the weights go unless `runtime.keep_models`."""
    entry = lineage.entry(EVALUATION[split])
    if entry.computed and not lineage.bench.runtime.keep_models:
        lineage.discard(FINETUNE)
    return lineage.open(EVALUATION[split], load_evaluation)


def load_evaluation(folder: Path) -> Evaluation:
    """Of an entry."""
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    curve = read_lines(folder / "curve.jsonl") if (folder / "curve.jsonl").exists() else []
    cost = json.loads((folder / "cost.json").read_text(encoding="utf-8")) if (folder / "cost.json").exists() else None
    rows = read_lines(folder / "hypotheses.jsonl")
    comet = [row["comet"] for row in rows] if rows and "comet" in rows[0] else None
    return Evaluation(hypotheses=[row["hyp"] for row in rows], scores=[Score(**one) for one in scores], curve=curve,
                      cost=cost, comet=comet)


def hypotheses_of(metric: str, runs: Sequence[Evaluation]) -> list[Sequence[Any]]:
    """What each run is scored by: translations, or COMET's scores of them."""
    return [run.comet or [] if metric == "comet" else run.hypotheses for run in runs]
