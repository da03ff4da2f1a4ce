"""MLflow reached: its experiment found or made, or what is wrong with it said within seconds."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

from mtselect.config import TrackingConfig
from mtselect.environment import environment_variable
from mtselect.errors import StorageError
from mtselect.remote import PATIENCE, first_line, redact
from mtselect.tracking.client import PatientClient, connect, own_retries
from mtselect.tracking.mlflow import MlflowTracker

_REACH_SECONDS = 8  # that a server is waited for before any work


def open_mlflow(config: TrackingConfig, study: str, workdir: Path, *, create: bool = True) -> MlflowTracker:
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
                raise StorageError(f"MLflow at {redact(uri)} has no study {study!r}: check the name, or set --tracking.uri")
            experiment_id = found.experiment_id if found else client.create_experiment(name)
    except OSError as error:
        raise StorageError(f"runtime.workdir {str(workdir)!r} cannot be written ({error}): free space, or set runtime.workdir "
                           "to another folder") from error
    except StorageError:
        raise
    except Exception as error:  # MLflow, SQLAlchemy and their drivers have many for an address that is none
        raise _no_tracker(config, error) from error
    patience = 0 if uri.startswith("sqlite:") else PATIENCE  # a file on this machine does not come back by itself
    return MlflowTracker(client, uri, experiment_id, study, lock, patience)


def reach(config: TrackingConfig, workdir: Path) -> str:
    """Ask MLflow for anything, within seconds, and make nothing.

    Returns:
        Its address, as it may be shown.

    Raises:
        StorageError: it does not answer, is older than MLflow 3, or would not be allowed to write its database.
    """
    import mlflow
    from filelock import FileLock

    lock = workdir / "mlflow.lock"
    try:
        _reach_database(config.uri or mlflow.get_tracking_uri())  # first: making a client already tries it for minutes
        with (environment_variable("MLFLOW_HTTP_REQUEST_TIMEOUT", str(_REACH_SECONDS)), own_retries(0),
              FileLock(lock) if lock.exists() else nullcontext(), connect(config.uri) as (client, uri)):
            if client is not None:
                client.search_experiments(max_results=1)
                _refuse_old(PatientClient(client, uri, 0).server_version(), uri)
            elif not os.access(folder := Path(uri.removeprefix("sqlite:///")).absolute().parent, os.W_OK):
                raise StorageError(f"MLflow at {redact(uri)} cannot be made: {folder} is no folder that may be written to: "
                                   "set tracking.uri")
            return redact(uri)
    except StorageError:
        raise
    except Exception as error:  # MLflow, SQLAlchemy and their drivers have many for an address that is none
        raise _no_tracker(config, error) from error


def _refuse_old(version: str, uri: str) -> None:
    """Raise what a server says of its version, if that is too old; one that does not say is taken as it is."""
    if version.split(".")[0] in ("0", "1", "2"):
        raise StorageError(f"MLflow at {redact(uri)} is {version}, and trials are recorded with logged models, which begin "
                           "with 3: install a newer one there and run `mlflow db upgrade`, or set tracking.uri")


def _reach_database(uri: str) -> None:
    """Raise what is wrong with a database, which MLflow would try for minutes."""
    if uri.startswith("sqlite:///") and (path := Path(uri.removeprefix("sqlite:///"))).exists():
        if not path.is_file() or not os.access(path, os.R_OK | os.W_OK):
            raise OSError(f"{path} is no file that may be written to")
    elif uri.startswith(("postgresql", "mysql")):
        from sqlalchemy import create_engine

        create_engine(uri, connect_args={"connect_timeout": _REACH_SECONDS}).connect().close()


def _no_tracker(config: TrackingConfig, error: BaseException) -> StorageError:
    return StorageError(f"MLflow at {redact(config.uri or 'its default')} cannot be used: {first_line(error)}: start the "
                        "server, or set tracking.uri; an old ./mlruns file store is moved by `mlflow migrate-filestore`")
