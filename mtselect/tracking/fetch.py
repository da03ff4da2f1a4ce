"""Selected sets read back from MLflow by run id or dataset version, without knowing their study."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtselect.errors import ConfigError, DataError, StorageError
from mtselect.remote import first_line, redact
from mtselect.store import read_lines
from mtselect.tracking.client import connect
from mtselect.tracking.recorded import RecordedRun, recorded
from mtselect.tracking.registry import resolving

if TYPE_CHECKING:
    from datasets import Dataset

# Of a selected set, as MLflow has it.
ADDRESS = re.compile(r"runs:/(?P<run>[^/]+)/selected\.jsonl|models:/mtselect\.[^/@]+(?:@[^/@]+|/\d+)")
_VERSION = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")
_OPTION, _IN_PYTHON = "--tracking.uri", "the argument uri (or MLFLOW_TRACKING_URI)"  # name MLflow's server
_NAME = re.compile(r"(?:models:/)?(?:mtselect\.)?(?P<study>[\w.-]+?)(?P<which>@[\w-]+|/\d+)?")


def set_address(name: str) -> str:
    """MLflow's address of a selected set.

    Args:
        name: of a study and, behind @, `champion` (the default) or `challenger`, or behind / a version's number:
            `crawl-de-en@champion`, `crawl-de-en/3`; or the address itself.

    Raises:
        ConfigError: it cannot be one.
    """
    if ADDRESS.fullmatch(name):
        return name
    match = _NAME.fullmatch(name)
    if match is None:
        raise ConfigError(f"a promoted set must be STUDY, STUDY@ALIAS or STUDY/VERSION, such as crawl-de-en@champion, got "
                          f"{name!r}: correct it")
    return f"models:/mtselect.{match['study']}{match['which'] or '@champion'}"


def fetch_selected(address: str, uri: str | None) -> Dataset:
    """The rows of a selected.jsonl.

    Args:
        address: `runs:/RUN/selected.jsonl`, `models:/mtselect.STUDY@ALIAS` or `models:/mtselect.STUDY/NUMBER`.
        uri: MLflow server; null takes MLflow's own.

    Raises:
        DataError: there is no such set, or the address is none of these.
        StorageError: MLflow does not answer.
    """
    from datasets import Dataset

    match = ADDRESS.fullmatch(address)
    if match is None:
        raise DataError(f"a selected set must be runs:/RUN/selected.jsonl, models:/mtselect.STUDY@ALIAS or "
                        f"models:/mtselect.STUDY/NUMBER, got {address!r}: correct it")
    with tempfile.TemporaryDirectory() as folder:
        if match["run"]:
            path, _ = fetch_run(match["run"], uri, Path(folder), named=_IN_PYTHON)
        else:
            path = fetch_version(address, uri, Path(folder), named=_IN_PYTHON)[0] / "selected.jsonl"
        return Dataset.from_list(read_lines(path))


def fetch_run(run_id: str, uri: str | None, folder: Path, *, file: str = "selected.jsonl",
              named: str = _OPTION) -> tuple[Path, RecordedRun]:
    """A file of a run, copied into a folder, and the run; `named` is what names the server, for errors.

    Raises:
        DataError: there is no such run, or it has no such file, as one that selected nothing.
        StorageError: MLflow does not answer.
    """
    with _asking(run_id, uri, named) as client:
        run = client.get_run(run_id)
        return Path(client.download_artifacts(run_id, file, str(folder))), recorded(run)


def fetch_version(address: str, uri: str | None, folder: Path, *, named: str = _OPTION) -> tuple[Path, RecordedRun | None]:
    """A dataset version's files, copied into a folder, and the trial it came from if that is still there.

    Args:
        address: `models:/NAME@ALIAS` or `models:/NAME/NUMBER`.
        uri: MLflow server; null takes MLflow's own.
        folder: to copy to.
        named: what names the server, for errors.

    Raises:
        DataError: there is no such version, or the address is neither of these.
        StorageError: MLflow does not answer.
    """
    match = _VERSION.fullmatch(address)
    if match is None:
        raise DataError(f"{address!r} is no dataset version: write models:/mtselect.quickstart@champion or "
                        "models:/mtselect.quickstart/2")
    name, alias, number = match.groups()
    with _asking(address, uri, named) as client:
        from mlflow.artifacts import download_artifacts

        version = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        with resolving(client.tracking_uri):
            path = download_artifacts(address, dst_path=str(folder))
        return Path(path), recorded(client.get_run(version.run_id)) if version.run_id else None


@contextmanager
def _asking(what: str, uri: str | None, named: str) -> Iterator[Any]:
    """MLflow's client; what goes wrong is said in one line."""
    from mlflow.exceptions import MlflowException

    with connect(uri) as (client, address):
        if client is None:
            raise DataError(f"{what!r}: there is no MLflow at {redact(address)}: set {named}")
        try:
            yield client
        except (MlflowException, OSError) as error:
            code = getattr(error, "error_code", "NOT_FOUND" if str(error).startswith("No such ") else "OSError")
            if code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
                raise DataError(f"{what!r}: MLflow at {redact(address)} has no such selected set ({first_line(error)}): "
                                f"correct the name, or set {named}") from error
            raise StorageError(f"MLflow at {redact(address)} cannot be read ({first_line(error)}): start the server, or set "
                               f"{named}") from error
