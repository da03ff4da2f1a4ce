"""The benchmark of cost runs and prints its table; the figures are not looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FILE = Path(__file__).parents[2] / "benchmarks" / "attribution.py"


def test_ours_prints_a_row_and_a_missing_peer_is_said() -> None:
    """`--size tiny` in processes of their own, as a person runs it."""
    command = [sys.executable, str(FILE), "--size", "tiny", "--repeats", "1", "--only", "mtselect"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row = done.stdout.splitlines()[-1].split(" | ")
    assert row[0] == "| mtselect"
    assert row[-1] == "1.0000 |"
    assert float(row[4].strip("*")) > 0
