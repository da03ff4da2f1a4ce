"""What a study's best trial is compared with: everything else its user could have done, with the same number of steps.

    untuned         nothing
    few-shot        nothing, with some seeds as examples in the prompt
    pool            everything, for the trial's optimiser steps
    pool-epochs     everything, for its own epochs (finetune.epochs)
    pool-cost       everything, for the trial's steps and as many more as the seconds of the selecting would have paid for
    random          as many pairs, drawn from all
    filter-random   as many pairs, drawn from those that pass the gate: the row to beat
    loss            as many pairs, of lowest loss per token

and the trial itself, `again`: it was the best of several at one finetuning seed, by luck too, so that it is finetuned anew with
the same fresh seeds as its rivals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mtselect.config import Experiment
from mtselect.data.pairs import Corpus
from mtselect.data.prompts import few_shot_prompt
from mtselect.reports.verdict import LEVELS
from mtselect.stages.corpus import corpus_of
from mtselect.stages.trial import TrialResult, selecting_seconds

AGAIN = "again"
_SHOTS = 3  # seeds in the prompt of `few-shot`, the first there are


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A run beside the trials.

    Args:
        name: of the run.
        kind: of `study.baselines`, or `again`.
        fields: of the experiment, as a trial has values.
    """

    name: str
    kind: str
    fields: dict[str, object]


def rivals_of(result: TrialResult, values: Mapping[str, object], name: str, kinds: list[str]) -> Iterator[Rival]:
    """A trial's rivals, and itself again.

    What is searched beside the selection (a learning rate) they have from the trial, so that only the selection differs.

    Args:
        result: of the trial.
        values: what was searched.
        name: the trial's.
        kinds: of `study.baselines`.
    """
    size = len(result.selection.pairs)
    steps = result.experiment.finetune.steps_for(size) or None  # 0 where finetune.epochs is, which stays
    others = {path: value for path, value in values.items() if not path.startswith("selection.")}
    suffix = "".join(f" {path.rpartition('.')[2]}={_short(value)}" for path, value in others.items())
    for kind in kinds:
        if kind == "untuned":
            yield Rival(name=kind, kind=kind, fields={"selection.method": "untuned", "selection.options": None})
        elif size or kind == "few-shot":
            its_name = kind if kind in LEVELS else f"{kind}-{size}"
            yield Rival(name=f"{its_name}{suffix}", kind=kind, fields={**others, **_fields(kind, result, steps)})
    if size and kinds:
        yield Rival(name=f"{name}-{AGAIN}", kind=AGAIN, fields={**values, "finetune.steps": steps})


def _fields(kind: str, result: TrialResult, steps: int | None) -> dict[str, object]:
    """What makes a rival of its kind, beside what it has from the trial."""
    chosen = result.experiment.selection
    if kind == "few-shot":
        return few_shot(result.experiment, corpus_of(result.lineage))
    if kind == "pool-epochs":
        steps = None
    if kind == "pool-cost" and steps and (cost := result.evaluation.cost) is not None:
        steps += math.ceil(selecting_seconds(result.lineage) / (cost["seconds"] / cost["steps"]))
    if kind in LEVELS:
        return {"selection.method": "pool", "selection.options": None, "finetune.steps": steps}
    same_size = {"selection.budget": len(result.selection.pairs), "selection.n_clusters": 1, "selection.options": None,
                 "finetune.steps": steps}
    if kind == "filter-random":
        return {**same_size, "selection.method": "random", "selection.gate": chosen.gate or "learned",
                "selection.gate_keeps": chosen.gate_keeps, "selection.near_duplicates": chosen.near_duplicates}
    return {**same_size, "selection.method": kind, "selection.gate": None, "selection.near_duplicates": None}


def few_shot(experiment: Experiment, corpus: Corpus) -> dict[str, object]:
    """Fields of the rival: a hypothesis ends with its line, and the longer prompt leaves no pool row out."""
    return {"selection.method": "untuned", "selection.options": None, "evaluation.stop": "\n",
            "model.prompt": few_shot_prompt(corpus.seeds[:_SHOTS], experiment.data, experiment.model),
            "model.max_tokens": 100 * experiment.model.max_tokens}


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
