"""evaluation: a split translated by the finetuned model, and its scores.

hypotheses.jsonl, scores.json, statistics.npz (of each sentence, by metric), and curve.jsonl and cost.json of the finetuning,
whose weights may go.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtselect.config import Experiment
from mtselect.data.pairs import Pair
from mtselect.data.prompts import encode_prompts
from mtselect.metrics.base import METRICS, Metrics, Scoring
from mtselect.progress import Progress, SilentProgress
from mtselect.significance import Score, score
from mtselect.stages.corpus import Pairs, Split, scored_part
from mtselect.stages.finetune import FINETUNE, TUNED_MODEL
from mtselect.stages.lineage import Bench, Lineage, Stage, Work
from mtselect.stages.models import Weights, load_weights
from mtselect.store import derive_seed, read_lines, write_lines
from mtselect.training.decode import decode, decoding_signature
from mtselect.training.device import compute_device


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Hypotheses of a split and their scores.

    Args:
        hypotheses: in the order of the split.
        scores: of the whole split.
        statistics: metric -> of each sentence, [n, S].
        curve: of the finetuning.
        cost: its steps, and their seconds; null where nothing was trained.
    """

    hypotheses: list[str]
    scores: list[Score]
    statistics: Mapping[str, NDArray[np.float64]]
    curve: list[dict[str, Any]]
    cost: dict[str, float] | None = None


def _run(work: Work, split: Split) -> None:
    experiment, weights = work.experiment, work.read(TUNED_MODEL)
    pairs = scored_part(work.read(Pairs(role=split)), split, experiment)[:]
    hypotheses = _translate(work, weights, pairs, split)
    sources, references = [pair.src for pair in pairs], [pair.tgt for pair in pairs]
    asked = scoring(experiment, work.bench.progress)
    statistics = {name: work.bench.metrics[name].statistics(sources, hypotheses, references, asked)
                  for name in experiment.evaluation.metrics}
    scores = score_runs(work.bench, experiment, [statistics])
    write_lines(work.out / "hypotheses.jsonl", [{"src": pair.src, "ref": pair.tgt, "hyp": hypothesis}
                                                for pair, hypothesis in zip(pairs, hypotheses, strict=True)])
    np.savez(work.out / "statistics.npz", allow_pickle=False, **statistics)
    (work.out / "scores.json").write_text(json.dumps([asdict(one) for one in scores], indent=1), encoding="utf-8")
    if weights.trained:
        for kept in ("curve.jsonl", "cost.json"):
            shutil.copy(weights.trained / kept, work.out)


def _translate(work: Work, weights: Weights, pairs: Sequence[Pair], split: Split) -> list[str]:
    """The model goes when this returns: a metric may want its memory."""
    experiment, runtime = work.experiment, work.bench.runtime
    # As it was trained: adapters stay apart, since what they add to a bfloat16 weight is lost in its last digits.
    lm = load_weights(experiment, runtime, weights.name, adapter=weights.adapter)
    device = compute_device(runtime.accelerator)
    if lm.model.device.type != device.type:  # of 4 bits it is there, and cannot be moved
        lm.model.to(device)
    prompts = encode_prompts([pair.src for pair in pairs], lm.tokenizer, experiment.data, experiment.model, lm.decoder_start)
    with work.bench.progress.task(f"translate {split}", len(prompts)) as advance:
        return decode(lm, prompts, experiment.evaluation, batch_size=4 * runtime.batch_size, dtype=experiment.model.dtype,
                      advance=advance)


def scoring(experiment: Experiment, progress: Progress) -> Scoring:
    """What the experiment's metrics may ask for."""
    return Scoring(settings=experiment.evaluation, tgt_lang=experiment.data.tgt_lang, progress=progress)


def score_runs(bench: Bench, experiment: Experiment, runs: Sequence[Mapping[str, NDArray[np.float64]]]) -> list[Score]:
    """Scores of a system from the statistics of each of its runs, with what decided the hypotheses in their signatures."""
    asked, seed = scoring(experiment, bench.progress), derive_seed(experiment.seed, "bootstrap")
    decoded = decoding_signature(experiment.evaluation, experiment.model.dtype)
    found = [score(name, bench.metrics[name], [statistics[name] for statistics in runs], asked, seed)
             for name in experiment.evaluation.metrics]
    return [replace(one, signature=f"{one.signature}|{decoded}") for one in found]


def prepare_metrics(bench: Bench, experiment: Experiment) -> None:
    """Load what the metrics need: what is wrong with it is said before hours of work."""
    for name in experiment.evaluation.metrics:
        bench.metrics[name].prepare(scoring(experiment, bench.progress))


def _sources(experiment: Experiment) -> list[str]:
    metrics, asked = Metrics(), scoring(experiment, SilentProgress())
    found = [metrics[name].source(asked) for name in experiment.evaluation.metrics]
    return [*(source for source in found if source), *(one for name in experiment.evaluation.metrics for one in
                                                       METRICS.origin(name))]


def _stage(split: Split) -> Stage:
    return Stage(name="evaluation", version=4, constants={"split": split}, sources=_sources, run=partial(_run, split=split),
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
    with np.load(folder / "statistics.npz") as statistics:
        return Evaluation(hypotheses=[str(row["hyp"]) for row in read_lines(folder / "hypotheses.jsonl")],
                          scores=[Score(**one) for one in scores], statistics=dict(statistics), curve=curve, cost=cost)
