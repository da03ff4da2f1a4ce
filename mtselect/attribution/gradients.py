"""Capture (a, g) of tracked linear layers, and what follows from them per example.

For a linear layer W [O, I] and one example with T tokens, `a_t [I]` is the layer's input and `g_t [O]` the
gradient of the example's loss at its output. The loss is summed over target tokens, so the gradient of the
sum over a batch holds each example's own gradient, whatever the batch:

    G(z) = sum_t g_t a_t^T      [O, I]

Shapes: B examples, T tokens, I inputs, O outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

import torch
from torch import Tensor, nn

from mtselect.errors import ModelError

Captured = dict[str, tuple[Tensor, Tensor]]
"""Layer name -> (a [B, T, I], g [B, T, O]), both zero at padding."""


class GradientConsumer(Protocol):
    """What a gradient pass feeds, one batch at a time."""

    def update(self, rows: Tensor, captured: Captured, mask: Tensor) -> None:
        """Take in a batch: rows [B] of the data set, its captured layers, mask [B, T] (True: a token)."""


class Capture:
    """Context manager: hooks on the layers for one forward and backward pass.

    Args:
        layers: name -> module whose input is [B, T, I] and whose output is [B, T, O]. One that runs twice, or takes
            another shape (mixtures of experts flatten tokens), raises ModelError in the forward pass.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self._layers = layers
        self._inputs: dict[str, Tensor] = {}
        self._output_gradients: dict[str, Tensor] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Capture:
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(self._forward_hook(name)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()

    def take(self, mask: Tensor) -> Captured:
        """The captured layers after `backward`, zeroed where mask [B, T] is False.

        Raises:
            ModelError: a layer got no gradient, so the loss does not depend on it.
        """
        missing = [name for name in self._layers if name not in self._output_gradients]
        if missing:
            raise ModelError(f"layers {missing[:3]} saw no gradient: attribution.layers finds layers the loss does not "
                             "pass through: write a pattern without them")
        padding = ~mask.unsqueeze(-1)
        return {name: (self._inputs[name].masked_fill(padding, 0), self._output_gradients[name].masked_fill(padding, 0))
                for name in self._layers}

    def _forward_hook(self, name: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if name in self._inputs:
                raise ModelError(f"layer {name!r} ran twice in one pass, so its gradient would be wrong: write an "
                                 "attribution.layers pattern without it")
            if inputs[0].ndim != 3:
                raise ModelError(f"layer {name!r} takes {list(inputs[0].shape)}, not [batch, tokens, inputs], so examples "
                                 "cannot be told apart: write an attribution.layers pattern without it")
            self._inputs[name] = inputs[0].detach()
            output.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: self._output_gradients.__setitem__(name, gradient.detach()))

        return hook


def layer_shape(layer: nn.Module) -> tuple[int, int]:
    """(O, I) of a linear layer; GPT-2's Conv1D keeps its weight transposed."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    first, second = weight.shape
    return (second, first) if type(layer).__name__ == "Conv1D" else (first, second)


def example_gradients(a: Tensor, g: Tensor) -> Tensor:
    """G [B, O, I] from a [B, T, I] and g [B, T, O], in float32 or wider."""
    return torch.bmm(wide(g).mT, wide(a))


def wide(x: Tensor) -> Tensor:
    """x in float32, or in float64 if it came so."""
    return x if x.dtype == torch.float64 else x.float()
