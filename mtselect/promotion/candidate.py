"""A study's best trial, computed again and scored on test, beside its rivals."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mtselect.config import Experiment, Sweep, budget_pairs, parse, with_fields
from mtselect.errors import PromotionRefused
from mtselect.metrics.base import sign
from mtselect.progress import NamedProgress
from mtselect.promotion import gates
from mtselect.promotion.gates import Gate
from mtselect.provenance import part_input
from mtselect.reports.verdict import is_rival
from mtselect.selectors.base import SELECTORS
from mtselect.significance import PairedResult, Score
from mtselect.stages.corpus import Split, corpus_of
from mtselect.stages.evaluation import Evaluation, evaluate
from mtselect.stages.lineage import Bench, Lineage
from mtselect.stages.selection import Selection, select_pairs
from mtselect.stages.trial import compare_systems, discard_trial, mean_scores, run_seeds
from mtselect.store import Store
from mtselect.tracking.base import DatasetInput
from mtselect.tracking.mlflow import MlflowTracker
from mtselect.tracking.recorded import RecordedRun
from mtselect.tracking.trials import recorded_experiment

OTHER_STEPS = ("pool-epochs", "pool-cost")  # rivals that train for other steps than a trial, which it need not beat


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The best trial, computed again and scored on test, with its comparisons and gates.

    Args:
        run: of the trial.
        experiment: that replays it.
        selection: the set.
        n_seeds: trusted pairs it was chosen for.
        metric: that decides.
        dev: scores, means over the study's finetuning seeds.
        test: likewise.
        test_set: what `test` is of.
        rivals: name -> kind (`rivals.py`).
        comparisons: name of a rival -> the set against it on test.
        gates: all that were asked.
    """

    run: RecordedRun
    experiment: Experiment
    selection: Selection
    n_seeds: int
    metric: str
    dev: list[Score]
    test: list[Score]
    test_set: DatasetInput
    rivals: dict[str, str]
    comparisons: dict[str, PairedResult]
    gates: list[Gate]


def assess(bench: Bench, tracker: MlflowTracker, sweep: Sweep, runs: list[RecordedRun],
          ask: Callable[[RecordedRun, list[Gate]], None], *, licence: str | None, from_scratch: bool) -> Candidate:
    """Compute the best trial's selection and dev scores afresh, then its and its rivals' test scores.

    Args:
        bench: store, runtime, progress.
        tracker: where the study is.
        sweep: as it was recorded.
        runs: its trials and baselines.
        ask: is told the gates that need no test set before that is read; may raise.
        licence: stands for data.licence if given.
        from_scratch: take nothing from the store.

    Raises:
        PromotionRefused: nothing to promote, rivals are missing, or the trial does not come out again, which no force can mend.
    """
    best, rivals = choose(runs, sweep)
    experiment = _experiment(tracker, best)
    same = _replay(bench, experiment, best, from_scratch)
    if not same.passed:
        ask(best, [same])
        raise PromotionRefused(f"{best.name} {same.detail}; nothing else can be promoted, with or without --force")
    lineage = Lineage(bench, experiment)
    corpus, selection = corpus_of(lineage), select_pairs(lineage)
    described = with_fields(experiment, {"data.licence": licence}) if licence else experiment
    beside = {name: column.kind for name, column in SELECTORS.load(experiment.selection.method).columns.items()}
    asked = [same, gates.schema(selection.pairs, budget_pairs(experiment.selection.budget, len(corpus.pool)), beside),
             gates.contamination(selection.pairs, {"dev": corpus.dev, "test": corpus.test}),
             gates.provenance(described.data, len(corpus.seeds))]
    ask(best, asked)
    seeds = range(1, sweep.study.finetune_seeds + 1)

    def evaluations(run: RecordedRun, one: Experiment, split: Split) -> list[Evaluation]:
        """At each seed; the progress says of which run it is."""
        named = dataclasses.replace(bench, progress=NamedProgress(bench.progress, run.name))
        return [result.evaluation for result in run_seeds(named, one, seeds, split)]

    # The steps that the trial had, as its rivals.
    again = with_fields(experiment, {"finetune.steps": experiment.finetune.steps_for(len(selection.pairs)) or None})
    test, metric = evaluations(best, again, "test"), deciding_metric(sweep)
    comparisons = {rival.name: compare_systems(lineage, metric, test, evaluations(rival, _experiment(tracker, rival), "test"))
                   for rival in rivals}
    kinds = {rival.name: rival.params["method"] for rival in rivals}
    beaten = {name: comparisons[name] for name, kind in kinds.items() if kind not in OTHER_STEPS}
    asked.append(gates.beats_rivals(beaten, metric, [name for name, kind in kinds.items() if kind == "filter-random"]))
    return Candidate(run=best, experiment=described, selection=selection, n_seeds=len(corpus.seeds), metric=metric,
                     dev=mean_scores(lineage, evaluations(best, again, "dev")), test=mean_scores(lineage, test),
                     test_set=part_input(lineage, "test"), rivals=kinds, comparisons=comparisons, gates=asked)


def _replay(bench: Bench, experiment: Experiment, best: RecordedRun, from_scratch: bool) -> Gate:
    """The gate `replay`, of the store's gradients and weights or of nothing but the sources."""
    def ask(lineage: Lineage, recomputed: str) -> Gate:
        return gates.replay(select_pairs(lineage).pairs, best.tags["mtselect.selected"],
                            lambda: evaluate(lineage, "dev").scores, best.metrics, recomputed)

    if from_scratch:
        with tempfile.TemporaryDirectory(dir=bench.runtime.workdir, prefix="from-scratch-") as folder:
            again = Lineage(dataclasses.replace(bench, store=Store(Path(folder))), experiment)
            return ask(again, "computed again: all, warm-up included")
    discard_trial(Lineage(bench, experiment))
    weights = "finetuned weights" if bench.runtime.keep_models else "what it was finetuned from"
    return ask(Lineage(bench, experiment), "computed again: selection and translations; from the store: corpus, warm-up, "
               f"gradients, losses, gate and {weights} (--from-scratch computes all)")


def choose(runs: list[RecordedRun], sweep: Sweep) -> tuple[RecordedRun, list[RecordedRun]]:
    """The best trial by the study's score on dev, and its rivals: baselines of its size, the whole pool for as many steps, the
    untuned model."""
    metric = f"eval/{deciding_metric(sweep)}"
    trials = [run for run in runs if run.tags["mtselect.kind"] == "trial" and run.metrics.get("select/pairs")]
    if not trials:
        raise PromotionRefused(f"study {sweep.study.name!r} has no finished trial that selected a pair: run the sweep first")
    better = sign(metric)
    best = max(trials, key=lambda run: (better * run.metrics[metric], -int(run.tags["mtselect.trial"])))  # Optuna's, if equal
    rivals = {run.name: run for run in runs if run.tags["mtselect.kind"] == "baseline" and is_rival(run, best)}
    missing = {"random", "pool", *sweep.study.baselines} - {run.params["method"] for run in rivals.values()}
    if missing:
        raise PromotionRefused(f"{best.name} ({best.metrics['select/pairs']:.0f} pairs) was not compared with "
                               f"{', '.join(sorted(missing))}: let the sweep run to its end, with random and pool in "
                               "study.baselines")
    return best, list(rivals.values())


def read_study(tracker: MlflowTracker, name: str) -> tuple[Sweep, str, list[RecordedRun]]:
    parent = tracker.find_study()
    if parent is None:
        raise PromotionRefused(f"MLflow at {tracker.uri} has no study {name!r}: check the name, or set --tracking.uri")
    return parse(tracker.read_text(parent.run_id, "sweep.yaml"), []), parent.run_id, tracker.children(parent.run_id)


def _experiment(tracker: MlflowTracker, run: RecordedRun) -> Experiment:
    return recorded_experiment(tracker.read_text(run.run_id, "experiment.yaml"))


def deciding_metric(sweep: Sweep) -> str:
    """The score that decides: the first objective that is one, else the first metric."""
    names = [name.removeprefix("eval/") for name in sweep.study.objectives if name.startswith("eval/")]
    return names[0] if names else sweep.experiment.evaluation.metrics[0]
