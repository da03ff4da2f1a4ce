"""Trials read back from MLflow by their names, and the sweep that a trial or a promoted set is of."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from mtselect.config import Experiment, Sweep, TrackingConfig, parse, with_fields
from mtselect.errors import DataError
from mtselect.tracking.fetch import fetch_run, fetch_version, set_address
from mtselect.tracking.recorded import RecordedRun
from mtselect.tracking.server import open_mlflow


def find_trial(study: str, trial: str, config: TrackingConfig) -> RecordedRun:
    """A finished trial or baseline.

    Raises:
        DataError: the study has none of this name.
        StorageError: MLflow has no such study, or does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        tracker = open_mlflow(config, study, Path(folder), create=False)
        parent = tracker.find_study()
        runs = {run.name: run for run in tracker.children(parent.run_id)} if parent else {}
    if trial not in runs:
        known = f"name one of {', '.join(sorted(runs)[:12])}" if runs else "it has none yet"
        raise DataError(f"'{study}/{trial}': study {study!r} has no finished trial or baseline {trial!r}: {known}")
    return runs[trial]


def find_run(name: str, config: TrackingConfig) -> RecordedRun:
    """The trial that is meant by STUDY/TRIAL, or that a version of a promoted set came from.

    Args:
        name: `crawl/t003`, `crawl@champion`, `crawl/2` (a version's number) or `models:/mtselect.crawl@champion`.
        config: where MLflow is.

    Raises:
        ConfigError: it is none of these.
        DataError: there is no such trial or version.
        StorageError: MLflow does not answer.
    """
    study, _, trial = name.partition("/")
    if "@" not in name and ":" not in study and not trial.isdecimal():
        return find_trial(study, trial, config)
    with tempfile.TemporaryDirectory() as folder:
        _, run = fetch_version(set_address(name), config.uri, Path(folder))
    if run is None:
        raise DataError(f"{name!r} was registered without the trial it came from: name that, such as crawl-de-en/t003")
    return run


def sweep_of(run: RecordedRun, uri: str | None) -> Sweep:
    """The sweep that computes a trial, with everything decided as in it: its own experiment, nothing searched, and `runtime` as
    its study had it; the study's storage is left out, whose recorded address has no password.

    Raises:
        ConfigError: another version of mtselect recorded it, with fields that are unknown here.
        DataError: the study's run is gone, or files of either are.
        StorageError: MLflow does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        own, _ = fetch_run(run.run_id, uri, Path(folder), file="experiment.yaml")
        whole, _ = fetch_run(run.tags["mlflow.parentRunId"], uri, Path(folder), file="sweep.yaml")
        study = parse(whole.read_bytes(), [], checked=False)
        return replace(study, experiment=recorded_experiment(own.read_bytes()), search={},
                       study=replace(study.study, storage=None))


def recorded_experiment(text: str | bytes) -> Experiment:
    """Of a run's experiment.yaml; its study's objectives, which its metrics go with, are in another file. Versions that had no
    field for what statistics are in computed them in float32."""
    found = parse(text, [], checked=False).experiment
    return with_fields(found, {"attribution.statistics": "float32"}) if found.attribution.statistics == "auto" else found
