"""A table on disk is the list that was written, whatever part of it is asked for, and takes no memory to hold."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtselect.data import tables
from mtselect.data.tables import Table, table_writer

SCHEMA = pa.schema([("text", pa.string()), ("numbers", pa.list_(pa.int32()))])
ROWS = st.lists(st.fixed_dictionaries({"text": st.text(), "numbers": st.lists(st.integers(0, 9))}), min_size=1, max_size=9)


class Plain(Table[dict[str, Any]]):
    def _made(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return dict(fields)


def written(rows: list[dict[str, Any]], path: Path) -> Plain:
    with table_writer(path, SCHEMA) as write:
        for row in rows:
            write(row)
    return Plain(path)


@given(ROWS, st.integers(1, 4), st.data())
def test_a_table_is_the_list_that_was_written(rows: list[dict[str, Any]], batch: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_BATCH", batch)
        table = written(rows, Path(folder) / "rows.arrow")
        assert list(table) == rows
        some = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)), int)
        for view, expected in ((table, rows), (table.take(some), [rows[i] for i in some]),
                               (table.take(some).take(np.arange(len(some))[::-1]), [rows[i] for i in some[::-1]])):
            assert list(view) == view[:] == expected
            assert len(view) == len(expected)
            assert [view[i] for i in range(-len(view), len(view))] == [expected[i] for i in range(-len(view), len(view))]
            cut = data.draw(st.slices(len(view)))
            assert view[cut] == expected[cut]
            for outside in (len(view), -len(view) - 1):
                with pytest.raises(IndexError):
                    view[outside]


def test_no_rows_at_all(tmp_path: Path) -> None:
    table = written([], tmp_path / "rows.arrow")
    assert list(table) == [] and len(table.take(np.array([], int))) == 0


def test_what_failed_half_way_is_no_table(tmp_path: Path) -> None:
    def fail() -> None:
        with table_writer(tmp_path / "rows.arrow", SCHEMA) as write:
            write({"text": "a", "numbers": [1]})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with pytest.raises(pa.ArrowInvalid):
        Plain(tmp_path / "rows.arrow")


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Anonymous memory, that is; pages of the map are the system's to drop."""
    code = """
import sys
from pathlib import Path
from mtselect.data.tables import Table
class Plain(Table):
    def _made(self, fields): return fields
table = Plain(Path(sys.argv[1]))
_ = table[len(table) - 1], sum(len(row["text"]) for row in table)
print(int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]))
"""
    used = []
    for count in (1_000, 300_000):
        written([{"text": f"{i:060d}", "numbers": [i] * 20} for i in range(count)], tmp_path / "rows.arrow")
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "rows.arrow")], capture_output=True, text=True,
                              check=True)
        used.append(int(done.stdout))
    assert used[1] - used[0] < 10_000, used  # KiB; as Python objects these rows take 100 MiB and more
