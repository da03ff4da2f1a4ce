"""Where Optuna keeps a study: a journal file, or a database that is waited for when it goes away."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import make_url
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError

from mtselect.config import Sweep
from mtselect.errors import StorageError
from mtselect.remote import Patience, causes, reason, redact
from mtselect.resolve import adopt
from mtselect.store import hash_json, write_text_whole


def storage(sweep: Sweep) -> Any:
    """The study's storage: a journal file under the workdir, or the database of `study.storage`."""
    url = sweep.study.storage
    if url is not None:
        return database_storage(url)
    path = _journal(sweep)
    path.parent.mkdir(parents=True, exist_ok=True)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


def _journal(sweep: Sweep) -> Path:
    return Path(sweep.runtime.workdir) / "optuna" / f"{sweep.study.name}.journal"


def dashboard_arguments(sweep: Sweep) -> str:
    """What `optuna-dashboard` is given on a command line to open the study's storage; without the password of a database."""
    return shlex.quote(str(_journal(sweep)) if sweep.study.storage is None else redact(sweep.study.storage))


def begun_study(sweep: Sweep) -> optuna.Study | None:
    """The study as it is, without making a study, a file or a table; null where there is none.

    Raises:
        StorageError: the storage cannot be read.
    """
    url = sweep.study.storage
    if url is None and not _journal(sweep).exists():
        return None
    try:
        if url is not None and (file := make_url(url).database) and url.startswith("sqlite") and not Path(file).exists():
            if not Path(file).absolute().parent.is_dir():
                raise FileNotFoundError(f"there is no folder {Path(file).parent}")
            return None  # SQLite would make it
        return optuna.load_study(study_name=sweep.study.name, storage=storage(sweep) if url is None else _read_only(url))
    except KeyError:
        return None
    except Exception as error:
        if _has_no_tables(error):
            return None
        raise unusable(sweep, error) from error


def continued(sweep: Sweep) -> Sweep:
    """The sweep with what is open decided as its study did, if that was begun and can be asked."""
    with contextlib.suppress(StorageError):
        if (study := begun_study(sweep)) is not None and (begun := study.user_attrs.get("sweep")) is not None:
            return adopt(sweep, begun)
    return sweep


def remember(sweep: Sweep) -> None:
    """Note under the workdir that a study was run here, and where it is kept, so that nothing it refers to is pruned."""
    folder = Path(sweep.runtime.workdir) / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    note = {"study": sweep.study.name, "storage": None if sweep.study.storage is None else redact(sweep.study.storage)}
    path = folder / f"{sweep.study.name}-{hash_json(note)[:8]}.json"
    write_text_whole(path, json.dumps(note))


def forget_studies(sweep: Sweep, names: Sequence[str]) -> None:
    """Take the notes back."""
    for path, name, _ in _notes(sweep):
        if name in names:
            path.unlink(missing_ok=True)


def _notes(sweep: Sweep) -> list[tuple[Path, str, str | None]]:
    """Of each its file, its study and, as `remember` wrote it, the storage."""
    found = []
    for path in sorted((Path(sweep.runtime.workdir) / "studies").glob("*.json")):
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
            found.append((path, str(note["study"]), note["storage"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{path} is no note of a study ({error}): remove it, if no study was kept in a database"
                               ) from error
    return found


def read_studies(sweep: Sweep, forgotten: Sequence[str]) -> Iterator[tuple[str, optuna.Study]]:
    """All studies of a workdir: those in its journal files, and in the database of `study.storage`.

    Args:
        sweep: names both.
        forgotten: names of studies that are left out.

    Raises:
        StorageError: a study was run here whose database is another one, does not answer, or does not know it.
    """
    workdir, url = Path(sweep.runtime.workdir), sweep.study.storage
    journals = {path.stem for path in _journal(sweep).parent.glob("*.journal")}
    kept: list[tuple[str, str | None]] = []
    for _, name, noted in _notes(sweep):
        if noted is None:
            journals.add(name)
        elif name not in forgotten:
            if url is None or noted != redact(url):
                raise StorageError(f"study {name!r} was run in {str(workdir)!r} and is kept in {noted}: name that database "
                                   f"with --study.storage, or let the study go with --forget {name}; nothing was deleted")
            kept.append((name, url))
    kept += [(name, None) for name in sorted(journals - set(forgotten))]
    for name, where in kept:
        its = replace(sweep, study=replace(sweep.study, name=name, storage=where))
        study = begun_study(its)
        if study is None:
            place = _journal(its) if where is None else redact(where)
            raise StorageError(f"study {name!r} was run in {str(workdir)!r} and is not in {place}: look whether that is whole, "
                               f"or let the study go with --forget {name}; nothing was deleted")
        yield name, study


def unusable(sweep: Sweep, error: BaseException) -> StorageError:
    """What to say of a storage that cannot be opened."""
    address = None if sweep.study.storage is None else redact(sweep.study.storage)
    return StorageError(f"study.storage {address!r} cannot be used ({reason(error)}): start the database, correct the URL, "
                        "or leave it null for a journal file")


def _read_only(url: str) -> Any:
    return RDBStorage(url, skip_table_creation=True, skip_compatibility_check=True,
                      engine_kwargs={"connect_args": _limits(url)})


def database_storage(url: str) -> Any:
    """Optuna's storage in a database; one on a server is waited for when it is away.

    Optuna fails a running trial whose worker was silent for the grace period. In an outage all are silent, so none is failed
    before this process has reached the database for that long.
    """
    grace = 180
    if url.startswith("sqlite"):
        return RDBStorage(url, heartbeat_interval=60, grace_period=grace)

    def away(error: BaseException) -> bool:
        return isinstance(error, StorageInternalError) and any(isinstance(one, (OperationalError, InterfaceError))
                                                               for one in causes(error))

    patience = Patience(f"Optuna's storage at {redact(url)}", away)

    class PatientStorage(RDBStorage):
        def record_heartbeat(self, trial_id: int) -> None:
            try:
                super().record_heartbeat(trial_id)
            except StorageInternalError:  # its thread must live; there is a next one
                patience.note_failure()

        def _get_stale_trial_ids(self, study_id: int) -> list[int]:
            found = super()._get_stale_trial_ids(study_id)
            return [] if patience.failed_within(grace) else found

    def patient(method: Any) -> Any:
        @wraps(method)
        def call(self: Any, *arguments: Any, **options: Any) -> Any:
            attempts = 0

            def attempt() -> Any:
                nonlocal attempts
                attempts += 1
                try:
                    return method(self, *arguments, **options)
                except UpdateFinishedTrialError:
                    if attempts > 1 and method.__name__ == "set_trial_state_values":  # it was us; only the answer was lost
                        return True
                    raise

            try:
                return patience(attempt)
            except StorageInternalError as error:
                if not away(error):
                    raise
                raise StorageError(f"{patience.server} does not answer any more ({reason(error)}): "
                                   "start the database again, then run the same command") from error

        return call

    # Private ones too: Optuna's cache, which it puts around this, calls `_create_new_trial` and `_get_trials`.
    for name, method in {**vars(RDBStorage), **vars(PatientStorage)}.items():
        if inspect.isfunction(method) and not name.startswith("__") and name != "record_heartbeat":
            setattr(PatientStorage, name, patient(method))
    return PatientStorage(url, heartbeat_interval=60, grace_period=grace,
                          engine_kwargs={"pool_pre_ping": True, "connect_args": _limits(url)})


def _has_no_tables(error: BaseException) -> bool:
    """Whether the database answers, and no study was ever made in it."""
    missing = re.compile("no such table|relation .* does not exist|Table .* doesn't exist")  # SQLite, PostgreSQL, MySQL
    return any(isinstance(one, (ProgrammingError, OperationalError)) and missing.search(str(one)) for one in causes(error))


def _limits(url: str) -> dict[str, int]:
    """How long a database server is waited for, of libpq: seconds, milliseconds; else it may be hours."""
    parsed = make_url(url)
    limits = {"connect_timeout": 10, "tcp_user_timeout": 60_000} if parsed.get_driver_name() in ("psycopg", "psycopg2") else {}
    return {name: value for name, value in limits.items() if name not in parsed.query}
