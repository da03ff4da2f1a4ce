"""A study in MLflow, and how its trials and its promoted dataset are found again.

    experiment <study name>
      run <study name>     mtselect.kind=study; final table, gradients/<key>/ (spectra, norms, sketch index)
        run t000 ...       mtselect.kind=trial; scores, selected.jsonl, experiment.yaml, translations, pictures
        run random-0 ...   mtselect.kind=baseline
    registered model mtselect.<study name>   a dataset: selected.jsonl and its card, alias champion

Everything goes through an MlflowClient with explicit run ids: MLflow's active run is thread-local, and a study may have
many workers.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mtselect.config import Sweep, to_yaml
from mtselect.errors import StorageError
from mtselect.metrics.base import direction
from mtselect.remote import redact
from mtselect.tracking.base import DatasetInput, Kind, ModelKind, Status
from mtselect.tracking.client import PatientClient
from mtselect.tracking.models import create_model, fail_models
from mtselect.tracking.recorded import RecordedRun, recorded
from mtselect.tracking.registry import Registry
from mtselect.tracking.view import FILTER, VIEW, VIEW_VERSIONS, view_state

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKS = 40  # points of a finetuning curve that are kept; more only slow the charts
_NOTE = "mlflow.note.content"  # the tag of a run's text
_COLUMN_TYPES = {str: "string", float: "double", int: "long"}


class MlflowTracker:
    """One MLflow experiment. Made by `server.open_mlflow`.

    Args:
        patience: seconds that a server which is away is waited for.
    """

    def __init__(self, client: Any, uri: str, experiment_id: str, study: str, lock: Path, patience: float = 0) -> None:
        self._client, self._hasty, self._lock = PatientClient(client, uri, patience), PatientClient(client, uri, 0), lock
        self._uri, self.uri = uri, redact(uri)  # the second is for people
        self.experiment_id, self.study = experiment_id, study
        self._pending: dict[str, str] = {}  # run that is open -> its model

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
                self._client.set_experiment_tag(self.experiment_id, f"mlflow.sharedViewState.{VIEW}", view_state(sweep))
        try:
            self._client.log_text(run_id, to_yaml(_without_credentials(sweep)), "sweep.yaml")
        except StorageError:
            self.abandon(run_id, "KILLED")
            raise
        return run_id

    def start_trial(self, parent: str, name: str, kind: Kind, params: Mapping[str, object], number: int) -> str:
        """A child run, named shortly so that MLflow's charts do not cut it."""
        run_id = self._create(name, kind, {"mlflow.parentRunId": parent, "mtselect.trial": str(number)})
        self.log(run_id, params=params)
        return run_id

    def log(self, run_id: str, metrics: Mapping[str, float] | None = None, params: Mapping[str, object] | None = None,
            tags: Mapping[str, str] | None = None, note: str | None = None) -> None:
        """Metrics (rounded to 4 decimals, in this order), params, tags and a Markdown note."""
        from mlflow.entities import Param, RunTag

        noted = {} if note is None else {_NOTE: note}
        self._client.log_batch(run_id, metrics=_metrics(metrics or {}),
                               params=[Param(key, str(value)) for key, value in (params or {}).items()],
                               tags=[RunTag(key, value) for key, value in {**(tags or {}), **noted}.items()])

    def log_curve(self, run_id: str, curve: Sequence[Mapping[str, Any]]) -> None:
        """The finetuning curve as metrics over optimiser steps."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        stride = max(1, len(curve) // _MARKS)
        metrics = [Metric("finetune/loss", round(point["train_loss"], 4), now, point["step"]) for point in curve[::stride]]
        metrics += [Metric("finetune/dev_loss", round(point["dev_loss"], 4), now, point["step"]) for point in curve
                    if point["dev_loss"] is not None]
        self._client.log_batch(run_id, metrics=metrics)

    def log_table(self, run_id: str, columns: Mapping[str, Sequence[Any]], name: str) -> None:
        """A table for MLflow's side-by-side view: the first column groups, the second is compared.

        Written as MLflow's own `log_table` would, which when it is repeated appends the rows once more.
        """
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        self._client.log_text(run_id, json.dumps({"columns": list(columns), "data": rows}, ensure_ascii=False), name)
        self._client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([{"path": name, "type": "table"}]))

    def log_text(self, run_id: str, text: str, name: str) -> None:
        self._client.log_text(run_id, text, name)

    def log_figure(self, run_id: str, figure: Figure, name: str) -> None:
        self._client.log_figure(run_id, figure, name)

    def log_file(self, run_id: str, path: Path, folder: str | None = None) -> None:
        self._client.log_artifact(run_id, str(path), folder)

    def log_inputs(self, run_id: str, inputs: Sequence[DatasetInput]) -> None:
        """As dataset inputs. MLflow keeps pairs once for an experiment, with the source that the first run had for them; of two
        workers that are first in the same moment it refuses one (3.17).
        """
        from mlflow.exceptions import MlflowException

        datasets = [_dataset_input(run_id, one) for one in inputs]
        try:
            self._client.log_inputs(run_id, datasets=datasets)
        except MlflowException as error:
            if error.error_code != "BAD_REQUEST":
                raise
            self._client.log_inputs(run_id, datasets=datasets)

    def log_model(self, run_id: str, kind: ModelKind, tags: Mapping[str, str], scores: Mapping[str, float],
                  scored_on: DatasetInput) -> None:
        """As a logged model without files, which is pending until the run is ended, with the run's params."""
        from mlflow.entities import LoggedModelOutput

        run = self._client.get_run(run_id)
        ours = {key: value for key, value in run.data.tags.items() if key.startswith("mtselect.")}
        made = create_model(self._client, self.experiment_id, run_id, kind=kind, name=run.info.run_name,
                            tags={**ours, **tags}, params=run.data.params)
        self._pending[run_id] = made.model_id
        self.log_scores(run_id, made.model_id, scores, scored_on)
        self._client.log_outputs(run_id, [LoggedModelOutput(made.model_id, 0)],
                                 again=lambda: self._client.get_run(run_id).outputs.model_outputs or None)

    def log_scores(self, run_id: str, model_id: str, scores: Mapping[str, float], scored_on: DatasetInput) -> None:
        """Metrics (rounded to 4 decimals, in this order) of a run, of a logged model and of the pairs they are of: only of such
        does `search_logged_models(datasets=...)` know."""
        self._client.log_batch(run_id, metrics=_metrics(scores, model_id=model_id, dataset_name=scored_on.name,
                                                        dataset_digest=scored_on.digest))

    def end(self, run_id: str, status: Status) -> None:
        """Close a run; the model of one that is finished is ready."""
        if model_id := self._pending.get(run_id):
            self._client.finalize_logged_model(model_id, "READY" if status == "FINISHED" else "FAILED")
        self._client.set_terminated(run_id, status)
        self._pending.pop(run_id, None)  # not before: where this fails, the run is abandoned, and its model is not ready

    def abandon(self, run_id: str, status: Status, note: str | None = None) -> None:
        """Close a run after a failure, if MLflow lets us: it may be what failed."""
        with suppress(StorageError):
            if note is not None:
                self._hasty.set_tag(run_id, _NOTE, note)
            self._hasty.set_terminated(run_id, status)
            if model_id := self._pending.pop(run_id, None):
                self._hasty.finalize_logged_model(model_id, "FAILED")

    def close_trial(self, parent: str, number: int) -> None:
        """Close the run a killed worker left behind, and its model."""
        for run in self._runs(f"tags.`mlflow.parentRunId` = '{parent}' and tags.`mtselect.trial` = '{number}' and "
                              "attributes.status = 'RUNNING'"):
            fail_models(self._client, self.experiment_id, run.run_id)
            self._client.set_terminated(run.run_id, "KILLED")

    def has_file(self, run_id: str, name: str) -> bool:
        return any(found.path == name for found in self._client.list_artifacts(run_id, name.rpartition("/")[0] or None))

    def finished(self, parent: str) -> set[str]:
        """Of the study's children."""
        return {run.run_id for run in self.children(parent)}

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
        return Path(self._client.download_artifacts(run_id, name, str(folder)))

    def registry(self, name: str) -> Registry:
        """The versions of a promoted dataset."""
        return Registry(self._client, self._uri, self.experiment_id, name)

    def links(self, parent: str, objective: str) -> dict[str, str]:
        """Of the UI; `command` shows it, and is empty for a server.

        They open the saved view. Its format is the UI's own, so a version that nobody looked at gets a plain filter instead.
        """
        server = self._server()
        default = self.uri == f"sqlite:///{Path.cwd() / 'mlflow.db'}"
        command = "" if self.uri.startswith("http") else "mlflow ui" + ("" if default else f" --backend-store-uri {self.uri}")
        runs = f"{server}/#/experiments/{self.experiment_id}/runs"
        ascending = str(direction(objective) == "minimize").lower()
        plain = (f"{runs}?searchFilter={quote(FILTER)}&orderByKey={quote(f'metrics.`{objective}`')}&orderByAsc={ascending}"
                 "&startTime=ALL&lifecycleFilter=Active&modelVersionFilter=All%20Runs&datasetsFilter=W10="
                 "&workflowType=machine_learning")  # the UI heeds none if one is missing; W10= is an empty list
        known = self._client.server_version().startswith(VIEW_VERSIONS)
        view = f"{runs}?viewStateShareKey={VIEW}&workflowType=machine_learning" if known else plain
        return {"command": command, "study": f"{runs}/{parent}?workflowType=machine_learning", "trials": view,
                "charts": f"{view}&compareRunsMode=CHART", "translations": f"{view}&compareRunsMode=ARTIFACT"}

    def dataset_link(self, name: str, version: str) -> str:
        """Address of a dataset version in the UI."""
        return f"{self._server()}/#/models/{quote(name)}/versions/{version}?workflowType=machine_learning"

    def _server(self) -> str:
        return self.uri.replace("://***@", "://") if self.uri.startswith("http") else "http://127.0.0.1:5000"

    def _create(self, name: str, kind: str, tags: Mapping[str, str]) -> str:
        """A new run. Its tags (the study; with a trial its parent and number) tell it from every other, so that it is found
        when the server made it but the answer was lost."""
        all_tags = {"mtselect.kind": kind, "mtselect.study": self.study, **tags}
        where = " and ".join(f"tags.`{key}` = '{value}'" for key, value in all_tags.items())

        def again() -> Any:
            return next(iter(self._client.search_runs([self.experiment_id], where)), None)

        run = self._client.create_run(self.experiment_id, run_name=name, tags=all_tags, again=again)
        return str(run.info.run_id)

    def _runs(self, where: str) -> list[RecordedRun]:
        found, token = [], None
        while True:
            page = self._client.search_runs([self.experiment_id], where, page_token=token)
            found += [recorded(run) for run in page]
            token = page.token
            if not token:
                return found


def _dataset_input(run_id: str, given: DatasetInput) -> Any:
    """As MLflow has it."""
    from mlflow.entities import Dataset, InputTag
    from mlflow.entities import DatasetInput as Input

    from mtselect.tracking.dataset_source import SelectedSetSource, source_of

    source = (SelectedSetSource(f"runs:/{run_id}/selected.jsonl") if given.data is None else
              source_of(given.data, getattr(given.data, given.name)))
    context = "training" if given.data is None else given.name
    schema = json.dumps({"mlflow_colspec": [{"type": _COLUMN_TYPES[kind], "name": name, "required": False}
                                            for name, kind in given.columns.items()]})
    dataset = Dataset(name=given.name, digest=given.digest, source_type=source._get_source_type(), source=source.to_json(),
                      schema=schema, profile=json.dumps({"num_rows": given.n_rows}))
    return Input(dataset, [InputTag("mlflow.data.context", context)])


def _metrics(values: Mapping[str, float], **of: str) -> list[Any]:
    """Rounded to 4 decimals, in this order; of a logged model and a dataset, where they are named."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(key, round(float(value), 4), now, 0, **of) for key, value in values.items()]


def _without_credentials(sweep: Sweep) -> Sweep:
    """A sweep as it may be recorded."""
    uri, storage = sweep.tracking.uri, sweep.study.storage
    return replace(sweep, tracking=replace(sweep.tracking, uri=uri and redact(uri)),
                   study=replace(sweep.study, storage=storage and redact(storage)))
