"""What an executor is: who computes what a study asks for, and how many things at a time.

A piece of work is whatever fills the stage store. Since an entry is the same whoever computed it, a piece that was lost is done
again, and what one executor began another one may end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from mtselect.config import Experiment
from mtselect.progress import OnEpoch
from mtselect.stages.lineage import Bench, Lineage, Stage
from mtselect.stages.trial import TrialResult


class Executor(Protocol):
    """Where the work is done. The study's process proposes, records and prints, wherever that is."""

    @property
    def bench(self) -> Bench:
        """Of the study's process; some of its metrics may be computed elsewhere."""

    def prepare(self, lineage: Lineage, stage: Stage) -> None:
        """Compute a stage that all trials share, if it is not in the store."""

    def side_by_side(self, lane: Callable[[], None]) -> None:
        """Call it once for each trial that can be run at a time; returns when all calls have. One call goes on at a time: the
        others wait, in `run_trial`. What one raises ends the others as an interruption would."""

    def run_trial(self, experiment: Experiment, on_epoch: OnEpoch | None = None) -> TrialResult:
        """Select, finetune, evaluate on dev.

        Args:
            experiment: with everything decided (`resolve.resolve`).
            on_epoch: called with (epoch, dev loss) while finetuning computes; may raise to stop the trial.
        """

    def ahead(self, experiments: Sequence[Experiment]) -> None:
        """Finetune and evaluate on dev, as many at a time as there is room for, before `run_trial` is asked for one after the
        other. A failure here is nobody's: whoever asks next meets it."""
