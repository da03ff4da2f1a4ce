"""jsonl: one JSON object a line; blank lines are no rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import IO

from mtselect.readers._lines import ESCAPED_BYTE, TOO_LONG, lines
from mtselect.readers.base import NOT_A_ROW, NOT_UTF8, FileReader, SourceRecord, count_lines, excerpt

NOT_JSON = "not valid JSON"


class Jsonl(FileReader):
    """Streams."""

    suffixes = (".jsonl",)

    def read(self, stream: IO[bytes]) -> Iterator[SourceRecord]:
        for number, text in lines(stream):
            if text is None:
                yield SourceRecord(number, None, TOO_LONG, "(line not read)")
            elif text.strip():
                yield _parsed(number, text)

    def count(self, source: str) -> int:
        """Its lines."""
        return count_lines(self.path(source))


def _parsed(number: int, text: str) -> SourceRecord:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return SourceRecord(number, None, NOT_UTF8 if ESCAPED_BYTE.search(text) else NOT_JSON, excerpt(text))
    return as_record(number, fields)


def as_record(number: int, fields: object) -> SourceRecord:
    """Of what JSON holds."""
    if isinstance(fields, Mapping):
        return SourceRecord(number, fields)
    return SourceRecord(number, None, NOT_A_ROW, excerpt(fields))


READER = Jsonl
