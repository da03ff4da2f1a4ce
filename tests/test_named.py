"""`explain`, `select` and `score` of a trial or a promoted set by its name: the set it had, from the stages of its study."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtselect.config import TrackingConfig
from mtselect.tracking.server import open_mlflow

NAMES = ("tiny/t001", "tiny@champion", "tiny/1", "models:/mtselect.tiny@champion")


@pytest.fixture(scope="module")
def studied(warm_lab: Callable[..., Any], swept: Any) -> Any:
    """A lab whose MLflow has the tiny study, t001 of it as champion, and whose folder is not called as the sweep file's is."""
    lab = warm_lab(runtime__workdir="elsewhere")
    shutil.copy(swept.folder / "mlflow.db", lab.folder)
    run = lab.children()["t001"].info.run_id
    uri = f"sqlite:///{lab.folder}/mlflow.db"
    registry = open_mlflow(TrackingConfig(uri=uri), "tiny", lab.folder / "mlruns").registry("mtselect.tiny")
    dataset = lab.folder / "dataset"
    dataset.mkdir()
    (dataset / "selected.jsonl").write_text("", encoding="utf-8")
    registry.crown(registry.register(dataset, run, {"mtselect.selected": "x"}, "").number)
    return lab


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_selects_the_set_of_its_trial(name: str, studied: Any, swept: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shared = studied.manifests("gradients")
    assert studied.run("select", name, "--out", "named.jsonl") == 0
    assert lines(studied.folder / "named.jsonl") == swept.lines(swept.children()["t001"])
    said = capsys.readouterr().out
    run = swept.children()["t001"].info.run_id
    assert f"the settings are those of tiny/t001 (MLflow run {run}), its stages in mlruns/store\n" in said
    assert studied.manifests("gradients") == shared and not (studied.folder / "elsewhere").exists()


def test_explain_and_score_answer_about_the_set_of_the_trial(studied: Any, swept: Any, capsys: pytest.CaptureFixture[str]
                                                             ) -> None:
    own = {row["id"] for row in swept.lines(swept.children()["t001"])}
    assert studied.run("score", "tiny/t001", "--signals", "set", "--out", "named.jsonl") == 0
    scores = {row["id"]: row for row in lines(studied.folder / "named.jsonl")}
    assert {one for one, row in scores.items() if row["selected"]} == own
    for one in (next(iter(own)), next(one for one in scores if one not in own)):
        capsys.readouterr()
        assert studied.run("explain", "tiny/t001", "--pair", one) == 0
        assert scores[one]["why"] in " ".join(capsys.readouterr().out.split()), "it may be on two lines"


def test_a_rival_that_is_named_by_what_was_searched_is_found(studied: Any, swept: Any) -> None:
    """As MLflow has it, with a space in its name."""
    run, name = studied.children()["random-40"], "random-40 learning_rate=0.01"
    studied.client().update_run(run.info.run_id, name=name)
    try:
        assert studied.run("select", f"tiny/{name}", "--out", "rival.jsonl") == 0
    finally:
        studied.client().update_run(run.info.run_id, name="random-40")
    assert lines(studied.folder / "rival.jsonl") == swept.lines(run)


def test_settings_are_laid_over_those_of_the_trial(studied: Any) -> None:
    assert studied.run("select", "tiny/t001", "--out", "fewer.jsonl", "--experiment.selection.budget", "7",
                       "--experiment.selection.n_clusters", "1") == 0
    assert len(lines(studied.folder / "fewer.jsonl")) == 7
    assert studied.run("select", "tiny/t001", "--experiment.warmup.exclude", "true", "--out", "same.jsonl", "--tracking.uri",
                       f"sqlite:///{studied.folder}/mlflow.db") == 0, "with the trial's warmup.rows, not with the default"


@pytest.mark.parametrize("command", ["select --out x.jsonl", "score --signals set --out x.jsonl", "explain --top 1"])
def test_a_file_that_searches_says_that_it_is_no_trial(command: str, warm_lab: Callable[..., Any],
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab()
    name, *options = command.split()
    said = ("the settings are the file's own, no trial's: each has its own selection.budget, selection.n_clusters, "
            "selection.threshold")
    capsys.readouterr()
    assert lab.run(name, "sweep.yaml", *options) == 0
    assert f"{said}; a trial's: give tiny/t000 or tiny@champion instead of the file\n" in capsys.readouterr().out
    assert lab.run(name, "sweep.yaml", *options, "--tracking.uri", "http://me:secret@host:5000") == 0
    assert "instead of the file, and --tracking.uri 'http://***@host:5000'\n" in capsys.readouterr().out
    assert lab.run(name, "sweep.yaml", *options, "--tracking.kind", "none") == 0
    assert f"{said}\n" in capsys.readouterr().out
    settings = yaml.safe_load((lab.folder / "sweep.yaml").read_text(encoding="utf-8"))
    del settings["search"]
    (lab.folder / "sweep.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert lab.run(name, "sweep.yaml", *options) == 0
    assert "trial" not in capsys.readouterr().out


@pytest.mark.parametrize(("name", "said"), [
    ("tiny/t009", r"'tiny/t009': study 'tiny' has no finished trial or baseline 't009': name one of [\w-]+, "),
    ("other/t000", r"MLflow at \S+ has no study 'other': check the name, or set --tracking\.uri"),
    ("tiny@nobody", r"MLflow at \S+ has no such selected set"), ("tiny/9", r"MLflow at \S+ has no such selected set"),
    ("models:/tiny/what/ever", r"a promoted set must be STUDY, STUDY@ALIAS"),
    ("sweeps/none.yaml", r"sweep file 'sweeps/none\.yaml' does not exist")])
def test_a_name_that_is_none_is_said(name: str, said: str, studied: Any, capsys: pytest.CaptureFixture[str]) -> None:
    before = studied.manifests()
    assert studied.run("explain", name, "--pair", "1") == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and re.search(said, error), error
    assert studied.manifests() == before
