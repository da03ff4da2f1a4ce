"""tsv: tabs part columns and nothing quotes them, since translation corpora hold bare quotation marks; a header line first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from mtselect.readers._lines import TOO_LONG, lines
from mtselect.readers.base import SourceRecord, TableReader

TOO_MANY_COLUMNS = "too many columns"


class Tsv(TableReader):
    """Streams."""

    suffixes = (".tsv",)

    def read(self, stream: IO[bytes]) -> Iterator[SourceRecord]:
        header: list[str] | None = None
        for number, text in lines(stream):
            if text is None:
                yield SourceRecord(number, None, TOO_LONG, "(line not read)")
            elif header is None:
                header = text.split("\t")
            elif text:
                yield tabular(number, header, text.split("\t"))


def tabular(number: int, header: list[str], cells: list[str]) -> SourceRecord:
    """A row of a table; cells beyond the header make it unusable unless they are empty."""
    surplus = any(cells[len(header):])
    return SourceRecord(number, dict(zip(header, cells, strict=False)), TOO_MANY_COLUMNS if surplus else None)


READER = Tsv
