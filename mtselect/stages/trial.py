"""A trial: select, finetune, evaluate; what comes before it, what several finetuning seeds of it say together, what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mtselect.config import Experiment, with_fields
from mtselect.data.pairs import Corpus
from mtselect.progress import NamedProgress, OnEpoch
from mtselect.significance import PairedResult, Score, compare_over_seeds
from mtselect.stages.base import BASE
from mtselect.stages.corpus import CORPUS, Split, corpus_of
from mtselect.stages.evaluation import EVALUATION, Evaluation, evaluate, score_runs, scoring
from mtselect.stages.finetune import start_model
from mtselect.stages.gradients import GRADIENTS
from mtselect.stages.lineage import Bench, Lineage, Stage, ancestors
from mtselect.stages.selection import Selection, select_pairs, selection_stage
from mtselect.stages.sketch_map import MAP
from mtselect.stages.tokens import TOKENS
from mtselect.store import derive_seed


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """All of one trial that is recorded."""

    lineage: Lineage
    selection: Selection
    evaluation: Evaluation
    noise_share: float | None

    @property
    def experiment(self) -> Experiment:
        """Of the trial."""
        return self.lineage.experiment


def shared_stages(experiment: Experiment) -> list[Stage]:
    """The stages before the selection, in order: those that the selector and its gate need, and the model that is finetuned."""
    return list(dict.fromkeys([*ancestors(selection_stage(experiment), experiment)[:-1], *_start_stages(experiment)]))


def _start_stages(experiment: Experiment) -> list[Stage]:
    """Those of the model that is finetuned, in order."""
    return [one for stage in start_model(experiment).stages(experiment) for one in ancestors(stage, experiment)]


def all_stages(experiment: Experiment) -> list[Stage]:
    """Every stage that a trial and its pictures may ask for, in order."""
    evaluations = [stage for split in EVALUATION.values() for stage in ancestors(split, experiment)]
    pictures = [MAP] if GRADIENTS in evaluations and experiment.attribution.sketch_rank else []
    return list(dict.fromkeys([*evaluations, *pictures]))


def run_trial(bench: Bench, experiment: Experiment, on_epoch: OnEpoch | None = None, split: Split = "dev") -> TrialResult:
    """Select, finetune, evaluate.

    Args:
        bench: store, runtime, progress.
        experiment: with everything decided (`resolve.resolve`).
        on_epoch: called with (epoch, dev loss) while finetuning computes; may raise to stop the trial.
        split: to evaluate on.
    """
    lineage = Lineage(bench, experiment, on_epoch)
    selection, evaluation = select_pairs(lineage), evaluate(lineage, split)
    return TrialResult(lineage=lineage, selection=selection, evaluation=evaluation,
                       noise_share=noise_share(corpus_of(lineage), [pair.id for pair in selection.pairs]))


def run_seeds(bench: Bench, experiment: Experiment, seeds: Sequence[int], split: Split = "dev") -> list[TrialResult]:
    """The same at several finetuning seeds, whose progress says of which."""
    return [run_trial(replace(bench, progress=NamedProgress(bench.progress, f"seed {one.finetune.seed}")), one, split=split)
            for one in at_seeds(experiment, seeds)]


def at_seeds(experiment: Experiment, seeds: Sequence[int]) -> list[Experiment]:
    """The experiment at each finetuning seed; the model as it was is the same at all."""
    wanted = seeds[:1] if experiment.selection.method == "untuned" else seeds  # nothing is trained
    return [with_fields(experiment, {"finetune.seed": seed}) for seed in wanted]


def noise_share(corpus: Corpus, ids: Sequence[str]) -> float | None:
    """Share of the ids with a noise label; None where the pool has no labels or nothing is selected."""
    noisy = corpus.noisy
    if noisy is None or not ids:
        return None
    return float(noisy[corpus.pool.among(ids)].mean())


def compare_systems(lineage: Lineage, metric: str, system: Sequence[Evaluation], baseline: Sequence[Evaluation]
                    ) -> PairedResult:
    """Two systems on one split, each with the evaluations of its finetuning seeds."""
    ours, theirs = ([run.statistics[metric] for run in runs] for runs in (system, baseline))
    return compare_over_seeds(metric, lineage.bench.metrics[metric], ours, theirs,
                              scoring(lineage.experiment, lineage.bench.progress),
                              derive_seed(lineage.experiment.seed, "bootstrap"))


def mean_scores(lineage: Lineage, runs: Sequence[Evaluation]) -> list[Score]:
    """Scores of a system over its finetuning seeds, with intervals over seeds and sentences; one seed's are its own."""
    if len(runs) == 1:
        return runs[0].scores
    return score_runs(lineage.bench, lineage.experiment, [run.statistics for run in runs])


def selecting_seconds(lineage: Lineage) -> float:
    """What the choice cost before it was made, in seconds of its stages."""
    return sum(lineage.entry(stage).seconds for stage in selecting_stages(lineage.experiment))


def selecting_stages(experiment: Experiment) -> list[Stage]:
    """All that is computed for the choice and for no finetuning, in order."""
    also = {CORPUS, BASE, TOKENS, *_start_stages(experiment)}  # that finetuning on anything needs
    return [stage for stage in ancestors(selection_stage(experiment), experiment) if stage not in also]


def discard_trial(lineage: Lineage) -> None:
    """Remove the selection and its dev evaluation from the store, so that the next call computes them again."""
    lineage.discard(EVALUATION["dev"])
    lineage.discard(selection_stage(lineage.experiment))
