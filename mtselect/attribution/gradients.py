"""Capture (a, g) of tracked linear layers, and what follows from them per example.

For a linear layer W [O, I] and one example with T tokens, `a_t [I]` is the layer's input and `g_t [O]` the
gradient of the example's loss at its output. The loss is summed over target tokens, so the gradient of the
sum over a batch holds each example's own gradient, whatever the batch:

    G(z) = sum_t g_t a_t^T      [O, I]

Shapes: B examples with M tokens in all, I inputs, O outputs of a layer. Padding is dropped at once: a is [M, I] and g is
[M, O], one example's tokens after the other's. In an encoder-decoder the encoder's layers, and the keys and values of
cross-attention, see the source's tokens and the others the target's, so M and T differ by layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mtselect.errors import ModelError

# Bytes of per-example gradients that exist at a time: enough examples for a fast product with the seeds.
_BUFFER_BYTES = {"cpu": 48 * 2**20, "cuda": 2**30}
# The same of seeds, each of which is copied some times over while it is preconditioned.
SEED_BUFFER_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class Captured:
    """What one batch left at the tracked layers.

    Args:
        rows: [B] of the data set.
        lengths: tokens of each example; their sum is M.
        layers: name -> (a [M, I], g [M, O]). Layers that read the same input (gate and up; query, key and value) hold the
            same tensor a, so that work on it can be shared.
        source_lengths: the same as `lengths` for the layers that see the source's tokens; only in encoder-decoders.
    """

    rows: Tensor
    lengths: list[int]
    layers: dict[str, tuple[Tensor, Tensor]]
    source_lengths: Mapping[str, list[int]] = field(default_factory=dict)

    def lengths_of(self, name: str) -> list[int]:
        """Tokens of each example at a layer."""
        return self.source_lengths.get(name, self.lengths)

    def groups(self) -> list[list[str]]:
        """The layers, those that hold the same a together."""
        found: dict[int, list[str]] = {}
        for name, (a, _) in self.layers.items():
            found.setdefault(id(a), []).append(name)
        return list(found.values())


@runtime_checkable
class GradientConsumer(Protocol):
    """What a gradient pass feeds, one batch at a time."""

    def update(self, captured: Captured) -> None:
        """Take in a batch."""


class Both:
    """Feeds several consumers in one pass."""

    def __init__(self, *consumers: GradientConsumer) -> None:
        self._consumers = consumers

    def update(self, captured: Captured) -> None:
        """Feed each."""
        for consumer in self._consumers:
            consumer.update(captured)


class Capture:
    """Context manager: hooks on the layers for one forward and backward pass of a frozen model.

    The graph begins at the first tracked layer's output, so nothing below it is differentiated.

    Args:
        layers: name -> module whose input is [B, T, I] and whose output is [B, T, O]. One that runs twice, or takes
            another shape (mixtures of experts flatten tokens), raises ModelError in the forward pass.
        encoder: of an encoder-decoder. What runs within it, and what reads its output, sees the source's tokens.
    """

    def __init__(self, layers: Mapping[str, nn.Module], encoder: nn.Module | None = None) -> None:
        self._layers, self._encoder = layers, encoder
        self._encoding = False
        self._encoded: Tensor | None = None
        self._at_source: set[str] = set()
        self._inputs: dict[str, Tensor] = {}
        self._output_gradients: dict[str, Tensor] = {}
        self._hooks = ExitStack()

    def __enter__(self) -> Capture:
        for name, layer in self._layers.items():
            self._hooks.enter_context(layer.register_forward_hook(self._forward_hook(name)))
        if self._encoder is not None:
            self._hooks.enter_context(self._encoder.register_forward_pre_hook(self._encoder_begins))
            self._hooks.enter_context(self._encoder.register_forward_hook(self._encoder_ends))
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()
        self._inputs.clear()  # these hold the graph, whose hooks hold this object: only a collection would free it
        self._encoded = None

    def take(self, rows: Tensor, mask: Tensor, source_mask: Tensor | None = None) -> Captured:
        """The captured layers after `backward`: rows [B] of the data set, mask [B, T] (True: a token).

        Args:
            rows: of the data set.
            mask: of the tokens; in an encoder-decoder of the target's.
            source_mask: [B, T'] of the encoder's tokens.

        Raises:
            ModelError: a layer got no gradient, so the loss does not depend on it; or it saw other positions than the mask.
        """
        missing = [name for name in self._layers if name not in self._output_gradients]
        if missing:
            raise ModelError(f"layers {missing[:3]} saw no gradient: attribution.layers finds layers the loss does not "
                             "pass through: write a pattern without them")
        masks = {False: mask, True: mask if source_mask is None else source_mask}
        tokens = {at_source: one.flatten().nonzero()[:, 0] for at_source, one in masks.items()}
        packed: dict[int, Tensor] = {}
        layers = {}
        for name in self._layers:
            a, at_source = self._inputs[name], name in self._at_source
            if a.shape[:2] != masks[at_source].shape:
                raise ModelError(f"layer {name!r} sees {list(a.shape[:2])} positions, not {list(masks[at_source].shape)}, so "
                                 "padding cannot be told apart: write an attribution.layers pattern without it")
            if id(a) not in packed:
                packed[id(a)] = a.detach().flatten(0, 1)[tokens[at_source]]
            layers[name] = (packed[id(a)], self._output_gradients.pop(name).flatten(0, 1)[tokens[at_source]])
        source_lengths = dict.fromkeys(self._at_source, masks[True].sum(1).tolist())
        return Captured(rows=rows, lengths=mask.sum(1).tolist(), layers=layers, source_lengths=source_lengths)

    def _encoder_begins(self, *_: Any) -> None:
        self._encoding = True

    def _encoder_ends(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        self._encoding = False
        self._encoded = output[0]  # the last hidden state: cross-attention's keys and values read this very tensor

    def _forward_hook(self, name: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if name in self._inputs:
                raise ModelError(f"layer {name!r} ran twice in one pass, so its gradient would be wrong: write an "
                                 "attribution.layers pattern without it")
            if inputs[0].ndim != 3:
                raise ModelError(f"layer {name!r} takes {list(inputs[0].shape)}, not [batch, tokens, inputs], so examples "
                                 "cannot be told apart: write an attribution.layers pattern without it")
            if self._encoding or inputs[0] is self._encoded:
                self._at_source.add(name)
            self._inputs[name] = inputs[0]  # the tensor itself, alive until `take`: its id tells who shares it
            if not output.requires_grad:
                output.requires_grad_()
            output.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: self._output_gradients.__setitem__(name, gradient.detach()))

        return hook


def layer_shape(layer: nn.Module) -> tuple[int, int]:
    """(O, I) of a linear layer; a quantised weight has another shape, and GPT-2's Conv1D keeps it transposed."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    weight = layer.weight
    assert isinstance(weight, Tensor)
    first, second = weight.shape
    return second, first


def example_gradients(a: Float[Tensor, "tokens inputs"], g: Float[Tensor, "tokens outputs"], lengths: Sequence[int],
                      out: Float[Tensor, "examples outputs inputs"] | None = None, statistics: torch.dtype = torch.float32
                      ) -> Float[Tensor, "examples outputs inputs"]:
    """G [B, O, I] from a [M, I] and g [M, O], multiplied in what `statistics` says and summed in float32."""
    a, g = cast(a, statistics), cast(g, statistics)
    out = a.new_empty(len(lengths), g.shape[1], a.shape[1]) if out is None else out
    if is_padded(a.device):
        return torch.bmm(_padded(g, lengths).mT, _padded(a, lengths), out=out)
    for gradient, a_z, g_z in zip(out, _split(a, lengths), _split(g, lengths), strict=True):
        torch.mm(g_z.mT, a_z, out=gradient)
    return out


class GradientBuffer:
    """Forms G for a few examples at a time, in memory that is used again: fresh pages cost more than the products.

    Args:
        size: bytes of it; null is what suits the device. One example fits always.
        statistics: what G is multiplied and kept in.
    """

    def __init__(self, size: int | None = None, statistics: torch.dtype = torch.float32) -> None:
        self._size, self._statistics, self._memory = size, statistics, torch.empty(0)

    def chunks(self, a: Float[Tensor, "tokens inputs"], g: Float[Tensor, "tokens outputs"], lengths: Sequence[int]
               ) -> Iterator[Float[Tensor, "_ outputs inputs"]]:
        """The examples' G [C, O, I] in order, each overwritten by the next."""
        n_out, n_in = g.shape[1], a.shape[1]
        size = (self._size or _BUFFER_BYTES.get(a.device.type, _BUFFER_BYTES["cuda"])) // (4 * n_out * n_in)
        step = min(len(lengths), max(1, size))
        if self._memory.numel() < step * n_out * n_in or self._memory.device != a.device:
            self._memory = cast(a, self._statistics).new_empty(step * n_out * n_in)
        begin = 0
        for first in range(0, len(lengths), step):
            some = lengths[first : first + step]
            end = begin + sum(some)
            out = self._memory[: len(some) * n_out * n_in].view(len(some), n_out, n_in)
            yield example_gradients(a[begin:end], g[begin:end], some, out, self._statistics)
            begin = end


def add_squares(total: Float[Tensor, "outputs inputs"], a: Float[Tensor, "tokens inputs"], g: Float[Tensor, "tokens outputs"],
                lengths: Sequence[int], statistics: torch.dtype = torch.float32) -> None:
    """total [O, I] += sum over examples of G^2. On a CPU one example at a time, while it is in cache."""
    if is_padded(a.device):
        for gradients in GradientBuffer(statistics=statistics).chunks(a, g, lengths):
            total += gradients.square_().sum(0, dtype=total.dtype)
        return
    a, g = cast(a, statistics), cast(g, statistics)
    gradient = a.new_empty(total.shape)
    for a_z, g_z in zip(_split(a, lengths), _split(g, lengths), strict=True):
        torch.mm(g_z.mT, a_z, out=gradient)
        total.addcmul_(gradient, gradient)


def gradient_norms(a: Float[Tensor, "tokens inputs"], g: Float[Tensor, "tokens outputs"], lengths: Sequence[int]
                   ) -> Float[Tensor, " examples"]:
    """Frobenius norms [B] of G from a [M, I] and g [M, O]: |G|^2 = sum_st <a_s, a_t> <g_s, g_t>, T^2 (I + O) products."""
    if is_padded(a.device):
        inputs, outputs = (_padded(wide(x), lengths) for x in (a, g))
        return ((inputs @ inputs.mT) * (outputs @ outputs.mT)).sum((1, 2)).clamp_min(0).sqrt()
    squares = [((a_z @ a_z.mT) * (g_z @ g_z.mT)).sum() for a_z, g_z in zip(_split(wide(a), lengths), _split(wide(g), lengths),
                                                                           strict=True)]
    return torch.stack(squares).clamp_min(0).sqrt()


def example_sums(values: Float[Tensor, "tokens columns"], lengths: Sequence[int]) -> Float[Tensor, "examples columns"]:
    """Sums over each example's tokens."""
    if is_padded(values.device):
        counts, _ = _grid(tuple(lengths), values.device)
        return torch.segment_reduce(values, "sum", lengths=counts, unsafe=True)  # in order: the same whatever the batch
    return torch.stack([part.sum(0) for part in _split(values, lengths)])


def is_padded(device: torch.device) -> bool:
    """Whether examples are padded to one length, so that a layer costs as many kernels whatever the batch; a CPU rather takes
    one after the other, while it is in cache."""
    return device.type != "cpu"


def product(x: Float[Tensor, "rows inner"], y: Float[Tensor, "inner columns"]) -> Float[Tensor, "rows columns"]:
    """x @ y in float32 or wider, of x and y that may be in bfloat16: multiplied as they come and summed in float32. A CPU's
    kernels sum so too, but round what they give to bfloat16."""
    if x.dtype == torch.bfloat16 and x.device.type == "cuda":
        return torch.mm(x, y, out_dtype=torch.float32)
    return wide(x @ y)


def wide(x: Tensor) -> Tensor:
    """x in float32, or in float64 if it came so."""
    return cast(x, torch.float32)


def cast(x: Tensor, statistics: torch.dtype) -> Tensor:
    """x in what statistics are multiplied in (`attribution.statistics`); float64 stays."""
    return x if x.dtype == torch.float64 else x.to(statistics)


@lru_cache(maxsize=8)  # the layers of a batch ask for the same
def _grid(lengths: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """The lengths [B], and where each token is among B * T places [M], T of the longest example; on the device."""
    counts = np.array(lengths)
    places = np.flatnonzero(np.arange(counts.max()) < counts[:, None])
    return torch.from_numpy(counts).to(device), torch.from_numpy(places).to(device)


def _padded(x: Tensor, lengths: Sequence[int]) -> Tensor:
    """[B, T, D] from [M, D], zeros behind each example."""
    longest, (_, places) = max(lengths), _grid(tuple(lengths), x.device)
    return x.new_zeros(len(lengths) * longest, x.shape[1]).index_copy_(0, places, x).view(len(lengths), longest, -1)


def _split(x: Tensor, lengths: Sequence[int]) -> tuple[Tensor, ...]:
    return torch.split_with_sizes(x, list(lengths))
