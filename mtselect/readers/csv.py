"""csv: standard quoting; a row that runs over csv's field limit (an open quote, say) is skipped; a header line first."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import IO

from mtselect.readers._lines import TOO_LONG
from mtselect.readers.base import SourceRecord, TableReader
from mtselect.readers.tsv import tabular


class Csv(TableReader):
    """Streams."""

    suffixes = (".csv",)

    def read(self, stream: IO[bytes]) -> Iterator[SourceRecord]:
        """Row by row; a quoted cell may hold line breaks."""
        reader = csv.reader(io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline=""))
        header = next(reader, [])
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield SourceRecord(number, None, TOO_LONG, str(error))
                continue
            if cells:
                yield tabular(number, header, cells)


READER = Csv
