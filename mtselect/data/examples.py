"""Token ids of prompts and targets, in memory or on disk: there flat and memory-mapped, so that no pool is held in memory.

    ids.bin      int32, prompt and target of every example, one after the other
    ends.npy     [N, 2] int64: where in it the prompt ends, and the target
    start.json   token that the decoder of an encoder-decoder begins with; null for a causal LM
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtselect.data.tables import Rows

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


class ExampleTable(Rows[Example]):
    """Examples on disk, as `write_examples` wrote them.

    Args:
        folder: where they are.
        rows: some of them [n], in this order; all if null.
    """

    def __init__(self, folder: Path, rows: NDArray[np.integer] | None = None) -> None:
        # As plain arrays, whose pages are the map's all the same: slices of a memmap take three times as long.
        self._folder = folder
        self._ends: NDArray[np.int64] = np.asarray(np.load(folder / "ends.npy", mmap_mode="r"))
        mapped = np.memmap(folder / "ids.bin", np.int32, "r") if len(self._ends) else np.empty(0, np.int32)
        self._ids: NDArray[np.int32] = np.asarray(mapped)
        self._start: int | None = json.loads((folder / "start.json").read_text(encoding="utf-8"))
        self._rows = range(len(self._ends)) if rows is None else rows

    def __reduce__(self) -> tuple[type[ExampleTable], tuple[Path, NDArray[np.integer] | None]]:
        """Another process is sent where they are, not what they are."""
        return ExampleTable, (self._folder.absolute(), None if self.is_whole else self.places)

    def _at(self, place: int) -> Example:
        begin = int(self._ends[place - 1, 1]) if place else 0
        middle, end = self._ends[place].tolist()
        ids = self._ids[begin:end].tolist()
        return Example(ids[: middle - begin], ids[middle - begin :], self._start)

    @property
    def target_lengths(self) -> NDArray[np.int32]:
        """Tokens of each target [N]."""
        return np.diff(self._here(self._ends))[:, 0].astype(np.int32)

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each example [N]."""
        if self.is_whole:
            return np.diff(self._ends[:, 1], prepend=0).astype(np.int32)
        found: NDArray[np.int64] = self._ends[self.places, 1] - np.where(self.places == 0, 0, self._ends[self.places - 1, 1])
        return found.astype(np.int32)


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


def lengths_of(examples: Sequence[Example], rows: range) -> NDArray[np.int32]:
    """Tokens of some examples [n]; of those on disk, no row is read for it."""
    if isinstance(examples, ExampleTable):
        return examples.take(np.asarray(rows)).lengths
    return np.array([len(examples[row]) for row in rows], np.int32)
