"""A gradient pass, kept: the tokens of every batch at every layer, to be read again without running the model.

One pass of the model then serves the covariances and EK-FAC's eigenvalues, and the work goes layer by layer. Tokens beyond a
bound on memory lie in a temporary file without a name, so that no kill leaves it behind. Shapes as in `gradients.py`: a [M, I],
g [M, O] per layer and batch, in the model's dtype.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mtselect.attribution.gradients import Captured
from mtselect.attribution.kfac import Covariances, EigenvalueRefit, LayerCurvature
from mtselect.attribution.memory import layer_groups


@dataclass(frozen=True, kw_only=True)
class _Spilled:
    """Where in the file a tensor lies."""

    offset: int
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


_Kept = Tensor | _Spilled


class Record:
    """Keeps a gradient pass (a GradientConsumer); what it gives back does not depend on where it is kept.

    Args:
        memory_bytes: what of the tokens stays in memory.
        folder: where the file for the rest is made; null takes the system's temporary folder.
    """

    def __init__(self, memory_bytes: int = 2**62, folder: Path | None = None) -> None:
        self._left = memory_bytes
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it lives as long as the record
        self._batches: list[tuple[Captured, dict[str, tuple[_Kept, _Kept]]]] = []  # without their layers, and these
        self._groups: list[list[str]] = []

    def update(self, captured: Captured) -> None:
        """Keep a batch."""
        kept: dict[str, tuple[_Kept, _Kept]] = {}
        self._groups = captured.groups()
        for names in self._groups:
            a = self._keep(captured.layers[names[0]][0])
            kept |= {name: (a, self._keep(captured.layers[name][1])) for name in names}
        self._batches.append((replace(captured, layers={}), kept))

    def groups(self) -> list[list[str]]:
        """The layers, those that share an input together."""
        return self._groups

    def shape(self, name: str) -> tuple[int, int]:
        """(O, I) of a layer."""
        a, g = self._batches[0][1][name]
        return g.shape[1], a.shape[1]

    def batches(self, group: Sequence[str]) -> Iterator[Captured]:
        """The recorded batches with some layers of one group."""
        for batch, kept in self._batches:
            a = self._read(kept[group[0]][0])
            yield replace(batch, layers={name: (a, self._read(kept[name][1])) for name in group})

    def _keep(self, tensor: Tensor) -> _Kept:
        if tensor.nbytes <= self._left:
            self._left -= tensor.nbytes
            return tensor
        end = self._file.seek(0, os.SEEK_END)
        place = _Spilled(offset=end, shape=tensor.shape, dtype=tensor.dtype, device=tensor.device)
        self._file.write(_bytes(tensor.to("cpu").contiguous()))
        return place

    def _read(self, place: _Kept) -> Tensor:
        if isinstance(place, Tensor):
            return place
        tensor = torch.empty(place.shape, dtype=place.dtype)
        self._file.seek(place.offset)
        self._file.readinto(_bytes(tensor))
        return tensor.to(place.device)


def _bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU."""
    return memoryview(tensor.view(torch.uint8).numpy()).cast("B")  # type: ignore[arg-type]


def fit(record: Record, room: int = 2**62, statistics: torch.dtype = torch.float32) -> Iterator[tuple[str, LayerCurvature]]:
    """EK-FAC of the layers from a record, which stays as it is: as many at a time as fit into `room` bytes."""
    for group in record.groups():
        for names in layer_groups({name: record.shape(name) for name in group}, room):
            covariances = Covariances(statistics)
            for batch in record.batches(names):
                covariances.update(batch)
            refit = EigenvalueRefit(covariances.eigenbasis(), statistics)
            for batch in record.batches(names):
                refit.update(batch)
            yield from refit.curvature().items()
