"""The benchmark of cost runs and prints its table; the figures are not looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "attribution.py"


def test_ours_prints_a_row_and_a_missing_peer_is_said() -> None:
    """`--size tiny` in processes of their own, as a person runs it."""
    command = [sys.executable, str(FILE), "--size", "tiny", "--repeats", "1", "--only", "mtselect"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row = done.stdout.splitlines()[-1].split(" | ")
    assert row[0] == "| mtselect"
    assert row[-1] == "1.0000 |"
    assert float(row[4].strip("*")) > 0


@pytest.mark.skipif(not (FILE.parent / ".peers" / "kronfluence").exists(),
                    reason="kronfluence is not installed: python benchmarks/attribution.py --install kronfluence")
def test_benefits_agree_with_kronfluence() -> None:
    """Both fit EK-FAC on the reference targets with a damping of 0.1 of the mean eigenvalue."""
    command = [sys.executable, str(FILE), "--size", "tiny", "--repeats", "1", "--only", "mtselect", "kronfluence"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = {row.split(" | ")[0].strip("| "): row.split(" | ")[-1].strip("| ") for row in done.stdout.splitlines()[-2:]}
    assert float(rows["mtselect"]) >= 0.999
    assert rows["kronfluence"] == "1.0000"  # the reference
