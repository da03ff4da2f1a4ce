"""warmup: the base finetuned on the pool for a few epochs, where gradients are taken: model/, and adapter/ with LoRA.

With LoRA model/ holds the merged weights. Zero epochs leave the base as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mtselect.config import Experiment
from mtselect.stages.base import BASE_MODEL
from mtselect.stages.candidates import usable_rows, warmup_rows
from mtselect.stages.lineage import Lineage, Stage, Work
from mtselect.stages.models import Weights
from mtselect.stages.tokens import POOL_TOKENS
from mtselect.stages.training import train
from mtselect.training.language_model import load_model


def _run(work: Work) -> None:
    experiment, config, base = work.experiment, work.experiment.warmup, work.read(BASE_MODEL)
    pool = work.read(POOL_TOKENS)
    examples = pool.take(warmup_rows(experiment, usable_rows(experiment, pool)))
    lm = train(work, base, examples, [], config, "warmup")
    model = lm.model
    if experiment.model.lora_rank:
        model.save_pretrained(work.out / "adapter")
        if experiment.model.quantize is not None:  # adapters are merged into weights that are not
            model = load_model(base.name, getattr(torch, experiment.model.dtype), str(work.out / "adapter")).model
        model = model.merge_and_unload()
    model.save_pretrained(work.out / "model")
    lm.tokenizer.save_pretrained(work.out / "model")


WARMUP = Stage(name="warmup", version=4, reads=("model", "data.src_lang", "data.tgt_lang", "warmup", "seed"),
               inputs=lambda _: [POOL_TOKENS, BASE_MODEL], run=_run, trains=True)


@dataclass(frozen=True, kw_only=True)
class WarmModel:
    """The input that is the model at which gradients and losses are taken."""

    def stages(self, experiment: Experiment) -> list[Stage]:
        """The warm-up, or what is behind the base model."""
        return [WARMUP] if experiment.warmup.epochs else BASE_MODEL.stages(experiment)

    def key(self, lineage: Lineage) -> str:
        """The entry's, or the base model's if nothing is warmed up."""
        return lineage.key(WARMUP) if lineage.experiment.warmup.epochs else lineage.input_key(BASE_MODEL)

    def read(self, lineage: Lineage) -> Weights:
        """Where it is, and its adapters where they can be had apart."""
        experiment = lineage.experiment
        if not experiment.warmup.epochs:
            return BASE_MODEL.read(lineage)
        path = lineage.path(WARMUP)
        apart = experiment.model.lora_rank > 0
        return Weights(name=str(path / "model"), adapter=str(path / "adapter") if apart else None,
                       under=BASE_MODEL.read(lineage).name if apart else None)


WARM_MODEL = WarmModel()
