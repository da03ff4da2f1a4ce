"""Nothing is recorded: scores stay in Optuna's storage, selected sets and translations in the stage store."""

from __future__ import annotations

from collections.abc import Mapping

from mtselect.config import Sweep
from mtselect.tracking.base import Kind


class NoTracker:
    """Every run has an id, and nothing else."""

    uri = ""

    def study_run(self, sweep: Sweep) -> str:
        """Its name."""
        return sweep.study.name

    def start_trial(self, parent: str, name: str, kind: Kind, params: Mapping[str, object], number: int) -> str:
        """Study and number."""
        return f"{parent}/{number}"

    def finished(self, parent: str) -> None:
        """Unknown."""

    def has_file(self, run_id: str, name: str) -> bool:
        """As if all were there, so that none is made."""
        return True

    def _nothing(self, *given: object, **named: object) -> None:
        """Is done."""

    log = log_curve = log_table = log_text = log_figure = log_file = log_inputs = log_model = _nothing
    end = abandon = close_trial = _nothing

    def links(self, parent: str, objective: str) -> dict[str, str]:
        """None."""
        return {}
