"""A source's rows, checked: two sides of one line each, or the reason why a row cannot be used.

Text is kept as it is, but for this: outer whitespace goes, and a run of spaces, tabs and line breaks
(also U+0085, U+2028, U+2029) becomes one space, so that a pair is one line. No-break and ideographic
spaces inside a sentence stay.
"""

from __future__ import annotations

import contextlib
import csv
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

import pyarrow as pa

from mtselect.config import DataConfig
from mtselect.errors import DataError
from mtselect.readers._lines import ESCAPED_BYTE, TOO_LONG
from mtselect.readers.base import NOT_A_ROW, NOT_UTF8, SourceRecord, TableReader, excerpt, printable, reader_of

Role = Literal["pool", "seeds", "dev", "test"]

NOT_TEXT = "not text"
EMPTY_SIDE = "empty side"

_PROBED_ROWS = 1000  # a column that none of the first rows has is a wrong name, not a gap in the data
_NAMED_DEPTH = 3  # nested columns that a message lists
_ABSENT = object()  # the row has no such column; None is a value, JSON's null

_BREAKS = re.compile(r"[ \t-\r\x1c-\x1f\x85\u2028\u2029]+")
_UNTEXTUAL = re.compile("[\0\ud800-\udfff]")
READ_ERRORS = (OSError, EOFError, zlib.error, csv.Error)


class SourceRow(NamedTuple):
    """One row of a source, usable if `reason` is None.

    `line` counts from 1: lines of a .jsonl, .tsv or .csv file (header included), rows elsewhere.
    `label` is "" (clean) for null, false, 0 and where the row has none.
    `excerpt` is the start of an unusable row, safe to print, and "" for a usable one.
    """

    line: int
    src: str
    tgt: str
    label: str
    reason: str | None
    excerpt: str


def one_line(text: str) -> str:
    """`text` without outer whitespace, its runs of spaces, tabs and line breaks as one space."""
    return _BREAKS.sub(" ", text).strip()


def read_rows(config: DataConfig, role: Role) -> Iterator[SourceRow]:
    """Every row of the source `data.<role>`, usable or not, in order, and none where there is none; labels only in the pool.

    Raises:
        DataError: the source is missing, of an unknown form or cannot be read, or its rows lack a column.
    """
    source = getattr(config, role)
    if source is None:
        return
    label_column = config.label_column if role == "pool" else None
    columns = [config.src_column, config.tgt_column, *([label_column] if label_column else [])]
    try:
        for record in _with_columns(reader_of(source).records(source, columns), source, columns):
            yield _row(record, config, label_column)
    except READ_ERRORS as error:
        raise DataError(f"data.{role} ({source}) cannot be read, {type(error).__name__}: {error}; "
                        "check the file, or give another source") from error


def count_rows(config: DataConfig, role: Role) -> int:
    """About how many rows `read_rows` gives, for a progress bar; only JSON arrays and what is damaged are read for it."""
    source: str | None = getattr(config, role)
    if source is None:
        return 0
    with contextlib.suppress(*READ_ERRORS, pa.ArrowException):
        if (count := reader_of(source).count(source)) is not None:
            return count
    return sum(1 for _ in read_rows(config, role))


def _row(record: SourceRecord, config: DataConfig, label_column: str | None) -> SourceRow:
    if record.fields is None:
        return SourceRow(record.line, "", "", "", record.reason, record.excerpt)
    raw = [_cell(record.fields, column) for column in (config.src_column, config.tgt_column)]
    src, tgt = (one_line(side) if isinstance(side, str) else "" for side in raw)
    if reason := record.reason or _reason(raw, src, tgt, config.max_chars):
        return SourceRow(record.line, "", "", "", reason, " ||| ".join(map(_excerpt, raw)))
    label = _cell(record.fields, label_column) if label_column else None
    clean = label in (None, False, _ABSENT)
    return SourceRow(record.line, src, tgt, "" if clean else printable(one_line(str(label))), None, "")


def _reason(raw: list[object], src: str, tgt: str, max_chars: int) -> str | None:
    """Why a row cannot be used, by its sides as they are and on one line."""
    if _ABSENT in raw:
        return NOT_A_ROW
    texts = [side for side in raw if isinstance(side, str)]
    if any(ESCAPED_BYTE.search(text) for text in texts):
        return NOT_UTF8
    if len(texts) < len(raw) or any(_UNTEXTUAL.search(text) for text in texts):
        return NOT_TEXT
    if not src or not tgt:
        return EMPTY_SIDE
    return TOO_LONG if max(len(src), len(tgt)) > max_chars else None


def _with_columns(records: Iterable[SourceRecord], source: str, columns: list[str]) -> Iterator[SourceRecord]:
    """The records, once it is clear that each column exists: in the first rows, at the latest in the last."""
    missing, names, probed = columns, list[str](), 0
    for record in records:
        if missing and record.fields is not None:
            names = names or list(column_names(record.fields))
            missing = [column for column in missing if _cell(record.fields, column) is _ABSENT]
            probed += 1
            if probed == _PROBED_ROWS:
                _refuse_missing(source, columns, missing, names)
        yield record
    if probed:
        _refuse_missing(source, columns, missing, names)


def _refuse_missing(source: str, columns: list[str], missing: list[str], names: list[str]) -> None:
    if not missing:
        return
    there = ", ".join(_excerpt(name) for name in names[:20]) or "none"
    named = "set --experiment.data.src_column, tgt_column and label_column to these names"
    if missing[:2] == columns[:2] and isinstance(reader_of(source), TableReader):
        raise DataError(f"{source} must begin with a line of column names, {' and '.join(columns)}, it begins with {there}: "
                        f"add such a line, or if this is one, {named}")
    raise DataError(f"{source} has no column {' and no column '.join(map(repr, missing))}, it has {there}: {named}")


def column_names(fields: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    """Of a row; nested ones with dots."""
    for name, value in fields.items():
        if isinstance(value, Mapping) and value and prefix.count(".") < _NAMED_DEPTH:
            yield from column_names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _cell(fields: Mapping[str, object], column: str) -> object:
    """The value under `column`, taken literally or as a path of names with dots; `_ABSENT` if there is none."""
    if column in fields:
        return fields[column]
    value: object = fields
    for name in column.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return _ABSENT
        value = value[name]
    return value


def _excerpt(value: object) -> str:
    return "(missing)" if value is _ABSENT else excerpt(value)
