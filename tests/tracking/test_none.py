"""tracking.kind: none: a whole sweep on a machine that has no MLflow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtselect.config import Sweep
from mtselect.tracking.base import Tracker
from mtselect.tracking.choose import open_tracker


@pytest.fixture
def without_mlflow(tmp_path: Path) -> dict[str, str]:
    """An environment in which mlflow cannot be imported."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "mlflow.py").write_text("raise ImportError('there is no mlflow here')")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def test_a_whole_sweep_without_mlflow(warm_lab: Callable[..., Any], without_mlflow: dict[str, str]) -> None:
    lab = warm_lab(database=False, tracking={"kind": "none"}, study__n_trials=2)

    def run() -> str:
        ran = subprocess.run([sys.executable, "-m", "mtselect.sweep", "sweep.yaml"], cwd=lab.folder, env=without_mlflow,
                             capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    said = run()
    assert not (lab.folder / "mlflow.db").exists()
    assert "nothing is recorded (tracking.kind: none)" in said
    assert re.search(r"t00[01]-again +\d", said) or re.search(r"t00[01] again +\d", said)
    selected = re.search(r"selected +(\S+selected\.jsonl) \((t00[01]), (\d+) pairs\)", said)
    assert selected is not None, said
    assert len((lab.folder / selected[1]).read_text(encoding="utf-8").splitlines()) == int(selected[3])
    assert "promote    needs a record" in said and "optuna-dashboard mlruns/optuna/" in said
    before = lab.manifests()
    again = run()
    assert lab.manifests() == before, "a second run computes nothing"
    assert again.split("selected ")[1] == said.split("selected ")[1]


def test_no_tracker_is_a_tracker(tmp_path: Path) -> None:
    sweep = Sweep()
    config = type(sweep.tracking)(kind="none")
    tracker: Tracker = open_tracker(config, "study", tmp_path / "work")
    parent = tracker.study_run(sweep)
    ids = {tracker.start_trial(parent, f"t00{i}", "trial", {}, i) for i in range(3)}
    assert len(ids) == 3 and tracker.finished(parent) is None and not tracker.links(parent, "eval/chrf")
    assert not (tmp_path / "work").exists()
