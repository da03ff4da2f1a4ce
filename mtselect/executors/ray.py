"""ray: the GPUs or cores of a Ray cluster, or of this machine.

The study's process asks Optuna and records; pieces of work are Ray tasks that fill the stage store, which all nodes share: a
stage that all trials share, a part of a pass over the pool, a trial. A task whose node died runs again elsewhere and goes on
with what is in the store. Its result is read there, so that nothing but progress comes back.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from mtselect.config import Experiment, RuntimeConfig
from mtselect.errors import ClusterError, UserError
from mtselect.executors.board import POLL_SECONDS, Bars, Board, Message, SentProgress, sender
from mtselect.executors.cluster import Room
from mtselect.executors.scorer import GPU_SHARE, FarMetrics, find_scorer, make_scorer
from mtselect.progress import Advance, OnEpoch
from mtselect.remote import first_line
from mtselect.stages.evaluation import EVALUATION
from mtselect.stages.lineage import Bench, Lineage, Stage
from mtselect.stages.trial import TrialResult, run_trial
from mtselect.store import NotStored

_RETRIES = 5  # of a task whose node died, before it is the task that kills nodes
_SEEN_SECONDS = 60  # a file system over a network shows this machine what a node wrote

Piece = Callable[..., object]  # given a bench, and `on_epoch`


class Ray:
    """A connected cluster (`cluster.connected`).

    Args:
        bench: store, runtime, progress of the study's process.
        room: of the cluster.
        training: of the cluster, for pieces that train.
    """

    def __init__(self, bench: Bench, room: Room, training: Room) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._room, self._training = room, training
        self.bench = _with_scorer(bench, partial(make_scorer, room))
        self._gpu = 1 - GPU_SHARE if _has_scorer(bench) else 1
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._board: Any = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
        self._work = ray.remote(work)
        self._batches = itertools.count()
        self._desk = threading.Lock()  # whoever holds it goes on; the others wait for their trials
        self._desk.acquire()
        self._stopped = False

    def prepare(self, lineage: Lineage, stage: Stage) -> None:
        """As one task; in parts where it has some, while no other process works on it."""
        if not self._is_there(lineage.experiment, stage):
            parts = stage.parts(lineage, self._room.pieces) if stage.parts else 1
            piece = partial(_fill, experiment=lineage.experiment, stage=_place(stage))
            alone = self.bench.store.alone(lineage.recipe(stage)) if parts > 1 else contextlib.nullcontext()
            room = self._training if stage.trains else self._room
            with alone:
                errors = self._do([partial(piece, part=(i, parts)) for i in range(parts)], room, stage.name)
            for error in errors:
                raise error
            self._wait_until_there(lineage.experiment, stage)
        lineage.entry(stage)

    def side_by_side(self, lane: Callable[[], None]) -> None:
        """A thread for each trial that there is room for. Only the one that holds the desk goes on, so that Optuna and the
        record are asked by one at a time."""
        def run() -> None:
            with self._desk:
                if self._stopped:
                    raise KeyboardInterrupt
                lane()

        self._desk.release()
        try:
            with ThreadPoolExecutor(self._training.pieces) as pool:
                lanes = [pool.submit(run) for _ in range(self._training.pieces)]
                try:
                    wait(lanes, return_when=FIRST_EXCEPTION)
                finally:
                    self._stopped = not all(one.done() for one in lanes)
        finally:
            self._desk.acquire()
            self._stopped = False
        errors = [error for one in lanes if (error := one.exception()) is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, KeyboardInterrupt)):  # of those that were stopped
            raise error

    def run_trial(self, experiment: Experiment, on_epoch: OnEpoch | None = None) -> TrialResult:
        """As one task."""
        if not self._is_there(experiment, EVALUATION["dev"]):
            for error in self._do([partial(run_trial, experiment=experiment)], self._training, on_epoch=on_epoch):
                raise error
            self._wait_until_there(experiment, EVALUATION["dev"])
        return run_trial(self.bench, experiment)

    def ahead(self, experiments: Sequence[Experiment]) -> None:
        """A task each."""
        missing = [one for one in experiments if not self._is_there(one, EVALUATION["dev"])]
        self._do([partial(run_trial, experiment=one) for one in missing], self._training, "finetune")

    def _do(self, pieces: Sequence[Piece], room: Room, name: str = "", on_epoch: OnEpoch | None = None) -> list[UserError]:
        """Run pieces as a batch, each where there is room of its kind, shown as one task of a name if there are several;
        returns what a user can mend of what went wrong."""
        import ray

        runtime, batch = replace(self.bench.runtime, threads=room.cores), next(self._batches)
        task = self._work.options(num_cpus=room.cores, num_gpus=self._gpu * room.gpus, max_retries=_RETRIES)
        waiting = [task.remote(piece, str(Path.cwd()), runtime, self._board, batch, on_epoch is not None) for piece in pieces]
        bars, errors = Bars(self.bench.progress), []
        at_a_time = f"{name}, {min(len(pieces), room.pieces)} at a time"
        shown: contextlib.AbstractContextManager[Advance] = (
            self.bench.progress.task(at_a_time, len(pieces)) if len(pieces) > 1 else contextlib.nullcontext(lambda n: None))
        try:
            with shown as advance:
                while waiting:
                    with self._away():
                        done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_SECONDS)
                    self._hear(batch, bars, on_epoch)
                    advance(len(done))
                    errors += [error for one in done if (error := _outcome(one)) is not None]
        except BaseException:
            self._board.end.remote(batch)  # a piece may miss that it was cancelled, and would wait for ever
            for one in waiting:
                ray.cancel(one)
            raise
        finally:
            bars.close()
        return errors

    def _hear(self, batch: int, bars: Bars, on_epoch: OnEpoch | None) -> None:
        import ray

        for message in ray.get(self._board.heard.remote(batch)):
            if message.kind == "epoch":
                assert on_epoch is not None
                on_epoch(message.amount, message.loss)
                self._board.let_pass.remote(batch, message.amount)
            else:
                bars.show(message)

    @contextlib.contextmanager
    def _away(self) -> Iterator[None]:
        self._desk.release()
        try:
            yield
        finally:
            self._desk.acquire()
        if self._stopped:
            raise KeyboardInterrupt

    def _is_there(self, experiment: Experiment, stage: Stage) -> bool:
        with contextlib.suppress(NotStored):
            Lineage(self.bench.looking(), experiment).entry(stage)
            return True
        return False

    def _wait_until_there(self, experiment: Experiment, stage: Stage) -> None:
        """Where it does not come, whoever asks next computes it here."""
        end = time.monotonic() + _SEEN_SECONDS
        while not self._is_there(experiment, stage) and time.monotonic() < end:
            with self._away():
                time.sleep(POLL_SECONDS)


def work(piece: Piece, folder: str, runtime: RuntimeConfig, board: Any, batch: int, asks: bool) -> UserError | None:
    """The task: a piece, on whatever node it is.

    Args:
        piece: does the work.
        folder: working directory of the study's process.
        runtime: of the piece.
        board: the actor.
        batch: the piece's number there.
        asks: whether it waits at the end of an epoch.

    Returns:
        What a user can mend.
    """
    import ray

    def on_epoch(epoch: int, dev_loss: float) -> None:
        board.say.remote(batch, Message(kind="epoch", who=sender(), amount=epoch, loss=dev_loss))
        while not (passed := ray.get(board.may_pass.remote(batch, epoch))):
            if passed is None:
                raise KeyboardInterrupt
            time.sleep(POLL_SECONDS)

    with contextlib.chdir(folder):
        bench = replace(_bench(runtime), progress=SentProgress(partial(board.say.remote, batch)))
        try:
            piece(bench, on_epoch=on_epoch if asks else None)
        except UserError as error:
            return error
    return None


@cache
def _bench(runtime: RuntimeConfig) -> Bench:
    """Of a process of the cluster, which does many pieces."""
    from rich.console import Console

    from mtselect.cli import make_bench

    return _with_scorer(make_bench(runtime, Console()), find_scorer)


def _with_scorer(bench: Bench, scorer: Callable[[], Any]) -> Bench:
    return replace(bench, metrics=FarMetrics(scorer)) if _has_scorer(bench) else bench


def _has_scorer(bench: Bench) -> bool:
    """Whether the actor computes metrics; a trial on several devices, of which none can be shared, computes its own."""
    return bench.runtime.devices_per_trial == 1


def _outcome(done: Any) -> UserError | None:
    from ray import get
    from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

    try:
        error: UserError | None = get(done)
    except (NodeDiedError, OutOfMemoryError, WorkerCrashedError) as lost:
        return ClusterError(f"a piece of work was lost {_RETRIES + 1} times with its process or its node, which ran out of "
                            f"memory perhaps ({first_line(lost)}): look at Ray's logs there, then run the same command")
    return error


def _fill(bench: Bench, on_epoch: OnEpoch | None, experiment: Experiment, stage: tuple[str, str],
          part: tuple[int, int]) -> None:
    """Compute a stage, or a part of it."""
    Lineage(replace(bench, part=part), experiment).entry(getattr(import_module(stage[0]), stage[1]))


def _place(stage: Stage) -> tuple[str, str]:
    """Module and name of a stage, by which another process finds it."""
    module = import_module(stage.run.__module__)
    return module.__name__, next(name for name, value in vars(module).items() if value is stage)
