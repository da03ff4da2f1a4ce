"""Tiny models of several architectures and random examples, shared by the tests of attribution and training."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mtselect.attribution.gradients import Captured, GradientConsumer, example_gradients
from mtselect.config import AttributionConfig
from mtselect.data.prompts import Example
from mtselect.training.batching import collate
from mtselect.training.gradient_module import run_gradient_pass
from mtselect.training.language_model import LanguageModel, target_logits, target_losses

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)

VOCAB, PAD, BOS, EOS = 40, 0, 1, 2
LLAMA_LIKE = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {**LLAMA_LIKE, "num_hidden_layers": 2},
    "qwen2": {**LLAMA_LIKE, "num_hidden_layers": 2},
    # Sliding windows in one layer, soft-capped attention scores and logits.
    "gemma2": {**LLAMA_LIKE, "num_hidden_layers": 2, "head_dim": 8, "attn_logit_softcapping": 5.0,
               "final_logit_softcapping": 3.0, "sliding_window": 4},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
}


def build_model(architecture: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """A model with random weights, large enough (factor 4) that its predictions are far from uniform."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(architecture, vocab_size=VOCAB, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
                                  **SHAPES[architecture])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(4 if parameter.ndim > 1 else 1)
                if parameter.ndim == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    tokenizer = SimpleNamespace(pad_token_id=PAD, eos_token_id=EOS)
    return LanguageModel(model=network.to(dtype).eval(), tokenizer=tokenizer)


def random_examples(count: int, seed: int = 0, longest: int = 7) -> list[Example]:
    """Prompts and targets of 1 to `longest` random tokens; targets end in EOS."""
    rng = np.random.default_rng(seed)

    def ids() -> list[int]:
        return rng.integers(3, VOCAB, rng.integers(1, longest + 1)).tolist()

    return [Example([BOS, *ids()], [*ids(), EOS]) for _ in range(count)]


def trained_model() -> LanguageModel:
    """The small Llama after 40 steps of Adam on 60 random examples: some it knows, some it does not."""
    lm = build_model("llama")
    batch = collate(range(60), random_examples(60, seed=9), PAD)
    optimizer = torch.optim.Adam(lm.model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        target_losses(target_logits(lm.model, batch), batch.targets).mean().backward()
        optimizer.step()
    lm.model.requires_grad_(False).zero_grad()
    return lm


class Collector:
    """A GradientConsumer that keeps what it is given, row by row."""

    def __init__(self) -> None:
        self.gradients: dict[int, dict[str, Tensor]] = {}
        self.at_padding = 0.0
        self.padded = 0

    def update(self, rows: Tensor, captured: Captured, mask: Tensor) -> None:
        self.padded += int((~mask).sum())
        for name, (a, g) in captured.items():
            self.at_padding = max(self.at_padding, *(float(x[~mask].abs().sum()) for x in (a, g)))
            for row, gradient in zip(rows.tolist(), example_gradients(a, g), strict=True):
                self.gradients.setdefault(row, {})[name] = gradient


def run_pass(lm: LanguageModel, layers: Mapping[str, nn.Module], examples: list[Example], consumer: GradientConsumer,
             batch_size: int = 4, uniforms: Any = None) -> Any:
    """The project's gradient pass on the CPU; gives the consumer back."""
    run_gradient_pass(lm, layers, examples, consumer, batch_size=batch_size, accelerator="cpu", advance=lambda n: None,
                      uniforms=uniforms)
    return consumer


def loop_gradients(lm: LanguageModel, layers: Mapping[str, nn.Module], example: Example,
                   target: list[int] | None = None) -> dict[str, Tensor]:
    """The oracle: autograd on unfrozen weights, one example, no padding, loss summed over target tokens and EOS."""
    weights = [layer.weight.requires_grad_() for layer in layers.values()]
    logits = lm.model(input_ids=torch.tensor([example.prompt + example.target])).logits[0]
    predicted = logits[len(example.prompt) - 1 : -1].log_softmax(-1)
    loss = -sum(predicted[i, token] for i, token in enumerate(target or example.target))
    gradients = torch.autograd.grad(loss, weights)
    lm.model.requires_grad_(False)
    return {name: gradient.T if type(layer).__name__ == "Conv1D" else gradient
            for (name, layer), gradient in zip(layers.items(), gradients, strict=True)}


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """`model`, `examples`, `Collector`, `run` (the gradient pass), `loop` (the autograd oracle), `trained` (a Llama)."""
    return SimpleNamespace(model=build_model, examples=random_examples, Collector=Collector, run=run_pass,
                           loop=loop_gradients, trained=trained_model(), pad=PAD, architectures=list(SHAPES))


@pytest.fixture(scope="session")
def pattern() -> str:
    """The default of `attribution.layers`."""
    return AttributionConfig().layers


@pytest.fixture
def relative() -> Callable[[Any, Any], float]:
    """Largest absolute difference over the largest absolute expected value."""
    return relative_error


def relative_error(actual: Any, expected: Any) -> float:
    """Largest absolute difference, over the largest absolute expected value."""
    actual, expected = (torch.as_tensor(x).double() for x in (actual, expected))
    return float((actual - expected).abs().max() / expected.abs().max())
