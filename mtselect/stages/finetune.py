"""finetune: the model finetuned on the selected set: curve.jsonl, cost.json and model/, or adapter/ with LoRA.

Keyed by the selected ids: two trials that choose the same set share it.
"""

from __future__ import annotations

from pathlib import Path

from mtselect.config import Experiment
from mtselect.stages.base import BASE_MODEL, BaseModel
from mtselect.stages.corpus import Pairs, scored_part
from mtselect.stages.lineage import Lineage, Output, Stage, Work
from mtselect.stages.models import Weights, encode
from mtselect.stages.selection import SELECTED
from mtselect.stages.training import keep, train, weights_name
from mtselect.stages.warmup import WARM_MODEL, WarmModel

DEV = Pairs(role="dev")


def start_model(experiment: Experiment) -> WarmModel | BaseModel:
    """What finetuning begins with."""
    return WARM_MODEL if experiment.finetune.start == "warmup" else BASE_MODEL


def _run(work: Work) -> None:
    experiment, config = work.experiment, work.experiment.finetune
    start, pairs = work.read(start_model(experiment)), work.read(SELECTED)
    held_out = scored_part(work.read(DEV), "dev", experiment)
    examples = encode(experiment, start.name, [*pairs, *held_out])
    purpose = f"finetune {config.seed}" if config.seed else "finetune"
    lm = train(work, start, examples[: len(pairs)], examples[len(pairs) :], config, purpose)
    keep(work, lm)


FINETUNE = Stage(name="finetune", version=3, run=_run, trains=True,
                 inputs=lambda experiment: [SELECTED, DEV, start_model(experiment)],
                 reads=("finetune", "model", "data.src_lang", "data.tgt_lang", "seed", "evaluation.dev_rows"))


def weights_folder(lineage: Lineage) -> Path:
    """Where the weights lie, or would if they were kept; computes nothing."""
    return (lineage.bench.store.where(lineage.recipe(FINETUNE)) / weights_name(lineage.experiment)).resolve()


class TunedModel(Output[Weights]):
    """The input that is the finetuned model; the model it would have begun with where nothing was selected."""

    def read(self, lineage: Lineage) -> Weights:
        """Where it is; adapters stay apart."""
        start = start_model(lineage.experiment).read(lineage)
        if not SELECTED.read(lineage):
            return Weights(name=start.name)
        path = lineage.path(FINETUNE)
        if lineage.experiment.model.lora_rank:
            return Weights(name=start.name, adapter=str(path / "adapter"), trained=path)
        return Weights(name=str(path / "model"), trained=path)


TUNED_MODEL = TunedModel(stage=FINETUNE)
