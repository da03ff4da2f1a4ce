"""Token ids of prompts and targets, in memory or on disk: there flat and memory-mapped, so that no pool is held in memory.

    ids.bin      int32, prompt and target of every example, one after the other
    ends.npy     [N, 2] int64: where in it the prompt ends, and the target
    start.json   token that the decoder of an encoder-decoder begins with; null for a causal LM
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1 << 20  # token ids that are written together


@dataclass(frozen=True)
class Example:
    """Token ids of a prompt and of its target, EOS included.

    Args:
        prompt: what the target follows; of an encoder-decoder, what the encoder reads.
        target: what the loss is taken on.
        start: token that the decoder of an encoder-decoder begins with; None for a causal LM.
    """

    prompt: list[int]
    target: list[int]
    start: int | None = None

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)


class ExampleTable(Sequence[Example]):
    """Examples on disk, as `write_examples` wrote them, or some of them. Opening it again in another process costs nothing.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        # As plain arrays, whose pages are the map's all the same: slices of a memmap take three times as long.
        self._folder = folder
        self._ends: NDArray[np.int64] = np.asarray(np.load(folder / "ends.npy", mmap_mode="r"))
        mapped = np.memmap(folder / "ids.bin", np.int32, "r") if len(self._ends) else np.empty(0, np.int32)
        self._ids: NDArray[np.int32] = np.asarray(mapped)
        self._start: int | None = json.loads((folder / "start.json").read_text(encoding="utf-8"))
        self._rows: NDArray[np.int64] | None = None

    def take(self, rows: NDArray[np.int64]) -> Self:
        """These rows [n] in this order; nothing is read."""
        view = type(self).__new__(type(self))
        view._folder, view._ids, view._ends, view._start = self._folder, self._ids, self._ends, self._start
        view._rows = rows if self._rows is None else self._rows[rows]
        return view

    def __reduce__(self) -> tuple[Callable[..., ExampleTable], tuple[Path, NDArray[np.int64] | None]]:
        """Another process is sent where they are, not what they are."""
        return _reopen, (self._folder.absolute(), self._rows)

    def __len__(self) -> int:
        return len(self._ends) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, row: int) -> Example: ...

    @overload
    def __getitem__(self, row: slice) -> list[Example]: ...

    def __getitem__(self, row: int | slice) -> Example | list[Example]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        place = row % len(self) if self._rows is None else int(self._rows[row])
        begin = int(self._ends[place - 1, 1]) if place else 0
        middle, end = self._ends[place].tolist()
        ids = self._ids[begin:end].tolist()
        return Example(ids[: middle - begin], ids[middle - begin :], self._start)

    @cached_property
    def target_lengths(self) -> NDArray[np.int32]:
        """Tokens of each target [N]."""
        return self._here(self._ends[:, 1] - self._ends[:, 0])

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each example [N]."""
        return self._here(np.diff(self._ends[:, 1], prepend=0))

    def _here(self, values: NDArray[np.int64]) -> NDArray[np.int32]:
        return (values if self._rows is None else values[self._rows]).astype(np.int32)


def _reopen(folder: Path, rows: NDArray[np.int64] | None) -> ExampleTable:
    table = ExampleTable(folder)
    return table if rows is None else table.take(rows)


def write_examples(examples: Iterable[Example], folder: Path) -> None:
    """Write what an `ExampleTable` reads; all have the same `start`."""
    ids, ends, total, start = array("i"), array("q"), 0, None
    with (folder / "ids.bin").open("wb") as file:
        for example in examples:
            ids.extend(example.prompt)
            ids.extend(example.target)
            ends.extend((total + len(example.prompt), total + len(example)))
            total, start = total + len(example), example.start
            if len(ids) > _AT_ONCE:
                ids.tofile(file)
                del ids[:]
        ids.tofile(file)
    np.save(folder / "ends.npy", np.frombuffer(ends, np.int64).reshape(-1, 2))
    (folder / "start.json").write_text(json.dumps(start), encoding="utf-8")


def lengths_of(examples: Sequence[Example]) -> NDArray[np.int32]:
    """Tokens of each example [N]; of those on disk, no row is read for it."""
    return examples.lengths if isinstance(examples, ExampleTable) else np.array([len(one) for one in examples], np.int32)
