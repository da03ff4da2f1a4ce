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
from collections.abc import Mapping
from dataclasses import dataclass

from mtselect.config import Experiment
from mtselect.data.pairs import Corpus
from mtselect.data.prompts import few_shot_prompt
from mtselect.stages.corpus import corpus_of
from mtselect.stages.trial import TrialResult, selecting_seconds

AGAIN = "again"
_SHOTS = 3  # seeds in the prompt of `few-shot`, the first there are


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A run beside the trials.

    Args:
        kind: of `study.baselines`, or `again`.
        fields: of the experiment, as a trial has values.
    """

    kind: str
    fields: dict[str, object]


def rivals_of(result: TrialResult, values: Mapping[str, object], name: str, kinds: list[str]) -> dict[str, Rival]:
    """Names and fields of a trial's rivals, and of itself again.

    What is searched beside the selection (a learning rate) they have from the trial, so that only the selection differs.

    Args:
        result: of the trial.
        values: what was searched.
        name: the trial's.
        kinds: of `study.baselines`.
    """
    experiment = result.experiment
    chosen, size = experiment.selection, len(result.selection.pairs)
    steps = experiment.finetune.steps_for(size) or None  # 0 where finetune.epochs is, which stays
    others = {path: value for path, value in values.items() if not path.startswith("selection.")}
    suffix = "".join(f" {path.rpartition('.')[2]}={_short(value)}" for path, value in others.items())
    same_size = {**others, "selection.budget": size, "selection.n_clusters": 1, "selection.options": None,
                 "finetune.steps": steps}
    plain = {**same_size, "selection.gate": None, "selection.near_duplicates": None}
    pool = {**others, "selection.method": "pool", "selection.options": None}
    more = 0
    if "pool-cost" in kinds and steps and (cost := result.evaluation.cost) is not None:
        more = math.ceil(selecting_seconds(result.lineage) / (cost["seconds"] / cost["steps"]))
    known: dict[str, tuple[str, dict[str, object]]] = {
        "untuned": ("untuned", {"selection.method": "untuned", "selection.options": None}),
        "pool": (f"pool{suffix}", {**pool, "finetune.steps": steps}),
        "pool-epochs": (f"pool-epochs{suffix}", {**pool, "finetune.steps": None}),
        "pool-cost": (f"pool-cost{suffix}", {**pool, "finetune.steps": steps and steps + more}),
        "random": (f"random-{size}{suffix}", {**plain, "selection.method": "random"}),
        "filter-random": (f"filter-random-{size}{suffix}", {**same_size, "selection.method": "random",
                                                            "selection.gate": chosen.gate or "learned",
                                                            "selection.gate_keeps": chosen.gate_keeps,
                                                            "selection.near_duplicates": chosen.near_duplicates}),
        "loss": (f"loss-{size}{suffix}", {**plain, "selection.method": "loss"}),
    }
    for kind in kinds:
        if kind == "few-shot":
            known[kind] = (f"{kind}{suffix}", {**others, **few_shot(experiment, corpus_of(result.lineage))})
        elif kind not in known:  # another selector
            known[kind] = (f"{kind}-{size}{suffix}", {**plain, "selection.method": kind})
    asked = kinds if size else [kind for kind in kinds if kind in ("untuned", "few-shot")]
    wanted = {known[kind][0]: Rival(kind=kind, fields=known[kind][1]) for kind in asked}
    if size and kinds:
        wanted[f"{name}-{AGAIN}"] = Rival(kind=AGAIN, fields={**values, "finetune.steps": steps})
    return wanted


def few_shot(experiment: Experiment, corpus: Corpus) -> dict[str, object]:
    """Fields of the rival: a hypothesis ends with its line, and the longer prompt leaves no pool row out."""
    return {"selection.method": "untuned", "selection.options": None, "evaluation.stop": "\n",
            "model.prompt": few_shot_prompt(corpus.seeds[:_SHOTS], experiment.data, experiment.model),
            "model.max_tokens": 100 * experiment.model.max_tokens}


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
