"""json: one JSON list of rows, read whole; a file that does not open with `[` is taken as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BufferedReader
from typing import IO, cast

from mtselect.errors import DataError
from mtselect.readers.base import FileReader, SourceRecord
from mtselect.readers.jsonl import Jsonl, as_record


class Json(FileReader):
    """Held in memory."""

    suffixes = (".json",)

    def read(self, stream: IO[bytes]) -> Iterator[SourceRecord]:
        opening = cast(BufferedReader, stream).peek(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        if opening != b"[":
            yield from Jsonl().read(stream)
            return
        try:
            rows = json.loads(stream.read().decode("utf-8-sig", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{stream.name} must be one JSON list of rows, got text that is not valid JSON ({error}): "
                            "mend it, or write one row per line as .jsonl") from error
        yield from (as_record(number, fields) for number, fields in enumerate(rows, 1))


READER = Json
