"""Nothing is recorded: scores stay in Optuna's storage, selected sets and translations in the stage store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtselect.config import Sweep
from mtselect.tracking.base import DatasetInput, Kind, Status, TrialModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class NoTracker:
    """Every run has an id, and nothing else."""

    uri = ""

    def study_run(self, sweep: Sweep) -> str:
        """Its name."""
        return sweep.study.name

    def start_trial(self, parent: str, name: str, kind: Kind, params: Mapping[str, object], tags: Mapping[str, str]) -> str:
        """Study and number."""
        return f"{parent}/{tags['mtselect.trial']}"

    def finished(self, parent: str) -> None:
        """Unknown."""

    def log(self, run_id: str, metrics: Mapping[str, float] | None = None, params: Mapping[str, object] | None = None,
            tags: Mapping[str, str] | None = None, note: str | None = None) -> None:
        """Nothing."""

    def log_curve(self, run_id: str, curve: Sequence[Mapping[str, float | None]]) -> None:
        """Nothing."""

    def log_table(self, run_id: str, columns: Mapping[str, Sequence[object]], name: str) -> None:
        """Nothing."""

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Nothing."""

    def log_figure(self, run_id: str, figure: Figure, name: str) -> None:
        """Nothing."""

    def log_file(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Nothing."""

    def has_file(self, run_id: str, name: str) -> bool:
        """As if all were there, so that none is made."""
        return True

    def log_inputs(self, run_id: str, inputs: Sequence[DatasetInput]) -> None:
        """Nothing."""

    def log_model(self, run_id: str, model: TrialModel, scores: Mapping[str, float], scored_on: DatasetInput) -> None:
        """Nothing."""

    def end(self, run_id: str, status: Status) -> None:
        """Nothing."""

    def abandon(self, run_id: str, status: Status, note: str | None = None) -> None:
        """Nothing."""

    def close_trial(self, parent: str, number: int) -> None:
        """Nothing."""

    def links(self, objective: str) -> dict[str, str]:
        """None."""
        return {}

    def run_link(self, run_id: str) -> str:
        """None."""
        return ""
