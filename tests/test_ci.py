"""CI fails where a test was not run: `.ci/fail_on_skip.py` on tests of its own."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CI = Path(__file__).parents[1] / ".ci"
TEST = """
import pytest
{module}
def test_it():
    pytest.skip({reason!r})
@pytest.mark.xfail
def test_known():
    assert False
"""


@pytest.mark.parametrize(("module", "reason", "status"), [
    ("", "needs a browser: apt-get install chromium", 1), ("", "needs kronfluence in benchmarks/.peers", 0),
    ("", "needs CUDA", 0), ("pytest.importorskip('no_such_module_here')", "never reached", 1),
    ("pytestmark = pytest.mark.skipif(True, reason='no data')", "never reached", 1)])
def test_a_skip_that_is_not_on_the_list_fails(module: str, reason: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TEST.format(module=module, reason=reason), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "fail_on_skip", "--rootdir", str(tmp_path), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(CI), "PYTEST_ADDOPTS": ""}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert (ran.returncode != 0) == status, ran.stdout
    assert ("not an expected skip" in ran.stdout) == status, ran.stdout


def test_ci_installs_what_tests_skip_for() -> None:
    """And runs the README's own command with the plugin."""
    script = (CI / "run").read_text(encoding="utf-8")
    assert all(word in script for word in ("chromium", "postgresql", "apt-get install", "fail_on_skip", "README.md"))


def test_ci_builds_the_image_where_its_inputs_changed(tmp_path: Path) -> None:
    """What asks for it, in a copy of the files that decide: as recorded, changed, and never built."""
    root, inputs = CI.parent, Path("tests/container/inputs.py")
    namespace = runpy.run_path(str(root / inputs))
    for name in (*namespace["INPUTS"], str(inputs)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, tmp_path / name)

    def status() -> int:
        return subprocess.run([sys.executable, str(inputs)], cwd=tmp_path, check=False).returncode

    assert status() == 1
    record = tmp_path / inputs.with_name("built.json")
    record.write_text(json.dumps({"inputs": namespace["inputs_hash"]()}), encoding="utf-8")
    assert status() == 0
    with (tmp_path / "Dockerfile").open("a", encoding="utf-8") as file:
        file.write("RUN false\n")
    assert status() == 1
    script = (CI / "run").read_text(encoding="utf-8")
    assert re.search(r"if ! python3 tests/container/inputs.py; then.*\n.*buildah debootstrap.*\n.*CONTAINER=1\nfi\n", script)
