"""Rows on disk, read when they are asked for: a pool of any size takes no memory to hold.

Arrow's IPC file format, memory-mapped; `pandas.read_feather` opens such a file too. Not `datasets.Dataset`: of 100,000 pairs it
reads 57,000 a second in turn and 32,000 one by one, where this reads 850,000 and 91,000.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

T_co = TypeVar("T_co", covariant=True)
_BATCH = 4096  # rows that are written, and read in turn, at a time


class Rows(Sequence[T_co]):
    """Rows on disk, or some of them; a subclass opens all and says what one is. Opening them again in another process costs
    nothing."""

    _rows: range | NDArray[np.integer]  # a range: all

    @property
    def places(self) -> NDArray[np.integer]:
        """Of the rows on disk, [N]."""
        return np.asarray(self._rows)

    @property
    def is_whole(self) -> bool:
        """Whether these are all rows there are on disk, in their order."""
        return isinstance(self._rows, range)

    @abstractmethod
    def _at(self, place: int) -> T_co:
        """The row at a place on disk."""

    def take(self, rows: NDArray[np.integer]) -> Self:
        """These rows [n] in this order; nothing is read."""
        view = type(self).__new__(type(self))
        vars(view).update(vars(self), _rows=self.places[rows])
        return view

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, row: int) -> T_co: ...

    @overload
    def __getitem__(self, row: slice) -> list[T_co]: ...

    def __getitem__(self, row: int | slice) -> T_co | list[T_co]:
        if isinstance(row, slice):
            return [self[i] for i in range(len(self))[row]]
        return self._at(int(self._rows[row]))

    def _here(self, values: NDArray[Any]) -> NDArray[Any]:
        """Numbers, computed for all on disk, of the rows that are here."""
        return values if self.is_whole else values[self.places]


class Table(Rows[T_co]):
    """Those of a file; a subclass says what a row is.

    Args:
        path: an Arrow IPC file.
    """

    def __init__(self, path: Path) -> None:
        with pa.memory_map(str(path)) as file:
            self._table = pa.ipc.open_file(file).read_all()  # its buffers keep the map alive
        self._rows = range(len(self._table))

    @abstractmethod
    def _made(self, fields: Mapping[str, Any]) -> T_co:
        """The row from its columns."""

    def _at(self, place: int) -> T_co:
        return self._made({name: self._table.column(name)[place].as_py() for name in self._table.column_names})

    def __iter__(self) -> Iterator[T_co]:
        if self.is_whole:
            for batch in self._table.to_batches():
                yield from map(self._made, batch.to_pylist())
        else:
            yield from (self[i] for i in range(len(self)))


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[Mapping[str, object]], None]]:
    """Yields what writes a row, whose columns and types are the schema's, to a file; none if the block raises."""
    rows: list[Mapping[str, object]] = []

    def flush() -> None:
        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
        rows.clear()

    def write(row: Mapping[str, object]) -> None:
        rows.append(row)
        if len(rows) == _BATCH:
            flush()

    with pa.OSFile(str(path), "wb") as file:
        writer = pa.ipc.new_file(file, schema)
        yield write
        if rows:
            flush()
        writer.close()
