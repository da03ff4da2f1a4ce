"""Metrics that want a machine for themselves (COMET), under Ray: one actor computes them for the study's process and for every
piece of work, one request after the other, and keeps their models until the study ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mtselect.errors import ClusterError, UserError
from mtselect.executors.cluster import Room
from mtselect.metrics.base import Metric, Metrics, Scoring
from mtselect.progress import SilentProgress
from mtselect.remote import first_line

GPU_SHARE = 0.1  # of a GPU, where there are some: the pieces of work leave it
_NAME = "mtselect-scorer"
_RETRIES = 5  # of a request whose node died


class Scorer:
    """The actor.

    Args:
        folder: working directory of the study's process.
        threads: its OMP_NUM_THREADS; null where that is not set.
    """

    def __init__(self, folder: str, threads: str | None) -> None:
        os.chdir(folder)
        os.environ.pop("OMP_NUM_THREADS", None)  # Ray's: one for an actor that takes no core
        os.environ.update({"OMP_NUM_THREADS": threads} if threads else {})
        self._metrics = Metrics()

    def ask(self, name: str, method: str, texts: Sequence[Sequence[str]], scoring: Scoring) -> object:
        """What a metric's method gives, or what a user can mend."""
        try:
            return getattr(self._metrics[name], method)(*texts, scoring)
        except UserError as error:
            return error


def make_scorer(room: Room) -> Any:
    """The actor, on whatever node; it ends with the process that makes it."""
    import ray

    options = {"name": _NAME, "num_cpus": 0, "num_gpus": room.gpus * GPU_SHARE, "max_restarts": _RETRIES,
               "max_task_retries": _RETRIES}
    return ray.remote(Scorer).options(**options).remote(str(Path.cwd()), os.environ.get("OMP_NUM_THREADS"))


def find_scorer() -> Any:
    """The actor, which the study's process made to load what its metrics need."""
    import ray

    return ray.get_actor(_NAME)


class FarMetrics(Metrics):
    """Metrics of a process, of which those that want a machine alone are computed by the actor.

    Args:
        scorer: gives the actor; called when it is first needed.
    """

    def __init__(self, scorer: Callable[[], Any]) -> None:
        super().__init__()
        self._open = scorer
        self._scorer: Any = None

    def __getitem__(self, name: str) -> Metric:
        """The metric of a name. Raises ConfigError if there is none."""
        metric = super().__getitem__(name)
        return cast(Metric, _Far(name, metric, self._ask)) if metric.alone else metric

    def _ask(self, name: str, method: str, texts: Sequence[Sequence[str]], scoring: Scoring) -> Any:
        import ray
        from ray.exceptions import RayActorError

        try:
            self._scorer = self._scorer or self._open()
            found = ray.get(self._scorer.ask.remote(name, method, texts, replace(scoring, progress=SilentProgress())))
        except RayActorError as lost:
            raise ClusterError(f"the process that computes {name} was lost {_RETRIES + 1} times, with its node or for want of "
                               f"memory ({first_line(lost)}): look at Ray's logs, then run the same command") from lost
        if isinstance(found, UserError):
            raise found
        return found


class _Far:
    """A metric whose models are in the actor; what needs none (signature, score) is asked here."""

    def __init__(self, name: str, metric: Metric, ask: Callable[..., Any]) -> None:
        self._name, self._metric, self._ask = name, metric, ask

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._metric, attribute)

    def prepare(self, scoring: Scoring) -> None:
        """Load what takes long, there."""
        with scoring.progress.task(f"{self._metric.title}: load", 1) as advance:
            self._ask(self._name, "prepare", (), scoring)
            advance(1)

    def statistics(self, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str],
                   scoring: Scoring) -> NDArray[np.float64]:
        """Of each sentence, [n, S]."""
        with scoring.progress.task(self._metric.title, len(sources)) as advance:
            found: NDArray[np.float64] = self._ask(self._name, "statistics", (sources, hypotheses, references), scoring)
            advance(len(sources))
        return found
