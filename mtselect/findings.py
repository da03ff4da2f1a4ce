"""What a look before any work (`preflight`) found: facts for a table, faults, and what is left to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.table import Table

from mtselect.config import Sweep
from mtselect.errors import Faults, UserError
from mtselect.plan import Step
from mtselect.search.trials import Study


@dataclass
class Preflight:
    """What was found.

    Args:
        sweep: with everything decided (`resolve.resolve`), as far as there are no faults.
        facts: what was looked at -> what was found or chosen.
        faults: what is wrong, a line each.
        steps: what there is to do.
        study: Optuna's, if it was begun.
        alone: whether only a set is wanted, without trials.
    """

    sweep: Sweep
    facts: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    study: Study | None = None
    alone: bool = False

    def finished(self) -> tuple[int, int]:
        """Trials and baselines of the study that are done: with a score, pruned, or failed for good."""
        trials = [] if self.study is None else self.study.get_trials(deepcopy=False)
        done = ["baseline" in trial.user_attrs for trial in trials if "surplus" not in trial.user_attrs and (
            {"row", "failed"} & trial.user_attrs.keys() or trial.state.name == "PRUNED")]
        return done.count(False), done.count(True)

    def left(self) -> tuple[int, int]:
        """Trials and baselines that are not done."""
        if self.alone:
            return 0, 0
        study, (trials, baselines) = self.sweep.study, self.finished()
        wanted = len(study.baselines) + bool(study.baselines)  # the best trial again
        return max(0, study.n_trials - trials), max(0, wanted - baselines)

    def show(self, console: Console) -> None:
        """Print the table."""
        table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
        for name, found in self.facts.items():
            table.add_row(name, found)
        console.print(table, style="dim")

    def raise_faults(self) -> None:
        """Raise Faults if there are any."""
        if self.faults:
            raise Faults(*self.faults)

    @contextlib.contextmanager
    def part(self) -> Iterator[None]:
        """A look; what a user can mend is a fault."""
        try:
            yield
        except OSError as error:  # a path that no system takes, or something there that is no file
            self.faults.append(f"{error}: correct the path")
        except UserError as error:
            for line in error.lines:
                if line not in self.faults:
                    self.faults.append(line)
