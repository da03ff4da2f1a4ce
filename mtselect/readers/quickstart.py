"""quickstart: the corpus that comes with the package: German and English from a small grammar, half of the pool noise.

`tools/quickstart` generates the rows and says what they are; they have `src`, `tgt`, `domain`, and in the pool `noise`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from mtselect.errors import DataError
from mtselect.readers.jsonl import Jsonl

_FOLDER = Path(__file__).parents[1] / "data" / "quickstart"
PARTS = ("test", "dev", "seeds", "pool")


class Quickstart(Jsonl):
    """JSON lines of the package."""

    about = "quickstart:pool|seeds|dev|test"

    def takes(self, source: str) -> bool:
        return source.startswith("quickstart:")

    def path(self, source: str) -> Path:
        """Of a part. Raises DataError if there is none of this name."""
        part = source.removeprefix("quickstart:")
        if part not in PARTS:
            raise DataError(f"a quickstart source must be one of {', '.join(f'quickstart:{one}' for one in PARTS)}, "
                            f"got {source!r}: correct it")
        return _FOLDER / f"{part}.jsonl.gz"

    def fingerprint(self, source: str) -> str:
        """SHA-256 over the part's name and bytes."""
        return hashlib.sha256(f"{source} {super().fingerprint(source)}".encode()).hexdigest()


READER = Quickstart
