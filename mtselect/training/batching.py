"""Right-padded batches; each position knows the target token it has to predict.

    [prompt] [target EOS] [padding]      targets: the next token where it belongs to the target, else -100

Of an encoder-decoder:

    [source] [padding]    [start target] [padding]    targets: those of all but the padding

Examples of like length share a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from mtselect.data.examples import Example, lengths_of

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B examples in T columns, and for an encoder-decoder in U columns of its decoder.

    Args:
        rows: [B] index of each example in its data set.
        input_ids: [B, T]; of an encoder-decoder, what the encoder reads.
        mask: [B, T], True at tokens.
        targets: [B, T] the token after each position where that is a target token or EOS, else -100; or [B, U] so.
        decoder_ids: [B, U] what the decoder of an encoder-decoder reads.
    """

    rows: Tensor
    input_ids: Tensor
    mask: Tensor
    targets: Tensor
    decoder_ids: Tensor | None = None

    def inputs(self) -> dict[str, Tensor]:
        """What a model of transformers is called with."""
        decoder = {} if self.decoder_ids is None else {"decoder_input_ids": self.decoder_ids}
        return {"input_ids": self.input_ids, "attention_mask": self.mask.long(), **decoder}

    def to(self, device: Any, non_blocking: bool = False) -> Batch:
        """The batch on a device; Lightning calls it."""
        moved = {name: tensor.to(device, non_blocking=non_blocking)
                 for name, tensor in vars(self).items() if tensor is not None}
        return replace(self, **moved)

    def parts(self, size: int) -> Iterator[Batch]:
        """At most so many examples at a time, in no more columns than they need."""
        if size >= len(self.rows):
            yield self
            return
        for first in range(0, len(self.rows), size):
            yield self._taken(slice(first, first + size))

    def share(self, rank: int, count: int) -> Batch:
        """Of `count` shares that have as many examples each, one: every `count`-th example from `rank` on, and where there is
        none another one without targets."""
        if count == 1:
            return self
        rows = torch.arange(rank, rank + len(self.rows), count, device=self.rows.device)
        mine = self._taken(rows.clamp(max=len(self.rows) - 1))
        return replace(mine, targets=mine.targets.masked_fill((rows >= len(self.rows))[:, None], -100))

    def _taken(self, rows: slice | Tensor) -> Batch:
        some = {name: tensor[rows] for name, tensor in vars(self).items() if tensor is not None}
        width = int(some["mask"].sum(1).max())
        behind = {"input_ids": width, "mask": width, "targets": width}
        if self.decoder_ids is not None:
            behind |= dict.fromkeys(("targets", "decoder_ids"), max(1, int((some["targets"] != -100).sum(1).max())))
        return replace(self, **{name: tensor[:, : behind[name]] if name in behind else tensor for name, tensor in some.items()})


def collate(rows: Sequence[int] | Rows, examples: Sequence[Example], pad_id: int) -> Batch:
    """The batch of `examples[row]` for the rows."""
    some = [examples[row] for row in rows]
    start, decoder_ids = some[0].start, None
    if start is None:
        read = [example.prompt + example.target for example in some]
        targets = [[-100] * (len(example.prompt) - 1) + example.target + [-100] for example in some]
    else:
        read, targets = [example.prompt for example in some], [example.target for example in some]
        decoder_ids = _padded([[start, *example.target[:-1]] for example in some], pad_id)
    input_ids, lengths = _padded(read, pad_id), torch.tensor([len(ids) for ids in read])
    return Batch(rows=torch.as_tensor(rows), input_ids=input_ids, mask=torch.arange(input_ids.shape[1]) < lengths[:, None],
                 targets=_padded(targets, -100), decoder_ids=decoder_ids)


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    padded = np.full((len(rows), max(map(len, rows))), value, np.int64)  # numpy: a torch tensor a row takes twice as long
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return torch.from_numpy(padded)


def sorted_batches(lengths: NDArray[np.int32], batch_size: int, first: int = 0) -> list[Rows]:
    """Rows from the first on in batches of like length, longest first (so that a lack of memory shows at once)."""
    order = first + np.argsort(-lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def shuffled_batches(lengths: NDArray[np.int32], batch_size: int, rng: np.random.Generator) -> list[Rows]:
    """One epoch: rows in random order, sorted by length within stretches of 20 batches, batches shuffled."""
    order = rng.permutation(len(lengths))
    stretch = 20 * batch_size
    batches = []
    for i in range(0, len(order), stretch):
        part = order[i : i + stretch]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[j : j + batch_size] for j in range(0, len(part), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


class _Epochs(IterableDataset[Batch]):
    """Yields batches: the same every epoch, or new ones of all examples from a generator."""

    def __init__(self, examples: Sequence[Example], batch_size: int, pad_id: int, rng: np.random.Generator | None, rows: range
                 ) -> None:
        self._examples, self._batch_size, self._pad_id, self._rng, self._rows = examples, batch_size, pad_id, rng, rows
        self._lengths = lengths_of(examples, rows)

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        batches = (sorted_batches(self._lengths, self._batch_size, self._rows.start) if self._rng is None
                   else shuffled_batches(self._lengths, self._batch_size, self._rng))
        return (collate(rows, self._examples, self._pad_id) for rows in batches)


def loader(examples: Sequence[Example], batch_size: int, pad_id: int,
           rng: np.random.Generator | None = None, rows: range | None = None) -> DataLoader[Batch]:
    """Batches sorted by length, over all examples or some rows of them; or of all, shuffled anew each epoch, if a generator is
    given."""
    rows = range(len(examples)) if rows is None else rows
    return DataLoader(_Epochs(examples, batch_size, pad_id, rng, rows), batch_size=None)
