"""Pairs in memory, as sources: written under the workdir by what they hold, so that nothing is computed twice for them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, Union

from mtselect.data.fingerprint import file_digest
from mtselect.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


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
    folder = workdir / "inputs"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        part = Path(aside) / "rows.parquet"
        parquet.write_table(table, part)
        return str(part.replace(folder / f"{file_digest(part)[:20]}.parquet"))


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
