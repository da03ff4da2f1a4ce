"""Rows of Arrow batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from mtselect.readers.base import NOT_UTF8, SourceRecord, excerpt

BATCH_ROWS = 1000


def batch_records(batches: Iterable[pa.RecordBatch]) -> Iterator[SourceRecord]:
    """In order; text that is not UTF-8 spoils its row alone."""
    first = 1
    for batch in batches:
        try:
            yield from (SourceRecord(number, fields) for number, fields in enumerate(batch.to_pylist(), first))
        except UnicodeDecodeError:
            yield from (_record(first + offset, batch.slice(offset, 1)) for offset in range(batch.num_rows))
        first += batch.num_rows


def _record(number: int, row: pa.RecordBatch) -> SourceRecord:
    try:
        return SourceRecord(number, row.to_pylist()[0])
    except UnicodeDecodeError as error:
        return SourceRecord(number, None, NOT_UTF8, excerpt(error.object.decode("utf-8", "backslashreplace")))


def top_columns(names: list[str], columns: list[str]) -> list[str] | None:
    """The top-level columns to read; null, all of them, if one is missing, for the message."""
    tops = [column if column in names else column.split(".")[0] for column in columns]
    return list(dict.fromkeys(tops)) if set(tops) <= set(names) else None
