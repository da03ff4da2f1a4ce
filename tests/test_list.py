"""`mtselect list`, and what a shell completes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtselect import __main__ as program
from mtselect.plugins import part_names


@pytest.mark.parametrize("kind", ["selectors", "metrics", "readers"])
def test_every_part_has_a_line(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["list", kind]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert tuple(lines) == part_names(f"mtselect.{kind}")
    assert all(len(about.split()) >= 3 for about in lines.values())
    documented = (Path(__file__).parents[1] / "docs" / "parts.md").read_text(encoding="utf-8")
    assert all(f"- `{name}`: " in documented for name in lines)


@pytest.mark.parametrize(("line", "expected"), [
    ("mtselect se", {"select"}), ("mtselect select --ou", {"--out"}), ("mtselect promote --roll", {"--rollback"}),
    ("mtselect sweep --experiment.selection.gat", {"--experiment.selection.gate", "--experiment.selection.gate_keeps"}),
    ("mtselect list re", {"readers"}), ("mtselect check swee", {"sweep.yaml"}), ("mtselect ", set(program.COMMANDS)),
    ("mtselect explain --i", {"--ids"}), ("mtselect select 'open", set())])
def test_a_shell_completes(line: str, expected: set[str], tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").touch()
    environment = {**os.environ, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SHELL": "bash", "COMP_LINE": line,
                   "COMP_POINT": str(len(line)), "COMP_TYPE": "9", "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "said")}
    subprocess.run([sys.executable, "-m", "mtselect"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    found = (tmp_path / "said").read_text(encoding="utf-8")
    assert {one.strip() for one in found.split("\n")} - {""} == expected
