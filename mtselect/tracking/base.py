"""What a tracker is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from mtselect.config import DataConfig, Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of a run below a study's: `again` is the best trial with fresh finetuning seeds.
Kind = Literal["trial", "baseline", "again"]
Status = Literal["FINISHED", "FAILED", "KILLED"]
ModelKind = Literal["finetuned", "untuned"]  # whether anything was selected to finetune a trial's model on


@dataclass(frozen=True, kw_only=True)
class DatasetInput:
    """Pairs that a run was given.

    Args:
        name: `pool`, `seeds`, `dev` or `test`; of the set that a trial was finetuned on, `selected`.
        digest: hash of its ids, which with the name tells it from all others.
        n_rows: pairs.
        data: where its source stands under its name; null: it is the run's own `selected.jsonl`.
        columns: of each row, with their types: str, float or int.
    """

    name: str
    digest: str
    n_rows: int
    data: DataConfig | None = None
    columns: Mapping[str, type] = field(default_factory=lambda: {"src": str, "tgt": str})


class Tracker(Protocol):
    """Takes down what happens. Every method that is given a run's id has it from `study_run` or `start_trial`.

    Attributes:
        uri: where the record is kept, as people may see it; empty where nothing is.
    """

    uri: str

    def study_run(self, sweep: Sweep) -> str:
        """The run of a study, begun or gone on with; all others are its children."""

    def start_trial(self, parent: str, name: str, kind: Kind, params: Mapping[str, object], number: int) -> str:
        """The run of a trial or a baseline, whose number is Optuna's."""

    def finished(self, parent: str) -> set[str] | None:
        """Ids of the children that came to their end; null where nothing is kept."""

    def log(self, run_id: str, metrics: Mapping[str, float] | None = None, params: Mapping[str, object] | None = None,
            tags: Mapping[str, str] | None = None, note: str | None = None) -> None:
        """Metrics, in this order; params; tags; a text in Markdown."""

    def log_curve(self, run_id: str, curve: Sequence[Mapping[str, float | None]]) -> None:
        """Losses (`train_loss`, `dev_loss`) over optimiser steps (`step`)."""

    def log_table(self, run_id: str, columns: Mapping[str, Sequence[object]], name: str) -> None:
        """A table for people to look at, run beside run: the first column says which rows go together."""

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """A text, as a file of a name with folders."""

    def log_figure(self, run_id: str, figure: Figure, name: str) -> None:
        """A picture."""

    def log_file(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """A file, into a folder."""

    def has_file(self, run_id: str, name: str) -> bool:
        """Whether a run has a file already."""

    def log_inputs(self, run_id: str, inputs: Sequence[DatasetInput]) -> None:
        """What the run was given."""

    def log_model(self, run_id: str, kind: ModelKind, tags: Mapping[str, str], scores: Mapping[str, float],
                  scored_on: DatasetInput) -> None:
        """The model that a trial ended with, once, whose tags say where it stays, and its scores, as metrics of the run, of the
        model and of the pairs they are of. It counts when the run is ended as finished."""

    def end(self, run_id: str, status: Status) -> None:
        """Close a run."""

    def abandon(self, run_id: str, status: Status, note: str | None = None) -> None:
        """Close a run after a failure, if that can be done at once: it may be the record that failed."""

    def close_trial(self, parent: str, number: int) -> None:
        """Close the run that a killed worker left behind."""

    def links(self, parent: str, objective: str) -> dict[str, str]:
        """Where people look: `command` to be run before (or empty), and the addresses of the `study`, of its `trials`, of their
        `charts` and of their `translations` side by side. Empty where nothing is kept."""
