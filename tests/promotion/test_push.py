"""`promote STUDY --push ORG/NAME` against a stand-in of the hub: what it is given, and that refusals give it nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtselect.config import DataConfig, Experiment, TrackingConfig, with_fields
from mtselect.promotion.candidate import Candidate
from mtselect.promotion.card import write_dataset
from mtselect.promotion.gates import Gate
from mtselect.significance import PairedResult, Score
from mtselect.stages.selection import SelectedPair, Selection
from mtselect.tracking.base import DatasetInput
from mtselect.tracking.mlflow import RecordedRun
from mtselect.tracking.server import open_mlflow
from tests.hub import Hub, Repository, hub_of_this_process

TEXTS = [("Ein Haus.", "A house."), ("Der Fluss", "The river")]
PASSED = Gate(name="beats its rivals", passed=True, detail="chrf on test +2.00 against random-2 (p = 0.010)")
FAILED = Gate(name="beats its rivals", passed=False, detail="chrf on test is not significantly better than random-2")
REPOSITORY = "team/set"


def write_version(folder: Path, study: str, *, gate: Gate = PASSED, licence: str | None = "cc0-1.0", src_lang: str = "German",
                  last: str = "x") -> dict[str, str]:
    """The folder of a version, as `promote` writes it; the tags that go with it."""
    pairs = [SelectedPair(id=src, src=src, tgt=tgt, scores={"z": 0.5}) for src, tgt in [*TEXTS, ("Ende", last)]]
    selection = Selection(pairs=pairs, n_candidates=9, n_passed=5)
    score = Score(name="chrf", value=40.0, low=38.0, high=42.0, signature="nrefs:1")
    against = PairedResult(name="chrf", system=40.0, baseline=38.0, difference=2.0, low=1.0, high=3.0, p_value=0.01,
                           n_bootstrap=1000, n_seeds=3, signature="nrefs:1")
    fields = {"data.licence": licence, "data.src_lang": src_lang, "selection.gate": None, "selection.method": "random"}
    folder.mkdir()
    candidate = Candidate(
        run=RecordedRun(run_id="1", name="t000", metrics={}, params={}, tags={}), selection=selection, n_seeds=7, metric="chrf",
        experiment=with_fields(Experiment(data=DataConfig(pool="crawl.de-en", seeds="trusted.de-en")), fields),
        dev=[score], test=[score], test_set=DatasetInput(name="test", digest="x", n_rows=3, columns={}),
        rivals={"random-2": "random"}, comparisons={"random-2": against}, gates=[gate])
    write_dataset(folder, candidate, name=f"mtselect.{study}", alias="champion", study=study)
    return {"mtselect.selected": selection.digest,
            "mtselect.gate.beats_its_rivals": f"{'passed' if gate.passed else 'failed'}: {gate.detail}"}


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Any]) -> Any:
    """Promoted studies: `good`, `forced`, `bare` (without a licence), `second` (a challenger alone); and `none`."""
    lab = make_lab()
    lab.registries = {}

    def registry(study: str) -> Any:
        uri = f"sqlite:///{lab.folder}/mlflow.db"
        tracker = open_mlflow(TrackingConfig(uri=uri), study, lab.folder / "mlruns")
        lab.registries[study] = tracker.registry(f"mtselect.{study}")
        return lab.registries[study]

    def register(study: str, **given: Any) -> str:
        client = lab.client()
        found = lab.registries.get(study) or registry(study)
        run = client.create_run(client.get_experiment_by_name(study).experiment_id)
        folder = lab.folder / f"{study}-{len(found.versions())}"
        tags = write_version(folder, study, **given)
        return str(found.register(folder, run.info.run_id, tags, "").number)

    lab.register = register
    for study, given in {"good": {"src_lang": "Brazilian Portuguese"}, "forced": {"gate": FAILED}, "bare": {"licence": None},
                         "second": {}}.items():
        number = register(study, **given)
        (lab.registries[study].challenge if study == "second" else lab.registries[study].crown)(number)
    registry("none")
    return lab


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_of_this_process() as server:
        yield server


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The error, of one line; before it there may be what the hub's library says of its attempts."""
    *before, error = capsys.readouterr().err.strip().split("\n")
    assert error.startswith("error: ") and all(line.startswith(("HTTP Error 500", "Retrying in")) for line in before), error
    return error


def test_the_hub_has_the_files_the_card_and_the_tag(lab: Any, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    from huggingface_hub import DatasetCard

    assert lab.run("promote", "good", "--push", REPOSITORY) == 0
    printed = capsys.readouterr().out
    assert "mtselect.good version 1 was pushed to team/set as v1" in printed
    assert "datasets.load_dataset('team/set', revision='v1', split='train')" in printed
    repository, folder = hub.repositories[REPOSITORY], lab.folder / "good-0"
    assert repository.titles == ["initial commit", "mtselect.good version 1"] and not repository.private
    assert repository.tags == {"v1": repository.oid("main")}
    files = dict(repository.files("v1"))
    card = DatasetCard(files.pop("README.md").decode())
    assert files.pop(".gitattributes")
    assert files == {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "README.md"}
    assert files.keys() == {"selected.jsonl", "selected.parquet", "experiment.yaml", "scores.json", "gates.json"}
    assert card.data.to_dict() == {
        "pretty_name": "mtselect.good", "license": "cc0-1.0", "language": ["pt", "en"], "language_bcp47": ["pt-BR", "en"],
        "multilinguality": ["translation"], "task_categories": ["translation"], "size_categories": ["n<1K"],
        "tags": ["mtselect", "data-selection", "parallel-corpus"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "selected.parquet"}]}]}
    before = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2]
    start, end = before.split("## How to load")
    assert card.text.strip().startswith(start.strip()) and card.text.strip().endswith(end.strip()), "all else as registered"
    assert 'mtselect.load_set("good@champion")' in card.text


def test_the_cards_way_to_load_it_works(lab: Any, hub: Hub, tmp_path: Path) -> None:
    assert lab.run("promote", "good", "--push", REPOSITORY, "--private") == 0
    assert hub.repositories[REPOSITORY].private
    blocks = re.findall(r"```python\n(.*?)```", hub.repositories[REPOSITORY].files("v1")["README.md"].decode(), re.DOTALL)
    assert len(blocks) == 2
    environment = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    ran = subprocess.run([sys.executable, "-c", blocks[0] + "import json\nprint(json.dumps(pairs.to_list()))"], cwd=tmp_path,
                         env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    lines = (lab.folder / "good-0" / "selected.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(ran.stdout.splitlines()[-1]) == [json.loads(line) for line in lines]


def test_twice_changes_nothing(lab: Any, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.run("promote", "good", "--push", REPOSITORY) == 0
    before = dict(hub.repositories[REPOSITORY].tags), list(hub.repositories[REPOSITORY].commits)
    capsys.readouterr()
    assert lab.run("promote", "good", "--push", REPOSITORY) == 0
    assert "version 1 is v1 of team/set already: nothing to push" in capsys.readouterr().out
    assert (hub.repositories[REPOSITORY].tags, list(hub.repositories[REPOSITORY].commits)) == before


@pytest.mark.parametrize("cut", [("POST", "/create", True), ("PUT", "/lfs/", False), ("POST", "/commit/", False),
                                 ("POST", "/commit/", True), ("POST", "/tag/", False)])
def test_a_push_that_was_cut_off_goes_on(cut: tuple[str, str, bool], lab: Any, hub: Hub, capsys: pytest.CaptureFixture[str],
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    hub.fail = [cut] * (6 if cut[0] == "PUT" else 1)  # what it tries by itself
    assert lab.run("promote", "good", "--push", REPOSITORY) == 2
    assert re.search(r"the Hugging Face hub at http\S+ (answers 500|does not answer) \(.*\): .*run the same command again",
                     said(capsys))
    assert not hub.repositories[REPOSITORY].tags
    hub.fail.clear()
    assert lab.run("promote", "good", "--push", REPOSITORY) == 0
    repository = hub.repositories[REPOSITORY]
    assert len(repository.commits) == 2 and repository.tags == {"v1": repository.oid("main")}


def test_versions_are_tags_and_the_champion_is_the_main_branch(lab: Any, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    registry = lab.registries["good"]
    assert lab.run("promote", "good", "--push", REPOSITORY) == 0
    try:
        registry.crown(lab.register("good", last="y"))
        assert lab.run("promote", "good", "--push", REPOSITORY) == 0
        repository = hub.repositories[REPOSITORY]
        assert repository.tags.keys() == {"v1", "v2"} and repository.tags["v2"] == repository.oid("main")
        assert repository.files("v1")["selected.jsonl"] == (lab.folder / "good-0" / "selected.jsonl").read_bytes()
        first = repository.tags["v1"]
        registry.rollback()
        capsys.readouterr()
        assert lab.run("promote", "good", "--push", REPOSITORY) == 0
        assert "version 1 was pushed to team/set as v1" in capsys.readouterr().out
        assert repository.files("main") == repository.files("v1") and repository.tags["v1"] == first
    finally:
        registry.crown("1")
        lab.client().delete_model_version("mtselect.good", "2")


@pytest.mark.parametrize(("study", "options", "message"), [
    ("forced", [], r"version 1 of mtselect\.forced is not pushed, as it was promoted by force: chrf on test is not "
     r"significantly better than random-2; --force pushes it all the same"),
    ("second", [], r"mtselect\.second has no champion, and version 1 is only challenger: --force pushes it all the same"),
    ("bare", [], r"a set without a licence is not pushed: .* with `--licence cc-by-4\.0` here"),
    ("bare", ["--force"], r"a set without a licence is not pushed"),
    ("bare", ["--licence", "WTFPL-2"], r"hub at \S+ refuses the card \(\"license\" must be one of \[.*\]\): correct"),
    ("none", [], r"MLflow at sqlite:.*has no study 'none'"),
])
def test_what_is_refused(study: str, options: list[str], message: str, lab: Any, hub: Hub,
                         capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.run("promote", study, "--push", REPOSITORY, *options) == 2
    assert re.search(message, said(capsys))
    assert not hub.written and not hub.repositories


def test_force_pushes_them(lab: Any, hub: Hub) -> None:
    for study in ("forced", "second"):
        assert lab.run("promote", study, "--push", f"team/{study}", "--force") == 0
        assert hub.repositories[f"team/{study}"].tags.keys() == {"v1"}
    card = hub.repositories["team/forced"].files("v1")["README.md"].decode()
    assert "> Promoted by force although chrf on test is not significantly better" in card
    assert 'load_set("second@challenger")' in hub.repositories["team/second"].files("v1")["README.md"].decode()


def test_a_licence_may_be_given_later(lab: Any, hub: Hub) -> None:
    from huggingface_hub import DatasetCard

    assert lab.run("promote", "bare", "--push", REPOSITORY, "--licence", "CC-BY-4.0") == 0
    card = DatasetCard(hub.repositories[REPOSITORY].files("v1")["README.md"].decode())
    assert card.data.license == "cc-by-4.0" and ", licence CC-BY-4.0\n" in card.text and "not given" not in card.text


def test_a_dry_run_pushes_nothing(lab: Any, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.run("promote", "good", "--push", REPOSITORY, "--dry-run") == 0
    assert "dry run: nothing was pushed; without --dry-run version 1 would be v1 of team/set" in capsys.readouterr().out
    assert not hub.written


def test_another_datasets_repository_is_not_written_over(lab: Any, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.run("promote", "good", "--push", REPOSITORY) == 0
    lab.register("other", last="z")
    lab.registries["other"].crown("1")
    before = list(hub.repositories[REPOSITORY].commits)
    capsys.readouterr()
    assert lab.run("promote", "other", "--push", REPOSITORY) == 2
    assert "team/set has a v1 already, of another set: push to a repository of this dataset's own" in said(capsys)
    assert list(hub.repositories[REPOSITORY].commits) == before


# --- what is known before any work ---------------------------------------------------------------------


NAMES = r"--push must be ORG/NAME, each of at most 96 letters, .*, got {}: correct it"


@pytest.mark.parametrize(("name", "state", "message"), [
    *((name, {}, NAMES.format(re.escape(repr(name)))) for name in ("set", "a/b/c", "team/", "team/a--b", "team/so gut", "")),
    ("team/set", {"role": "read"}, "the token of the Hugging Face hub may only read: make one that may write"),
    ("others/set", {}, r"'me', whose token .* is, may write to repositories of me, team, not of 'others': correct"),
    ("readers/set", {}, r"'me', whose token .* may write to repositories of me, team, not of 'readers'"),
    ("team/set", {"token": "hf_another"}, r"the Hugging Face hub at http\S+ refuses the token \(.*\): set HF_TOKEN to one"),
    ("team/shut", {}, r"hub at http\S+ does not let the token's owner write there \(you must have write access to it\): take"),
])
def test_name_token_and_permission(name: str, state: dict[str, str], message: str, lab: Any, hub: Hub,
                                   capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["team/shut"] = made_before(private=True)
    hub.closed.add("team/shut")
    for key, value in state.items():
        setattr(hub, key, value)
    monkeypatch.setattr("mtselect.promotion.promote.read_study", before_work)
    monkeypatch.setattr("mtselect.promotion.promote.push", before_work)
    assert lab.run("promote", "good", "--push", name) == 2
    assert re.search(message, said(capsys))
    assert not hub.written


def before_work(*_: object) -> None:
    raise AssertionError("it should have been refused before")


def made_before(*, private: bool) -> Repository:
    repository = Repository(private=private)
    repository.add("initial commit", {})
    return repository


def test_a_public_repository_is_not_taken_for_a_private_one(lab: Any, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.repositories[REPOSITORY] = made_before(private=False)
    assert lab.run("promote", "good", "--push", REPOSITORY, "--private") == 2
    assert "--private is for a repository that push makes, and 'team/set' is there and public: make it private" in said(capsys)
    assert not hub.written
    assert lab.run("promote", "good", "--private") == 2
    assert "--private is for a repository that --push makes, got no --push" in said(capsys)


def test_no_token(lab: Any, hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert lab.run("promote", "good", "--push", REPOSITORY) == 2
    assert re.search(r"there is no token for the Hugging Face hub at http\S+: set HF_TOKEN, or log in with `hf auth login`",
                     said(capsys))
    assert not hub.written


def test_a_hub_that_is_away(lab: Any, hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert lab.run("promote", "good", "--push", REPOSITORY) == 2
    assert re.search(r"the Hugging Face hub at http://127\.0\.0\.1:9 does not answer \(.*Connection refused\): run the same",
                     said(capsys))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert lab.run("promote", "good", "--push", REPOSITORY) == 2
    assert "is not asked where HF_HUB_OFFLINE is set: unset it to push" in said(capsys)


def test_one_thing_at_a_time(lab: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        lab.run("promote", "good", "--push", REPOSITORY, "--rollback")
    assert "argument --rollback: not allowed with argument --push" in said(capsys)
