"""The sweep that a command's first argument names: a file's, or that of a trial or a promoted set as MLflow recorded them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from mtselect import cli
from mtselect.config import Sweep, parse, to_yaml
from mtselect.remote import redact

if TYPE_CHECKING:
    from rich.console import Console

NAMES = """
SWEEP.yaml may also be a trial of a finished study, STUDY/TRIAL such as crawl-de-en/t003, or a promoted set, STUDY@champion:
then the settings are those that MLflow recorded of that trial. --tracking.uri says where MLflow is.
"""
_NAME = re.compile(r"models:/.+|[\w.-]+(?:/[^/]+|@[\w-]+)")  # of a rival perhaps `random-57 learning_rate=0.001`


def read_sweep(argv: list[str], console: Console) -> Sweep:
    """The sweep of a file, as `cli.read_arguments` reads it, or of a name, for which a line is printed: where it was found.

    Raises:
        ConfigError: as `config.load`, or it is no name; Faults: several such things.
        DataError: there is no such trial or promoted set.
        StorageError: MLflow does not answer.
    """
    if not argv or not _is_name(argv[0]):
        return cli.read_arguments(argv)
    from mtselect.tracking.trials import find_run, sweep_of

    name, *overrides = argv
    tracking = parse("", _of_tracking(overrides), checked=False).tracking
    run = find_run(name, tracking)
    sweep = parse(to_yaml(sweep_of(run, tracking.uri)), overrides)
    console.print(f"the settings are those of {sweep.study.name}/{run.name} (MLflow run {run.run_id}), "
                  f"its stages in {Path(sweep.runtime.workdir) / 'store'}", style="dim", markup=False, soft_wrap=True)
    return sweep


def say_whose(sweep: Sweep, console: Console) -> None:
    """Print that a sweep that searches stands for its own settings, and for none of its trials; nothing of another."""
    if not sweep.search:
        return
    said = f"the settings are the file's own, no trial's: each has its own {', '.join(sweep.search)}"
    if sweep.tracking.kind != "none":
        where = [part for name in ("uri", "experiment") if (value := getattr(sweep.tracking, name)) is not None
                 for part in (f"--tracking.{name}", redact(value))]
        beside = f", and {shlex.join(where)}" if where else ""
        said += f"; a trial's: give {sweep.study.name}/t000 or {sweep.study.name}@champion instead of the file{beside}"
    console.print(said, style="dim", markup=False, soft_wrap=True)


def _is_name(argument: str) -> bool:
    """What exists as a path is one, and so is what is called as a file of YAML is."""
    return bool(_NAME.fullmatch(argument)) and not argument.endswith((".yaml", ".yml")) and not Path(argument).exists()


def _of_tracking(overrides: list[str]) -> list[str]:
    """The arguments that say where MLflow is; others need not fit a sweep's defaults, but the trial's settings."""
    found, wanted = [], False
    for argument in overrides:
        wanted = argument.startswith("--tracking.") if argument.startswith("--") else wanted
        found += [argument] if wanted else []
    return found
