"""python -m tools.quickstart

Writes the rows that the package ships, mtselect/data/quickstart/*.jsonl.gz: the same bytes every time, as a test sees to.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from tools.quickstart.corpus import generate

FOLDER = Path(__file__).parents[2] / "mtselect" / "data" / "quickstart"


def lines() -> dict[str, bytes]:
    """Split -> its rows as JSON lines."""
    return {split: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
            for split, rows in vars(generate()).items()}


def main() -> None:
    """Write them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for split, text in lines().items():
        (FOLDER / f"{split}.jsonl.gz").write_bytes(gzip.compress(text, mtime=0))


if __name__ == "__main__":
    main()
