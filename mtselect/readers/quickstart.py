"""quickstart: the corpus that comes with the package: German and English from a small grammar, half of the pool noise.

`tools/quickstart` generates the rows and says what they are; they have `src`, `tgt`, `domain`, and in the pool `noise`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from mtselect.data.fingerprint import file_digest
from mtselect.errors import DataError
from mtselect.readers.base import SourceRecord, count_lines
from mtselect.readers.jsonl import Jsonl

_FOLDER = Path(__file__).parents[1] / "data" / "quickstart"
PARTS = ("test", "dev", "seeds", "pool")


class Quickstart:
    """JSON lines of the package."""

    about = "quickstart:pool|seeds|dev|test"

    def takes(self, source: str) -> bool:
        """By its first letters."""
        return source.startswith("quickstart:")

    def records(self, source: str, columns: list[str]) -> Iterator[SourceRecord]:
        """Of a part."""
        return Jsonl().records(_file(source), columns)

    def count(self, source: str) -> int:
        """Of a part."""
        return count_lines(_file(source))

    def fingerprint(self, source: str) -> str:
        """SHA-256 over the part's name and bytes."""
        return hashlib.sha256(f"{source} {file_digest(Path(_file(source)))}".encode()).hexdigest()

    def pinned(self, source: str) -> str:
        """It is what the package has."""
        return source


def _file(source: str) -> str:
    part = source.removeprefix("quickstart:")
    if part not in PARTS:
        raise DataError(f"a quickstart source must be one of {', '.join(f'quickstart:{one}' for one in PARTS)}, "
                        f"got {source!r}: correct it")
    return str(_FOLDER / f"{part}.jsonl.gz")


READER = Quickstart
