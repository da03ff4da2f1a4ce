"""The tracker that `tracking.kind` names."""

from __future__ import annotations

from pathlib import Path

from mtselect.config import TrackingConfig
from mtselect.tracking.base import Tracker


def open_tracker(config: TrackingConfig, study: str, workdir: Path) -> Tracker:
    """The tracker of a study. Raises StorageError if it cannot be reached."""
    if config.kind == "none":
        from mtselect.tracking.none import NoTracker

        return NoTracker()
    from mtselect.tracking.server import open_mlflow

    return open_mlflow(config, study, workdir)


def look_at_tracker(config: TrackingConfig, workdir: Path) -> str:
    """Where the record will be kept. Asks whether it can be, within seconds, and makes nothing. Raises StorageError if not."""
    if config.kind == "none":
        return "nothing is recorded (tracking.kind: none)"
    from mtselect.tracking.server import reach

    return reach(config, workdir)
