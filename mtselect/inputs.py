"""Pairs in memory, as sources: written under the workdir by what they hold, so that nothing is computed twice for them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, Union

from mtselect.data.fingerprint import file_digest
from mtselect.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_FOLDER = "inputs"  # of the workdir


class Frame(Protocol):
    """A table of pandas, polars, pyarrow, DuckDB, ...: what speaks Arrow's C stream."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows."""


# A source as a sweep file has it; a path; a table with columns `src` and `tgt`; rows as mappings, or as (source, target).
Pairs: TypeAlias = Union[str, Path, Frame, "Dataset", Iterable[Mapping[str, object]], Iterable[tuple[str, str]]]


def as_source(name: str, pairs: Pairs, workdir: Path) -> str:
    """The source that some pairs are, or are written to as Parquet.

    Raises:
        DataError: they are in no form that is known.
    """
    if isinstance(pairs, str | Path):
        return str(pairs)
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = _table(pairs).replace_schema_metadata(None)
    except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{name} must be a source (a file, say), a data frame or a datasets.Dataset with columns src and tgt, "
                        f"or a list of rows as mappings or as (source, target), got {type(pairs).__name__} ({error}): bring it "
                        "into one of these forms") from error
    folder = workdir / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        part = Path(aside) / "rows.parquet"
        parquet.write_table(table, part)
        return str(part.replace(folder / f"{file_digest(part)[:20]}.parquet"))


def inputs_of(workdir: Path, named: Collection[str], older_than: float) -> tuple[list[Path], list[Path]]:
    """What was written so, or half written by a killed process: all, and what nobody would miss.

    An input that is given again is written again, so that its time is that of its last use.

    Args:
        workdir: of the stage store.
        named: sources of studies; their inputs are missed.
        older_than: seconds since the epoch; what was given later may be in use.
    """
    names = {Path(source).name for source in named}  # which say what a file holds
    there = {}
    for path in sorted((workdir / _FOLDER).glob("*")):
        with suppress(FileNotFoundError):
            there[path] = path.stat().st_mtime
    return list(there), [path for path, time in there.items() if time < older_than and path.name not in names]


def remove_input(path: Path) -> bool:
    """Remove one of them, and say whether it is gone."""
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return not path.exists()


def _table(pairs: object) -> pa.Table:
    import pyarrow as pa

    if hasattr(pairs, "with_format"):  # a datasets.Dataset, perhaps of chosen rows
        return pairs.with_format("arrow")[:]
    if hasattr(pairs, "__arrow_c_stream__"):
        return pa.table(pairs)
    if not isinstance(pairs, Iterable) or isinstance(pairs, Mapping):
        raise TypeError("which has no rows")
    rows = [row if isinstance(row, Mapping) else dict(zip(("src", "tgt"), row, strict=True)) for row in pairs]
    return pa.Table.from_pylist(rows)
