"""Recording and registering against a real MLflow server over HTTP."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import matplotlib.figure
import pytest
from mlflow.exceptions import MlflowException

from mtselect.config import DataConfig, Sweep, TrackingConfig
from mtselect.errors import PromotionRefused, StorageError
from mtselect.store import jsonl
from mtselect.tracking.base import DatasetInput
from mtselect.tracking.mlflow import MlflowTracker
from mtselect.tracking.server import open_mlflow, reach

GIVEN = DatasetInput(name="selected", digest="abc", n_rows=2,
                     columns={"id": str, "src": str, "tgt": str, "z": float, "cluster": int})
DEV = DatasetInput(name="dev", digest="def", n_rows=3, data=DataConfig())
WEIGHTS = {"mtselect.weights.0": "/store/finetune/key/model"}
START_SECONDS = 90  # a server needs about ten on two busy cores, most of it for its database


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an MLflow server of our own."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--serve-artifacts",
               "--artifacts-destination", f"{folder}/artifacts"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(f"http://127.0.0.1:{port}/health", process, folder / "log.txt")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)  # its own session: the server and its worker, nothing else
        process.wait(20)


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def tracker(server: str, tmp_path_factory: pytest.TempPathFactory) -> MlflowTracker:
    return open_mlflow(TrackingConfig(uri=server), "über.http", tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def trial(tracker: MlflowTracker, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A study run with one recorded trial."""
    parent = tracker.study_run(Sweep())
    run_id = tracker.start_trial(parent, "t000", "trial", {"budget": 5, "method": "gdig"}, 0)
    tracker.log(run_id, metrics={"eval/bleu": 12.345678, "eval/chrf": 40.0, "select/pairs": 2},
                tags={"mtselect.selected": "abc"}, note="**Größe**")
    tracker.log_text(run_id, '{"id": "1", "src": "Straße 数"}\n', "selected.jsonl")
    tracker.log_table(run_id, {"src": ["Straße"], "hyp": [""], "ref": ["street"]}, "translations.json")
    tracker.log_curve(run_id, [{"train_loss": 2.0, "dev_loss": None, "step": 1},
                               {"train_loss": 1.0, "dev_loss": 3.0, "step": 2}])
    tracker.log_inputs(run_id, [GIVEN])
    figure = matplotlib.figure.Figure()
    figure.subplots().plot([1, 2])
    tracker.log_figure(run_id, figure, "plots/x.png")
    path = tmp_path_factory.mktemp("files") / "rows.npy"
    path.write_bytes(b"rows")
    tracker.log_file(run_id, path, "gradients/key")
    tracker.end(run_id, "FINISHED")
    return run_id


def test_what_was_recorded_is_read_back(tracker: MlflowTracker, trial: str) -> None:
    study = tracker.find_study()
    assert study is not None
    (run,) = tracker.children(study.run_id)
    assert run.run_id == trial
    assert run.metrics == {"eval/bleu": 12.3457, "eval/chrf": 40.0, "select/pairs": 2.0, "finetune/loss": 1.0,
                           "finetune/dev_loss": 3.0}
    assert run.params == {"budget": "5", "method": "gdig"}
    assert run.tags["mlflow.note.content"] == "**Größe**"
    assert run.tags["mtselect.study"] == "über.http"
    assert tracker.read_text(trial, "selected.jsonl") == '{"id": "1", "src": "Straße 数"}\n'
    assert json.loads(tracker.read_text(trial, "translations.json"))["data"] == [["Straße", "", "street"]]
    assert tracker.read_text(study.run_id, "sweep.yaml").startswith("experiment:")


@pytest.mark.parametrize(("path", "there"), [("selected.jsonl", True), ("plots/x.png", True), ("gradients/key/rows.npy", True),
                                             ("plots/y.png", False), ("none/x.png", False), ("plots", True)])
def test_artifacts_are_found(path: str, there: bool, tracker: MlflowTracker, trial: str) -> None:
    assert tracker.has_file(trial, path) is there


def test_a_study_has_one_run_however_often_it_is_asked_for(tracker: MlflowTracker, trial: str) -> None:
    study = tracker.find_study()
    assert study is not None
    assert tracker.study_run(Sweep()) == study.run_id


def test_what_a_killed_worker_left_is_closed_and_nothing_else(tracker: MlflowTracker, trial: str, server: str) -> None:
    import mlflow

    study = tracker.find_study()
    assert study is not None
    left = tracker.start_trial(study.run_id, "t001", "trial", {}, 1)
    other = tracker.start_trial(study.run_id, "t002", "trial", {}, 2)
    for run_id in (left, other):
        tracker.log_model(run_id, "finetuned", WEIGHTS, {"eval/chrf": 40.0}, DEV)
    tracker.close_trial(study.run_id, 1)
    tracker.close_trial(study.run_id, 0)
    client = mlflow.MlflowClient(tracking_uri=server)
    assert {run: client.get_run(run).info.status for run in (trial, left, other)} == \
        {trial: "FINISHED", left: "KILLED", other: "RUNNING"}
    assert [run.run_id for run in tracker.children(study.run_id)] == [trial]
    tracker.abandon(other, "FAILED", note="Failed: why")
    assert client.get_run(other).info.status == "FAILED"
    assert client.get_run(other).data.tags["mlflow.note.content"] == "Failed: why"
    assert {client.get_logged_model(client.get_run(run).outputs.model_outputs[0].model_id).status
            for run in (left, other)} == {"FAILED"}


def test_a_finished_run_leaves_a_model_that_is_ready(tracker: MlflowTracker, server: str) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=server)
    parent = tracker.study_run(Sweep())
    run_id = tracker.start_trial(parent, "random-20 lr=0.01", "baseline", {"method": "random"}, 3)
    tracker.log_model(run_id, "finetuned", WEIGHTS, {"eval/chrf": 40.123456, "eval/chrf_low": 38.0}, DEV)
    (output,) = client.get_run(run_id).outputs.model_outputs
    assert client.get_logged_model(output.model_id).status == "PENDING"
    tracker.end(run_id, "FINISHED")
    model = client.get_logged_model(output.model_id)
    assert (model.status, model.name, model.params) == ("READY", "random-20 lr=0-01", {"method": "random"})
    assert model.tags.items() >= {"mtselect.study": "über.http", "mtselect.kind": "baseline", **WEIGHTS}.items()
    assert client.get_run(run_id).data.metrics == {"eval/chrf": 40.1235, "eval/chrf_low": 38.0}
    dev = {"dataset_name": "dev", "dataset_digest": "def"}
    asked = [tracker.experiment_id], f"source_run_id = '{run_id}' AND metrics.`eval/chrf` > 40"
    assert [one.model_id for one in client.search_logged_models(*asked, datasets=[dev])] == [model.model_id]
    assert not client.search_logged_models(*asked, datasets=[{**dev, "dataset_digest": "abc"}])


def test_two_workers_log_the_same_pairs_at_once(tracker: MlflowTracker, server: str, tmp_path: Path) -> None:
    import mlflow

    parent = tracker.study_run(Sweep())
    workers = [open_mlflow(TrackingConfig(uri=server), "über.http", tmp_path) for _ in range(2)]
    begin = threading.Barrier(2)
    failed: list[BaseException] = []

    def work(worker: MlflowTracker) -> None:
        try:
            for number in range(20):
                begin.wait(60)
                worker.log_inputs(parent, [replace(DEV, digest=str(number))])
        except BaseException as error:
            begin.abort()
            failed.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    inputs = mlflow.MlflowClient(tracking_uri=server).get_run(parent).inputs.dataset_inputs
    assert sorted(int(one.dataset.digest) for one in inputs) == list(range(20))


def test_a_server_that_goes_away_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # else it takes minutes, rightly
    gone = "http://127.0.0.1:9"  # the discard port: nobody listens
    tracker = MlflowTracker(mlflow.MlflowClient(tracking_uri=gone), gone, "1", "study", tmp_path / "lock")
    message = r"MLflow at http://127\.0\.0\.1:9 does not record any more \(.*\): start its server"
    with pytest.raises(StorageError, match=message) as told:
        tracker.log("run", metrics={"x": 1.0})
    assert "\n" not in str(told.value)
    tracker.abandon("run", "FAILED")  # says nothing: the first error is the one to show


@pytest.mark.parametrize(("version", "message"), [
    ("2.22.1", "is 2.22.1, and trials are recorded with logged models, which begin with 3: install a newer one there"),
    ("3.1.0", None), (None, None)])
def test_a_server_that_is_too_old_is_told_before_any_work(version: str | None, message: str | None, tmp_path: Path) -> None:
    class Old(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(404 if version is None else 200, version or "")

        def do_POST(self) -> None:
            self.answer(200, "{}")

        def answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """To nobody."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Old) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        config = TrackingConfig(uri=f"http://127.0.0.1:{served.server_port}")
        with nullcontext() if message is None else pytest.raises(StorageError, match=re.escape(message)):
            assert reach(config, tmp_path) == config.uri
        served.shutdown()


def test_a_fault_of_ours_is_not_blamed_on_the_server(tracker: MlflowTracker, trial: str) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=r"chrf\+\+"):
        tracker.log(trial, metrics={"eval/chrf++": 1.0})


def test_versions_champions_and_the_way_back(tracker: MlflowTracker, trial: str, server: str, tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP, at a server that MLflow would not find by itself."""
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    registry = tracker.registry("mtselect.über.http")
    folder = tmp_path / "dataset"
    folder.mkdir()

    def register(text: str) -> str:
        (folder / "selected.jsonl").write_text(text, encoding="utf-8")
        return registry.register(folder, trial, {"mtselect.selected": text}, "# card").number

    def at(alias: str) -> str:
        with monkeypatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", server)
            aside = tmp_path / f"aside{len(list(tmp_path.iterdir()))}"
            found = mlflow.artifacts.download_artifacts(f"models:/{registry.name}@{alias}", dst_path=str(aside))
            return (Path(found) / "selected.jsonl").read_text(encoding="utf-8")

    assert registry.champion() is None and registry.versions() == []
    with pytest.raises(PromotionRefused, match="no earlier champion to roll back to: its champions were none"):
        registry.rollback()
    assert register("Straße") == "1"
    registry.crown("1")
    with pytest.raises(PromotionRefused, match=r"no earlier champion to roll back to: its champions were \['1'\]"):
        registry.rollback()
    assert register("Weg") == "2"
    registry.challenge("2")
    assert (at("champion"), at("challenger")) == ("Straße", "Weg")
    registry.crown("2")
    assert at("champion") == "Weg"
    with pytest.raises(MlflowException, match="challenger"):
        at("challenger")
    assert registry.champion().digest == "Weg"  # type: ignore[union-attr]
    assert [version.number for version in registry.versions()] == ["2", "1"]
    assert registry.rollback() == ("2", "1")
    assert at("champion") == "Straße"
    registry.crown("2")
    registry.crown("1")  # crowned again it was champion last, and before it 2
    assert registry.rollback() == ("1", "2")
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_links_name_the_server(tracker: MlflowTracker, server: str) -> None:
    links = tracker.links("run", "eval/chrf")
    assert links["command"] == ""
    assert links["study"] == f"{server}/#/experiments/{tracker.experiment_id}/runs/run?workflowType=machine_learning"
    assert links["trials"].startswith(f"{server}/#/experiments/{tracker.experiment_id}/runs?viewStateShareKey=mtselect")
    link = tracker.dataset_link("mtselect.über.http", "1")
    assert link == f"{server}/#/models/mtselect.%C3%BCber.http/versions/1?workflowType=machine_learning"


def test_lines_keep_letters_as_they_are() -> None:
    assert jsonl([{"uri": "ü", "experiment": None}, {}]) == '{"uri": "ü", "experiment": null}\n{}\n'
