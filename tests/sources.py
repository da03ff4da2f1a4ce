"""Rows of a source, for the tests of readers and of the corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtselect.config import DataConfig
from mtselect.data.rows import SourceRow, read_rows


def rows_of(source: str | Path, **fields: Any) -> list[SourceRow]:
    return list(read_rows(DataConfig(pool=str(source), **fields), "pool"))


def texts(rows: list[SourceRow]) -> list[tuple[str, str]]:
    assert all(row.reason is None for row in rows), rows
    return [(row.src, row.tgt) for row in rows]


def reasons(rows: list[SourceRow]) -> dict[int, str]:
    return {row.line: row.reason for row in rows if row.reason}
