"""docs/select.ipynb, run from its first cell to its last."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "select.ipynb"


def test_the_notebook_runs_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    (said,) = [output["text"] for output in outputs if output.get("name") == "stdout"]
    shares = re.fullmatch(r"(\d+)% of the pool is noise, (\d+)% of the \d+ chosen pairs\n", said)
    assert shares and int(shares[2]) < int(shares[1]) / 2
    assert {path.name for path in tmp_path.iterdir()} == {"mlruns"}
