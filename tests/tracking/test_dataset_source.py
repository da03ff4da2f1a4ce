"""What MLflow alone makes of the datasets that we log: the sources it finds by our entry points, and what they load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import datasets
import mlflow
import pytest
from mlflow.data.dataset_registry import DatasetRegistry

import mtselect
from mtselect.config import DataConfig
from mtselect.errors import ConfigError, DataError
from mtselect.store import hash_ids
from mtselect.tracking.dataset_source import PairsSource, SelectedSetSource, load_mtselect, source_of

LOADED = """
import json, os, sys
import mlflow
assert not {"datasets", "torch", "transformers"} & sys.modules.keys(), "importing MLflow loads them"
found = {}
for run in mlflow.search_runs(experiment_names=["tiny"], output_format="list"):
    for given in run.inputs.dataset_inputs:
        loaded = mlflow.data.get_source(given).load()
        rows = loaded if isinstance(loaded, str) else loaded.to_list()
        found.setdefault(run.info.run_name, {})[given.dataset.name] = rows
mine = mlflow.data.load_mtselect(f"runs:/{os.environ['TRIAL']}/selected.jsonl")

def having_it():
    return [run.info.run_id for run in mlflow.search_runs(
        search_all_experiments=True, filter_string=f"dataset.digest = '{mine.digest}'", output_format="list")]

before = having_it()
with mlflow.start_run():
    mlflow.log_input(mine, context="training")
print(json.dumps({"found": found, "mine": mine.ds.to_list(), "runs": [before, having_it()]}))
"""


def test_the_entry_points_are_what_mlflow_wants(registered: Path) -> None:
    (ours,) = metadata.distributions(name="mtselect", path=[str(registered)])
    sources = [point.load() for point in ours.entry_points.select(group="mlflow.dataset_source")]
    assert sources == [SelectedSetSource, PairsSource]
    constructors = {point.name: point.load() for point in ours.entry_points.select(group="mlflow.dataset_constructor")}
    assert constructors == {"load_mtselect": load_mtselect}
    for name, constructor in constructors.items():
        DatasetRegistry().register_constructor(constructor, name)  # raises where the signature is another


def test_mlflow_alone_loads_the_pairs_of_every_input(swept: Any, registered: Path, tmp_path: Path) -> None:
    """In a process that imports nothing of ours, where the package is installed."""
    children = swept.children()
    database = tmp_path / "mlflow.db"  # a copy: a run is added
    database.write_bytes((swept.folder / "mlflow.db").read_bytes())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(registered), os.environ.get("PYTHONPATH", "")]),
                   "MLFLOW_TRACKING_URI": f"sqlite:///{database}", "TRIAL": children["t000"].info.run_id}
    ran = subprocess.run([sys.executable, "-c", LOADED], cwd=tmp_path, env=environment, capture_output=True, text=True,
                         timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert "Failure attempting to register" not in ran.stderr
    said = json.loads(ran.stdout.splitlines()[-1])
    files = {name: str(swept.folder / "data" / f"{name}.jsonl") for name in ("pool", "seeds", "dev", "test")}
    assert said["found"].pop("tiny") == files
    assert said["found"].keys() == children.keys()
    for name, run in children.items():
        rows = swept.lines(run)
        assert said["found"][name] == {"dev": files["dev"], **({"selected": rows} if rows else {})}
    assert said["mine"] == swept.lines(children["t000"])
    same = {run.info.run_id for run in children.values() if run.data.tags["mtselect.selected"] == hash_ids(
        row["id"] for row in said["mine"])}
    before, after = said["runs"]
    assert {run.info.run_id for run in children.values()}.intersection(before) == same
    assert len(after) == len(before) + 1, "a run of somebody's own has the same dataset as the trial"


def moses(folder: Path) -> str:
    for language, text in (("de", "Ja.\nNein.\n\n"), ("en", "Yes.\nNo.\nWhat?\n")):
        (folder / f"crawl.{language}").write_text(text, encoding="utf-8")
    return "crawl.de-en"


def lines(folder: Path) -> str:
    (folder / "größe 1.jsonl").write_text('{"src": "Ja.", "tgt": "Yes."}\n', encoding="utf-8")
    return "größe 1.jsonl"


def hub(folder: Path) -> str:
    lines(folder)
    return f"hub:{folder}:train[:1]"


@pytest.mark.parametrize(("make", "kind", "expected"), [
    (lines, "local", lambda folder: str(folder / "größe 1.jsonl")),
    (lambda folder: str(folder), "local", str),
    (hub, "hugging_face", lambda folder: [{"src": "Ja.", "tgt": "Yes."}]),
    (moses, "mtselect_pairs", lambda folder: [{"src": "Ja.", "tgt": "Yes."}, {"src": "Nein.", "tgt": "No."}]),
    (lambda folder: "quickstart:dev", "mtselect_pairs", None),
], ids=["file", "folder", "hub", "moses", "quickstart"])
def test_every_form_of_source_is_loaded_again_from_another_folder(
        make: Callable[[Path], str], kind: str, expected: Callable[[Path], object] | None, known_to_mlflow: None,
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = source_of(DataConfig(), make(tmp_path))
    assert source._get_source_type() == kind
    given = mlflow.entities.Dataset(name="pool", digest="0", source_type=kind, source=source.to_json())
    monkeypatch.chdir(tmp_path.parent)
    loaded = mlflow.data.get_source(given).load()
    rows = loaded.to_list() if isinstance(loaded, datasets.Dataset) else loaded
    if expected is None:
        assert len(rows) > 100 and rows[0].keys() == {"src", "tgt"}
    else:
        assert rows == expected(tmp_path)


def test_columns_and_lengths_are_the_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = source_of(DataConfig(src_column="en", tgt_column="de", max_chars=4), moses(tmp_path))
    assert PairsSource.from_json(source.to_json()).load().to_list() == [{"src": "Yes.", "tgt": "Ja."}]


def test_a_name_on_the_hub_is_pinned_as_in_the_sweep() -> None:
    source = source_of(DataConfig(), "hub:wmt/wmt14@0123456789abcdef0123456789abcdef01234567:de-en:train")
    assert source.to_dict() | {"data_dir": None, "data_files": None} == {
        "path": "wmt/wmt14", "revision": "0123456789abcdef0123456789abcdef01234567", "config_name": "de-en", "split": "train",
        "data_dir": None, "data_files": None}


@pytest.mark.parametrize(("raw", "ours"), [
    ("runs:/0123/selected.jsonl", True), ("models:/mtselect.tiny@champion", True), ("models:/mtselect.tiny/3", True),
    ("models:/other/3", False), ("runs:/0123/model", False), ("data/pool.jsonl", False), (3, False)])
def test_mlflow_takes_our_addresses_for_ours_and_no_others(raw: object, ours: bool) -> None:
    assert SelectedSetSource._can_resolve(raw) is ours
    assert PairsSource._can_resolve(raw) is False
    if ours:
        assert SelectedSetSource._resolve(str(raw)).to_dict() == {"uri": raw}


def test_a_set_that_is_not_there_is_one_line(swept: Any) -> None:
    uri = f"sqlite:///{swept.folder}/mlflow.db"
    with pytest.raises(DataError, match=r"'0123': MLflow at sqlite:.* has no such selected set"):
        SelectedSetSource("runs:/0123/selected.jsonl").load(uri)
    with pytest.raises(DataError, match=r"a selected set must be runs:/RUN/selected\.jsonl, .*, got 'models:/x/3': correct it"):
        SelectedSetSource("models:/x/3").load(uri)
    with pytest.raises(ConfigError, match=r"a promoted set must be STUDY, .*, got 'a b': correct it"):
        load_mtselect("a b")


def test_a_trials_set_is_loaded_by_its_run(swept: Any) -> None:
    run = swept.children()["t000"]
    rows = mtselect.load_set(f"runs:/{run.info.run_id}/selected.jsonl", uri=f"sqlite:///{swept.folder}/mlflow.db")
    assert rows.to_list() == swept.lines(run)
