"""`python -m mtselect.promote`: what it registers, and all it refuses.

The study here has one trial that selects every candidate, so that it equals the random baseline of its size: no luck of a tiny
model can make it better, and the refusal is sure.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import mtselect
from mtselect.config import DataConfig
from mtselect.data.rows import read_rows
from mtselect.errors import DataError
from mtselect.promotion.candidate import _experiment, choose
from mtselect.promotion.gates import Gate
from mtselect.promotion.promote import _address
from mtselect.tracking.recorded import RecordedRun
from tests.hub import hub_of_this_process

NAME = "mtselect.tiny"


@pytest.fixture(scope="module")
def finished(warm_lab: Callable[..., Any]) -> Any:
    """A finished study of one trial with all 200 candidates, and as many random ones."""
    lab = warm_lab(search={"selection.seed": {"choices": [0]}}, study__n_trials=1, study__finetune_seeds=2,
                   study__baselines=["random", "pool", "pool-epochs"],
                   experiment__selection={"budget": 200, "n_clusters": 2, "threshold": 0.0, "gate": None})
    assert lab.run("sweep", "sweep.yaml") == 0
    return lab


@pytest.fixture(scope="module")
def promoted(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Promoted by force, and downloaded as a team would."""
    import mlflow

    assert finished.run("promote", "tiny", "--force", "--licence", "cc0-1.0") == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{finished.folder}/mlflow.db")
        out = tmp_path_factory.mktemp("champion")
        return Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}@champion", dst_path=str(out)))


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: "), error
    assert "\n" not in error, error
    return error


def versions(lab: Any) -> list[Any]:
    return list(lab.client().search_model_versions(f"name = '{NAME}'"))


def test_a_trial_no_better_than_random_is_refused_with_the_reason(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    before = len(versions(finished))
    capsys.readouterr()
    assert finished.run("promote", "tiny", "--licence", "cc0-1.0") == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert re.search(r"t000 is not promoted: .*chrf on test is not significantly better than random-200 \(\S+ against \S+, "
                     r"p = 1\.000, needed p < 0\.05\).*; --force promotes it all the same", said.err)
    assert "failed  beats its rivals\n" in said.out and "not significantly better" not in said.out, "the reason is said once"
    assert "no gate asks about pool-epochs: not trained for as many steps as the set\n" in said.out
    assert len(versions(finished)) == before


def test_by_force_it_becomes_the_champion(finished: Any, promoted: Path) -> None:
    (version,) = versions(finished)
    assert str(version.version) == "1"
    assert str(finished.client().get_model_version_by_alias(NAME, "champion").version) == "1"
    run = finished.children()["t000"]
    assert version.run_id == run.info.run_id
    assert version.tags["mtselect.selected"] == run.data.tags["mtselect.selected"]
    assert {path.name for path in promoted.iterdir()} >= {"selected.jsonl", "README.md", "scores.json", "experiment.yaml"}
    assert (promoted / "selected.jsonl").read_bytes() == finished.artifact(run, "selected.jsonl").read_bytes()


def test_twice_makes_one_version(finished: Any, promoted: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    assert finished.run("promote", "tiny", "--force", "--licence", "cc0-1.0") == 0
    printed = capsys.readouterr().out
    assert "version 1 is champion (the same set was registered before), by force (not passed: beats its rivals)\n" in printed
    assert len(re.findall("is not significantly better than random-200", printed)) == 1
    assert len(versions(finished)) == 1
    (hint,) = re.findall(r"^load it +mtselect\.(load_set\(.*\))$", printed, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    assert len(eval(f"mtselect.{hint}")) == 200, "from another folder"


@pytest.mark.parametrize(("uri", "environment", "expected"), [
    ("sqlite:///here.db", "sqlite:///here.db", "sqlite:///{folder}/here.db"), ("http://server:5000", "", "http://server:5000"),
    ("http://server:5000", "http://server:5000", None), ("http://***@server", "http://me:secret@server", None)])
def test_the_address_is_said_where_the_environment_does_not_have_it(uri: str, environment: str, expected: str | None,
                                                                    tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
    assert _address(uri) == (expected and expected.format(folder=tmp_path))


def test_the_card_is_a_hugging_face_card(finished: Any, promoted: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    card = (promoted / "README.md").read_text(encoding="utf-8")
    _, header, body = card.split("---\n", 2)
    front = yaml.safe_load(header)
    assert front["pretty_name"] == NAME
    assert front["license"] == "cc0-1.0"
    assert front["language"] == ["de", "en"] and "language_bcp47" not in front
    assert front["size_categories"] == ["n<1K"]
    assert re.search("> Promoted by force although .*chrf on test is not significantly better than random-200", body)
    assert re.search(r"^\| pool \| \d+\.\d\d \| [+-]\d+\.\d\d \(", body, re.MULTILINE)
    assert len(re.findall(r"^(?:dev|test) \w+: nrefs:1.*version:", body, re.MULTILINE)) == 4
    assert len(re.findall(r"^\| (?:dev|test) \|", body, re.MULTILINE)) == 4  # two splits, two metrics
    assert "{" not in re.sub(r"```.*?```", "", body, flags=re.DOTALL), "a placeholder was left"
    pairs = load_dataset(str(promoted), split="train", cache_dir=str(tmp_path))
    assert [row["id"] for row in pairs] == finished.selected()["t000"]
    rows = [json.loads(line) for line in (promoted / "selected.jsonl").read_text(encoding="utf-8").splitlines()]
    assert pairs.to_list() == rows, "the Parquet file holds what the JSON lines hold"


def test_it_is_loaded_in_one_line(finished: Any, promoted: Path) -> None:
    rows = [json.loads(line) for line in (promoted / "selected.jsonl").read_text(encoding="utf-8").splitlines()]
    uri = f"sqlite:///{finished.folder}/mlflow.db"
    for name in ("tiny", "tiny@champion", "mtselect.tiny@champion", "tiny/1", f"models:/{NAME}/1"):
        assert mtselect.load_set(name, uri=uri).to_list() == rows
    with pytest.raises(DataError, match=r"'models:/mtselect\.tiny@challenger': MLflow at .* has no such selected set"):
        mtselect.load_set("tiny@challenger", uri=uri)


def test_the_cards_way_to_load_it_works(finished: Any, promoted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (promoted / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert "mtselect.load_set(\"tiny@champion\")" in code
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{finished.folder}/mlflow.db")
    names: dict[str, Any] = {}
    exec(code, names)
    assert len(names["pairs"]) == 200


def test_the_version_carries_what_proves_it(finished: Any, promoted: Path) -> None:
    (version,) = versions(finished)
    run = finished.children()["t000"]
    assert {path.name for path in promoted.iterdir()} == {"selected.jsonl", "selected.parquet", "README.md", "experiment.yaml",
                                                          "scores.json", "gates.json", "study.png"}
    parent = next(run for run in finished.runs() if run.data.tags["mtselect.kind"] == "study")
    assert (promoted / "study.png").read_bytes() == finished.artifact(parent, "score_against_pairs.png").read_bytes()
    asked = {gate["name"]: gate["passed"] for gate in json.loads((promoted / "gates.json").read_text())}
    assert asked == {"replay": True, "schema": True, "contamination": True, "provenance": True, "beats its rivals": False}
    for tags in (version.tags, run.data.tags):
        told = {name: tags[f"mtselect.gate.{name.replace(' ', '_')}"].split(":")[0] == "passed" for name in asked}
        assert told == asked
    assert json.loads(finished.artifact(run, "gates.json").read_text()) == json.loads((promoted / "gates.json").read_text())
    assert "| provenance | yes | " in (promoted / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def small(warm_lab: Callable[..., Any]) -> Any:
    """A finished study of one trial with 20 pairs, and nothing promoted."""
    lab = warm_lab(search={"selection.seed": {"choices": [0]}}, study__n_trials=1, study__finetune_seeds=1,
                   study__baselines=["random", "pool"],
                   experiment__selection={"budget": 20, "n_clusters": 2, "threshold": 0.0, "gate": None})
    assert lab.run("sweep", "sweep.yaml") == 0
    return lab


def test_without_a_licence_it_is_refused_before_the_test_set_is_read(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    evaluations = len(small.manifests("evaluation"))
    capsys.readouterr()
    assert small.run("promote", "tiny") == 2
    assert re.search(r"t000 is not promoted: data\.licence not set: give the pool's licence .* `--licence cc-by-4\.0` here",
                     refusal(capsys))
    assert len(small.manifests("evaluation")) == evaluations
    assert not small.client().search_registered_models()
    tags = small.children()["t000"].data.tags
    assert tags["mtselect.gate.provenance"].startswith("failed: data.licence not set")
    assert tags["mtselect.gate.replay"].startswith("passed: ")


def test_a_study_that_was_recorded_without_models_goes_on(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """As versions did that knew no model and no dataset but the selected one."""
    with sqlite3.connect(small.folder / "mlflow.db") as database:
        database.executescript("""
            delete from inputs where source_type = 'RUN_OUTPUT';
            delete from inputs where source_id in (select dataset_uuid from datasets where name != 'selected');
            delete from datasets where name != 'selected';
            delete from logged_model_metrics; delete from logged_model_params; delete from logged_model_tags;
            delete from logged_models;""")
    client = small.client()
    assert not client.search_logged_models(["1"])
    assert small.run("sweep", "sweep.yaml", "--study.n_trials", "2") == 0
    (model,) = client.search_logged_models(["1"])
    assert model.source_run_id == small.children()["t001"].info.run_id
    study = next(run for run in small.runs() if run.info.run_name == "tiny")
    assert {one.dataset.name for one in study.inputs.dataset_inputs} == {"pool", "seeds", "dev", "test"}
    capsys.readouterr()
    assert small.run("promote", "tiny", "--force") == 0
    said = re.findall(r"^ +(\S+), seed 1, translate test +20 of 20 in", capsys.readouterr().out, re.MULTILINE)
    assert said == ["t000", "pool", "random-20"] or said == ["t000", "random-20", "pool"]
    assert list(mtselect.load_set("tiny", uri=f"sqlite:///{small.folder}/mlflow.db")["id"]) == small.selected()["t000"]
    kinds = {one.model_type: one.source_run_id for one in client.search_logged_models(["1"], datasets=[
        {"dataset_name": "test"}])}
    assert kinds == {"dataset": small.children()["t000"].info.run_id}, "what was promoted"
    before = small.manifests()
    assert small.run("prune", "sweep.yaml") == 0
    assert small.manifests() == before


def test_a_study_that_was_recorded_without_a_field_is_as_it_was(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """As versions did that computed statistics in float32 and had no name for it."""
    for run in small.children().values():
        path = small.artifact(run, "experiment.yaml")
        text = path.read_text(encoding="utf-8")
        assert text.count("    statistics: float32\n") == 1
        path.write_text(text.replace("    statistics: float32\n", ""), encoding="utf-8")
    before = small.manifests("gradients")
    capsys.readouterr()
    assert small.run("promote", "tiny", "--force", "--dry-run") == 0
    assert "passed  replay: the same " in capsys.readouterr().out
    assert small.manifests("gradients") == before


def test_a_dry_run_registers_nothing(finished: Any, promoted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = finished.children()["t000"].data
    capsys.readouterr()
    assert finished.run("promote", "tiny", "--force", "--dry-run", "--licence", "mit") == 0
    printed = capsys.readouterr().out
    assert "failed  beats its rivals" in printed and "passed  provenance" in printed
    assert "dry run: nothing was registered; it stays champion of mtselect.tiny, by force (not passed: beats" in printed
    assert len(versions(finished)) == 1
    assert finished.children()["t000"].data.tags == before.tags


def test_champion_challenger_and_back(finished: Any, promoted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second version, registered by hand as better or worse than the study's own set."""
    from mtselect.config import TrackingConfig
    from mtselect.tracking.server import open_mlflow

    uri = f"sqlite:///{finished.folder}/mlflow.db"
    registry = open_mlflow(TrackingConfig(uri=uri), "tiny", finished.folder / "mlruns", create=False).registry(NAME)
    (mine,) = versions(finished)
    better = {**mine.tags, "mtselect.selected": "x", "mtselect.test.chrf": str(float(mine.tags["mtselect.test.chrf"]) + 1)}
    registry.crown(registry.register(promoted, mine.run_id, better, "").number)
    capsys.readouterr()
    client = finished.client()

    def at(alias: str) -> str:
        return str(client.get_model_version_by_alias(NAME, alias).version)

    try:
        assert registry.champion().number == "2"  # type: ignore[union-attr]
        with pytest.MonkeyPatch.context() as patch:  # its gates hold, for once
            patch.setattr("mtselect.promotion.gates.P_VALUE", 2)
            yes = Gate(name="beats its rivals", passed=True, detail="yes")
            patch.setattr("mtselect.promotion.gates.beats_rivals", lambda *_: yes)
            assert finished.run("promote", "tiny", "--licence", "mit") == 0
        assert "version 1 is challenger" in capsys.readouterr().out
        assert (at("champion"), at("challenger")) == ("2", "1")
        assert finished.run("promote", "tiny", "--licence", "mit", "--force") == 0
        assert at("champion") == "1"
        assert "challenger" not in client.get_registered_model(NAME).aliases
        assert finished.run("promote", "tiny", "--rollback") == 0
        assert "version 2 is champion again, version 1 is not any more" in capsys.readouterr().out
        assert at("champion") == "2"
        assert finished.run("promote", "tiny", "--rollback") == 2
        assert "no earlier champion to roll back to" in refusal(capsys)
    finally:
        registry.crown("1")
        client.delete_model_version(NAME, "2")


def test_export_writes_what_datasets_opens(finished: Any, promoted: Path, tmp_path: Path,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    from datasets import load_dataset

    assert finished.run("promote", "tiny", "--export", str(tmp_path / "out")) == 0
    pairs = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["id"] for row in pairs] == finished.selected()["t000"]
    capsys.readouterr()
    assert finished.run("promote", "tiny", "--export", str(tmp_path / "out")) == 2
    assert "--export must name a new or empty folder, got" in refusal(capsys)
    assert finished.run("promote", "nobody", "--export", str(tmp_path / "other")) == 2
    capsys.readouterr()
    assert finished.run("promote", "tiny", "--export", str(tmp_path / "none" / "chosen.en-de")) == 2
    assert "cannot be written: name a file in a folder that exists" in refusal(capsys)


@pytest.mark.parametrize(("name", "files"), [
    ("best.jsonl", ["best.jsonl"]), ("best.jsonl.gz", ["best.jsonl.gz"]), ("best.tsv", ["best.tsv"]),
    ("best.parquet", ["best.parquet"]), ("best.de-en", ["best.de", "best.en"]),
    ("best.{src,tgt}.zst", ["best.src.zst", "best.tgt.zst"])])
def test_export_writes_every_form(name: str, files: list[str], finished: Any, promoted: Path, tmp_path: Path) -> None:
    assert finished.run("promote", "tiny", "--export", str(tmp_path / name)) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    rows = [json.loads(line) for line in (promoted / "selected.jsonl").read_text(encoding="utf-8").splitlines()]
    read = list(read_rows(DataConfig(pool=str(tmp_path / name)), "pool"))
    assert [(row.src, row.tgt) for row in read] == [(row["src"], row["tgt"]) for row in rows]
    if name == "best.jsonl":
        assert (tmp_path / name).read_bytes() == (promoted / "selected.jsonl").read_bytes()
    if name == "best.de-en":
        assert (tmp_path / "best.de").read_text(encoding="utf-8") == "".join(f"{row['src']}\n" for row in rows)


def test_what_was_never_promoted_is_promoted_and_pushed(finished: Any, promoted: Path,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    """A licence that is missing is told before anything is computed; what does not pass its gates is not pushed."""
    finished.client().delete_registered_model(NAME)
    with hub_of_this_process() as hub:
        assert finished.run("promote", "tiny", "--push", "team/tiny") == 2
        assert "computed again" not in (told := capsys.readouterr()).out
        assert "a set without a licence is not pushed" in told.err
        assert finished.run("promote", "tiny", "--push", "team/tiny", "--licence", "mit") == 2
        assert "not significantly better than random-200" in capsys.readouterr().err
        assert not hub.written and not versions(finished)
        assert finished.run("promote", "tiny", "--push", "team/tiny", "--licence", "cc0-1.0", "--force") == 0
        assert "mtselect.tiny version 1 was pushed to team/tiny as v1" in capsys.readouterr().out
        pushed = hub.repositories["team/tiny"].files("v1")
    assert pushed["selected.jsonl"] == (promoted / "selected.jsonl").read_bytes() and "study.png" in pushed
    assert str(finished.client().get_model_version_by_alias(NAME, "champion").version) == "1"


def test_test_scores_are_on_the_trials_run(finished: Any, promoted: Path) -> None:
    metrics = finished.children()["t000"].data.metrics
    assert metrics.keys() >= {"test/bleu", "test/chrf", "test/chrf_low", "test/chrf_high"}
    assert metrics["test/p_value_against_random"] == 1
    assert metrics["test/difference_to_random"] == 0
    assert "test/chrf" not in finished.children()["random-200"].data.metrics


def test_a_set_that_does_not_come_out_again_is_refused(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run, client = finished.children()["t000"], finished.client()
    digest = run.data.tags["mtselect.selected"]
    client.set_tag(run.info.run_id, "mtselect.selected", "0" * len(digest))
    try:
        assert finished.run("promote", "tiny", "--force") == 2
    finally:
        client.set_tag(run.info.run_id, "mtselect.selected", digest)
    assert re.search(r"t000 selects other pairs when computed again: .*run the sweep again .* with or without --force",
                     refusal(capsys))
    assert finished.children()["t000"].data.tags["mtselect.gate.replay"].startswith("failed: selects other pairs")


def test_from_scratch_takes_nothing_from_the_store(finished: Any, promoted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A store whose warm-up was changed by hand shows it: what comes from it comes out again, what is computed does not."""
    before = finished.manifests()
    capsys.readouterr()
    assert finished.run("promote", "tiny", "--force", "--dry-run", "--licence", "mit", "--from-scratch") == 0
    printed = capsys.readouterr().out
    assert re.search(r"passed  replay: the same 200 ids and dev scores .*; computed again: all, warm-up included", printed)
    assert len(re.findall(r"warmup: \d+ steps", printed)) == len(re.findall(r"pool gradients ", printed)) == 1
    assert finished.manifests() == before
    assert not list((finished.folder / "mlruns").glob("from-scratch-*"))
    assert finished.run("promote", "tiny", "--force", "--dry-run", "--licence", "mit") == 0
    printed = capsys.readouterr().out
    assert "computed again: selection and translations; from the store: corpus, warm-up, gradients" in printed
    assert "warmup: " not in printed


def test_a_score_that_does_not_come_out_again_is_refused(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run, client = finished.children()["t000"], finished.client()
    score = run.data.metrics["eval/chrf"]
    client.log_metric(run.info.run_id, "eval/chrf", score + 1)
    try:
        assert finished.run("promote", "tiny", "--force") == 2
    finally:
        client.log_metric(run.info.run_id, "eval/chrf", score, timestamp=2**42)
    assert re.search(r"t000 scores chrf \S+ on dev when computed again, recorded was \S+: results are not reproducible here",
                     refusal(capsys))


@pytest.mark.parametrize(("name", "message"), [
    ("none", r"MLflow at sqlite:.*mlflow\.db has no study 'none': check the name, or set --tracking\.uri"),
    ("it's", r"study\.name must be a name of letters, digits, '-', '_' and '\.', got \"it's\""),
])
def test_an_unknown_study_is_refused(name: str, message: str, finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    experiments = len(finished.client().search_experiments())
    assert finished.run("promote", name) == 2
    assert re.search(message, refusal(capsys))
    assert len(finished.client().search_experiments()) == experiments, "asking for a study made an experiment"


def test_a_sweep_without_rivals_is_refused(warm_lab: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(study__n_trials=1, study__baselines=["untuned"])
    assert lab.run("sweep", "sweep.yaml") == 0
    capsys.readouterr()
    assert lab.run("promote", "tiny", "--force") == 2
    assert re.search(r"t000 \(\d+ pairs\) was not compared with pool, random: let the sweep run to its end, with random and "
                     r"pool in study\.baselines", refusal(capsys))


# --- the decision alone --------------------------------------------------------------------------------


def test_a_trials_metrics_go_with_its_studys_objectives() -> None:
    """Which its own file does not have: one without chrF, the objective if none is named, is no wrong one."""
    recorded: Any = SimpleNamespace(read_text=lambda run_id, name: "experiment: {evaluation: {metrics: [bleu]}}")
    assert _experiment(recorded, RUN).evaluation.metrics == ["bleu"]


RUN = RecordedRun(run_id="1", name="t003", metrics={"eval/chrf": 40.0, "select/pairs": 20.0}, params={"method": "gdig"},
                  tags={"mtselect.kind": "trial", "mtselect.trial": "3"})


def test_the_best_trial_is_optunas_and_its_rivals_are_of_its_size() -> None:
    from mtselect.config import StudyConfig, Sweep
    from mtselect.errors import PromotionRefused

    def run(name: str, kind: str, number: int, score: float, pairs: int, method: str = "gdig") -> RecordedRun:
        return replace(RUN, name=name, metrics={"eval/chrf": score, "select/pairs": float(pairs)},
                       params={"method": method, "budget": str(pairs)},
                       tags={"mtselect.kind": kind, "mtselect.trial": str(number)})

    runs = [run("t002", "trial", 2, 41.0, 40), run("t001", "trial", 1, 41.0, 20), run("t000", "trial", 0, 50.0, 0),
            run("pool", "baseline", 5, 60.0, 300, "pool"), run("random-20", "baseline", 6, 39.0, 20, "random"),
            run("random-40", "baseline", 7, 39.0, 40, "random"), run("t001-again", "again", 8, 45.0, 20)]
    best, rivals = choose(runs, Sweep(study=StudyConfig(baselines=["random", "pool"])))
    assert best.name == "t001"  # of equals the first, as Optuna has it; an empty set cannot be promoted
    assert [rival.name for rival in rivals] == ["pool", "random-20"]
    with pytest.raises(PromotionRefused, match=r"t001 \(20 pairs\) was not compared with loss: let the sweep run to its end"):
        choose(runs, Sweep(study=StudyConfig(baselines=["random", "pool", "loss"])))
    other = replace(runs[3], name="pool steps=9", metrics={**runs[3].metrics, "finetune/steps": 9.0})
    assert choose([other, *runs], Sweep(study=StudyConfig(baselines=["pool"])))[1] == rivals, "the pool of another best trial"
    with pytest.raises(PromotionRefused, match="was not compared with pool"):
        choose([other, *(one for one in runs if one.name != "pool")], Sweep(study=StudyConfig(baselines=["pool"])))
