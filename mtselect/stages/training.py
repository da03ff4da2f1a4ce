"""What the stages that train have in common: weights in, weights out, a curve and its cost beside them.

curve.jsonl has a row a step, cost.json the steps and their seconds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import torch

from mtselect.config import Experiment, TrainConfig
from mtselect.data.examples import Example
from mtselect.data.prompts import set_languages
from mtselect.stages.lineage import Work
from mtselect.stages.models import Weights, load_weights
from mtselect.store import derive_seed, write_lines
from mtselect.training.finetune_module import finetune
from mtselect.training.language_model import LanguageModel, add_lora


def train(work: Work, start: Weights, examples: Sequence[Example], held_out: Sequence[Example], config: TrainConfig,
          purpose: str) -> LanguageModel:
    """Train on the examples and write curve and cost.

    Args:
        work: of the stage, whose name errors call the training by.
        start: weights to begin with.
        examples: training set.
        held_out: its loss closes each epoch; may be empty.
        config: optimiser and schedule.
        purpose: of the seed.
    """
    experiment, runtime, name = work.experiment, work.bench.runtime, work.stage.name
    lora = experiment.model.lora_rank > 0
    lm = load_weights(experiment, runtime, start.name, None if lora else torch.float32)
    if lm.decoder_start is not None:
        set_languages(lm.tokenizer, experiment.data)  # it is saved with them
    if lora:
        with torch.random.fork_rng():  # peft draws the adapters' first weights
            torch.manual_seed(derive_seed(experiment.seed, f"{purpose}: adapters"))
            lm = replace(lm, model=add_lora(lm.model, experiment.model))
    n_steps = config.steps_for(len(examples))
    n_pairs = pairs_trained(n_steps, len(examples), config.batch_size)
    with work.bench.progress.task(f"{name}: {n_steps:,} steps", n_pairs) as advance:
        trained = finetune(lm, examples, held_out, config, runtime, n_steps=n_steps, name=name, advance=advance,
                           on_epoch=work.on_epoch, seed=derive_seed(experiment.seed, purpose), dtype=experiment.model.dtype)
    write_lines(work.out / "curve.jsonl", [asdict(point) for point in trained.curve])
    (work.out / "cost.json").write_text(json.dumps({"steps": n_steps, "seconds": trained.seconds}), encoding="utf-8")
    return lm


def pairs_trained(n_steps: int, n_examples: int, batch_size: int) -> int:
    """How many pairs so many steps see, each once an epoch, whose last batch may be smaller."""
    if not n_steps or not n_examples:
        return 0
    per_epoch = -(-n_examples // batch_size)
    return n_steps // per_epoch * n_examples + min(n_steps % per_epoch * batch_size, n_examples)


def weights_name(experiment: Experiment) -> str:
    """Of the folder that `keep` writes the weights to."""
    return "adapter" if experiment.model.lora_rank else "model"


def keep(work: Work, lm: LanguageModel) -> None:
    """What was trained and its tokenizer: model/, or adapter/ with LoRA."""
    lm.model.save_pretrained(work.out / weights_name(work.experiment))
    lm.tokenizer.save_pretrained(work.out / "model")
