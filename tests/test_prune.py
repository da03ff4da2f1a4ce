"""`python -m mtselect.prune`: what a study refers to stays, all else goes, and where nobody knows nothing does."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtselect import prune
from mtselect.config import Experiment, validated, with_fields
from mtselect.inputs import as_source


def stored(lab: Any) -> set[str]:
    """Stage and key of all that is in the store, finished or not."""
    return {f"{path.parent.name}/{path.name}" for path in lab.store.glob("*/*") if path.is_dir()}


def run(lab: Any, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert lab.run("prune", "sweep.yaml", *arguments) == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def both(warm_lab: Callable[..., Any]) -> Any:
    """A lab with two studies of one trial each: `tiny`, and `other` with another budget."""
    lab = warm_lab(study__n_trials=1, study__baselines=["untuned"], search={"selection.seed": {"choices": [0]}},
                   experiment__selection={"budget": 20, "n_clusters": 4, "threshold": 0.3})
    assert lab.run("sweep", "sweep.yaml") == 0
    lab.before = stored(lab)
    assert lab.run("sweep", "sweep.yaml", "--study.name", "other", "--experiment.selection.budget", "30") == 0
    lab.others = stored(lab) - lab.before
    assert {path.split("/")[0] for path in lab.others} == {"selection", "finetune", "evaluation"}
    return lab


@pytest.fixture
def two(both: Any, tmp_path: Path) -> Any:
    """A copy of it."""
    lab = copy.copy(both)
    lab.folder = tmp_path / "lab"
    shutil.copytree(both.folder, lab.folder)
    return lab


def test_what_studies_refer_to_stays(two: Any, capsys: pytest.CaptureFixture[str]) -> None:
    score_test(two)
    before = stored(two)
    said = run(two, capsys)
    assert stored(two) == before
    assert re.search(r"study other: 3 runs\nstudy tiny: 3 runs", said)
    assert f"0 of {len(before)} entries, 0.00 GB, deleted" in said


def test_a_study_of_a_version_that_knew_fewer_fields_keeps_its_stages(two: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """What was computed before there was `attribution.statistics` has float32 there, whatever the machine would choose."""
    from mtselect.config import load
    from mtselect.search.storage import begun_study

    with contextlib.chdir(two.folder):
        for name in ("tiny", "other"):
            study = begun_study(load("sweep.yaml", ["--study.name", name]))
            assert study is not None
            begun = study.user_attrs["sweep"]
            assert begun["experiment"]["attribution"].pop("statistics") == "float32"
            study.set_user_attr("sweep", begun)
    run(two, capsys)
    assert stored(two) == two.before | two.others


def score_test(lab: Any) -> None:
    """Scores of test are a study's too."""

    from mtselect.config import load
    from mtselect.progress import SilentProgress
    from mtselect.stages.evaluation import evaluate
    from mtselect.stages.lineage import Bench, Lineage
    from mtselect.store import Store

    sweep = load(lab.folder / "sweep.yaml", [])
    with contextlib.chdir(lab.folder):
        bench = Bench(store=Store(lab.store), runtime=sweep.runtime, progress=SilentProgress())
        evaluate(Lineage(bench, sweep.experiment), "test")


def test_a_study_that_is_gone_leaves_nothing_and_the_other_computes_nothing(two: Any,
                                                                           capsys: pytest.CaptureFixture[str]) -> None:
    dry = run(two, capsys, "--forget", "other", "--dry-run")
    assert stored(two) == two.before | two.others
    assert re.search(rf"{len(two.others)} of {len(two.before | two.others)} entries, \d.\d\d GB, would be deleted; next:", dry)
    assert re.search(r"finetune +6 +3 ", dry)
    run(two, capsys, "--forget", "other")
    assert stored(two) == two.before
    entries = two.manifests()
    assert two.run("sweep", "sweep.yaml") == 0
    assert two.manifests() == entries


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b""),
                                    lambda path: path.write_text("garbage")], ids=["gone", "empty", "garbage"])
def test_a_journal_that_cannot_be_read_stops_it(damage: Callable[[Path], Any], two: Any,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    damage(two.folder / "mlruns" / "optuna" / "other.journal")
    capsys.readouterr()
    assert two.run("prune", "sweep.yaml") == 2
    error = capsys.readouterr().err
    assert re.search("study 'other' was run in 'mlruns' and is not in .*other.journal: look|study.storage", error)
    assert stored(two) == two.before | two.others


def test_earlier_versions_and_sets_of_select_go(two: Any, capsys: pytest.CaptureFixture[str]) -> None:
    old = two.store / "finetune" / "0123456789"
    old.mkdir()
    (old / "manifest.json").write_text("{}", encoding="utf-8")
    assert two.run("select", "sweep.yaml", "--experiment.selection.budget", "25", "--out", "out.jsonl") == 0
    assert len(stored(two) - two.before - two.others) == 2
    run(two, capsys)
    assert stored(two) == two.before | two.others


def test_unfinished_entries_go_when_nobody_wrote_to_them_for_a_day(two: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for name, age in (("fresh", 0), ("old", 2 * 24 * 3600), ("old.part-host-1", 2 * 24 * 3600)):
        path = two.store / "gradients" / name
        path.mkdir()
        (path / "layout.json").write_text("{}", encoding="utf-8")
        for one in (path / "layout.json", path):
            os.utime(one, (time.time() - age, time.time() - age))
    run(two, capsys)
    assert stored(two) == two.before | two.others | {"gradients/fresh"}


def test_a_study_in_a_database_has_to_be_named(two: Any, capsys: pytest.CaptureFixture[str]) -> None:
    storage = ["--study.storage", "sqlite:///studies.db"]
    assert two.run("sweep", "sweep.yaml", "--study.name", "kept", *storage, "--experiment.selection.budget", "35") == 0
    before = stored(two)
    capsys.readouterr()
    assert two.run("prune", "sweep.yaml") == 2
    error = capsys.readouterr().err
    assert re.match(r"error: study 'kept' was run in 'mlruns' and is kept in sqlite:///studies.db: name that database with "
                    r"--study.storage, or let the study go with --forget kept; nothing was deleted\n$", error)
    assert stored(two) == before
    run(two, capsys, *storage)
    assert stored(two) == before
    run(two, capsys, "--forget", "kept")
    assert stored(two) == two.before | two.others


def test_a_study_whose_data_is_gone_stops_it(two: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (two.folder / "data" / "pool.jsonl").rename(two.folder / "data" / "moved.jsonl")
    capsys.readouterr()
    assert two.run("prune", "sweep.yaml") == 2
    assert re.match(r"error: study 'other' cannot be read \(data/pool.jsonl does not exist .*\); nothing was deleted: bring "
                    r"back what is missing, or let the study go with --forget other\n$", capsys.readouterr().err)
    assert stored(two) == two.before | two.others
    run(two, capsys, "--forget", "other", "--forget", "tiny")
    assert stored(two) == set()


def given(lab: Any, name: str, rows: list[tuple[str, str]], age: float) -> Path:
    """Pairs in memory, as `mtselect.select` writes them, some seconds ago."""
    path = Path(as_source(name, rows, lab.folder / "mlruns"))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_inputs_that_nobody_would_miss_go(warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    """What was given in memory more than a day ago, and what a killed process left of it, but for what a study names."""
    lab, day = warm_lab(), 24 * 3600
    rows = [json.loads(line) for line in (lab.folder / "data" / "seeds.jsonl").read_text(encoding="utf-8").splitlines()]
    named = given(lab, "seeds", [(row["src"], row["tgt"]) for row in rows], 2 * day)
    lab.write(experiment__data__seeds=str(named.relative_to(lab.folder)), search={"selection.seed": {"choices": [0]}},
              study__n_trials=1, study__baselines=["untuned"], study__finetune_seeds=1)
    assert lab.run("sweep", "sweep.yaml") == 0
    old, young = given(lab, "pool", [("a", "b")], 2 * day), given(lab, "pool", [("c", "d")], day / 2)
    left = named.parent / "tmp_left"
    left.mkdir()
    (left / "rows.parquet").write_bytes(b"PAR1")
    os.utime(left, (time.time() - 2 * day,) * 2)
    said = run(lab, capsys, "--dry-run")
    assert "2 of 4 inputs given in memory, 0.00 GB, would be deleted; the others are younger than a day, or a study" in said
    assert {path.name for path in named.parent.iterdir()} == {named.name, old.name, young.name, left.name}
    assert "2 of 4 inputs given in memory, 0.00 GB, deleted" in run(lab, capsys)
    assert {path.name for path in named.parent.iterdir()} == {named.name, young.name}
    given(lab, "pool", [("a", "b")], 2 * day)
    assert given(lab, "pool", [("a", "b")], 0) == old
    assert "0 of 3 inputs given in memory" in run(lab, capsys), "given again is used again"


@pytest.mark.parametrize("part", ["test", "pool"])
def test_sources_that_changed_stop_it(part: str, two: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """What a study refers to is told from its sources; nobody knows that of the old ones."""
    path = two.folder / "data" / f"{part}.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    capsys.readouterr()
    assert two.run("prune", "sweep.yaml") == 2
    assert re.match(rf"error: study 'other' cannot be read \(what it was begun with has changed: {part}: '\w+' -> '\w+'\); ",
                    capsys.readouterr().err)
    assert stored(two) == two.before | two.others


def test_a_corpus_that_is_not_there_stops_it(two: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """As after an update that raised the stage's version: the others would be used again."""
    shutil.rmtree(two.store / "corpus")
    capsys.readouterr()
    assert two.run("prune", "sweep.yaml") == 2
    assert "its corpus is not in the store, as after an update of mtselect: run its sweep once" in capsys.readouterr().err
    assert "finetune" in {path.split("/")[0] for path in stored(two)}


def test_a_model_folder_that_is_gone_stops_it(two: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (base,) = (path.parent for path in two.store.glob("base/*/manifest.json"))
    shutil.copytree(base, two.folder / "model")
    assert two.run("sweep", "sweep.yaml", "--study.name", "named", "--experiment.model.name", "model") == 0
    before = stored(two)
    (two.folder / "model").rename(two.folder / "moved")
    capsys.readouterr()
    assert two.run("prune", "sweep.yaml") == 2
    assert re.search(r"study 'named' cannot be read \(what it was begun with has changed: model: ", capsys.readouterr().err)
    assert stored(two) == before


def test_a_database_without_the_study_stops_it(two: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Also if a journal file has a study of the same name."""
    storage = ["--study.storage", "sqlite:///studies.db"]
    apart = ["--study.name", "other", "--tracking.experiment", "apart", "--experiment.selection.budget", "35"]
    assert two.run("sweep", "sweep.yaml", *storage, *apart) == 0
    before = stored(two)
    run(two, capsys, *storage)
    assert stored(two) == before
    (two.folder / "studies.db").rename(two.folder / "moved.db")
    capsys.readouterr()
    assert two.run("prune", "sweep.yaml", *storage) == 2
    assert "study 'other' was run in 'mlruns' and is not in sqlite:///studies.db: look whether" in capsys.readouterr().err
    assert stored(two) == before


def test_trials_that_run_or_wait_count(two: Any) -> None:
    from mtselect.config import load
    from mtselect.search.storage import begun_study

    with contextlib.chdir(two.folder):
        study = begun_study(load("sweep.yaml", []))
        assert study is not None
        fields = {"selection.method": "random", "selection.budget": 5}
        study.enqueue_trial({}, user_attrs={"baseline": "random-5-0", "fields": fields})
        base = validated(Experiment, study.user_attrs["sweep"]["experiment"], lenient=True)
        found = list(prune._experiments(base, study))
    assert found[0] == base
    assert with_fields(base, fields) in found
    assert with_fields(base, {"selection.seed": 0}) in found
