"""What `mtselect promote` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Order:
    """Arguments and options of the command line, as `mtselect promote --help` explains them; `uri` and `experiment` are
    MLflow's, `workdir` the stage store's."""

    study: str
    force: bool = False
    dry_run: bool = False
    from_scratch: bool = False
    rollback: bool = False
    export: Path | None = None
    push: str | None = None
    private: bool = False
    licence: str | None = None
    uri: str | None = None
    experiment: str | None = None
    workdir: str = "mlruns"
