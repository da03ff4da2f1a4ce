"""Sweeps against real servers: MLflow's over HTTP with proxied artifacts, PostgreSQL under it and under Optuna, servers that go
away in the middle, and credentials, which must work and be seen nowhere.

Every sweep is compared with the same one, undisturbed, on local files (`swept`).
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

import mtselect
from mtselect.config import DataConfig, Sweep, TrackingConfig
from mtselect.errors import StorageError
from mtselect.remote import Patience, redact
from mtselect.tracking.base import DatasetInput
from mtselect.tracking.mlflow import MlflowTracker
from mtselect.tracking.server import open_mlflow

ROOT = Path(__file__).parents[1]
GIVEN = DatasetInput(name="selected", digest="abc", n_rows=2,
                     columns={"id": str, "src": str, "tgt": str, "z": float, "cluster": int})
DEV = DatasetInput(name="dev", digest="def", n_rows=3, data=DataConfig())
AWAY = 3.0  # seconds a killed server stays away, beside its start


@dataclass
class Proxy:
    """A reverse proxy before an MLflow server: asks for credentials, and can lose answers.

    Args:
        port: of the MLflow server.
        authorization: the header it insists on.
        lose: method and end of a path; the next such request is carried out, but its answer is lost.
    """

    port: int
    authorization: str | None = None
    lose: list[tuple[str, str]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    stopped: bool = False

    def __enter__(self) -> Proxy:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                proxy.serve(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *arguments: object) -> None:
        if not self.stopped:
            self.stop()

    def stop(self) -> None:
        """Go away, in the middle of what is asked."""
        self.stopped = True
        self.server.shutdown()
        self.server.server_close()

    def uri(self, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.server.server_address[1]}"

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        if self.stopped:  # a connection from before
            handler.close_connection = True
            return
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        if "Transfer-Encoding" in handler.headers:  # of an empty file; chunks: length, line end, bytes, line end
            while length := int(handler.rfile.readline(), 16):
                body += handler.rfile.read(length + 2)[:-2]
            handler.rfile.readline()
        self.requests.append(f"{handler.command} {handler.path}")
        if self.authorization not in (None, handler.headers.get("Authorization")):
            handler.send_response(401)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {key: value for key, value in handler.headers.items() if key.lower() not in (
            "connection", "authorization", "transfer-encoding")}
        connection.request(handler.command, handler.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        path = handler.path.split("?")[0]
        lost = [one for one in self.lose if handler.command == one[0] and path.endswith(one[1])]
        if lost:
            self.lose.remove(lost[0])
            handler.close_connection = True
            return
        handler.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("transfer-encoding", "content-length", "connection", "server", "date"):
                handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


# --- what a study left behind, however it was recorded ---------------------------------------------


def client_of(uri: str) -> Any:
    import mlflow

    return mlflow.MlflowClient(tracking_uri=uri)


def recorded(client: Any, study: str, root: Path | None = None) -> dict[str, Any]:
    """All that a study's runs hold and that is the same wherever it runs; each run once. `root`: of proxied artifacts."""
    experiment = client.get_experiment_by_name(study).experiment_id
    models = {one.model_id: one for one in client.search_logged_models([experiment]) if one.status == "READY"}
    runs = client.search_runs([experiment], max_results=1000)
    names = [run.info.run_name for run in runs]
    assert len(set(names)) == len(names), f"recorded twice: {sorted(names)}"
    return {run.info.run_name.replace(study, "study"): {
        "status": run.info.status, "params": run.data.params,
        "metrics": {key: value for key, value in run.data.metrics.items() if key != "trial/minutes"} | {
            "timed": "trial/minutes" in run.data.metrics},
        "tags": {key: value for key, value in run.data.tags.items()
                 if key.startswith(("mtselect.kind", "mtselect.sel", "mtselect.sig", "mlflow.logged"))},
        "note": "mlflow.note.content" in run.data.tags,
        "curve": [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "finetune/loss")],
        "datasets": {(one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs},
        "models": [(models[one.model_id].model_type, models[one.model_id].name, len(models[one.model_id].metrics))
                   for one in run.outputs.model_outputs],
        "files": files_of(artifacts_of(run, root)),
    } for run in runs}


def artifacts_of(run: Any, root: Path | None) -> Path:
    uri = str(run.info.artifact_uri)
    return Path(uri.removeprefix("file://")) if root is None else root / uri.removeprefix("mlflow-artifacts:/")


def files_of(folder: Path) -> dict[str, str]:
    """Path -> digest of every artifact; those that name their folders or servers only by their path."""
    varied = ("manifest.json", "sweep.yaml", "study.html")
    return {str(path.relative_to(folder)): "" if path.name in varied or path.suffix == ".png"
            else hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(swept: Any) -> dict[str, Any]:
    found = recorded(swept.client(), "tiny")
    assert len(found) == 8 and all(len(run["files"]) >= 3 for run in found.values())
    return found


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, run in expected.items():
        for part, value in run.items():
            assert found[name][part] == value, (name, part)


def meanwhile(what: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=what)
    thread.start()
    return thread


# --- the same as on local files ----------------------------------------------------------------------


def test_over_http_with_passwords_it_is_the_same_and_no_password_is_seen(
        undisturbed: Any, warm_lab: Callable[..., Any], postgres: Any, postgres_server: Any, known_to_mlflow: None,
        monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """MLflow and Optuna on PostgreSQL, each with user and password in its URI, as written in the sweep file. Whoever has MLflow
    alone finds the champion's rows there."""
    with Proxy(postgres_server.port, "Basic bGFiOkBIdHRwU2Vrcg==") as proxy:  # lab:@HttpSekr
        uri, storage = proxy.uri("lab:%40HttpSekr@"), postgres.url("optuna")
        lab = warm_lab(study__name="passwords", study__storage=storage, tracking__uri=uri)
        (lab.folder / "mlflow.db").unlink()
        assert lab.run("sweep", "sweep.yaml") == 0
        assert lab.run("sweep", "sweep.yaml", "--study.seed", "1") == 0  # again: nothing to do
        assert lab.run("sweep", "sweep.yaml", "--experiment.seed", "7") == 2
        assert_same(recorded(client_of(postgres_server.uri), "passwords",
                             postgres_server.folder / "artifacts"), undisturbed)
        assert lab.run("promote", "passwords", "--tracking.uri", uri, "--force") == 0  # a tiny model may not beat random
        assert_champion_is_found(postgres_server.uri, "passwords", monkeypatch)
        assert lab.run("sweep", "sweep.yaml", "--study.storage", storage.replace("/optuna", "/none")) == 2
        assert lab.run("sweep", "sweep.yaml", "--tracking.uri", uri.replace("Sekr", "Sekr2")) == 2
    (lab.folder / "sweep.yaml").unlink()  # the only place where they belong
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed
    assert f"http://***@127.0.0.1:{proxy.server.server_address[1]}" in printed
    assert "View run" not in printed
    everything = [printed.encode(), *(postgres.call("pg_dump", name).encode() for name in ("mlflow", "optuna"))]
    everything += [path.read_bytes() for folder in (lab.folder, postgres_server.folder / "artifacts")
                   for path in folder.rglob("*") if path.is_file()]
    assert len(everything) > 100
    assert not [text[max(0, text.find(b"Sekr") - 200) :][:300] for text in everything if b"Sekr" in text]
    assert any(b"tracking:\n  kind: mlflow\n  uri: http://***@127" in text for text in everything)  # the recorded sweep.yaml


def assert_champion_is_found(uri: str, study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the lines of docs/mlflow.md, in a process that knows the server."""
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "trainings of one's own")
    ids = list(mtselect.load_set(f"{study}@champion")["id"])
    client = client_of(uri)
    version = client.get_model_version_by_alias(f"mtselect.{study}", "champion")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "mlflow.md").read_text(encoding="utf-8"), re.DOTALL)
    found: dict[str, Any] = {"RUN": version.run_id, "STUDY": study}
    exec(code, found)
    run, given = found["run"], found["given"]
    assert list(found["pairs"]["id"]) == list(found["champion"].ds["id"]) == ids
    assert len(ids) == run.data.metrics["select/pairs"] > 0
    assert given.keys() == {"selected", "dev", "test"}
    assert mlflow.data.get_source(given["test"]).load().endswith("data/test.jsonl")
    trials = [model for model in found["models"] if model.tags["mtselect.kind"] == "trial"]
    assert trials[0].source_run_id == run.info.run_id and len(trials) == 3
    (tested,) = found["versions"]
    assert (tested.model_uri, tested.tags["mtselect.selected"]) == (version.source, given["selected"].dataset.digest)
    assert {one.key: one.value for one in tested.metrics} == {
        name: value for name, value in run.data.metrics.items()
        if name.startswith("test/") and "_against_" not in name and "difference" not in name}
    same = mlflow.search_runs(search_all_experiments=True, output_format="list",
                              filter_string=f"dataset.digest = '{given['selected'].dataset.digest}'")
    assert len([run for run in same if "mtselect.kind" not in run.data.tags]) == 1


def test_two_workers_survive_a_restart_of_postgres(undisturbed: Any, warm_lab: Callable[..., Any], postgres: Any,
                                                   postgres_server: Any, wait_for: Any) -> None:
    lab = warm_lab(study__name="workers", study__storage=postgres.url("optuna"), tracking__uri=postgres_server.uri)
    processes = [lab.start("sweep", "sweep.yaml", log=f"{i}.txt") for i in range(2)]
    wait_for(lambda: lab.manifests("evaluation"), processes[0])
    postgres.kill()
    time.sleep(AWAY)
    postgres.start()
    for process in processes:
        process.join()
    logs = [lab.log(f"{i}.txt") for i in range(2)]
    assert [process.exitcode for process in processes] == [0, 0], logs
    assert "Traceback" not in "".join(logs)
    assert any("waiting up to 15 minutes, nothing is lost" in log for log in logs), logs
    assert all(log.count("does not answer") == log.count("is back after") for log in logs), logs
    assert all(re.search(r"^t00\d |^random-", log, re.MULTILINE) for log in logs), "one of them did nothing"
    assert_same(recorded(client_of(postgres_server.uri), "workers", postgres_server.folder / "artifacts"), undisturbed)


# --- a server that goes away -----------------------------------------------------------------------


def test_a_killed_mlflow_server_costs_no_trial_and_no_record(undisturbed: Any, warm_lab: Callable[..., Any], mlflow_server: Any,
                                                             wait_for: Any, capfd: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(study__name="killed", tracking__uri=mlflow_server.uri)
    (lab.folder / "mlflow.db").unlink()

    def go_away() -> None:
        wait_for(lambda: len(lab.manifests("evaluation")) >= 2)
        mlflow_server.kill()
        time.sleep(AWAY)
        mlflow_server.start()

    thread = meanwhile(go_away)
    assert lab.run("sweep", "sweep.yaml") == 0
    thread.join()
    told = capfd.readouterr().err.splitlines()
    assert [re.sub(r"\(.*\)|\d+ s", "", line) for line in told if line.startswith("MLflow at")] == [
        f"MLflow at {mlflow_server.uri} does not answer ; waiting up to 15 minutes, nothing is lost",
        f"MLflow at {mlflow_server.uri} is back after "]
    assert_same(recorded(client_of(mlflow_server.uri), "killed", mlflow_server.folder / "artifacts"), undisturbed)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that waits for something that does not come should not take the real patience."""
    monkeypatch.setattr("mtselect.tracking.server.PATIENCE", 30.0)


@pytest.fixture
def proxy(short: None, mlflow_server: Any) -> Iterator[Proxy]:
    with Proxy(mlflow_server.port) as made:
        yield made


def test_a_lost_answer_makes_nothing_twice(proxy: Proxy, mlflow_server: Any, tmp_path: Path) -> None:
    """The server did what it was asked for, but the connection broke before it could say so."""
    tracker = open_mlflow(TrackingConfig(uri=proxy.uri()), f"lost-{tmp_path.name}", tmp_path)
    proxy.lose = [("POST", "runs/create"), ("PUT", "sweep.yaml")]
    parent = tracker.study_run(Sweep())
    proxy.lose = [("POST", "runs/create"), ("POST", "runs/log-batch"), ("PUT", "table.json"), ("POST", "runs/set-tag"),
                  ("POST", "runs/log-inputs"), ("POST", "runs/update"), ("POST", "mlflow/logged-models"),
                  ("POST", "runs/outputs"), ("PATCH", "")]
    run_id = tracker.start_trial(parent, "t000", "trial", {"budget": 5}, 0)
    other = tracker.start_trial(parent, "t001", "trial", {"budget": 5}, 1)
    tracker.log_table(run_id, {"src": ["a"], "hyp": ["b"]}, "table.json")
    proxy.lose.append(("POST", "runs/log-batch"))
    tracker.log_curve(run_id, [{"train_loss": 2.0, "dev_loss": None, "step": 1}])
    tracker.log_inputs(run_id, [GIVEN])
    proxy.lose.append(("POST", "runs/log-batch"))
    tracker.log_model(run_id, "finetuned", {}, {"eval/chrf": 40.0}, DEV)
    tracker.end(run_id, "FINISHED")
    assert proxy.lose == []
    client = client_of(mlflow_server.uri)
    runs = {run.info.run_id: run for run in client.search_runs([tracker.experiment_id])}
    assert runs.keys() == {parent, run_id, other}
    assert runs[run_id].info.status == "FINISHED"
    assert tracker.read_text(run_id, "table.json") == '{"columns": ["src", "hyp"], "data": [["a", "b"]]}'
    assert len(client.get_metric_history(run_id, "finetune/loss")) == len(runs[run_id].inputs.dataset_inputs) == 1
    (model,) = client.search_logged_models([tracker.experiment_id])
    assert model.status == "READY" and [(one.key, one.value, one.dataset_name) for one in model.metrics] == [
        ("eval/chrf", 40.0, "dev")]
    assert [one.model_id for one in runs[run_id].outputs.model_outputs] == [model.model_id]


def test_a_lost_answer_registers_no_dataset_twice(proxy: Proxy, mlflow_server: Any, tmp_path: Path) -> None:
    tracker = open_mlflow(TrackingConfig(uri=proxy.uri()), f"lost-{tmp_path.name}", tmp_path)
    run_id = tracker.start_trial(tracker.study_run(Sweep()), "t002", "trial", {}, 2)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "selected.jsonl").write_text("{}\n")
    proxy.lose = [("POST", "registered-models/create"), ("POST", "mlflow/logged-models"), ("POST", "model-versions/create"),
                  ("POST", "registered-models/alias")]
    registry = tracker.registry("mtselect.lost")
    assert registry.register(tmp_path / "data", run_id, {"mtselect.selected": "one"}, "").number == "1"
    registry.crown("1")
    assert proxy.lose == []
    client = client_of(mlflow_server.uri)
    assert [one.version for one in client.search_model_versions("name = 'mtselect.lost'")] == ["1"]
    assert [one.status for one in client.search_logged_models([tracker.experiment_id])] == ["READY"]


def test_a_server_that_does_not_come_back_is_one_line_and_a_wrong_request_is_not_waited_for(
        proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from mlflow.exceptions import MlflowException

    monkeypatch.setattr("mtselect.tracking.server.PATIENCE", 2.0)
    tracker = open_mlflow(TrackingConfig(uri=proxy.uri()), f"lost-{tmp_path.name}", tmp_path)
    before = len(proxy.requests)
    with pytest.raises(MlflowException, match=r"chrf\+\+"):
        tracker.log(tracker.study_run(Sweep()), metrics={"eval/chrf++": 1.0})
    assert sum("log-batch" in one for one in proxy.requests[before:]) == 1
    monkeypatch.setattr(proxy, "authorization", "Bearer x")
    with pytest.raises(StorageError, match=r"refuses to record \(.*401.*\): set MLFLOW_TRACKING_USERNAME and"):
        tracker.find_study()
    proxy.stop()
    with pytest.raises(StorageError, match=r"does not record any more \(.*refused.*\): start its server again"):
        tracker.find_study()
    assert capsys.readouterr().err.count("does not answer") == 1
    pauses: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    with pytest.raises(StorageError):  # it was waited for: now a command must come to its end
        tracker.find_study()
    tracker.abandon("run", "KILLED")
    assert pauses == []


# --- Optuna's storage --------------------------------------------------------------------------------


def test_optuna_waits_for_its_database(postgres: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A running trial is not failed after an outage in which no heart could be heard; a heartbeat never ends a worker."""
    import optuna

    from mtselect.search import storage as study_storage

    url = postgres.url("optuna")
    storage = study_storage.database_storage(url)
    study = optuna.create_study(study_name="waits", storage=storage, direction="maximize")
    trial = study.ask()
    storage.record_heartbeat(trial._trial_id)
    postgres.call("psql", "-c", "update trial_heartbeats set heartbeat = heartbeat - interval '1 hour'", "optuna")
    assert storage._get_stale_trial_ids(study._study_id) == [trial._trial_id]  # as its worker is silent for an hour
    postgres.kill()
    storage.record_heartbeat(trial._trial_id)
    thread = meanwhile(lambda: (time.sleep(AWAY), postgres.start()))  # type: ignore[arg-type, func-returns-value]
    trial.set_user_attr("x", 1)
    thread.join()
    told = capsys.readouterr().err
    assert f"Optuna's storage at postgresql+psycopg://***@127.0.0.1:{postgres.port}/optuna does not answer" in told
    assert "is back after" in told
    assert storage._get_stale_trial_ids(study._study_id) == []
    assert study.get_trials()[0].user_attrs == {"x": 1}
    assert study_storage.database_storage(url)._get_stale_trial_ids(study._study_id) == [trial._trial_id]


def test_an_answer_of_the_database_that_was_lost_ends_no_trial_twice(postgres: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna
    from optuna.storages._rdb import storage as internals
    from sqlalchemy.exc import OperationalError

    from mtselect.search import storage as study_storage

    study = optuna.create_study(study_name="ends", storage=study_storage.database_storage(postgres.url("optuna")))
    trial = study.ask()
    check, left = internals._create_scoped_session.__wrapped__, [True]  # type: ignore[attr-defined]

    def session(*arguments: Any) -> Any:
        inner = check(*arguments)
        yield next(inner)
        for _ in inner:
            pass
        if left and left.pop():
            raise optuna.exceptions.StorageInternalError from OperationalError("commit", {}, Exception("server closed"))

    import contextlib

    monkeypatch.setattr(internals, "_create_scoped_session", contextlib.contextmanager(session))
    study._storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.COMPLETE, [1.0])
    assert study.get_trials()[0].value == 1.0
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        study._storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.COMPLETE, [1.0])


def test_a_sweep_whose_storage_stays_away_ends_in_one_line_and_goes_on(
        undisturbed: Any, warm_lab: Callable[..., Any], postgres: Any, wait_for: Any, monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str]) -> None:
    lab = warm_lab(study__name="gone", study__storage=postgres.url("optuna"), study__n_trials=1, study__baselines=[])
    monkeypatch.setattr("mtselect.search.storage.Patience", lambda server, away: Patience(server, away, 1.0))

    def go_away() -> None:
        wait_for(lambda: list(lab.store.glob("finetune/*.part*")))
        postgres.kill()

    thread = meanwhile(go_away)
    assert lab.run("sweep", "sweep.yaml") == 2
    thread.join()
    errors = capfd.readouterr().err.strip().splitlines()
    assert re.match(r"error: Optuna's storage at .* does not answer any more \(.*\): start the database again, then run the "
                    r"same command", errors[-1])
    assert len(errors) == 2, errors  # that it waits, and that
    postgres.start()
    entries = lab.manifests()
    assert len(lab.manifests("finetune")) == 1, "what was trained was thrown away"
    monkeypatch.setattr("mtselect.search.worker.is_alive", lambda trial, seen: False)  # the worker that ended was this process
    assert lab.run("sweep", "sweep.yaml") == 0
    assert lab.manifests("finetune").items() <= entries.items()


# --- how long, and what is shown -------------------------------------------------------------------


class Clock:
    """Time that passes by sleeping only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("outage", "survives"), [(0.1, True), (60, True), (14 * 60, True), (16 * 60, False)])
def test_an_outage_of_minutes_is_waited_for(outage: float, survives: bool, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    clock, calls = Clock(monkeypatch), itertools.count()

    def call() -> int:
        if clock.now < outage:
            raise ConnectionRefusedError("refused")
        return next(calls)

    patience = Patience("It", lambda error: isinstance(error, ConnectionRefusedError))
    if survives:
        assert patience(call) == 0
        assert outage <= clock.now < outage + 12  # noticed soon
    else:
        with pytest.raises(ConnectionRefusedError):
            patience(call)
        assert 15 * 60 <= clock.now < 15 * 60 + 12
    told = [line.split(" after ")[0] for line in capsys.readouterr().err.splitlines()]
    waits = "It does not answer (refused); waiting up to 15 minutes, nothing is lost"
    assert told == ([] if outage < 1 else [waits, "It is back"] if survives else [waits])


def test_ctrl_c_ends_the_wait(monkeypatch: pytest.MonkeyPatch, proxy: Proxy, tmp_path: Path) -> None:
    """Though the interruption comes while a refused connection is handled."""
    tracker = open_mlflow(TrackingConfig(uri=proxy.uri()), f"lost-{tmp_path.name}", tmp_path)
    waits = itertools.count()

    def stop(seconds: float) -> None:
        if next(waits):
            raise AssertionError("it went on waiting")
        raise KeyboardInterrupt

    proxy.stop()
    monkeypatch.setattr(time, "sleep", stop)
    with pytest.raises(KeyboardInterrupt):
        tracker.find_study()


@pytest.mark.parametrize(("text", "safe"), [
    ("http://u:p@host:5000/x", "http://***@host:5000/x"),
    ("cannot reach https://u:p@ss/w:x@host.", "cannot reach https://***@host."),
    ("postgresql+psycopg://u:p@h/db?sslmode=require", "postgresql+psycopg://***@h/db?sslmode=require"),
    ("postgresql+psycopg:///db?host=/run&user=u&password=p", "postgresql+psycopg:///db?host=/run&user=u&password=***"),
    ("https://s3/x?X-Amz-Credential=a&X-Amz-Signature=b&n=1", "https://s3/x?X-Amz-Credential=***&X-Amz-Signature=***&n=1"),
    ("http://host:5000/#/experiments/1", "http://host:5000/#/experiments/1"),
    ("models:/mtselect.x@champion", "models:/mtselect.x@champion"),
    ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
    ("the key is HushHush1!", "the key is ***"),
    ("http://127.0.0.1:5000 is away since 2024", "http://127.0.0.1:5000 is away since 2024"),  # MYSQL_ALLOW_EMPTY_PASSWORD=1
    ("a secret of seven is no secret", "a secret of seven is no secret"),
])
def test_credentials_are_not_shown(text: str, safe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "HushHush1!\n")
    monkeypatch.setenv("MYSQL_ALLOW_EMPTY_PASSWORD", "1")
    monkeypatch.setenv("SHORT_TOKEN", "seven i")
    assert redact(text) == safe


@pytest.mark.parametrize(("environment", "authorization"), [
    ({"MLFLOW_TRACKING_USERNAME": "lab", "MLFLOW_TRACKING_PASSWORD": "Sekret00"}, "Basic bGFiOlNla3JldDAw"),
    ({"MLFLOW_TRACKING_TOKEN": "Sekret00"}, "Bearer Sekret00"),
])
def test_credentials_of_the_environment_reach_the_server(environment: dict[str, str], authorization: str, proxy: Proxy,
                                                         tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy.authorization = authorization
    with pytest.raises(StorageError, match=r"cannot be used: .*401"):
        open_mlflow(TrackingConfig(uri=proxy.uri()), f"lost-{tmp_path.name}", tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tracker = open_mlflow(TrackingConfig(uri=proxy.uri()), f"lost-{tmp_path.name}", tmp_path)
    run_id = tracker.study_run(Sweep())
    assert tracker.read_text(run_id, "sweep.yaml").startswith("experiment:")
    assert tracker.has_file(run_id, "sweep.yaml")


def test_a_token_that_cannot_be_sent_is_not_told(mlflow_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`requests` puts a header that it refuses into its error."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "Sekret00\n")
    with pytest.raises(StorageError, match=r"cannot be used: .*header value: 'Bearer \*") as told:
        open_mlflow(TrackingConfig(uri=mlflow_server.uri), f"lost-{tmp_path.name}", tmp_path)
    assert "Se" not in str(told.value).split("Bearer")[1]


def test_links_are_for_a_browser(tmp_path: Path) -> None:
    tracker = MlflowTracker(client_of("http://u:p@host:5000"), "http://u:p@host:5000", "1", "study", tmp_path / "lock")
    assert tracker.uri == "http://***@host:5000"
    assert tracker.links("run", "eval/chrf")["trials"].startswith("http://host:5000/#/experiments/1/")
    assert tracker.dataset_link("x", "1").startswith("http://host:5000/#/models/x/versions/1?")


def test_a_server_error_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow answers 500 or 503 while its database is away, a proxy 502 or 504."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.rest_utils import http_request

    from mtselect.tracking.client import is_away, own_retries

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path.strip("/")))
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    from mlflow.utils.rest_utils import MlflowHostCreds

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    creds = MlflowHostCreds(f"http://127.0.0.1:{server.server_address[1]}")
    with own_retries(0):
        for status in (500, 502, 503, 504, 429):
            with pytest.raises(MlflowException) as error:
                http_request(creds, f"/{status}", "GET")
            assert is_away(error.value), status
        for status in (200, 400, 401, 404):
            assert http_request(creds, f"/{status}", "GET").status_code == status
    server.shutdown()
    server.server_close()
    assert not is_away(requests.HTTPError("413"))
