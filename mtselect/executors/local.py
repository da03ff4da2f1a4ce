"""local: one piece after the other in this process, but for finetunings that are asked for ahead of time.

On a CPU a small model leaves cores idle: a step of the quickstart's took 26 ms on two cores and 37 ms on one, so two processes
of one thread do in 100 s what one of two threads does in 140. A study's rivals do not depend on each other, so they are
finetuned in this way first; what follows finds them in the store.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mtselect.config import Experiment, RuntimeConfig
from mtselect.errors import UserError
from mtselect.executors.board import POLL_SECONDS, Message, SentProgress
from mtselect.progress import Advance, OnEpoch
from mtselect.stages.finetune import FINETUNE
from mtselect.stages.lineage import Bench, Lineage, Stage
from mtselect.stages.selection import select_pairs
from mtselect.stages.training import pairs_trained
from mtselect.stages.trial import TrialResult, run_trial

# Parameters of a model that leaves cores idle; products of a larger one keep them all at work.
_SMALL = 20_000_000


def processes(runtime: RuntimeConfig, experiment: Experiment) -> int:
    """How many finetunings to run at a time: `runtime.processes`, or what it stands for if it is null."""
    from joblib import cpu_count

    from mtselect.metrics.base import METRICS
    from mtselect.training.device import compute_device
    from mtselect.training.language_model import empty_model, n_parameters

    if runtime.processes is not None:
        return runtime.processes
    if runtime.devices_per_trial > 1:
        return 1
    cores = runtime.threads or cpu_count()
    if cores == 1 or compute_device(runtime.accelerator).type != "cpu" or any(
            METRICS.load(name).alone for name in experiment.evaluation.metrics):
        return 1
    return int(cores) if n_parameters(empty_model(experiment.model)) < _SMALL else 1


@dataclass(frozen=True)
class Local:
    """This process.

    Args:
        bench: store, runtime, progress.
    """

    bench: Bench

    def prepare(self, lineage: Lineage, stage: Stage) -> None:
        """Here."""
        lineage.entry(stage)

    def side_by_side(self, lane: Callable[[], None]) -> None:
        """One."""
        lane()

    def run_trial(self, experiment: Experiment, on_epoch: OnEpoch | None = None) -> TrialResult:
        """Here."""
        return run_trial(self.bench, experiment, on_epoch)

    def ahead(self, experiments: Sequence[Experiment]) -> None:
        """Side by side, the longest first, where a small model leaves cores idle."""
        from joblib import Parallel, cpu_count, delayed, parallel_config

        bench = self.bench
        if not experiments or (at_a_time := min(processes(bench.runtime, experiments[0]), len(experiments))) == 1:
            return
        found = [(one, size) for one in experiments if (size := _size(bench, one)) is not None]
        work = [pairs_trained(one.finetune.steps_for(size), size, one.finetune.batch_size) for one, size in found]
        order = sorted(range(len(work)), key=lambda i: -work[i])
        runtime = replace(bench.runtime, threads=max(1, (bench.runtime.threads or cpu_count()) // at_a_time))
        with (tempfile.TemporaryDirectory() as aside,
              bench.progress.task(f"finetune, {at_a_time} at a time", sum(work)) as advance,
              _followed([Path(aside) / str(i) for i in range(len(work))], work, advance) as done,
              parallel_config(backend="loky", inner_max_num_threads=runtime.threads)):
            run = Parallel(n_jobs=at_a_time, return_as="generator_unordered", batch_size=1)
            for i in run(delayed(_evaluate)(runtime, found[i][0], i, Path(aside) / str(i)) for i in order):
                done.add(i)


def _size(bench: Bench, experiment: Experiment) -> int | None:
    """Of its set; null where that cannot be selected."""
    with contextlib.suppress(UserError):
        return len(select_pairs(Lineage(bench, experiment)).pairs)
    return None


def _evaluate(runtime: RuntimeConfig, experiment: Experiment, number: int, notes: Path) -> int:
    """In a process of its own, which notes in a file how many pairs it has trained on."""
    from rich.console import Console

    from mtselect.cli import make_bench

    with contextlib.suppress(UserError):
        run_trial(replace(make_bench(runtime, Console()), progress=SentProgress(partial(_note, notes))), experiment)
    return number


def _note(notes: Path, message: Message) -> None:
    """Of a training, how many pairs it has done since it last said so."""
    if message.name.startswith(FINETUNE.name) and message.kind != "begin":
        with contextlib.suppress(FileNotFoundError), notes.open("a", encoding="utf-8") as file:  # nobody waits any more
            file.write(f"{message.amount}\n")


@contextmanager
def _followed(notes: Sequence[Path], work: Sequence[int], advance: Advance) -> Iterator[set[int]]:
    """Show what is noted until the block ends, and all the work of those whose numbers are added to what is yielded."""
    done, ended, shown = set[int](), threading.Event(), 0

    def show() -> None:
        nonlocal shown
        noted = [sum(map(int, path.read_text(encoding="utf-8").split("\n")[:-1])) if path.exists() else 0 for path in notes]
        now = sum(whole if i in done else min(part, whole) for i, (part, whole) in enumerate(zip(noted, work, strict=True)))
        advance(max(0, now - shown))
        shown = max(shown, now)

    def follow() -> None:
        with contextlib.suppress(KeyboardInterrupt):  # the process's own thread has it, too
            while not ended.wait(POLL_SECONDS):
                show()

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield done
    finally:
        ended.set()
        follower.join()
    show()
