"""A run as it is read back from MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """Metrics by name, params, tags."""

    run_id: str
    name: str
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]


def recorded(run: Any) -> RecordedRun:
    """A run as MLflow gives it."""
    return RecordedRun(run_id=run.info.run_id, name=run.info.run_name, metrics=dict(run.data.metrics),
                       params=dict(run.data.params), tags=dict(run.data.tags))
