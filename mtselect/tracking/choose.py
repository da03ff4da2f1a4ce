"""The tracker that `tracking.kind` names."""

from __future__ import annotations

from pathlib import Path

from mtselect.config import TrackingConfig
from mtselect.tracking.base import Tracker
from mtselect.tracking.none import NoTracker
from mtselect.tracking.server import open_mlflow, reach


def open_tracker(config: TrackingConfig, study: str, workdir: Path) -> Tracker:
    """The tracker of a study. Raises StorageError if it cannot be reached."""
    return NoTracker() if config.kind == "none" else open_mlflow(config, study, workdir)


def look_at_tracker(config: TrackingConfig, workdir: Path) -> str:
    """Where the record will be kept. Asks whether it can be, within seconds, and makes nothing. Raises StorageError if not."""
    return "nothing is recorded (tracking.kind: none)" if config.kind == "none" else reach(config, workdir)
