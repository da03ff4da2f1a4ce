"""An MlflowClient that waits for a server which is away, and MLflow's own haste and chatter kept in hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from mtselect.environment import environment_variable
from mtselect.errors import StorageError
from mtselect.remote import Patience, causes, first_line, reason, redact


class PatientClient:
    """An MlflowClient that waits for a server which is away; when that or its disk fails for good, it is said as something to
    mend. Every call may be repeated: one that makes something new brings `again`, which finds what was made."""

    def __init__(self, client: Any, uri: str, patience: float) -> None:
        self._client, self._patience = client, Patience(f"MLflow at {redact(uri)}", is_away, patience)

    def __getattr__(self, name: str) -> Any:
        return partial(self._call, getattr(self._client, name))

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

    def _call(self, method: Callable[..., Any], *arguments: Any, again: Callable[[], Any] | None = None, **options: Any) -> Any:
        from mlflow.exceptions import MlflowException

        server = self._patience.server
        try:
            with own_retries(0):  # MLflow's own would make a run twice when the first answer is lost
                return self._patience(partial(method, *arguments, **options), again)
        except (MlflowException, OSError) as error:
            code = getattr(error, "error_code", "INTERNAL_ERROR")
            if code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"):
                raise StorageError(f"{server} refuses to record ({first_line(error)}): set MLFLOW_TRACKING_USERNAME and "
                                   "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, then run the same command") from error
            if code != "INTERNAL_ERROR" and not is_away(error):
                raise
            raise StorageError(f"{server} does not record any more ({reason(error)}): start its server again, or free "
                               "space, then run the same command") from error


def is_away(error: BaseException) -> bool:
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
    with own_retries(1):
        address = uri or mlflow.get_tracking_uri()
        # Only of SQLite can be told that there is no database without making one.
        if not create and address.startswith("sqlite:///") and not Path(address.removeprefix("sqlite:///")).exists():
            yield None, address
            return
        registry = None if address.startswith("databricks") else address
        yield mlflow.MlflowClient(tracking_uri=address, registry_uri=registry), address


def own_retries(count: int) -> AbstractContextManager[None]:
    """How often MLflow itself repeats a request, unless the environment says; its default takes minutes, without a word. A
    server that does not answer at the start is said within seconds."""
    return environment_variable("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(count))
