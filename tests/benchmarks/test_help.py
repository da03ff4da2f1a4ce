"""Every benchmark at least starts: what it imports is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


COMMANDS = [path for path in sorted((ROOT / "benchmarks").glob("*.py")) if '"__main__"' in path.read_text(encoding="utf-8")]


def test_all_but_what_the_study_imports_are_commands() -> None:
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {path.stem for path in COMMANDS} == {
        "study_records", "study_report"}


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_a_benchmark_says_what_it_does(path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    ran = subprocess.run([sys.executable, str(path), "--help"], env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert path.name in ran.stdout
