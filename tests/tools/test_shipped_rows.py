"""The rows that the package ships are what the generator makes, byte for byte."""

from __future__ import annotations

import gzip

import pytest

from mtselect.readers.quickstart import PARTS
from tools.quickstart.__main__ import FOLDER, lines


@pytest.fixture(scope="module")
def generated() -> dict[str, bytes]:
    return lines()


@pytest.mark.parametrize("part", PARTS)
def test_generated_rows_are_the_shipped_ones(part: str, generated: dict[str, bytes]) -> None:
    assert gzip.decompress((FOLDER / f"{part}.jsonl.gz").read_bytes()) == generated[part]


def test_nothing_else_is_shipped(generated: dict[str, bytes]) -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{part}.jsonl.gz" for part in generated}
