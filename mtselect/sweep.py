"""python -m mtselect.sweep [SWEEP.yaml] [--FIELD VALUE ...]

Prepares what all trials share (corpus, warm-up, curvature, gradients), lets Optuna search, finetunes the best trial and its
rivals with fresh seeds in the same study, and prints the trials, best first, with the next commands. The same command goes on
where a stopped one ended; several workers may run it at once on one storage.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtselect import cli
from mtselect.config import Sweep

if TYPE_CHECKING:
    from rich.console import Console


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = cli.FieldsParser("sweep", "--dry-run: print the stages that are there, the trials left, and roughly the minutes "
                              "and the disk they take\n")
    parser.add_argument("--dry-run", action="store_true")
    arguments, fields = parser.parse_known_args(argv)
    if arguments.dry_run:
        return cli.run(lambda console: show_plan(cli.read_arguments(fields, checked=False), console), again="Nothing was done.")
    return cli.run(lambda console: run_sweep(cli.read_arguments(fields, checked=False), console),
                   again="Finished stages and trials are kept: the same command goes on from here.")


def run_sweep(sweep: Sweep, console: Console) -> None:
    """Run or continue a sweep to its end.

    Raises:
        Faults: what can be known to be wrong before any work (`preflight`).
    """
    console.print(f"[bold]mtselect[/] sweep [bold]{sweep.study.name}[/]: {sweep.study.n_trials} trials "
                  f"for {', '.join(sweep.study.objectives)}")
    bench = cli.make_bench(sweep.runtime, console)
    from mtselect.executors.choose import open_executor
    from mtselect.preflight import preflight
    from mtselect.search.study import open_study
    from mtselect.search.trials import study_rows
    from mtselect.search.worker import Worker
    from mtselect.tracking.choose import open_tracker

    found = preflight(bench, sweep)
    found.show(console)
    found.raise_faults()
    sweep = found.sweep
    tracker = open_tracker(sweep.tracking, sweep.study.name, Path(sweep.runtime.workdir))
    study = open_study(sweep)
    parent = tracker.study_run(sweep)
    try:
        with open_executor(bench) as executor:
            worker = Worker(sweep, executor, tracker, study, parent, console)
            worker.prepare()
            worker.search()
            worker.run_baselines()
    except BaseException:
        tracker.abandon(parent, "KILLED")
        raise
    worker.report(study_rows(study, sweep.study.objectives[0]))
    tracker.end(parent, "FINISHED")


def show_plan(sweep: Sweep, console: Console) -> None:
    """Print what `run_sweep` would do; computes and writes nothing.

    Raises:
        Faults: it would stop before it does anything.
    """
    bench = cli.make_bench(sweep.runtime, console)
    from mtselect.plan import print_plan
    from mtselect.preflight import preflight

    found = preflight(bench, sweep)
    found.show(console)
    found.raise_faults()
    print_plan(found.steps, f"{sweep.study.name}: {found.finished()[0]} of {sweep.study.n_trials} trials done", sweep.runtime,
               console)


if __name__ == "__main__":
    sys.exit(main())
