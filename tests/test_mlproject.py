"""`mlflow run`: the file MLproject, as MLflow reads it, and a sweep that it runs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.projects.utils import load_project

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("entry_point", "given", "command"), [
    ("main", {}, r"python -m mtselect\.sweep \S+/sweeps/quickstart\.yaml"),
    ("main", {"sweep": "sweeps/multi30k.yaml", "study.n_trials": "3"},
     r"python -m mtselect\.sweep \S+/sweeps/multi30k\.yaml --study\.n_trials 3"),
    ("check", {}, r"python -m mtselect\.check \S+/sweeps/quickstart\.yaml"),
    ("select", {"out": "best of all.tsv"},
     r"python -m mtselect\.select \S+/sweeps/quickstart\.yaml --out 'best of all\.tsv'"),
    ("promote", {"study": "crawl-de-en", "licence": "cc-by-4.0"},
     r"python -m mtselect\.promote crawl-de-en --licence cc-by-4\.0"),
])
def test_every_entry_point_is_a_command(entry_point: str, given: dict[str, str], command: str, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    made = load_project(str(ROOT)).get_entry_point(entry_point).compute_command(given, str(tmp_path))
    assert re.fullmatch(command, made)
    assert find_spec(made.split()[2])


def test_mlflow_runs_a_sweep(swept: Any, warm_lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose stages are there: it records one trial at the server that `mlflow run` was told."""
    lab = warm_lab(stages=[path.name for path in swept.store.iterdir()], study__n_trials=1, study__baselines=[])
    roles = ("pool", "seeds", "dev", "test")  # the project is run in its own folder
    lab.write(study__n_trials=1, study__baselines=[], runtime__workdir=str(lab.folder / "mlruns"),
              **{f"experiment__data__{role}": str(lab.folder / "data" / f"{role}.jsonl") for role in roles})
    lab.client().create_experiment("tiny", artifact_location=str(lab.folder / "artifacts"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{lab.folder}/mlflow.db")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    submitted = mlflow.projects.run(str(ROOT), parameters={"sweep": str(lab.folder / "sweep.yaml"), "study.seed": 0},
                                    env_manager="local")
    assert submitted.get_status() == "FINISHED"
    assert lab.selected() == {"t000": swept.selected()["t000"]}
    run = lab.client().get_run(submitted.run_id)
    assert run.data.params == {"sweep": str(lab.folder / "sweep.yaml"), "study.seed": "0"}
