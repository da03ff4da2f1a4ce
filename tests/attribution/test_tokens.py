"""Benefits of single target tokens: each the derivative it claims to be, and together exactly the pair's benefit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mtselect.attribution.gradients import Both, Captured, layer_shape
from mtselect.attribution.influence import SeedGradients
from mtselect.attribution.kfac import Covariances, Curvature
from mtselect.attribution.tokens import MeanSeed
from mtselect.errors import ModelError, NonFiniteError
from mtselect.training.gradient_module import token_benefits
from mtselect.training.language_model import tracked_layers

CAUSAL = ["llama", "gpt2", "qwen3", "gemma3_text", "mistral"]
ENCODER_DECODERS = ["marian", "t5"]
ROUNDING = 1e-5  # float64, but for T5's softmax and the result


def prepared(tiny: SimpleNamespace, architecture: str, pattern: str) -> tuple[Any, Any, Any]:
    """Model in float64, its layers, examples."""
    lm = tiny.model(architecture, dtype=torch.float64)
    return lm, tracked_layers(lm.model, pattern), tiny.examples(9, seed=3, start=None if architecture in CAUSAL else tiny.start)


def benefits(lm: Any, layers: Any, direction: dict[str, torch.Tensor], examples: Any) -> list[torch.Tensor]:
    return token_benefits(lm, layers, direction, examples, batch_size=4, accelerator="cpu", advance=lambda n: None)


def one_by_one(lm: Any, layers: Any, direction: dict[str, torch.Tensor], example: Any, tiny: SimpleNamespace) -> list[float]:
    """The oracle: for each target token an autograd gradient of its loss alone, times the direction."""
    weights = [layer.weight.requires_grad_() for layer in layers.values()]
    predicted = tiny.logits(lm, example).log_softmax(-1)
    found = []
    for i, token in enumerate(example.target):
        gradients = torch.autograd.grad(-predicted[i, token], weights, retain_graph=True)
        found.append(sum(float((direction[name] * (g.T if type(layer).__name__ == "Conv1D" else g)).sum())
                         for (name, layer), g in zip(layers.items(), gradients, strict=True)))
    lm.model.requires_grad_(False)
    return found


@pytest.mark.parametrize("architecture", CAUSAL + ENCODER_DECODERS)
def test_each_token_is_its_own_derivative(tiny: SimpleNamespace, pattern: str, architecture: str) -> None:
    lm, layers, examples = prepared(tiny, architecture, pattern)
    generator = torch.Generator().manual_seed(0)
    shapes = {name: layer_shape(layer) for name, layer in layers.items()}
    direction = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    found = benefits(lm, layers, direction, examples)
    for values, example in zip(found, examples, strict=True):
        expected = one_by_one(lm, layers, direction, example, tiny)
        assert values.tolist() == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING * max(map(abs, expected)))


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "marian"])
@pytest.mark.parametrize("curved", [True, False])
def test_they_add_up_to_the_pairs_benefit(tiny: SimpleNamespace, pattern: str, architecture: str, curved: bool) -> None:
    lm, layers, examples = prepared(tiny, architecture, pattern)
    curvature: Curvature = {}
    if curved:
        covariances = Covariances()
        tiny.run(lm, layers, examples, covariances)
        curvature = covariances.eigenbasis()
    mean, seeds = MeanSeed(), SeedGradients(9, curvature, 0.1)
    tiny.run(lm, layers, examples, Both(mean, seeds))
    direction = mean.preconditioned(curvature, 0.1)
    collector = tiny.run(lm, layers, examples, tiny.Collector())
    found = benefits(lm, layers, direction, examples)
    for row, values in enumerate(found):
        benefit = sum(float(collector.gradients[row][name].flatten() @ seeds.preconditioned[name].mean(0)) for name in layers)
        assert len(values) == len(examples[row].target)
        assert float(values.double().sum()) == pytest.approx(benefit, rel=1e-5, abs=1e-6 * float(values.abs().max()))


def test_a_model_without_forward_mode_is_named(tiny: SimpleNamespace, pattern: str) -> None:
    lm = tiny.model("bloom")
    layers = tracked_layers(lm.model, pattern)
    direction = {name: torch.ones(layer_shape(layer)) for name, layer in layers.items()}
    with pytest.raises(ModelError, match="forward mode, and this model has an operation without: score with"):
        benefits(lm, layers, direction, tiny.examples(2))


def test_seeds_that_are_not_finite_name_the_layer() -> None:
    mean = MeanSeed()
    for rows, bad in ((0, 1.0), (1, float("nan"))):
        a, g = torch.ones(2, 3), torch.full((2, 4), bad)
        mean.update(Captured(rows=torch.tensor([rows]), lengths=[2], layers={"fine": (a, torch.ones(2, 4)), "broken": (a, g)}))
    with pytest.raises(NonFiniteError, match="the seeds' gradient at layer 'broken' is NaN or infinite: lower warmup"):
        mean.preconditioned({}, 0.1)


def test_the_batch_changes_nothing_and_no_hook_is_left(tiny: SimpleNamespace, pattern: str) -> None:
    lm, layers, examples = prepared(tiny, "llama", pattern)
    direction = {name: torch.ones(layer_shape(layer), dtype=torch.float64) for name, layer in layers.items()}
    together = benefits(lm, layers, direction, examples)
    for row, values in enumerate(together):
        (alone,) = benefits(lm, layers, direction, [examples[row]])
        assert alone.tolist() == pytest.approx(values.tolist(), rel=1e-5)
    assert not any(layer._forward_hooks for layer in layers.values())
