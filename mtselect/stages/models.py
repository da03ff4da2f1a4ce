"""Models that stages load: as a folder or a hub name, with LoRA adapters merged or apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mtselect.attribution.gradients import layer_shape
from mtselect.attribution.memory import Shapes
from mtselect.config import Experiment, RuntimeConfig
from mtselect.data.examples import Example
from mtselect.data.pairs import Pair
from mtselect.data.prompts import encode_pairs
from mtselect.training.device import USED_MEMORY, compute_device, device_memory
from mtselect.training.language_model import (
    LanguageModel,
    Model,
    add_lora,
    decoder_start,
    empty_model,
    load_model,
    load_tokenizer,
    tracked_layers,
)

Scored = tuple[Model, Shapes]  # a model without its weights, and the shapes of its tracked layers


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where a model's weights are.

    Args:
        name: folder or hub name.
        adapter: folder of LoRA adapters that belong to it.
        under: what the adapters are of, where `name` is the two merged.
        trained: folder with the curve and the cost of their training, if there was one.
    """

    name: str
    adapter: str | None = None
    under: str | None = None
    trained: Path | None = None


def load_weights(experiment: Experiment, runtime: RuntimeConfig, name: str, dtype: torch.dtype | None = None,
                 adapter: str | None = None) -> LanguageModel:
    """A model in the experiment's dtype unless another is asked for, in 4 bits where it says so, and its adapters apart."""
    model = experiment.model
    return load_model(name, dtype or getattr(torch, model.dtype), adapter, model.quantize, compute_device(runtime.accelerator))


def load_scored(experiment: Experiment, runtime: RuntimeConfig, weights: Weights) -> LanguageModel:
    """The model at which gradients and losses are taken; its adapters are merged unless they are what is tracked."""
    if weights.adapter and weights.under and "lora_" in experiment.attribution.layers:
        return load_weights(experiment, runtime, weights.under, adapter=weights.adapter)
    return load_weights(experiment, runtime, weights.name)


def scored_model(experiment: Experiment) -> Scored:
    """The model at which gradients are taken, without its weights, and the shapes (O, I) of its tracked layers.

    Raises:
        ModelError: there is no such model, or `attribution.layers` finds none of its layers.
    """
    model, pattern = empty_model(experiment.model), experiment.attribution.layers
    if "lora_" in pattern and experiment.model.lora_rank and experiment.warmup.epochs:  # the warm-up's adapters, kept apart
        model = add_lora(model, experiment.model)
    return model, {name: layer_shape(layer) for name, layer in tracked_layers(model, pattern).items()}


def encode(experiment: Experiment, name: str, pairs: Sequence[Pair]) -> list[Example]:
    """As the tokenizer of a model (a folder or hub name) encodes them."""
    return encode_pairs(pairs, load_tokenizer(name), experiment.data, experiment.model, decoder_start(name))


def memory_beside(lm: LanguageModel, runtime: RuntimeConfig) -> int:
    """Bytes that may be taken beside a loaded model: of what is free now, and of what is planned with (`runtime.memory_gb`)."""
    device = compute_device(runtime.accelerator)
    memory = device_memory(device).at_most(runtime.memory_gb)
    weights = sum(int(parameter.nbytes) for parameter in lm.model.parameters())
    comes = 0 if lm.model.device.type == device.type else weights  # one that is to move to a GPU is not there yet
    return min(memory.free - comes, int(USED_MEMORY * memory.total) - weights)
