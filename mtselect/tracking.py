"""What is recorded in MLflow, and how a study, its trials and its promoted dataset are found again.

    experiment <study name>
      run <study name>     mtselect.kind=study; final table, gradients/<key>/ (spectra, norms, sketch index)
        run t000 ...       mtselect.kind=trial; scores, selected.jsonl, experiment.yaml, translations, pictures
        run random-0 ...   mtselect.kind=baseline
    registered model mtselect.<study name>   a dataset: selected.jsonl and its card, alias champion

Everything goes through an MlflowClient with explicit run ids: MLflow's active run is thread-local, and a study may have
many workers. This is the only module that imports mlflow.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from mtselect.config import Sweep, TrackingConfig, to_yaml
from mtselect.errors import StorageError
from mtselect.registry import Registry
from mtselect.remote import PATIENCE, Patience, causes, first_line, reason, shown

Kind = Literal["study", "trial", "baseline", "again"]
Status = Literal["FINISHED", "FAILED", "KILLED"]

_VIEW = "mtselect"  # key of the saved view, one per experiment
_VIEW_VERSIONS = ("3.17.",)  # of MLflow, whose UI shows it as it should (tests/test_browser.py)
_FILTER = "tags.`mtselect.kind` != 'study'"
_REACH_SECONDS = 8  # that a server is waited for before any work
_MARKS = 40  # points of a finetuning curve that are kept; more only slow the charts


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """A run as read back: metrics by name, params, tags."""

    run_id: str
    name: str
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]


def recorded(run: Any) -> RecordedRun:
    """A run as MLflow gives it."""
    return RecordedRun(run_id=run.info.run_id, name=run.info.run_name, metrics=dict(run.data.metrics),
                       params=dict(run.data.params), tags=dict(run.data.tags))


class Tracker:
    """One MLflow experiment. Made by `open_tracker`.

    Args:
        patience: seconds that a server which is away is waited for.
    """

    def __init__(self, client: Any, uri: str, experiment_id: str, study: str, lock: Path, patience: float = 0) -> None:
        self._client, self._hasty, self._lock = _Client(client, uri, patience), _Client(client, uri, 0), lock
        self._uri, self.uri = uri, shown(uri)  # the second is for people
        self.experiment_id, self.study = experiment_id, study

    def study_run(self, sweep: Sweep) -> str:
        """The parent run of the study, made on first use, under a lock: several workers may begin at once."""
        from filelock import FileLock

        with FileLock(self._lock):
            found = self.find_study()
            if found:
                run_id = found.run_id
                self._client.update_run(run_id, status="RUNNING")
            else:
                run_id = self._create(self.study, "study", {})
                self._client.set_experiment_tag(self.experiment_id, f"mlflow.sharedViewState.{_VIEW}", _view_state(sweep))
        try:
            self._client.log_text(run_id, to_yaml(_without_credentials(sweep)), "sweep.yaml")
        except StorageError:
            self.abandon(run_id, "KILLED")
            raise
        return run_id

    def start_trial(self, parent: str, name: str, kind: Kind, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """A child run, named shortly so that MLflow's charts do not cut it."""
        run_id = self._create(name, kind, {"mlflow.parentRunId": parent, **tags})
        self._batch(run_id, params=params)
        return run_id

    def log(self, run_id: str, metrics: Mapping[str, float] | None = None, params: Mapping[str, Any] | None = None,
            tags: Mapping[str, str] | None = None, note: str | None = None) -> None:
        """Metrics (rounded to 4 decimals, in this order), params, tags and a Markdown note."""
        self._batch(run_id, metrics=metrics, params=params, tags={**(tags or {}), **_note(note)})

    def log_curve(self, run_id: str, curve: Sequence[Mapping[str, Any]]) -> None:
        """The finetuning curve as metrics over optimiser steps."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        stride = max(1, len(curve) // _MARKS)
        points = [("finetune/loss", point["train_loss"], point["step"]) for point in curve[::stride]]
        points += [("finetune/dev_loss", point["dev_loss"], point["step"]) for point in curve
                   if point["dev_loss"] is not None]
        metrics = [Metric(name, round(value, 4), now, step) for name, value, step in points]
        self._client.log_batch(run_id, metrics=metrics)

    def log_table(self, run_id: str, columns: Mapping[str, Sequence[Any]], name: str) -> None:
        """A table for MLflow's side-by-side view: the first column groups, the second is compared.

        Written as MLflow's own `log_table` would, which when it is repeated appends the rows once more.
        """
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        self._client.log_text(run_id, json.dumps({"columns": list(columns), "data": rows}, ensure_ascii=False), name)
        self._client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([{"path": name, "type": "table"}]))

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """A text artifact."""
        self._client.log_text(run_id, text, name)

    def log_figure(self, run_id: str, figure: Any, name: str) -> None:
        """A picture."""
        self._client.log_figure(run_id, figure, name)

    def log_file(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """A file as artifact."""
        self._client.log_artifact(run_id, str(path), folder)

    def log_dataset(self, run_id: str, name: str, digest: str, n_rows: int) -> None:
        """The selected set as dataset input, pointing at the run's own `selected.jsonl`."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"uri": f"runs:/{run_id}/selected.jsonl"})
        schema = json.dumps({"mlflow_colspec": [{"type": kind, "name": column, "required": False} for column, kind in
                                                (("id", "string"), ("src", "string"), ("tgt", "string"),
                                                 ("benefit", "double"), ("benefit_share", "double"),
                                                 ("cluster", "long"))]})
        dataset = Dataset(name=name, digest=digest, source_type="mtselect", source=source, schema=schema,
                          profile=json.dumps({"num_rows": n_rows}))
        self._client.log_inputs(run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def end(self, run_id: str, status: Status) -> None:
        """Close a run."""
        self._client.set_terminated(run_id, status)

    def abandon(self, run_id: str, status: Status, note: str | None = None) -> None:
        """Close a run after a failure, if MLflow lets us: it may be what failed."""
        with suppress(StorageError):
            self._hasty.log_batch(run_id, tags=_tags(_note(note)))
            self._hasty.set_terminated(run_id, status)

    def close_trial(self, parent: str, number: int) -> None:
        """Close the run a killed worker left behind."""
        for run in self._runs(f"tags.`mlflow.parentRunId` = '{parent}' and tags.`mtselect.trial` = '{number}' and "
                              "attributes.status = 'RUNNING'"):
            self._client.set_terminated(run.run_id, "KILLED")

    def has_artifact(self, run_id: str, path: str) -> bool:
        """Whether a run already holds an artifact."""
        folder = str(Path(path).parent)
        return any(found.path == path for found in self._client.list_artifacts(run_id, None if folder == "." else folder))

    def children(self, parent: str) -> list[RecordedRun]:
        """The finished trials and baselines of a study run."""
        return self._runs(f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = 'FINISHED'")

    def find_study(self) -> RecordedRun | None:
        """The parent run, if the study was ever started here."""
        found = self._runs(f"tags.`mtselect.kind` = 'study' and tags.`mtselect.study` = '{self.study}'")
        return found[0] if found else None

    def read_text(self, run_id: str, name: str) -> str:
        """A text artifact of a run."""
        with tempfile.TemporaryDirectory() as folder:
            return self.download(run_id, name, Path(folder)).read_text(encoding="utf-8")

    def download(self, run_id: str, name: str, folder: Path) -> Path:
        """An artifact of a run, copied into a folder."""
        from mlflow.artifacts import download_artifacts

        return Path(self._client.call(lambda: download_artifacts(run_id=run_id, artifact_path=name, dst_path=str(folder),
                                                                 tracking_uri=self._uri)))

    def registry(self, name: str) -> Registry:
        """The versions of a promoted dataset."""
        return Registry(self._client, self._uri, self.experiment_id, name)

    def links(self, objective: str) -> dict[str, str]:
        """Where to look: `command` that shows the UI (empty for a server), and the addresses of the `trials`, of their `charts`
        and of their `translations` side by side.

        They open the saved view. Its format is the UI's own, so a version that nobody looked at gets a plain filter instead.
        """
        server = self._server()
        default = self.uri == f"sqlite:///{Path.cwd() / 'mlflow.db'}"
        command = "" if self.uri.startswith("http") else "mlflow ui" + (
            "" if default else f" --backend-store-uri {self.uri}")
        runs = f"{server}/#/experiments/{self.experiment_id}/runs"
        plain = (f"{runs}?searchFilter={quote(_FILTER)}&orderByKey={quote(f'metrics.`{objective}`')}&orderByAsc=false"
                 "&startTime=ALL&lifecycleFilter=Active&modelVersionFilter=All%20Runs&datasetsFilter=W10="
                 "&workflowType=machine_learning")  # the UI heeds none if one is missing; W10= is an empty list
        known = self._client.server_version().startswith(_VIEW_VERSIONS)
        view = f"{runs}?viewStateShareKey={_VIEW}&workflowType=machine_learning" if known else plain
        return {"command": command, "trials": view, "charts": f"{view}&compareRunsMode=CHART",
                "translations": f"{view}&compareRunsMode=ARTIFACT"}

    def run_link(self, run_id: str) -> str:
        """Address of a run in the UI."""
        return f"{self._server()}/#/experiments/{self.experiment_id}/runs/{run_id}?workflowType=machine_learning"

    def dataset_link(self, name: str, version: str) -> str:
        """Address of a dataset version in the UI."""
        return f"{self._server()}/#/models/{quote(name)}/versions/{version}?workflowType=machine_learning"

    def _server(self) -> str:
        return self.uri.replace("://***@", "://") if self.uri.startswith("http") else "http://127.0.0.1:5000"

    def _create(self, name: str, kind: Kind, tags: Mapping[str, str]) -> str:
        """A new run. Its tags (the study; with a trial its parent and number) tell it from every other, so that it is found
        when the server made it but the answer was lost."""
        all_tags = {"mtselect.kind": kind, "mtselect.study": self.study, **tags}
        where = " and ".join(f"tags.`{key}` = '{value}'" for key, value in all_tags.items())

        def again() -> Any:
            return next(iter(self._client.search_runs([self.experiment_id], where)), None)

        run = self._client.create_run(self.experiment_id, run_name=name, tags=all_tags, again=again)
        return str(run.info.run_id)

    def _batch(self, run_id: str, metrics: Mapping[str, float] | None = None, params: Mapping[str, Any] | None = None,
               tags: Mapping[str, str] | None = None) -> None:
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        self._client.log_batch(run_id, metrics=[Metric(key, round(float(value), 4), now, 0)
                                                for key, value in (metrics or {}).items()],
                               params=[Param(key, str(value)) for key, value in (params or {}).items()],
                               tags=_tags(tags or {}))

    def _runs(self, where: str) -> list[RecordedRun]:
        found, token = [], None
        while True:
            page = self._client.search_runs([self.experiment_id], where, page_token=token)
            found += [recorded(run) for run in page]
            token = page.token
            if not token:
                return found


class _Client:
    """An MlflowClient that waits for a server which is away; when that or its disk fails for good, it is said as something to
    mend. Every call may be repeated: one that makes something new brings `again`, which finds what was made."""

    def __init__(self, client: Any, uri: str, patience: float) -> None:
        self._client, self._patience = client, Patience(f"MLflow at {shown(uri)}", _away, patience)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, again: Callable[[], Any] | None = None, **options: Any) -> Any:
            return self.call(lambda: method(*arguments, **options), again)

        return call

    def server_version(self) -> str:
        """Of the MLflow that serves the UI; empty if it does not tell."""
        import mlflow
        from mlflow.utils.rest_utils import http_request

        store = self._client._tracking_client.store
        if not hasattr(store, "get_host_creds"):  # a database, whose UI is this MLflow's
            return mlflow.__version__
        with suppress(Exception):
            answer = http_request(store.get_host_creds(), "/version", "GET", timeout=5, max_retries=0)  # type: ignore[no-untyped-call]
            return str(answer.text) if answer.ok else ""
        return ""

    def call(self, call: Callable[[], Any], again: Callable[[], Any] | None = None) -> Any:
        """What a function that uses MLflow returns."""
        from mlflow.exceptions import MlflowException

        server = self._patience.server
        try:
            with _retries(0):  # MLflow's own would make a run twice when the first answer is lost
                return self._patience(call, again)
        except (MlflowException, OSError) as error:
            code = getattr(error, "error_code", "INTERNAL_ERROR")
            if code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"):
                raise StorageError(f"{server} refuses to record ({first_line(error)}): set MLFLOW_TRACKING_USERNAME and "
                                   "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, then run the same command") from error
            if code != "INTERNAL_ERROR" and not _away(error):
                raise
            raise StorageError(f"{server} does not record any more ({reason(error)}): start its server again, or free "
                               "space, then run the same command") from error


def _away(error: BaseException) -> bool:
    """Whether MLflow's server is not there now: nobody answers, the connection broke, or it or its database cannot serve.

    MLflow hides the answer of a status that it takes for passing (429, 500, 502, 503, 504) in a RetryError. An error of its
    database has become a 503, or in some calls a 500.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import ChunkedEncodingError, ConnectionError, RetryError, Timeout
    from sqlalchemy.exc import OperationalError

    passing = (ConnectionError, Timeout, ChunkedEncodingError, RetryError, OperationalError)
    return isinstance(error, (MlflowException, OSError)) and (
        getattr(error, "error_code", "") in ("TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED")
        or any(isinstance(one, passing) for one in causes(error)))


def open_tracker(config: TrackingConfig, study: str, workdir: Path, *, create: bool = True) -> Tracker:
    """Connect to MLflow and find the experiment, or make it unless `create` is false.

    A fresh SQLite database that several processes open at once breaks for good, so it is made under a lock.

    Raises:
        StorageError: the server does not answer, the working directory holds an old file store, or there is no such
            experiment and none may be made.
    """
    from filelock import FileLock

    name = config.experiment or study
    lock = workdir / "mlflow.lock"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with FileLock(lock), connect(config.uri, create=create) as (client, uri):
            found = client and client.get_experiment_by_name(name)
            if not found and not create:
                raise StorageError(f"MLflow at {shown(uri)} has no study {study!r}: check the name, or set --tracking.uri")
            experiment_id = found.experiment_id if found else client.create_experiment(name)
    except OSError as error:
        raise StorageError(f"runtime.workdir {str(workdir)!r} cannot be written ({error}): free space, or set runtime.workdir "
                           "to another folder") from error
    except StorageError:
        raise
    except Exception as error:  # MLflow, SQLAlchemy and their drivers have many for an address that is none
        raise _no_tracker(config, error) from error
    patience = 0 if uri.startswith("sqlite:") else PATIENCE  # a file on this machine does not come back by itself
    return Tracker(client, uri, experiment_id, study, lock, patience)


def reach(config: TrackingConfig, workdir: Path) -> str:
    """Ask MLflow for anything, within seconds, and make nothing.

    Returns:
        Its address, as it may be shown.

    Raises:
        StorageError: it does not answer, or would not be allowed to write its database.
    """
    import mlflow
    from filelock import FileLock

    lock = workdir / "mlflow.lock"
    try:
        _reach_database(config.uri or mlflow.get_tracking_uri())  # first: making a client already tries it for minutes
        with (_environment("MLFLOW_HTTP_REQUEST_TIMEOUT", _REACH_SECONDS), _retries(0),
              FileLock(lock) if lock.exists() else nullcontext(), connect(config.uri) as (client, uri)):
            if client is not None:
                client.search_experiments(max_results=1)
            elif not os.access(folder := Path(uri.removeprefix("sqlite:///")).absolute().parent, os.W_OK):
                raise StorageError(f"MLflow at {shown(uri)} cannot be made: {folder} is no folder that may be written to: "
                                   "set tracking.uri")
            return shown(uri)
    except StorageError:
        raise
    except Exception as error:  # MLflow, SQLAlchemy and their drivers have many for an address that is none
        raise _no_tracker(config, error) from error


def _reach_database(uri: str) -> None:
    """Raise what is wrong with a database, which MLflow would try for minutes."""
    if uri.startswith("sqlite:///") and (path := Path(uri.removeprefix("sqlite:///"))).exists():
        if not path.is_file() or not os.access(path, os.R_OK | os.W_OK):
            raise OSError(f"{path} is no file that may be written to")
    elif uri.startswith(("postgresql", "mysql")):
        from sqlalchemy import create_engine

        create_engine(uri, connect_args={"connect_timeout": _REACH_SECONDS}).connect().close()


def _no_tracker(config: TrackingConfig, error: BaseException) -> StorageError:
    return StorageError(f"MLflow at {shown(config.uri or 'its default')} cannot be used: {first_line(error)}: start the "
                        "server, or set tracking.uri; an old ./mlruns file store is moved by `mlflow migrate-filestore`")


@contextmanager
def connect(uri: str | None, *, create: bool = False) -> Iterator[tuple[Any, str]]:
    """MLflow's client and the address of its server, quiet, and impatient while the context lasts.

    Args:
        uri: of the server; null takes MLflow's own.
        create: make a SQLite database that is not there; else the client is None then.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # that URL has the password of the tracking URI
    import logging

    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # an error is waited for or raised, here as well
    with _retries(1):
        address = uri or mlflow.get_tracking_uri()
        if not create and not _exists(address):
            yield None, address
            return
        registry = None if address.startswith("databricks") else address
        yield mlflow.MlflowClient(tracking_uri=address, registry_uri=registry), address


def _exists(uri: str) -> bool:
    """Whether there is a database to ask; only of SQLite can that be told without making one."""
    return not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///")).exists()


@contextmanager
def _retries(count: int) -> Iterator[None]:
    """How often MLflow itself repeats a request, unless the environment says; its default takes minutes, without a word. A
    server that does not answer at the start is said within seconds."""
    with _environment("MLFLOW_HTTP_REQUEST_MAX_RETRIES", count):
        yield


@contextmanager
def _environment(name: str, value: int) -> Iterator[None]:
    """A variable while the block runs, unless it was set before."""
    given = name in os.environ
    os.environ.setdefault(name, str(value))
    try:
        yield
    finally:
        if not given:
            del os.environ[name]


def scores_as_metrics(scores: Sequence[Any]) -> dict[str, float]:
    """`eval/<name>` and its interval's ends, scores first (the UI opens on what was logged first)."""
    metrics = {f"eval/{score.name}": score.value for score in scores}
    for score in scores:
        metrics |= {f"eval/{score.name}_low": score.low, f"eval/{score.name}_high": score.high}
    return metrics


def jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    """JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _note(note: str | None) -> dict[str, str]:
    return {} if note is None else {"mlflow.note.content": note}


def _tags(tags: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(key, value) for key, value in tags.items()]


def _without_credentials(sweep: Sweep) -> Sweep:
    """A sweep as it may be recorded."""
    uri, storage = sweep.tracking.uri, sweep.study.storage
    return replace(sweep, tracking=replace(sweep.tracking, uri=uri and shown(uri)),
                   study=replace(sweep.study, storage=storage and shown(storage)))


def _view_state(sweep: Sweep) -> str:
    """The saved view "mtselect": trials and baselines without their parent, best first, the columns a person reads.

    The format is the UI's own (mlflow 3.17) and undocumented: JSON, deflated, in base64.
    """
    score = sweep.study.objectives[0]
    beside = [score + end for end in ("_low", "_high", "_vs_random", "_vs_untuned")] if score.startswith("eval/") else []
    metrics = [*(f"eval/{name}" for name in sweep.experiment.evaluation.metrics), *beside, "select/pairs", "select/noise_share",
               "trial/minutes"]
    searched = [path.removeprefix("selection.") for path in sweep.search]
    params = sorted({"method", *searched})
    def chart(number: int, kind: str, title: str, **what: Any) -> dict[str, Any]:
        return {"uuid": f"{_VIEW}-{number}", "type": kind, "displayName": title, "metricSectionId": _VIEW, "deleted": False,
                "isGenerated": False, "runsCountToCompare": 100, **what}

    charts = [
        chart(0, "SCATTER", "score against pairs selected", xaxis={"key": "select/pairs", "type": "METRIC"},
              yaxis={"key": score, "type": "METRIC"}),
        chart(1, "BAR", f"{score} of every trial and baseline", metricKey=score),
        chart(2, "BAR", f"{score}, above random sets of the same size", metricKey=f"{score}_vs_random"),
        chart(3, "PARALLEL", "settings and score", selectedParams=searched,
              selectedMetrics=[score], showAllRuns=False)]
    state = {"compareRunSections": [{"uuid": _VIEW, "name": "How the trials compare", "display": True, "isReordered": False}],
             "compareRunCharts": charts, "isAccordionReordered": True,
             "searchFilter": _FILTER, "orderByKey": f"metrics.`{score}`", "orderByAsc": False,
             "startTime": "ALL", "lifecycleFilter": "Active", "datasetsFilter": [], "modelVersionFilter": "All Runs",
             "selectedColumns": [*(f"metrics.`{name}`" for name in metrics), *(f"params.`{name}`" for name in params)],
             "runsExpanded": {}, "runsPinned": [], "runsHidden": [], "runsHiddenMode": "SHOWALL"}
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    now = int(time.time() * 1000)
    return json.dumps({"name": "mtselect: trials, best first", "createdAt": now, "updatedAt": now,
                       "state": f"deflate;{packed}"})
