"""What a pass over the candidates leaves of each, on disk, in shards.

    <folder>/layout.json                      N, R, rows of a shard, what was sketched; written first
    <folder>/000000000000-000000016384/       a finished shard, named by its rows [begin, end)
        sketches.npy  [n, R] float16 of unit length      norms.npy  [n] float32, the lengths divided out; neither if R is 0
        <column>.npy  [n, width] float32 for each further column: exact benefits [n, Q], gradient norms [n, layers]
        <value>.npy  [n] float64 for each value: mean and share of the benefits, gradient norm; what is read for every trial
        seconds.txt  how long it took
    <folder>/000000000000-000000016384.part-* work in progress of one process; of a killed one, swept when the index is whole
    <folder>/manifest.json                    the layout again, the shards' names and their seconds; written last

A shard is written aside and renamed, so one that exists is whole; an index is whole once it has a manifest. What a shard holds
does not depend on who wrote it: of two writers of one the later drops its own. Memory: one shard while writing and while
reading, whatever N.

Shapes: N candidates, n rows of a shard, Q seeds, R numbers of a sketch.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mtselect.errors import NonFiniteError, StorageError
from mtselect.store import aside, write_text_whole

_SECONDS = "seconds.txt"
_UNFILLED = -1e30  # no norm, loss or benefit is


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What decides an index.

    Args:
        n_rows: N.
        width: R; 0 where nothing is sketched.
        shard_rows: rows of every shard but the last; what a killed process loses, and what is in memory at a time.
        content: names what was sketched (the key of model, rows and projections), so that no other work goes on with it.
        columns: name -> width of further float32 arrays.
        values: names of further float64 arrays, one number a candidate.
    """

    n_rows: int
    width: int
    shard_rows: int
    content: str
    columns: dict[str, int] = field(default_factory=dict)
    values: list[str] = field(default_factory=list)

    def shards(self) -> list[range]:
        """The rows of each shard, in order."""
        return [range(begin, min(begin + self.shard_rows, self.n_rows)) for begin in range(0, self.n_rows, self.shard_rows)]

    def arrays(self, n: int) -> dict[str, tuple[tuple[int, ...], DTypeLike]]:
        """Shape and dtype of each array in a shard of n rows."""
        sketched = {"sketches": ((n, self.width), np.float16), "norms": ((n,), np.float32)} if self.width else {}
        return {**sketched, **{name: ((n, width), np.float32) for name, width in self.columns.items()},
                **dict.fromkeys(self.values, ((n,), np.float64))}


@dataclass(frozen=True, kw_only=True, eq=False)
class Shard:
    """One shard to be filled in, all of it: `Sketcher(projections, sketches=shard.sketches, sketch_norms=shard.norms)`.

    Args:
        rows: of the candidates; the arrays begin at 0.
        sketches: [n, R] float16, of unit length; empty where R is 0.
        norms: [n] float32; empty where R is 0.
        columns: name -> [n, width] float32, zeros.
        values: name -> [n] float64.
    """

    rows: range
    sketches: NDArray[np.float16]
    norms: NDArray[np.float32]
    columns: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    values: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


class IndexWriter:
    """Writes an index, or what is missing of it.

    Args:
        folder: of the index.
        layout: what it holds.
        about: what else its manifest says.
        seconds: of what was done for the index before, such as the seeds' gradients; counted in the manifest.
        part: k and n: it writes every n-th shard from the k-th on, and leaves the others to other writers.

    Raises:
        StorageError: the folder holds another index, or cannot be written.
    """

    def __init__(self, folder: Path, layout: Layout, about: Mapping[str, object] | None = None, seconds: float = 0.0,
                 part: tuple[int, int] = (0, 1)) -> None:
        self._folder, self._layout, self._about, self._seconds = folder, layout, about or {}, seconds
        self._part = slice(part[0], None, part[1])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "layout.json").exists():
                self._write("layout.json", asdict(layout))
        except OSError as error:
            raise StorageError(f"the sketch index {folder} cannot be written: {error}: free space, or set runtime.workdir to "
                               "another disk, then run the same command") from error
        _check_layout(folder / "layout.json", layout)

    def missing(self) -> list[range]:
        """The rows of each shard of this writer's part that is not there yet."""
        return [rows for rows in self._layout.shards()[self._part] if not _shard_path(self._folder, rows).exists()]

    def shards(self) -> Iterator[Shard]:
        """The missing shards, one after the other, each finished when the next one is asked for.

        When the iterator ends this writer's part is whole; if that was the last one, the index has its manifest. A shard whose
        loop was left (break, exception) stays missing.

        Raises:
            NonFiniteError: a norm is NaN or infinite; names its row.
            StorageError: the disk is full; found before a shard is filled, not while.
        """
        for rows in self._layout.shards()[self._part]:
            if not _shard_path(self._folder, rows).exists():
                yield from self._fill(rows)
        if all(_shard_path(self._folder, rows).exists() for rows in self._layout.shards()):
            self._finish()

    def _fill(self, rows: range) -> Iterator[Shard]:
        path = _shard_path(self._folder, rows)
        part, start = aside(path), time.monotonic()
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir()
            arrays = {name: reserve(part / f"{name}.npy", *kind) for name, kind in self._layout.arrays(len(rows)).items()}
            numbers = [array for array in arrays.values() if array.ndim == 1]
            for one in numbers:
                one[:] = _UNFILLED
            yield Shard(rows=rows, sketches=arrays.get("sketches", np.empty(0, np.float16)),
                        norms=arrays.get("norms", np.empty(0, np.float32)),
                        columns={name: arrays[name] for name in self._layout.columns},
                        values={name: arrays[name] for name in self._layout.values})
            for one in numbers:
                _check_filled(one, rows)
            for array in arrays.values():
                array.flush()
            (part / _SECONDS).write_text(f"{time.monotonic() - start:.3f}", encoding="utf-8")
            part.rename(path)
        except OSError as error:
            if not path.exists():  # else another writer was first
                raise StorageError(f"shard {path} of the sketch index cannot be written: {error}: free space, then run the "
                                   "same command; finished shards are kept") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _finish(self) -> None:
        shards = [_shard_path(self._folder, rows) for rows in self._layout.shards()]
        seconds = self._seconds + sum(float((shard / _SECONDS).read_text(encoding="utf-8")) for shard in shards)
        self._write("manifest.json", {**self._about, **asdict(self._layout), "shards": [shard.name for shard in shards],
                                      "seconds": round(seconds, 3)})
        for left in self._folder.glob("*.part-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _write(self, name: str, value: Mapping[str, object]) -> None:
        write_text_whole(self._folder / name, json.dumps(value, indent=1))


class SketchIndex:
    """A whole index, read through memory maps of one shard at a time.

    Indexing with row numbers [n] gives their sketches [n, R] float16, so that it can stand for an array in `selection`.

    Args:
        folder: where an IndexWriter wrote.

    Raises:
        StorageError: it is no index, or not whole.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._layout = _read_layout(folder)
        self._shards = self._layout.shards()

    @property
    def shape(self) -> tuple[int, int]:
        """(N, R)."""
        return self._layout.n_rows, self._layout.width

    def __len__(self) -> int:
        return self._layout.n_rows

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        sketches = np.empty((len(rows), self._layout.width), dtype=np.float16)
        shard = rows // self._layout.shard_rows
        for number in np.unique(shard).tolist():
            here = shard == number
            sketches[here] = self._map(number, "sketches")[rows[here] - self._shards[number].start]
        return sketches

    def column(self, name: str, reduce: Callable[[NDArray[Any]], NDArray[Any]] = np.asarray) -> NDArray[Any]:
        """A column of all candidates, [N, width], a value or the norms [N]; or of each shard what `reduce` makes of it."""
        return np.concatenate([reduce(block) for block in self.shards(name)])

    def shards(self, name: str) -> Iterator[NDArray[Any]]:
        """The same, shard by shard; views, not to be kept."""
        return (self._map(number, name) for number in range(len(self._shards)))

    def _map(self, number: int, name: str) -> NDArray[Any]:
        """An array of a shard. Mapped anew each time: pages of a map that lives on would count as this process's memory."""
        rows = self._shards[number]
        path = _shard_path(self._folder, rows) / f"{name}.npy"
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(path, str(error)) from error
        shape, _ = self._layout.arrays(len(rows))[name]
        if array.shape != shape:
            raise _damaged(path, f"its shape is {array.shape}, not {shape}")
        return array


def reserve(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> np.memmap:
    """A new memory-mapped .npy on reserved disk: a hole that cannot be filled would be SIGBUS, not an error.

    Raises:
        OSError: the disk is full.
    """
    array: np.memmap = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _shard_path(folder: Path, rows: range) -> Path:
    return folder / f"{rows.start:012}-{rows.stop:012}"


def _check_filled(values: NDArray[np.floating], rows: range) -> None:
    empty = values == values.dtype.type(_UNFILLED)
    assert not empty.any(), f"row {rows[int(np.argmax(empty))]} was not filled in"
    if not np.isfinite(values).all():
        raise NonFiniteError(f"the gradient of candidate {rows[int(np.argmin(np.isfinite(values)))]} is NaN or infinite: "
                             "lower warmup.learning_rate, or set model.dtype to float32")


def _check_layout(path: Path, wanted: Layout) -> None:
    found = _load_json(path)
    for name, value in asdict(wanted).items():
        if found.get(name) != value:
            raise StorageError(f"{path} is of another sketch index: {name} is {found.get(name)!r}, this run wants {value!r}: "
                               f"remove {path.parent}, or give another folder")


def _read_layout(folder: Path) -> Layout:
    path = folder / "manifest.json"
    if not path.exists():
        state = "is not finished: run the command that writes it again" if (folder / "layout.json").exists() else (
            "is no sketch index: name the folder of one, or run the command that writes it")
        raise StorageError(f"{path} is missing: {folder} {state}")
    found = _load_json(path)
    try:
        return Layout(**{name: found[name] for name in Layout.__dataclass_fields__})
    except KeyError as error:
        raise StorageError(f"{path} is no manifest of a sketch index, it lacks {error}: name the folder of one, or run the "
                           "command that writes it") from error


def _load_json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(f"{path} cannot be read: {error}: remove {path.parent} and run the same command") from error
    return found


def _damaged(path: Path, what: str) -> StorageError:
    return StorageError(f"{path} is missing or damaged ({what}): remove {path.parent} and run the command that writes the "
                        "index; the other shards are kept")
